#include "core/surgery/block_quant.h"

#include "core/surgery/convert.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace resect {

namespace {

constexpr std::size_t kBlock = 32;

void storeScale(float d, std::byte* out) noexcept {
    const std::uint16_t bits = toFloat16(d);
    std::memcpy(out, &bits, sizeof bits);
}

float scaleOf(const std::byte* block) noexcept {
    std::uint16_t bits;
    std::memcpy(&bits, block, sizeof bits);
    return fromFloat16(bits);
}

/// The value of largest magnitude, the first of equals; NaN when one of them is.
float extreme(const float* x) noexcept {
    float largest = 0, value = 0;
    for (std::size_t i = 0; i < kBlock; ++i) {
        if (std::isnan(x[i])) return x[i];
        if (std::fabs(x[i]) > largest) {
            largest = std::fabs(x[i]);
            value = x[i];
        }
    }
    return value;
}

bool fitsHalf(float d) noexcept { return std::fabs(d) < 65520.0f; }  // also false for NaN

/// 0 for a step so small that its inverse is infinite; it is stored as 0 anyway.
float inverseOf(float d) noexcept {
    const float inverse = d != 0 ? 1.0f / d : 0.0f;
    return std::isinf(inverse) ? 0.0f : inverse;
}

/// Halves away from zero, as std::round, which is a call: a float and a half add exactly in a double.
std::int8_t rounded(float value) noexcept { return static_cast<std::int8_t>(static_cast<int>(double{value} + std::copysign(0.5, double{value}))); }

bool encodeQ8(const float* x, std::byte* out) noexcept {
    const float d = std::fabs(extreme(x)) / 127.0f;
    const float inverse = inverseOf(d);
    if (!fitsHalf(d)) return false;
    storeScale(d, out);
    for (std::size_t i = 0; i < kBlock; ++i) out[2 + i] = static_cast<std::byte>(rounded(x[i] * inverse));
    return true;
}

bool encodeQ4(const float* x, std::byte* out) noexcept {
    const float d = extreme(x) / -8.0f;
    const float inverse = inverseOf(d);
    if (!fitsHalf(d)) return false;
    storeScale(d, out);
    const auto nibble = [&](float value) { return static_cast<unsigned>(std::min(15, static_cast<int>(static_cast<std::int8_t>(value * inverse + 8.5f)))); };
    for (std::size_t i = 0; i < kBlock / 2; ++i) out[2 + i] = static_cast<std::byte>(nibble(x[i]) | nibble(x[i + kBlock / 2]) << 4);
    return true;
}

/// Where in its block the culprit stands, for the error message.
std::size_t largestIndex(const float* x) noexcept {
    std::size_t at = 0;
    for (std::size_t i = 0; i < kBlock; ++i) {
        if (!std::isfinite(x[i])) return i;
        if (std::fabs(x[i]) > std::fabs(x[at])) at = i;
    }
    return at;
}

}  // namespace

bool canEncode(GgufType type) noexcept { return plainType(type) || type == GgufType::Q8_0 || type == GgufType::Q4_0; }

std::ptrdiff_t encodeBlocks(GgufType type, const float* values, std::size_t count, std::byte* out) noexcept {
    if (const auto plain = plainType(type)) return convertElements(DType::F32, reinterpret_cast<const std::byte*>(values), *plain, out, count);
    const std::size_t bytes = info(type).blockBytes;
    for (std::size_t i = 0; i < count; i += kBlock, out += bytes) {
        const bool good = type == GgufType::Q8_0 ? encodeQ8(values + i, out) : encodeQ4(values + i, out);
        if (!good) return static_cast<std::ptrdiff_t>(i + largestIndex(values + i));
    }
    return -1;
}

void decodeBlocks(GgufType type, const std::byte* bytes, std::size_t count, float* out) noexcept {
    if (const auto plain = plainType(type)) {
        convertElements(*plain, bytes, DType::F32, reinterpret_cast<std::byte*>(out), count);
        return;
    }
    for (std::size_t i = 0; i < count; i += kBlock, bytes += info(type).blockBytes, out += kBlock) {
        const float d = scaleOf(bytes);
        for (std::size_t j = 0; j < kBlock; ++j) {
            if (type == GgufType::Q8_0) {
                out[j] = static_cast<float>(static_cast<std::int8_t>(bytes[2 + j])) * d;
            } else {
                const unsigned byte = std::to_integer<unsigned>(bytes[2 + j % (kBlock / 2)]);
                out[j] = static_cast<float>(static_cast<int>(j < kBlock / 2 ? byte & 0xf : byte >> 4) - 8) * d;
            }
        }
    }
}

float encodingError(GgufType type, const std::byte* block) noexcept {
    // Half a step (a whole one for Q4_0, whose range ends one step early on one side), and what rounding the step itself to 16 bits adds: 2^-11 of
    // it, or 2^-25 where it is that small, for each of up to 127 or 8 steps.
    if (type == GgufType::Q8_0) return std::fabs(scaleOf(block)) * (0.5f + 128 * 0x1p-11f) + 128 * 0x1p-25f;
    if (type == GgufType::Q4_0) return std::fabs(scaleOf(block)) * (1.0f + 9 * 0x1p-11f) + 9 * 0x1p-25f;
    return 0;
}

}  // namespace resect
