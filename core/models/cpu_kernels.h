#pragma once
#include <cstdint>

// Inner loops of the fast CPU paths on raw memory, in f32 and bf16 (arithmetic always f32). Compiled for several instruction sets from one
// body (cpu_kernels_body.h) and chosen once per process. No LibTorch here; callers split the work over threads. Rows are dense.

namespace resect::kernels {

/// Storage of a bf16 number: the upper half of an f32.
struct Bf16 {
    std::uint16_t bits;
};

/// Strides in elements of a [B,T,N,H] view whose last dimension is dense.
struct HeadStrides {
    std::int64_t batch, token, head;
};

template <class T> struct AttentionTask {
    const T *q, *k, *v;
    HeadStrides qStrides, kStrides, vStrides;
    std::int64_t numHeads, numKvHeads, tokens, keys, headDim;
    std::int64_t offset, window;     ///< cached tokens before; keys seen, 0 = all
    const std::int32_t* first;       ///< [B, tokens] first visible key, or null
    float scale;
    T* out;                          ///< [B, tokens, N, H] dense
    float* logSum;                   ///< [B, N, tokens] log of the softmax denominator; null when there is no backward pass
};

template <class T> struct AttentionGradients {
    const T *out, *dOut;             ///< [B, tokens, N, H] dense
    T* dq;                           ///< [B, tokens, N, H] dense
    T *dk, *dv;                      ///< [B, keys, G, H] dense
};

inline constexpr std::int64_t kQueryTile = 64, kKeyTile = 64;
/// Head dimension and keys rounded up as the packed buffers have them.
inline std::int64_t roundUp(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

template <class T> struct Table {
    void (*rmsNorm)(const T* x, const T* weight, T* y, float* inverseRms, std::int64_t rows, std::int64_t width, float eps);
    /// dWeight: f32 [width], added to.
    void (*rmsNormBackward)(const T* x, const T* weight, const T* dy, const float* inverseRms, T* dx, float* dWeight, std::int64_t rows, std::int64_t width);
    /// Rotates `heads` heads of width 2 * half that lie `headStride` apart; cos, sin [half]; sign -1 rotates back. y dense.
    void (*rotate)(const T* x, std::int64_t headStride, T* y, const float* cos, const float* sin, std::int64_t heads, std::int64_t half, float sign);
    void (*siluMul)(const T* gate, const T* up, T* y, std::int64_t n);
    void (*siluMulBackward)(const T* gate, const T* up, const T* dy, T* dGate, T* dUp, std::int64_t n);
    /// Cross entropy of each row of logits; with `inPlaceScale` != 0 the logits become scale * d loss / d logits. Returns the sum of the losses.
    double (*crossEntropy)(T* logits, const std::int64_t* targets, std::int64_t rows, std::int64_t classes, float inPlaceScale);
    /// Keys and values of one kv group as f32: keysT [headDim, keys rounded to kKeyTile], values [keys rounded, headDim rounded to 16].
    void (*packKeysValues)(const AttentionTask<T>& task, std::int64_t batch, std::int64_t group, float* keysT, float* values);
    /// Up to kQueryTile queries from `begin` of one head. `scratch`: attentionScratch() floats.
    void (*attention)(const AttentionTask<T>& task, std::int64_t batch, std::int64_t head, std::int64_t begin, const float* keysT, const float* values,
                      float* scratch);
    /// All gradients of one kv group with query heads [head, head + heads). `scratch`: attentionBackwardScratch() floats.
    void (*attentionBackward)(const AttentionTask<T>& task, const AttentionGradients<T>& gradients, std::int64_t batch, std::int64_t group,
                              std::int64_t head, std::int64_t heads, float* scratch);
    /// A few queries (decoding) of one kv group straight from the cache. `scratch`: heads * keys floats.
    void (*attentionFew)(const AttentionTask<T>& task, std::int64_t batch, std::int64_t group, std::int64_t head, std::int64_t heads, float* scratch);
    void (*toFloat)(const T* x, float* y, std::int64_t n);
    void (*fromFloat)(const float* x, T* y, std::int64_t n);
};

std::int64_t attentionScratch(std::int64_t headDim);
std::int64_t attentionBackwardScratch(std::int64_t tokens, std::int64_t keys, std::int64_t headDim);

struct Set {
    const char* name;  ///< "avx512", "avx2", "baseline"
    Table<float> f32;
    Table<Bf16> bf16;
};
/// The best set for this processor; RESECT_CPU=avx2 or baseline in the environment chooses a lesser one.
const Set& active();
template <class T> const Table<T>& table();
template <> inline const Table<float>& table<float>() { return active().f32; }
template <> inline const Table<Bf16>& table<Bf16>() { return active().bf16; }

}  // namespace resect::kernels
