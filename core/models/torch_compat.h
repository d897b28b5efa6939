#pragma once
// The LibTorch calls that differ between 1.13 and 2.x, or that exist only with CUDA. Nothing else in Resect asks for the version.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/version.h>

#ifdef RESECT_HAS_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#endif

#include <cstdint>
#include <optional>

#define RESECT_TORCH_AT_LEAST(major, minor) \
    (TORCH_VERSION_MAJOR > (major) || (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))

namespace resect::compat {

#if RESECT_TORCH_AT_LEAST(2, 2)
template <class T> using Optional = std::optional<T>;
#else
template <class T> using Optional = c10::optional<T>;
#endif

/// LibTorch's attention that does not keep T x T scores, where this version has one that takes a scale (2.1 on).
inline constexpr bool kHasFusedAttention = RESECT_TORCH_AT_LEAST(2, 1);

/// q_BNTH, k and v [B,N,S,H], `mask` bool [B or 1,1,T,S] with true = visible, or undefined for plain causal with T = S. Only when kHasFusedAttention.
inline torch::Tensor fusedAttention([[maybe_unused]] const torch::Tensor& q, [[maybe_unused]] const torch::Tensor& k,
                                    [[maybe_unused]] const torch::Tensor& v, [[maybe_unused]] const torch::Tensor& mask,
                                    [[maybe_unused]] double scale) {
#if RESECT_TORCH_AT_LEAST(2, 1)
    const auto maskOption = mask.defined() ? Optional<torch::Tensor>(mask) : Optional<torch::Tensor>();
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

}  // namespace resect::compat
