#pragma once
#include "core/anatomy/family.h"

#include <torch/types.h>

#include <string>

// Differentiable pieces of a decoder. Each has a plain version in LibTorch operators, and on the CPU in f32 and bf16 a fast one with a
// hand-written backward pass; tests compare the two. Other devices and dtypes run the plain version.

namespace resect::ops {

/// While one is alive, this thread runs the plain versions.
class PlainKernels {
public:
    PlainKernels();
    ~PlainKernels();
    PlainKernels(const PlainKernels&) = delete;
    PlainKernels& operator=(const PlainKernels&) = delete;
};
/// Whether the fast CPU version may be used for this tensor on this thread.
bool useFast(const torch::Tensor& x);

/// x / sqrt(mean(x^2) + eps) * weight over the last axis, computed in f32. x [..., D], weight [D].
torch::Tensor rmsNorm(const torch::Tensor& x, const torch::Tensor& weight, double eps);
/// The norm of a family over the last axis. `bias` is used by Layer only; RmsPlusOne computes 1 + weight in f32.
torch::Tensor norm(Family::Norm kind, const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias, double eps);
/// Rotary embedding in the half-split form: pairs (i, i + H/2). x_BTNH; cos, sin f32 [B or 1, T, H/2].
torch::Tensor rotate(const torch::Tensor& x_BTNH, const torch::Tensor& cos, const torch::Tensor& sin);
/// `name` is `hidden_act`: silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu. Throws Unsupported.
torch::Tensor activation(const torch::Tensor& x, const std::string& name);
/// activation(gate) * up, element by element.
torch::Tensor gatedActivation(const torch::Tensor& gate, const torch::Tensor& up, const std::string& activation);
/// x [..., in] times weight [out, in] transposed, plus bias [out] (may be undefined).
torch::Tensor linear(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias);
/// cap tanh(x / cap), or x when the cap is 0.
torch::Tensor softcap(const torch::Tensor& x, double cap);
/// Mean cross entropy in f32 of the logits hidden x weight^T over rows whose target is not -100; 0 when there is none.
/// hidden_MD, weight_VD, targets_M int64. Logits are made for a few rows at a time and never kept
/// by the fast version. `cap`: see softcap().
torch::Tensor headLoss(const torch::Tensor& hidden_MD, const torch::Tensor& weight_VD, const torch::Tensor& targets_M, double cap = 0);

}  // namespace resect::ops
