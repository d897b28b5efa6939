#include "core/measure/stream_kernels.h"

#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>

// Compiled once per instruction set and chosen when the library is loaded. Sanitizers run before that choice can be made.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define RESECT_CLONES __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define RESECT_CLONES
#endif
#define RESECT_INLINE __attribute__((always_inline)) inline

namespace resect::kernels {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// A bf16 number as its bits, so that widening is a shift that vectorises.
struct Bf16 {
    std::uint16_t bits;
};
RESECT_INLINE double wide(float x) { return x; }
RESECT_INLINE double wide(double x) { return x; }
RESECT_INLINE double wide(Bf16 x) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T> RESECT_INLINE TokenSums sums(const T* h, const T* m, const T* o, std::int64_t size) {
    double hh = 0, mm = 0, oo = 0, hm = 0, mo = 0, ho = 0, mh2 = 0, om2 = 0, oh2 = 0;
#pragma omp simd reduction(+ : hh, mm, oo, hm, mo, ho, mh2, om2, oh2)
    for (std::int64_t d = 0; d < size; ++d) {
        const double x = wide(h[d]), y = wide(m[d]), z = wide(o[d]);
        const double yx = y - x, zy = z - y, zx = z - x;
        hh += x * x;
        mm += y * y;
        oo += z * z;
        hm += x * y;
        mo += y * z;
        ho += x * z;
        mh2 += yx * yx;
        om2 += zy * zy;
        oh2 += zx * zx;
    }
    return {hh, mm, oo, hm, mo, ho, mh2, om2, oh2};
}
RESECT_CLONES TokenSums sumsOf(const float* h, const float* m, const float* o, std::int64_t size) { return sums(h, m, o, size); }
RESECT_CLONES TokenSums sumsOf(const double* h, const double* m, const double* o, std::int64_t size) { return sums(h, m, o, size); }
RESECT_CLONES TokenSums sumsOf(const Bf16* h, const Bf16* m, const Bf16* o, std::int64_t size) { return sums(h, m, o, size); }

template <class T> RESECT_INLINE double product(const T* a, const T* b, std::int64_t size) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t d = 0; d < size; ++d) sum += wide(a[d]) * wide(b[d]);
    return sum;
}

template <class T> RESECT_INLINE TokenExtent extent(const T* x, std::int64_t size) {
    double squares = 0, largest = 0;
#pragma omp simd reduction(+ : squares) reduction(max : largest)
    for (std::int64_t d = 0; d < size; ++d) {
        const double value = wide(x[d]), magnitude = std::abs(value);
        squares += value * value;
        largest = magnitude > largest ? magnitude : largest;
    }
    return {squares, largest};
}
RESECT_CLONES TokenExtent extentOf(const float* x, std::int64_t size) { return extent(x, size); }
RESECT_CLONES TokenExtent extentOf(const double* x, std::int64_t size) { return extent(x, size); }
RESECT_CLONES TokenExtent extentOf(const Bf16* x, std::int64_t size) { return extent(x, size); }

/// All cosines of one token. `scratch` has room for the states and their norms in double, so that each is widened once.
template <class T> RESECT_INLINE void cosines(const T* const* states, std::int64_t numStates, std::int64_t size, double* scratch, double* out) {
    double* const norms = scratch + numStates * size;
    for (std::int64_t i = 0; i < numStates; ++i) {
        double* const x = scratch + i * size;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t d = 0; d < size; ++d) {
            x[d] = wide(states[i][d]);
            sum += x[d] * x[d];
        }
        norms[i] = std::sqrt(sum);
    }
    const auto cosine = [&](std::int64_t i, std::int64_t j, double sum) {
        const double scale = norms[i] * norms[j];
        return scale > 0 && std::isfinite(scale) ? sum / scale : kNaN;
    };
    for (std::int64_t i = 0; i < numStates; ++i) {
        const double* const x = scratch + i * size;
        std::int64_t j = i + 1;
        for (; j + 4 <= numStates; j += 4) {  // four at a time share the loads of x
            const double *a = scratch + j * size, *b = a + size, *c = b + size, *e = c + size;
            double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
            for (std::int64_t d = 0; d < size; ++d) {
                s0 += x[d] * a[d];
                s1 += x[d] * b[d];
                s2 += x[d] * c[d];
                s3 += x[d] * e[d];
            }
            *out++ = cosine(i, j, s0);
            *out++ = cosine(i, j + 1, s1);
            *out++ = cosine(i, j + 2, s2);
            *out++ = cosine(i, j + 3, s3);
        }
        for (; j < numStates; ++j) *out++ = cosine(i, j, product(x, static_cast<const double*>(scratch + j * size), size));
    }
}
RESECT_CLONES void cosinesOf(const float* const* s, std::int64_t p, std::int64_t d, double* scratch, double* out) { cosines(s, p, d, scratch, out); }
RESECT_CLONES void cosinesOf(const double* const* s, std::int64_t p, std::int64_t d, double* scratch, double* out) { cosines(s, p, d, scratch, out); }
RESECT_CLONES void cosinesOf(const Bf16* const* s, std::int64_t p, std::int64_t d, double* scratch, double* out) { cosines(s, p, d, scratch, out); }

