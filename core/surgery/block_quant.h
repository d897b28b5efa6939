#pragma once
#include "core/checkpoint/gguf_types.h"

#include <cstddef>

namespace resect {

/// Can encodeBlocks and decodeBlocks do this type? F32, F16, BF16, Q8_0, Q4_0.
bool canEncode(GgufType type) noexcept;

/// Writes `count` values (whole blocks) in the type's form. Rounding of the 16-bit floats as in convertElements. The block forms are those of
/// ggml's reference quantiser, bit for bit, 32 values each:
///   Q8_0: f16 d = max|x| / 127, then int8 round(x / d), halves away from zero;
///   Q4_0: f16 d = m / -8 with m the value of largest magnitude (the first of equals), then 4-bit min(15, trunc(x / d + 8.5)), values i and i + 16 in
///         the low and high half of byte i.
/// x / d is computed as x * (1 / d) with the unrounded d. Returns the index of the first value that is not finite or makes its block's d infinite (for
/// F16, BF16: that becomes infinite), -1 when there is none.
std::ptrdiff_t encodeBlocks(GgufType type, const float* values, std::size_t count, std::byte* out) noexcept;
/// The inverse: `count` values (whole blocks).
void decodeBlocks(GgufType type, const std::byte* bytes, std::size_t count, float* out) noexcept;

/// How far a decoded value may be from the one that was encoded, for a block (or value) that was stored as `bytes`. 0 for F32.
float encodingError(GgufType type, const std::byte* block) noexcept;

}  // namespace resect
