// Part of cpu_kernels_body.h: vectors of RESECT_LANES f32 numbers, how they are loaded, stored and rounded, and e^x.
#pragma once
#include "core/models/cpu_kernels.h"

namespace resect::kernels::RESECT_SET {

namespace {

constexpr std::int64_t kLanes = RESECT_LANES;
#define RESECT_INLINE inline __attribute__((always_inline))

typedef float Vec __attribute__((vector_size(RESECT_LANES * 4)));
typedef std::int32_t IntVec __attribute__((vector_size(RESECT_LANES * 4)));
typedef std::uint32_t BitVec __attribute__((vector_size(RESECT_LANES * 4)));
typedef std::uint16_t HalfVec __attribute__((vector_size(RESECT_LANES * 2)));
typedef float LooseVec __attribute__((vector_size(RESECT_LANES * 4), aligned(4), may_alias));
typedef std::uint16_t LooseHalfVec __attribute__((vector_size(RESECT_LANES * 2), aligned(2), may_alias));

RESECT_INLINE Vec all(float value) { return value - Vec{}; }  // folds to a broadcast
RESECT_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }  // contracted where the processor has it
RESECT_INLINE Vec maximum(Vec a, Vec b) { return a > b ? a : b; }

RESECT_INLINE Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
RESECT_INLINE Vec load(const Bf16* p) {
    const HalfVec half = *reinterpret_cast<const LooseHalfVec*>(p);
    return (Vec)(__builtin_convertvector(half, BitVec) << 16);
}
RESECT_INLINE void store(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }
/// Rounds to nearest, ties to even; a NaN stays one.
RESECT_INLINE void store(Bf16* p, Vec v) {
    const BitVec bits = (BitVec)v;
    BitVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    rounded = v != v ? (BitVec{} + 0x7fc0u) : rounded;
    *reinterpret_cast<LooseHalfVec*>(p) = __builtin_convertvector(rounded, HalfVec);
}
RESECT_INLINE float get(const float* p) { return *p; }
RESECT_INLINE float get(const Bf16* p) {
    const std::uint32_t bits = static_cast<std::uint32_t>(p->bits) << 16;
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}
RESECT_INLINE void put(float* p, float value) { *p = value; }
RESECT_INLINE void put(Bf16* p, float value) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    p->bits = static_cast<std::uint16_t>(value != value ? 0x7fc0u : rounded);
}
/// The first n < kLanes numbers, zeros (or `fill`) after them.
template <class T> RESECT_INLINE Vec loadSome(const T* p, std::int64_t n, float fill = 0) {
    float buffer[kLanes];
    for (std::int64_t i = 0; i < kLanes; ++i) {
        buffer[i] = i < n ? get(p + i) : fill;
    }
    return load(buffer);
}
template <class T> RESECT_INLINE void storeSome(T* p, Vec v, std::int64_t n) {
    T buffer[kLanes];
    store(buffer, v);
    for (std::int64_t i = 0; i < n; ++i) {
        p[i] = buffer[i];
    }
}
/// Calls body(index, load function, store function) for whole registers and then for the rest.
template <class Whole, class Rest> RESECT_INLINE void eachLane(std::int64_t n, const Whole& whole, const Rest& rest) {
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        whole(i);
    }
    if (i < n) {
        rest(i, n - i);
    }
}

RESECT_INLINE float sum(Vec v) {
    float buffer[kLanes];
    store(buffer, v);
    for (std::int64_t width = kLanes / 2; width > 0; width /= 2) {
        for (std::int64_t i = 0; i < width; ++i) {
            buffer[i] += buffer[i + width];
        }
    }
    return buffer[0];
}
RESECT_INLINE float largest(Vec v) {
    float buffer[kLanes];
    store(buffer, v);
    for (std::int64_t width = kLanes / 2; width > 0; width /= 2) {
        for (std::int64_t i = 0; i < width; ++i) {
            buffer[i] = buffer[i] > buffer[i + width] ? buffer[i] : buffer[i + width];
        }
    }
    return buffer[0];
}

/// e^x to about 1e-7 relative: x = n ln 2 + r, a polynomial in r, n added to the exponent. Exactly 0 below -87.3; NaN stays NaN.
RESECT_INLINE Vec exponential(Vec x) {
    const Vec clamped = x > all(88.3f) ? all(88.3f) : (x < all(-87.3f) ? all(-87.3f) : x);
    const Vec magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    const Vec shifted = fma(clamped, all(1.44269504088896341f), magic);
    const Vec n = shifted - magic;
    Vec r = fma(n, all(-0.693359375f), clamped);
    r = fma(n, all(2.12194440e-4f), r);
    Vec p = all(1.9875691500e-4f);
    p = fma(p, r, all(1.3981999507e-3f));
    p = fma(p, r, all(8.3334519073e-3f));
    p = fma(p, r, all(4.1665795894e-2f));
    p = fma(p, r, all(1.6666665459e-1f));
    p = fma(p, r, all(5.0000001201e-1f));
    p = fma(p * r, r, r + all(1.0f));
    const IntVec exponent = ((IntVec)shifted - (IntVec)magic) << 23;
    const Vec result = (Vec)((IntVec)p + exponent);
    return x < all(-87.3f) ? Vec{} : result;
}
RESECT_INLINE Vec sigmoid(Vec x) { return all(1.0f) / (all(1.0f) + exponential(-x)); }

}  // namespace

}  // namespace resect::kernels::RESECT_SET
