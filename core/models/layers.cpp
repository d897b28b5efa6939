#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/models/branch.h"
#include "core/models/ops.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

namespace resect {

namespace {

using ParameterVisitor = std::function<void(const std::string&, torch::Tensor&)>;
using LinearVisitor = std::function<void(const std::string&, std::unique_ptr<Linear>&)>;

class DenseLinear final : public Linear {
public:
    DenseLinear(torch::Tensor weight, torch::Tensor bias) : m_weight(std::move(weight)), m_bias(std::move(bias)) {}
    torch::Tensor forward(const torch::Tensor& x) const override { return ops::linear(x, m_weight, m_bias); }
    torch::Tensor mergedWeight() const override { return m_weight; }
    torch::Tensor bias() const override { return m_bias; }
    void visitParameters(const ParameterVisitor& visit) override {
        visit("weight", m_weight);
        if (m_bias.defined()) {
            visit("bias", m_bias);
        }
    }

private:
    torch::Tensor m_weight, m_bias;
};

struct RoleLinear {
    std::string role;
    std::unique_ptr<Linear> linear;
    torch::Tensor operator()(const torch::Tensor& x) const { return linear->forward(x); }
    void visitParameters(const ParameterVisitor& visit) {
        linear->visitParameters([&](const std::string& name, torch::Tensor& tensor) { visit(role + "." + name, tensor); });
    }
};

struct RoleTensor {
    std::string name;
    torch::Tensor tensor;  // undefined = the shape has none
    void visitParameters(const ParameterVisitor& visit) {
        if (tensor.defined()) {
            visit(name, tensor);
        }
    }
};

/// Takes the weights of one block under the family's names.
class BlockWeights {
public:
    BlockWeights(const ModelShape& shape, int block, const TakeWeight& take)
        : m_family(*findFamily(shape.modelType)), m_take(take), m_block(block) {}

    RoleTensor tensor(TensorRole role) const { return {nameInBlock(role, -1), m_take(role, -1)}; }
    RoleLinear linear(TensorRole weight, std::optional<TensorRole> bias = {}, int expert = -1) const {
        std::string role = nameInBlock(weight, expert);
        role.resize(role.rfind('.'));  // without ".weight"
        return {role, denseLinear(m_take(weight, expert), bias ? m_take(*bias, expert) : torch::Tensor())};
    }

private:
    std::string nameInBlock(TensorRole role, int expert) const {
        const std::string name = tensorName(m_family, role, m_block, expert);
        const std::string prefix = std::string(".").append(std::to_string(m_block)).append(".");
        const auto at = name.find(prefix);
        return at == std::string::npos ? name : name.substr(at + prefix.size());
    }
    const Family& m_family;
    const TakeWeight& m_take;
    int m_block;
};

/// 1 for kept units and 0 for others, each repeated `width` times; undefined when all are kept.
torch::Tensor unitMask(const std::vector<int>& kept, int units, int width, const torch::Tensor& like) {
    if (static_cast<int>(kept.size()) == units) {
        return {};
    }
    auto mask = torch::zeros({units, width}, torch::kFloat32);
    for (const int unit : kept) {
        mask[unit].fill_(1);
    }
    return mask.view({-1}).to(like.device(), like.scalar_type());
}

/// h = norm(x); q, k, v from h; rotate; attend; project.
class AttentionBranch final : public Branch {
public:
    AttentionBranch(const ModelShape& shape, int block, const TakeWeight& take)
        : m_shape(shape.blocks[static_cast<std::size_t>(block)]), m_eps(shape.normEps), m_kernel(exactAttention()) {
        const BlockWeights weights(shape, block, take);
        m_q = weights.linear(TensorRole::QueryWeight, TensorRole::QueryBias);
        m_k = weights.linear(TensorRole::KeyWeight, TensorRole::KeyBias);
        m_v = weights.linear(TensorRole::ValueWeight, TensorRole::ValueBias);
        m_o = weights.linear(TensorRole::OutputWeight, TensorRole::OutputBias);
        m_qNorm = weights.tensor(TensorRole::QueryNorm);
        m_kNorm = weights.tensor(TensorRole::KeyNorm);
        m_norm = weights.tensor(TensorRole::AttentionNorm);
    }