template <class T> RESECT_INLINE void columnSums(const T* x, std::int64_t rows, std::int64_t stride, std::int64_t columns, double* sums, double* absolute, double* squares) {
    for (std::int64_t t = 0; t < rows; ++t, x += stride) {
#pragma omp simd
        for (std::int64_t c = 0; c < columns; ++c) {
            const double value = wide(x[c]);
            sums[c] += value;
            absolute[c] += std::abs(value);
            squares[c] += value * value;
        }
    }
}
RESECT_CLONES void columnSumsOf(const float* x, std::int64_t r, std::int64_t s, std::int64_t c, double* p, double* a, double* q) { columnSums(x, r, s, c, p, a, q); }
RESECT_CLONES void columnSumsOf(const double* x, std::int64_t r, std::int64_t s, std::int64_t c, double* p, double* a, double* q) { columnSums(x, r, s, c, p, a, q); }
RESECT_CLONES void columnSumsOf(const Bf16* x, std::int64_t r, std::int64_t s, std::int64_t c, double* p, double* a, double* q) { columnSums(x, r, s, c, p, a, q); }

bool hasFast(const torch::Tensor& x) {
    const auto type = x.scalar_type();
    return x.is_cpu() && (type == torch::kFloat32 || type == torch::kFloat64 || type == torch::kBFloat16);
}

/// Calls `run` with a typed null pointer of the tensor's element type.
template <class Run> void typed(const torch::Tensor& x, Run run) {
    switch (x.scalar_type()) {
        case torch::kFloat32: return run(static_cast<const float*>(nullptr));
        case torch::kFloat64: return run(static_cast<const double*>(nullptr));
        default: return run(static_cast<const Bf16*>(nullptr));
    }
}
template <class T> const T* data(const torch::Tensor& x) { return static_cast<const T*>(x.data_ptr()); }

std::int64_t grain(std::int64_t costPerToken) { return std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, costPerToken)); }

torch::Tensor doubles(const torch::Tensor& x) { return x.to(torch::kFloat64); }
torch::Tensor rowProducts(const torch::Tensor& a, const torch::Tensor& b) { return (a * b).sum(-1); }

}  // namespace

std::vector<TokenSums> tokenSums(const torch::Tensor& h_MD, const torch::Tensor& m_MD, const torch::Tensor& o_MD) {
    if (!hasFast(h_MD)) return plainTokenSums(h_MD, m_MD, o_MD);
    const auto h = h_MD.contiguous(), m = m_MD.contiguous(), o = o_MD.contiguous();
    const std::int64_t size = h.size(1);
    std::vector<TokenSums> result(static_cast<std::size_t>(h.size(0)));
    typed(h, [&](auto* type) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
        const T *ph = data<T>(h), *pm = data<T>(m), *po = data<T>(o);
        at::parallel_for(0, h.size(0), grain(9 * size), [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t t = begin; t < end; ++t) result[static_cast<std::size_t>(t)] = sumsOf(ph + t * size, pm + t * size, po + t * size, size);
        });
    });
    return result;
}

std::vector<TokenSums> plainTokenSums(const torch::Tensor& h_MD, const torch::Tensor& m_MD, const torch::Tensor& o_MD) {
    const auto h = doubles(h_MD), m = doubles(m_MD), o = doubles(o_MD);
    const auto mh = m - h, om = o - m, oh = o - h;
    const auto all = torch::stack({rowProducts(h, h), rowProducts(m, m), rowProducts(o, o), rowProducts(h, m), rowProducts(m, o), rowProducts(h, o),
                                   rowProducts(mh, mh), rowProducts(om, om), rowProducts(oh, oh)}, 1).to(torch::kCPU).contiguous();
    std::vector<TokenSums> result(static_cast<std::size_t>(h.size(0)));
    const double* p = all.data_ptr<double>();
    for (auto& sums : result) {
        sums = {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]};
        p += 9;
    }
    return result;
}

