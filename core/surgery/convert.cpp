#include "core/surgery/convert.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

namespace resect {

namespace {

constexpr std::size_t kBlock = 1024;

template <class T>
T load(const std::byte* bytes, std::size_t index) noexcept {
    T value;
    std::memcpy(&value, bytes + index * sizeof(T), sizeof(T));
    return value;
}

void toFloats(DType from, const std::byte* source, std::size_t count, float* out) noexcept {
    switch (from) {
    case DType::F64:
        for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(load<double>(source, i));
        break;
    case DType::F16:
        for (std::size_t i = 0; i < count; ++i) out[i] = fromFloat16(load<std::uint16_t>(source, i));
        break;
    case DType::BF16:
        for (std::size_t i = 0; i < count; ++i) out[i] = fromBfloat16(load<std::uint16_t>(source, i));
        break;
    default:
        std::memcpy(out, source, count * sizeof(float));
    }
}

template <auto convert>
void store16(const float* values, std::size_t count, std::byte* target) noexcept {
    std::array<std::uint16_t, kBlock> bits;
    for (std::size_t i = 0; i < count; ++i) bits[i] = convert(values[i]);
    std::memcpy(target, bits.data(), count * sizeof(std::uint16_t));
}

/// Index of the first value that does not fit, -1 when all do. `largest` is the first magnitude that rounds to infinity.
std::ptrdiff_t firstOverflow(const float* values, std::size_t count, float largest) noexcept {
    for (std::size_t i = 0; i < count; ++i)
        if (std::fabs(values[i]) >= largest && !std::isinf(values[i])) return static_cast<std::ptrdiff_t>(i);
    return -1;
}

bool isPlain(DType dtype) noexcept { return dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16; }

}  // namespace

std::uint16_t toBfloat16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (value != value) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
    return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float fromBfloat16(std::uint16_t bits) noexcept { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

std::uint16_t toFloat16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    constexpr std::uint32_t kInfinity = 0x7f800000u, kSmallestNormal = 0x38800000u,
                            kFirstInfinite = 0x477ff000u;  // inf, 2^-14, 65520
    if (magnitude > kInfinity) return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
    if (magnitude >= kFirstInfinite) return static_cast<std::uint16_t>(sign | 0x7c00u);
    if (magnitude < kSmallestNormal) {
        // Adding 0.5 puts the half's subnormal bits at the end of the float's mantissa; the addition itself rounds to nearest
        // even.
        const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
    }
    const std::uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | (rounded >> 13));
}

float fromFloat16(std::uint16_t bits) noexcept {
    const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16, exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

bool canConvert(DType from, DType to) noexcept { return from == to || ((isPlain(from) || from == DType::F64) && isPlain(to)); }

std::ptrdiff_t convertElements(DType from, const std::byte* source, DType to, std::byte* target, std::size_t count) noexcept {
    if (from == to) {
        std::memcpy(target, source, count * sizeOf(from));
        return -1;
    }
    std::ptrdiff_t overflow = -1;
    std::array<float, kBlock> values;
    for (std::size_t done = 0; done < count; done += kBlock) {
        const std::size_t n = std::min(kBlock, count - done);
        toFloats(from, source + done * sizeOf(from), n, values.data());
        if (to == DType::F32) {
            std::memcpy(target + done * sizeof(float), values.data(), n * sizeof(float));
            continue;
        }
        const bool half = to == DType::F16;
        (half ? store16<toFloat16> : store16<toBfloat16>)(values.data(), n, target + done * sizeof(std::uint16_t));
        if (overflow < 0)
            if (const std::ptrdiff_t at = firstOverflow(values.data(), n, half ? 65520.0f : 0x1.ffp127f); at >= 0)
                overflow = static_cast<std::ptrdiff_t>(done) + at;
    }
    return overflow;
}

}  // namespace resect