    torch::Tensor forward(const torch::Tensor& x_BTD, const RunContext& context) const override {
        const std::int64_t b = x_BTD.size(0), t = x_BTD.size(1), h = m_shape.headDim;
        const auto normed_BTD = ops::rmsNorm(x_BTD, m_norm.tensor, m_eps);
        auto q_BTNH = m_q(normed_BTD).view({b, t, m_shape.numHeads, h});
        auto k_BTGH = m_k(normed_BTD).view({b, t, m_shape.numKvHeads, h});
        auto v_BTGH = m_v(normed_BTD).view({b, t, m_shape.numKvHeads, h});
        if (m_qNorm.tensor.defined()) {
            q_BTNH = ops::rmsNorm(q_BTNH, m_qNorm.tensor, m_eps);
            k_BTGH = ops::rmsNorm(k_BTGH, m_kNorm.tensor, m_eps);
        }
        const RotaryTable::Rows& rotary = context.rotary(m_shape.headDim);
        AttentionInput input;
        input.q_BTNH = ops::rotate(q_BTNH, rotary.cos, rotary.sin);
        input.k_BSGH = ops::rotate(k_BTGH, rotary.cos, rotary.sin);
        input.v_BSGH = v_BTGH;
        input.headsPerKv = &m_shape.headsPerKv;
        input.span = context.layout->span();
        input.span.window = m_shape.slidingWindow;
        input.scale = 1.0 / std::sqrt(static_cast<double>(h));
        if (context.cache) {
            append(*context.cache, input);
        }
        auto heads_BTC = attend(input, context).reshape({b, t, m_shape.numHeads * h});
        if (m_headMask.defined()) {
            heads_BTC = heads_BTC * m_headMask;
        }
        context.tap(TapPoint::HeadOutputs, heads_BTC);
        return m_o(heads_BTC);
    }

    void visitParameters(const ParameterVisitor& visit) override {
        for (RoleLinear* linear : {&m_q, &m_k, &m_v, &m_o}) {
            linear->visitParameters(visit);
        }
        m_qNorm.visitParameters(visit);
        m_kNorm.visitParameters(visit);
        m_norm.visitParameters(visit);
    }
    void visitLinears(const LinearVisitor& visit) override {
        for (RoleLinear* linear : {&m_q, &m_k, &m_v, &m_o}) {
            visit(linear->role, linear->linear);
        }
    }
    void setCut(const BlockCut& cut) override {
        m_headMask = unitMask(keptHeads(m_shape, cut), m_shape.numHeads, m_shape.headDim, m_norm.tensor);
    }
    void setAttentionKernel(std::shared_ptr<const AttentionKernel> kernel) override { m_kernel = kernel ? std::move(kernel) : exactAttention(); }

private:
    torch::Tensor attend(const AttentionInput& input, const RunContext& context) const {
        if (!context.wants(TapPoint::AttentionWeights)) {
            return m_kernel->forward(input);
        }
        torch::Tensor weights_BNTS;
        auto heads_BTNH = plainAttention(input, &weights_BNTS);
        context.tap(TapPoint::AttentionWeights, weights_BNTS);
        return heads_BTNH;
    }
    static void append(LayerCache& cache, AttentionInput& input) {
        const std::int64_t offset = input.span.offset, t = input.k_BSGH.size(1);
        cache.k_BCGH.narrow(1, offset, t).copy_(input.k_BSGH);
        cache.v_BCGH.narrow(1, offset, t).copy_(input.v_BSGH);
        input.k_BSGH = cache.k_BCGH.narrow(1, 0, offset + t);
        input.v_BSGH = cache.v_BCGH.narrow(1, 0, offset + t);
    }

    BlockShape m_shape;
    double m_eps;
    RoleLinear m_q, m_k, m_v, m_o;
    RoleTensor m_qNorm, m_kNorm, m_norm;
    torch::Tensor m_headMask;  // [N*H]
    std::shared_ptr<const AttentionKernel> m_kernel;
};

/// down(activation(gate(x)) * up(x)): a dense MLP, or one expert.
struct GatedMlp {
    RoleLinear gate, up, down;
    torch::Tensor channels(const torch::Tensor& x, const std::string& activation) const {
        return ops::gatedActivation(gate(x), up(x), activation);
    }
    std::array<RoleLinear*, 3> all() { return {&gate, &up, &down}; }
};

class MlpBranch final : public Branch {
public:
    MlpBranch(const ModelShape& shape, int block, const TakeWeight& take)
        : m_shape(shape.blocks[static_cast<std::size_t>(block)]), m_eps(shape.normEps), m_activation(shape.activation) {
        const BlockWeights weights(shape, block, take);
        m_mlp = {weights.linear(TensorRole::GateWeight, TensorRole::GateBias), weights.linear(TensorRole::UpWeight, TensorRole::UpBias),
                 weights.linear(TensorRole::DownWeight, TensorRole::DownBias)};
        m_norm = weights.tensor(TensorRole::FfnNorm);
    }
    torch::Tensor forward(const torch::Tensor& x_BTD, const RunContext& context) const override {
        auto channels_BTF = m_mlp.channels(ops::rmsNorm(x_BTD, m_norm.tensor, m_eps), m_activation);
        if (m_channelMask.defined()) {
            channels_BTF = channels_BTF * m_channelMask;
        }
        context.tap(TapPoint::Channels, channels_BTF);
        return m_mlp.down(channels_BTF);
    }
    void visitParameters(const ParameterVisitor& visit) override {
        for (RoleLinear* linear : m_mlp.all()) {
            linear->visitParameters(visit);
        }
        m_norm.visitParameters(visit);
    }
    void visitLinears(const LinearVisitor& visit) override {
        for (RoleLinear* linear : m_mlp.all()) {
            visit(linear->role, linear->linear);
        }
    }
    void setCut(const BlockCut& cut) override {
        m_channelMask = unitMask(keptChannels(m_shape, cut), m_shape.ffnSize, 1, m_norm.tensor);
    }

private:
    BlockShape m_shape;
    double m_eps;
    std::string m_activation;
    GatedMlp m_mlp;
    RoleTensor m_norm;
    torch::Tensor m_channelMask;  // [F]
};

/// Mixtral's mixture: softmax over all experts, the top k renormalised, each chosen expert runs on its tokens only.
class MoeBranch final : public Branch {
public:
    MoeBranch(const ModelShape& shape, int block, const TakeWeight& take)
        : m_shape(shape.blocks[static_cast<std::size_t>(block)]), m_eps(shape.normEps), m_activation(shape.activation),
          m_topK(shape.numExpertsPerToken), m_normTopK(shape.normTopK) {
        const BlockWeights weights(shape, block, take);
        m_router = weights.linear(TensorRole::RouterWeight);
        for (int expert = 0; expert < m_shape.numExperts; ++expert) {
            m_experts.push_back({weights.linear(TensorRole::ExpertGateWeight, {}, expert), weights.linear(TensorRole::ExpertUpWeight, {}, expert),
                                 weights.linear(TensorRole::ExpertDownWeight, {}, expert)});
        }
        m_norm = weights.tensor(TensorRole::FfnNorm);
    }

