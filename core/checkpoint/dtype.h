#pragma once
#include <cstddef>
#include <optional>
#include <string_view>

namespace resect {

/// Element types of the safetensors format.
enum class DType { F64, F32, F16, BF16, I64, I32, I16, I8, U8, Bool, F8E4M3, F8E5M2 };

std::size_t sizeOf(DType dtype) noexcept;              ///< bytes per element
std::string_view name(DType dtype) noexcept;           ///< safetensors spelling: "F32", "BF16", "F8_E4M3"
std::optional<DType> dtypeFromName(std::string_view name) noexcept;
bool isFloat(DType dtype) noexcept;

}  // namespace resect