std::vector<TokenExtent> tokenExtents(const torch::Tensor& x_MD) {
    if (!hasFast(x_MD)) return plainTokenExtents(x_MD);
    const auto x = x_MD.contiguous();
    const std::int64_t size = x.size(1);
    std::vector<TokenExtent> result(static_cast<std::size_t>(x.size(0)));
    typed(x, [&](auto* type) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
        const T* p = data<T>(x);
        at::parallel_for(0, x.size(0), grain(4 * size), [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t t = begin; t < end; ++t) result[static_cast<std::size_t>(t)] = extentOf(p + t * size, size);
        });
    });
    return result;
}

std::vector<TokenExtent> plainTokenExtents(const torch::Tensor& x_MD) {
    const auto x = doubles(x_MD);
    const auto squares = rowProducts(x, x).to(torch::kCPU), largest = x.abs().amax(-1).to(torch::kCPU);
    std::vector<TokenExtent> result(static_cast<std::size_t>(x.size(0)));
    for (std::size_t t = 0; t < result.size(); ++t)
        result[t] = {squares.data_ptr<double>()[t], largest.data_ptr<double>()[t]};
    return result;
}

torch::Tensor pairCosines(const std::vector<torch::Tensor>& states) {
    if (!hasFast(states.front())) return plainPairCosines(states);
    const auto numStates = static_cast<std::int64_t>(states.size()), pairs = numStates * (numStates - 1) / 2;
    std::vector<torch::Tensor> held;
    for (const auto& state : states) held.push_back(state.contiguous());
    const std::int64_t tokens = held[0].size(0), size = held[0].size(1);
    auto result = torch::empty({tokens, pairs}, torch::kFloat64);
    double* out = result.data_ptr<double>();
    typed(held[0], [&](auto* type) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
        at::parallel_for(0, tokens, grain(pairs * size), [&](std::int64_t begin, std::int64_t end) {
            std::vector<const T*> pointers(held.size());
            std::vector<double> scratch(held.size() * static_cast<std::size_t>(size + 1));
            for (std::int64_t t = begin; t < end; ++t) {
                for (std::size_t i = 0; i < held.size(); ++i) pointers[i] = data<T>(held[i]) + t * size;
                cosinesOf(pointers.data(), numStates, size, scratch.data(), out + t * pairs);
            }
        });
    });
    return result;
}

torch::Tensor plainPairCosines(const std::vector<torch::Tensor>& states) {
    const auto numStates = static_cast<std::int64_t>(states.size());
    const auto upper = torch::triu_indices(numStates, numStates, 1, torch::TensorOptions(states[0].device()).dtype(torch::kInt64));
    std::vector<torch::Tensor> tiles;
    const std::int64_t tile = std::max<std::int64_t>(1, (std::int64_t{1} << 24) / (numStates * states[0].size(1)));
    for (std::int64_t first = 0; first < states[0].size(0); first += tile) {
        const std::int64_t count = std::min(tile, states[0].size(0) - first);
        std::vector<torch::Tensor> parts;
        for (const auto& state : states) parts.push_back(doubles(state.narrow(0, first, count)));
        const auto x_MPD = torch::stack(parts, 1);
        const auto norm_MP = x_MPD.norm(2, -1);
        const auto cos_MPP = torch::matmul(x_MPD, x_MPD.transpose(1, 2)) / (norm_MP.unsqueeze(2) * norm_MP.unsqueeze(1));
        tiles.push_back(cos_MPP.index({torch::indexing::Slice(), upper[0], upper[1]}).to(torch::kCPU));
    }
    auto result = torch::cat(tiles, 0);
    return torch::where(torch::isfinite(result), result, torch::full_like(result, kNaN)).contiguous();
}

void addColumnSums(const torch::Tensor& x_TC, std::int64_t begin, std::int64_t end, torch::Tensor& sums_C, torch::Tensor& absolute_C, torch::Tensor& squares_C) {
    if (!hasFast(x_TC)) {
        const auto x = doubles(x_TC.narrow(0, begin, end - begin));
        sums_C += x.sum(0).to(torch::kCPU);
        absolute_C += x.abs().sum(0).to(torch::kCPU);
        squares_C += (x * x).sum(0).to(torch::kCPU);
        return;
    }
    const auto x = x_TC.contiguous();
    const std::int64_t columns = x.size(1);
    double *sums = sums_C.data_ptr<double>(), *absolute = absolute_C.data_ptr<double>(), *squares = squares_C.data_ptr<double>();
    typed(x, [&](auto* type) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
        at::parallel_for(0, columns, std::max<std::int64_t>(64, grain(2 * (end - begin))), [&](std::int64_t first, std::int64_t last) {
            columnSumsOf(data<T>(x) + begin * columns + first, end - begin, columns, last - first, sums + first, absolute + first, squares + first);
        });
    });
}

}  // namespace resect::kernels
