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

torch::Tensor plainHeadLoss(const torch::Tensor& hidden_MD, const torch::Tensor& weight_VD, const torch::Tensor& targets_M) {
    constexpr std::int64_t kRows = 1024;
    const auto wideType = hidden_MD.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    auto total = torch::zeros({}, hidden_MD.options().dtype(wideType));
    for (std::int64_t row = 0; row < hidden_MD.size(0); row += kRows) {
        const auto count = std::min(kRows, hidden_MD.size(0) - row);
        const auto logits = ops::linear(hidden_MD.narrow(0, row, count), weight_VD, {});
        total = total + torch::cross_entropy_loss(logits.to(wideType), targets_M.narrow(0, row, count), {}, at::Reduction::Sum,
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

torch::Tensor gatedActivation(const torch::Tensor& gate, const torch::Tensor& up, const std::string& activation) {
    if (activation == "silu" || activation == "swish") {
        return useFast(gate) ? fast::siluMul(gate, up) : torch::silu(gate) * up;
    }
    if (activation == "gelu") {
        return torch::gelu(gate) * up;
    }
    if (activation == "gelu_pytorch_tanh" || activation == "gelu_new") {
        return torch::gelu(gate, "tanh") * up;
    }
    if (activation == "relu") {
        return torch::relu(gate) * up;
    }
    throw Error(ErrorCode::Unsupported, "config.json: hidden_act", "\"" + activation + "\" is none of silu, gelu, gelu_new, gelu_pytorch_tanh, relu");
}

torch::Tensor linear(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias) {
    if (useFast(x) && weight.scalar_type() == x.scalar_type()) {
        return fast::linear(x, weight, bias);
    }
    return bias.defined() ? at::linear(x, weight, bias) : at::linear(x, weight);
}

torch::Tensor headLoss(const torch::Tensor& hidden_MD, const torch::Tensor& weight_VD, const torch::Tensor& targets_M) {
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
    return useFast(hidden) ? fast::headLoss(hidden, weight_VD, targets) : plainHeadLoss(hidden, weight_VD, targets);
}

}  // namespace resect::ops
