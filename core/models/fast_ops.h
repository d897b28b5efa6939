#pragma once
#include "core/models/attention.h"

#include <torch/types.h>

// The fast CPU versions behind ops.h and exactAttention(): f32 and bf16, kernels of cpu_kernels.h, hand-written backward passes.
// Results do not depend on the number of threads, except that LibTorch's own products may.

namespace resect::fast {

torch::Tensor rmsNorm(const torch::Tensor& x, const torch::Tensor& weight, double eps);
torch::Tensor rotate(const torch::Tensor& x_BTNH, const torch::Tensor& cos, const torch::Tensor& sin);
torch::Tensor siluMul(const torch::Tensor& gate, const torch::Tensor& up);
torch::Tensor linear(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias);
/// All targets count (none is -100).
torch::Tensor headLoss(const torch::Tensor& hidden_MD, const torch::Tensor& weight_VD, const torch::Tensor& targets_M);
torch::Tensor attention(const AttentionInput& input);

/// out [M,N] = a b (+ out when `accumulate`); a [M,K] and b [K,N] may be transposed views. All f32, or all bf16. Split over threads.
enum class Into { Overwrite, Add };
void product(const torch::Tensor& a, const torch::Tensor& b, torch::Tensor& out, Into into = Into::Overwrite);

}  // namespace resect::fast