    torch::Tensor forward(const torch::Tensor& x_BTD, const RunContext& context) const override {
        const auto h_MD = ops::rmsNorm(x_BTD, m_norm.tensor, m_eps).view({-1, x_BTD.size(2)});
        auto router_ME = m_router(h_MD);
        if (m_expertBias.defined()) {
            router_ME = router_ME + m_expertBias;
        }
        context.tap(TapPoint::RouterLogits, router_ME.view({x_BTD.size(0), x_BTD.size(1), -1}));
        const auto wide = router_ME.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
        auto [weights_MK, chosen_MK] = torch::softmax(router_ME, -1, wide).topk(std::min(m_topK, m_keptExperts), -1);
        if (m_normTopK) {
            weights_MK = weights_MK / weights_MK.sum(-1, true);
        }
        weights_MK = weights_MK.to(h_MD.scalar_type());
        auto out_MD = torch::zeros_like(h_MD);
        for (std::size_t expert = 0; expert < m_experts.size(); ++expert) {
            const auto where = chosen_MK.eq(static_cast<std::int64_t>(expert)).nonzero();  // [n, 2]: token, place among its k
            if (where.size(0) == 0) {
                continue;
            }
            const auto tokens = where.select(1, 0), places = where.select(1, 1);
            const auto x = h_MD.index_select(0, tokens);
            const auto y = m_experts[expert].down(m_experts[expert].channels(x, m_activation));
            out_MD = out_MD.index_add(0, tokens, y * weights_MK.index({tokens, places}).unsqueeze(1));
        }
        return out_MD.view(x_BTD.sizes());
    }

    void visitParameters(const ParameterVisitor& visit) override {
        m_router.visitParameters(visit);
        for (GatedMlp& expert : m_experts) {
            for (RoleLinear* linear : expert.all()) {
                linear->visitParameters(visit);
            }
        }
        m_norm.visitParameters(visit);
    }
    void visitLinears(const LinearVisitor& visit) override {
        visit(m_router.role, m_router.linear);
        for (GatedMlp& expert : m_experts) {
            for (RoleLinear* linear : expert.all()) {
                visit(linear->role, linear->linear);
            }
        }
    }
    void setCut(const BlockCut& cut) override {
        const std::vector<int> kept = keptExperts(m_shape, cut);
        const auto mask = unitMask(kept, m_shape.numExperts, 1, m_norm.tensor);
        m_expertBias = mask.defined() ? mask.log() : mask;  // 0 or -inf
        m_keptExperts = static_cast<int>(kept.size());
    }

private:
    BlockShape m_shape;
    double m_eps;
    std::string m_activation;
    int m_topK;
    bool m_normTopK;
    RoleLinear m_router;
    std::vector<GatedMlp> m_experts;
    RoleTensor m_norm;
    torch::Tensor m_expertBias;  // [E]
    int m_keptExperts = m_shape.numExperts;
};

}  // namespace

std::unique_ptr<Linear> denseLinear(torch::Tensor weight, torch::Tensor bias) {
    return std::make_unique<DenseLinear>(std::move(weight), std::move(bias));
}

std::unique_ptr<Branch> attentionBranch(const ModelShape& shape, int block, const TakeWeight& take) {
    const bool present = shape.blocks[static_cast<std::size_t>(block)].hasAttention;
    return present ? std::make_unique<AttentionBranch>(shape, block, take) : nullptr;
}

std::unique_ptr<Branch> ffnBranch(const ModelShape& shape, int block, const TakeWeight& take) {
    const BlockShape& own = shape.blocks[static_cast<std::size_t>(block)];
    if (!own.hasFfn) {
        return nullptr;
    }
    if (own.numExperts > 0) {
        return std::make_unique<MoeBranch>(shape, block, take);
    }
    return std::make_unique<MlpBranch>(shape, block, take);
}

}  // namespace resect
