#include "core/models/attention.h"
#include "core/models/fast_ops.h"
#include "core/models/ops.h"
#include "core/models/torch_compat.h"

#include <algorithm>
#include <limits>

namespace resect {

namespace {

/// Bool [B or 1, 1, T, S], true where the key is visible.
torch::Tensor visibleKeys(const AttentionInput& input) {
    const auto device = input.q_BTNH.device();
    if (!input.span.causal) {
        return torch::ones({1, 1, 1, 1}, torch::TensorOptions(torch::kBool).device(device));
    }
    const std::int64_t t = input.q_BTNH.size(1), s = input.k_BSGH.size(1);
    const auto key_S = torch::arange(s, torch::TensorOptions(torch::kInt32).device(device));
    auto last_BT1 = (torch::arange(t, key_S.options()) + static_cast<int>(input.span.offset)).view({1, -1, 1});
    if (input.span.last_BT.defined()) {
        last_BT1 = input.span.last_BT.unsqueeze(2);
    }
    auto visible = key_S <= last_BT1;  // [B or 1,T,S]
    if (input.span.window > 0) {
        visible = visible & (key_S > last_BT1 - input.span.window);
    }
    if (input.span.first_BT.defined()) {
        visible = visible & (key_S >= input.span.first_BT.unsqueeze(2));
    }
    return visible.unsqueeze(1);
}

bool equalGroups(const std::vector<int>& headsPerKv) {
    return std::all_of(headsPerKv.begin(), headsPerKv.end(), [&](int n) { return n == headsPerKv.front(); });
}

/// [B,S,G,H] -> [B,N,S,H]: the kv group of every query head.
torch::Tensor spreadGroups(const torch::Tensor& kv_BSGH, const std::vector<int>& headsPerKv) {
    auto kv_BGSH = kv_BSGH.transpose(1, 2);
    if (equalGroups(headsPerKv)) {
        return headsPerKv.front() == 1 ? kv_BGSH : kv_BGSH.repeat_interleave(headsPerKv.front(), 1);
    }
    std::vector<std::int64_t> groupOfHead;
    for (std::size_t group = 0; group < headsPerKv.size(); ++group) {
        groupOfHead.insert(groupOfHead.end(), static_cast<std::size_t>(headsPerKv[group]), static_cast<std::int64_t>(group));
    }
    return kv_BGSH.index_select(1, torch::tensor(groupOfHead, torch::kInt64).to(kv_BSGH.device()));
}

class ExactAttention final : public AttentionKernel {
public:
    torch::Tensor forward(const AttentionInput& input) const override {
        if (input.softcap > 0 || !input.span.causal || input.span.last_BT.defined()) {  // the fast versions have no cap and are causal
            return plainAttention(input);
        }
        if (ops::useFast(input.q_BTNH)) {
            return fast::attention(input);
        }
        if constexpr (compat::kHasFusedAttention) {
            if (input.q_BTNH.is_cuda()) {
                return fused(input);
            }
        }
        return plainAttention(input);
    }

private:
    static torch::Tensor fused(const AttentionInput& input) {
        const bool causalOnly = !input.span.first_BT.defined() && input.span.window == 0 && input.span.offset == 0;
        const auto out_BNTH = compat::fusedAttention(
            input.q_BTNH.transpose(1, 2), spreadGroups(input.k_BSGH, *input.headsPerKv),
            spreadGroups(input.v_BSGH, *input.headsPerKv), causalOnly ? torch::Tensor() : visibleKeys(input), input.scale);
        return out_BNTH.transpose(1, 2);
    }
};

}  // namespace

torch::Tensor plainAttention(const AttentionInput& input, torch::Tensor* weights_BNTS) {
    const auto dtype = input.q_BTNH.scalar_type();
    const auto q_BNTH = input.q_BTNH.transpose(1, 2);
    const auto k_BNSH = spreadGroups(input.k_BSGH, *input.headsPerKv);
    const auto v_BNSH = spreadGroups(input.v_BSGH, *input.headsPerKv);
    auto scores_BNTS = ops::softcap(torch::matmul(q_BNTH, k_BNSH.transpose(2, 3)) * input.scale, input.softcap);
    scores_BNTS = scores_BNTS.masked_fill(visibleKeys(input).logical_not(), -std::numeric_limits<float>::infinity());
    const auto softmaxType = dtype == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    const auto p_BNTS = torch::softmax(scores_BNTS, -1, softmaxType).to(dtype);
    if (weights_BNTS) {
        *weights_BNTS = p_BNTS;
    }
    return torch::matmul(p_BNTS, v_BNSH).transpose(1, 2);
}

std::shared_ptr<const AttentionKernel> exactAttention() {
    static const auto kernel = std::make_shared<const ExactAttention>();
    return kernel;
}

}  // namespace resect
