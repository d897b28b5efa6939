#pragma once
// The LibTorch calls that differ between 1.13 and 2.x, or that exist only with CUDA. Nothing else in Resect asks for the version.
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <torch/torch.h>

#ifdef RESECT_HAS_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#endif

#include <algorithm>
#include <cstdint>
#include <optional>

#define RESECT_TORCH_AT_LEAST(major, minor) \
    (TORCH_VERSION_MAJOR > (major) || (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))

namespace resect::compat {

/// LibTorch's attention that does not keep T x T scores, where this version has one that takes a scale (2.1 on).
inline constexpr bool kHasFusedAttention = RESECT_TORCH_AT_LEAST(2, 1);

/// q_BNTH, k and v [B,N,S,H], `mask` bool [B or 1,1,T,S] with true = visible, or undefined for plain causal with T = S. Only when kHasFusedAttention.
inline torch::Tensor fusedAttention([[maybe_unused]] const torch::Tensor& q, [[maybe_unused]] const torch::Tensor& k,
                                    [[maybe_unused]] const torch::Tensor& v, [[maybe_unused]] const torch::Tensor& mask,
                                    [[maybe_unused]] double scale) {
#if RESECT_TORCH_AT_LEAST(2, 1)
    const auto maskOption = mask.defined() ? std::optional<torch::Tensor>(mask) : std::nullopt;
    return at::scaled_dot_product_attention(q, k, v, maskOption, 0.0, /*is_causal=*/!mask.defined(), scale);
#else
    TORCH_CHECK(false, "this LibTorch has no fused attention");
#endif
}

/// Free bytes of a CUDA device, its allocator's cache included; nullopt for other devices.
inline std::optional<std::uint64_t> freeDeviceMemory([[maybe_unused]] torch::Device device) {
#ifdef RESECT_HAS_CUDA
    if (device.is_cuda()) {
        const c10::cuda::CUDAGuard guard(device);
        std::size_t freeBytes = 0, totalBytes = 0;
        if (cudaMemGetInfo(&freeBytes, &totalBytes) == cudaSuccess) {
            return freeBytes;
        }
    }
#endif
    return std::nullopt;
}

/// Hands cached device memory back to the driver.
inline void emptyDeviceCache() {
#ifdef RESECT_HAS_CUDA
    if (torch::cuda::is_available()) {
        c10::cuda::CUDACachingAllocator::emptyCache();
    }
#endif
}

/// out [M,N] = a [M,K] b [K,N] (+ out), f32 on the CPU; a and b may be transposed views, out is dense. The larger side of the result is split over
/// LibTorch's threads and each part goes to the BLAS, which runs it on the calling thread (configureRuntime sees to that).
inline void productF32(const torch::Tensor& a, const torch::Tensor& b, torch::Tensor& out, bool add) {
    using at::native::TransposeType;
    const auto dense = [](const torch::Tensor& x) { return x.stride(0) == 1 || x.stride(1) == 1 ? x : x.contiguous(); };
    const auto left = dense(a), right = dense(b);
    const std::int64_t m = left.size(0), k = left.size(1), n = right.size(1);
    // Column-major BLAS: out^T [N,M] = b^T a^T. A row-major operand is its own transpose there.
    const bool leftRows = left.stride(1) == 1, rightRows = right.stride(1) == 1;
    const std::int64_t leftStep = leftRows ? left.stride(0) : left.stride(1), rightStep = rightRows ? right.stride(0) : right.stride(1);
    const float *leftData = left.data_ptr<float>(), *rightData = right.data_ptr<float>();
    float* outData = out.data_ptr<float>();
    const auto part = [&](std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
        at::native::cpublas::gemm(rightRows ? TransposeType::NoTranspose : TransposeType::Transpose,
                                  leftRows ? TransposeType::NoTranspose : TransposeType::Transpose, columns, rows, k, 1.0f,
                                  rightData + (rightRows ? column : column * rightStep), std::max<std::int64_t>(rightStep, 1),
                                  leftData + (leftRows ? row * leftStep : row), std::max<std::int64_t>(leftStep, 1), add ? 1.0f : 0.0f,
                                  outData + row * n + column, n);
    };
    constexpr std::int64_t kUnit = 16;  // parts start at multiples, which the BLAS's own blocks like
    const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    const std::int64_t threads = work < 1 << 18 ? 1 : at::get_num_threads(), side = std::max(m, n);
    const std::int64_t step = threads == 1 ? side : (side / threads / kUnit + 1) * kUnit;
    at::parallel_for(0, (side + step - 1) / step, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t from = i * step, count = std::min(step, side - from);
            m >= n ? part(from, count, 0, n) : part(0, m, from, count);
        }
    });
}

}  // namespace resect::compat
