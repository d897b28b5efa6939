#include "core/train/adamw_kernel.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

// Compiled for several instruction sets and chosen when the program is loaded. Left out under the sanitizers, whose runtime is not up yet at that point.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define RESECT_VECTOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RESECT_VECTOR
#endif

namespace resect::kernel {

namespace {

__attribute__((always_inline)) inline float widen(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

/// Round to nearest, ties to even; infinities stay, and a NaN stays one.
__attribute__((always_inline)) inline std::uint16_t roundToBf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<std::uint16_t>(value != value ? 0x7fc0u : rounded);
}

__attribute__((always_inline)) inline float updated(float parameter, float moment1, float moment2, const AdamWConstants& c) {
    return parameter * c.keep - c.rate * moment1 / (std::sqrt(moment2) * c.rootScale + c.epsilon);
}

constexpr std::size_t kLanes = 16;

}  // namespace

RESECT_VECTOR static void adamwF32(std::size_t n, float* __restrict parameter, const float* __restrict gradient, float* __restrict moment1,
                                   float* __restrict moment2, const AdamWConstants c) {
    for (std::size_t i = 0; i < n; ++i) {
        const float g = gradient[i] * c.gradientScale;
        moment1[i] = c.beta1 * moment1[i] + (1 - c.beta1) * g;
        moment2[i] = c.beta2 * moment2[i] + (1 - c.beta2) * g * g;
        parameter[i] = updated(parameter[i], moment1[i], moment2[i], c);
    }
}

RESECT_VECTOR static void adamwRounding(std::size_t n, float* __restrict parameter, const float* __restrict gradient, float* __restrict moment1,
                                        float* __restrict moment2, std::uint16_t* __restrict rounded, const AdamWConstants c) {
    for (std::size_t i = 0; i < n; ++i) {
        const float g = gradient[i] * c.gradientScale;
        moment1[i] = c.beta1 * moment1[i] + (1 - c.beta1) * g;
        moment2[i] = c.beta2 * moment2[i] + (1 - c.beta2) * g * g;
        const float value = updated(parameter[i], moment1[i], moment2[i], c);
        parameter[i] = value;
        rounded[i] = roundToBf16(value);
    }
}

RESECT_VECTOR static void widenAll(std::size_t n, const std::uint16_t* __restrict in, float* __restrict out) {
    for (std::size_t i = 0; i < n; ++i) out[i] = widen(in[i]);
}

/// Sixteen running sums in a fixed order, so that every instruction set and thread count adds the same numbers in the same order.
RESECT_VECTOR static double squares(std::size_t n, const float* values) {
    std::array<double, kLanes> sums{};
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (std::size_t lane = 0; lane < kLanes; ++lane) sums[lane] += double(values[i + lane]) * double(values[i + lane]);
    }
    double total = 0;
    for (const double sum : sums) total += sum;
    for (; i < n; ++i) total += double(values[i]) * double(values[i]);
    return total;
}

void adamw(std::size_t n, float* parameter, const float* gradient, float* moment1, float* moment2, std::uint16_t* rounded, const AdamWConstants& constants) {
    if (rounded) adamwRounding(n, parameter, gradient, moment1, moment2, rounded, constants);
    else adamwF32(n, parameter, gradient, moment1, moment2, constants);
}

void adamwBf16(std::size_t n, float* parameter, const std::uint16_t* gradient, float* moment1, float* moment2, std::uint16_t* rounded,
               const AdamWConstants& constants) {
    constexpr std::size_t kPiece = 2048;
    std::array<float, kPiece> wide;
    for (std::size_t i = 0; i < n; i += kPiece) {
        const std::size_t count = std::min(kPiece, n - i);
        widenAll(count, gradient + i, wide.data());
        adamw(count, parameter + i, wide.data(), moment1 + i, moment2 + i, rounded ? rounded + i : nullptr, constants);
    }
}

double sumOfSquares(std::size_t n, const float* values) { return squares(n, values); }

double sumOfSquaresBf16(std::size_t n, const std::uint16_t* values) {
    constexpr std::size_t kPiece = 2048;
    std::array<float, kPiece> wide;
    double total = 0;
    for (std::size_t i = 0; i < n; i += kPiece) {
        const std::size_t count = std::min(kPiece, n - i);
        widenAll(count, values + i, wide.data());
        total += squares(count, wide.data());
    }
    return total;
}

}  // namespace resect::kernel
