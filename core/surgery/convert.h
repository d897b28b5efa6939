#pragma once
#include "core/checkpoint/dtype.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace resect {

/// Round to nearest, ties to even; NaN stays NaN (made quiet), values past the range become infinite.
std::uint16_t toBfloat16(float value) noexcept;
std::uint16_t toFloat16(float value) noexcept;
float fromBfloat16(std::uint16_t bits) noexcept;
float fromFloat16(std::uint16_t bits) noexcept;

/// Can convertElements() do this?
bool canConvert(DType from, DType to) noexcept;
/// Converts `count` elements, little-endian, no alignment needed. F64, F32, F16, BF16 to F32, F16, BF16, or equal types (a
/// copy). Returns the index of the first element that was finite and became infinite, -1 when there is none.
std::ptrdiff_t convertElements(DType from, const std::byte* source, DType to, std::byte* target, std::size_t count) noexcept;

}  // namespace resect
