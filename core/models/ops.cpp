#include "core/models/ops.h"
#include "core/base/error.h"
#include "core/models/fast_ops.h"
#include "core/models/torch_compat.h"

#include <algorithm>

namespace resect::ops {

namespace {

thread_local int t_plainDepth = 0;

torch::Tensor plainRmsNorm(const torch::Tensor& x, const torch::Tensor& weight, double eps) {
    const auto wide = x.scalar_type() == torch::kFloat64 ? x : x.to(torch::kFloat32);
    const auto normed = wide * torch::rsqrt(wide.pow(2).mean(-1, true) + eps);
    return weight * normed.to(x.scalar_type());
}

torch::Tensor plainRotate(const torch::Tensor& x_BTNH, const torch::Tensor& cos, const torch::Tensor& sin) {
    const auto dtype = x_BTNH.scalar_type();
    const auto c = cos.unsqueeze(2).to(dtype), s = sin.unsqueeze(2).to(dtype);  // [B or 1,T,1,H/2]
    const auto halves = x_BTNH.chunk(2, -1);
    return torch::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1);
}

torch::Tensor plainHeadLoss(const torch::Tensor& hidden_MD, const torch::Tensor& weight_VD, const torch::Tensor& targets_M, double cap) {
    constexpr std::int64_t kRows = 1024;
    const auto wideType = hidden_MD.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    auto total = torch::zeros({}, hidden_MD.options().dtype(wideType));
    for (std::int64_t row = 0; row < hidden_MD.size(0); row += kRows) {
        const auto count = std::min(kRows, hidden_MD.size(0) - row);
        const auto logits = ops::linear(hidden_MD.narrow(0, row, count), weight_VD, {});
        total = total + torch::cross_entropy_loss(softcap(logits, cap).to(wideType), targets_M.narrow(0, row, count), {}, at::Reduction::Sum,
                                                  /*ignore_index=*/-100);
    }
    return total / static_cast<double>(std::max<std::int64_t>(hidden_MD.size(0), 1));
}

}  // namespace

PlainKernels::PlainKernels() { ++t_plainDepth; }
PlainKernels::~PlainKernels() { --t_plainDepth; }

bool useFast(const torch::Tensor& x) {
    return t_plainDepth == 0 && x.is_cpu() && (x.scalar_type() == torch::kFloat32 || x.scalar_type() == torch::kBFloat16);
}

torch::Tensor rmsNorm(const torch::Tensor& x, const torch::Tensor& weight, double eps) {
    return useFast(x) && weight.scalar_type() == x.scalar_type() ? fast::rmsNorm(x, weight, eps) : plainRmsNorm(x, weight, eps);
}

torch::Tensor rotate(const torch::Tensor& x_BTNH, const torch::Tensor& cos, const torch::Tensor& sin) {
    return useFast(x_BTNH) ? fast::rotate(x_BTNH, cos, sin) : plainRotate(x_BTNH, cos, sin);
}

torch::Tensor norm(Family::Norm kind, const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias, double eps) {
    if (kind == Family::Norm::Layer) {
        return torch::layer_norm(x, {x.size(-1)}, weight, bias, eps);
    }
    if (kind == Family::Norm::Rms) {
        return rmsNorm(x, weight, eps);
    }
    const auto wide = x.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    return rmsNorm(x.to(wide), weight.to(wide) + 1, eps).to(x.scalar_type());
}

torch::Tensor softcap(const torch::Tensor& x, double cap) { return cap > 0 ? torch::tanh(x / cap) * cap : x; }

torch::Tensor activation(const torch::Tensor& x, const std::string& name) {
    if (name == "silu" || name == "swish") {
        return torch::silu(x);
    }
    if (name == "gelu") {
        return torch::gelu(x);
    }
    if (name == "gelu_pytorch_tanh" || name == "gelu_new") {
        return torch::gelu(x, "tanh");
    }
    if (name == "quick_gelu") {
        return x * torch::sigmoid(x * 1.702);
    }
    if (name == "relu") {
        return torch::relu(x);
    }
    throw Error(ErrorCode::Unsupported, "config.json: hidden_act",
                "\"" + name + "\" is none of silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu");
}

torch::Tensor gatedActivation(const torch::Tensor& gate, const torch::Tensor& up, const std::string& name) {
    const bool silu = name == "silu" || name == "swish";
    return silu && useFast(gate) ? fast::siluMul(gate, up) : activation(gate, name) * up;
}

torch::Tensor linear(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias) {
    if (useFast(x) && weight.scalar_type() == x.scalar_type()) {
        return fast::linear(x, weight, bias);
    }
    return bias.defined() ? at::linear(x, weight, bias) : at::linear(x, weight);
}

torch::Tensor headLoss(const torch::Tensor& hidden_MD, const torch::Tensor& weight_VD, const torch::Tensor& targets_M, double cap) {
    const auto counted_M = targets_M.to(torch::kCPU).ne(-100);
    const auto counted = counted_M.sum().item<std::int64_t>();
    if (counted == 0) {
        return hidden_MD.sum().to(torch::kFloat32) * 0;
    }
    auto hidden = hidden_MD;
    auto targets = targets_M.to(hidden_MD.device());
    if (counted < targets_M.size(0)) {
        const auto rows = counted_M.nonzero().view(-1).to(hidden_MD.device());
        hidden = hidden.index_select(0, rows);
        targets = targets.index_select(0, rows);
    }
    return useFast(hidden) && cap == 0 ? fast::headLoss(hidden, weight_VD, targets) : plainHeadLoss(hidden, weight_VD, targets, cap);
}

}  // namespace resect::ops
