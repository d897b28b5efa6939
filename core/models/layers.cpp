#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/models/branch.h"
#include "core/models/ops.h"
#include "core/models/router.h"

#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

namespace resect {

namespace {

using ParameterVisitor = std::function<void(const std::string&, torch::Tensor&)>;
using LinearVisitor = std::function<void(const std::string&, std::unique_ptr<Linear>&)>;

enum class Stored { OutIn, InOut };  // InOut: GPT-2's Conv1D

class DenseLinear final : public Linear {
public:
    DenseLinear(torch::Tensor weight, torch::Tensor bias, Stored stored) : m_weight(std::move(weight)), m_bias(std::move(bias)), m_stored(stored) {}
    torch::Tensor forward(const torch::Tensor& x) const override { return ops::linear(x, mergedWeight(), m_bias); }
    torch::Tensor mergedWeight() const override { return m_stored == Stored::OutIn ? m_weight : m_weight.t(); }
    torch::Tensor bias() const override { return m_bias; }
    void visitParameters(const ParameterVisitor& visit) override {
        visit("weight", m_weight);
        if (m_bias.defined()) {
            visit("bias", m_bias);
        }
    }

private:
    torch::Tensor m_weight, m_bias;
    Stored m_stored;
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
        : m_family(familyOf(shape)), m_take(take), m_block(block) {}

    RoleTensor tensor(TensorRole role) const {
        auto taken = m_take(role, -1);
        return taken.defined() ? RoleTensor{nameInBlock(role, -1), std::move(taken)} : RoleTensor{};
    }
    RoleLinear linear(TensorRole weight, std::optional<TensorRole> bias = {}, int expert = -1) const {
        std::string role = nameInBlock(weight, expert);
        role.resize(role.rfind('.'));  // without ".weight"
        auto stored = m_take(weight, expert), added = bias ? m_take(*bias, expert) : torch::Tensor();
        const Stored form = m_family.transposedLinears ? Stored::InOut : Stored::OutIn;
        return {role, std::make_unique<DenseLinear>(std::move(stored), std::move(added), form)};
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

/// The family's norm over the last axis; absent (undefined weight) = nothing.
class Norm {
public:
    Norm() = default;
    Norm(const ModelShape& shape, RoleTensor weight, RoleTensor bias = {})
        : m_kind(familyOf(shape).norm), m_eps(shape.normEps), m_weight(std::move(weight)), m_bias(std::move(bias)) {}
    torch::Tensor operator()(const torch::Tensor& x) const { return defined() ? ops::norm(m_kind, x, m_weight.tensor, m_bias.tensor, m_eps) : x; }
    bool defined() const { return m_weight.tensor.defined(); }
    const torch::Tensor& weight() const { return m_weight.tensor; }
    void visitParameters(const ParameterVisitor& visit) {
        m_weight.visitParameters(visit);
        m_bias.visitParameters(visit);
    }

private:
    Family::Norm m_kind{};
    double m_eps = 0;
    RoleTensor m_weight, m_bias;
};

/// h = norm(x); q, k, v from h; rotate; attend; project.
class AttentionBranch final : public Branch {
public:
    AttentionBranch(const ModelShape& shape, int block, const TakeWeight& take)
        : m_shape(shape.blocks[static_cast<std::size_t>(block)]), m_rotaryDim(rotaryDim(shape, m_shape.headDim)), m_clip(shape.clipQkv),
          m_softcap(shape.attentionSoftcap), m_scale(1 / std::sqrt(shape.queryScale > 0 ? shape.queryScale : double(m_shape.headDim))),
          m_kernel(exactAttention()) {
        const BlockWeights weights(shape, block, take);
        const Family& family = familyOf(shape);
        if (family.fusedQkv) {
            m_inputs.push_back(weights.linear(TensorRole::QkvWeight, TensorRole::QkvBias));
        } else {
            m_inputs.push_back(weights.linear(TensorRole::QueryWeight, TensorRole::QueryBias));
            m_inputs.push_back(weights.linear(TensorRole::KeyWeight, TensorRole::KeyBias));
            m_inputs.push_back(weights.linear(TensorRole::ValueWeight, TensorRole::ValueBias));
        }
        m_o = weights.linear(TensorRole::OutputWeight, TensorRole::OutputBias);
        m_qNorm = Norm(shape, weights.tensor(TensorRole::QueryNorm));
        m_kNorm = Norm(shape, weights.tensor(TensorRole::KeyNorm));
        m_normsHeads = family.qkNorm != Family::QkNorm::Projection;
        m_causal = !family.image;
        m_norm = Norm(shape, weights.tensor(TensorRole::AttentionNorm), weights.tensor(TensorRole::AttentionNormBias));
        m_postNorm = Norm(shape, weights.tensor(TensorRole::PostAttentionNorm));
    }

    torch::Tensor forward(const torch::Tensor& x_BTD, const RunContext& context) const override {
        if (context.asking_BT.defined()) {
            return forwardAsking(x_BTD, context);
        }
        const std::int64_t b = x_BTD.size(0), t = x_BTD.size(1), h = m_shape.headDim, n = m_shape.numHeads, g = m_shape.numKvHeads;
        const auto [q_BTC, k_BTC, v_BTC] = project(m_norm(x_BTD));
        AttentionInput input = emptyInput(context);
        input.q_BTNH = positioned(headsOf(q_BTC, m_qNorm, {b, t, n, h}), context.rotary);
        input.k_BSGH = positioned(headsOf(k_BTC, m_kNorm, {b, t, g, h}), context.rotary);
        input.v_BSGH = clipped(v_BTC.view({b, t, g, h}));
        if (context.cache) {
            append(*context.cache, input);
        }
        return projected(attend(input, context).reshape({b, t, n * h}), context);
    }
    torch::Tensor normed(const torch::Tensor& x_BTD) const override { return m_norm(x_BTD); }

    void visitParameters(const ParameterVisitor& visit) override {
        for (RoleLinear& linear : m_inputs) {
            linear.visitParameters(visit);
        }
        m_o.visitParameters(visit);
        for (Norm* norm : {&m_qNorm, &m_kNorm, &m_norm, &m_postNorm}) {
            norm->visitParameters(visit);
        }
    }
    void visitLinears(const LinearVisitor& visit) override {
        for (RoleLinear& linear : m_inputs) {
            visit(linear.role, linear.linear);
        }
        visit(m_o.role, m_o.linear);
    }
    void setCut(const BlockCut& cut) override {
        m_headMask = unitMask(keptHeads(m_shape, cut), m_shape.numHeads, m_shape.headDim, m_norm.weight());
    }
    void setAttentionKernel(std::shared_ptr<const AttentionKernel> kernel) override { m_kernel = kernel ? std::move(kernel) : exactAttention(); }

private:
    AttentionInput emptyInput(const RunContext& context) const {
        AttentionInput input;
        input.headsPerKv = &m_shape.headsPerKv;
        input.span = context.layout->span();
        input.span.window = m_shape.slidingWindow;
        input.span.causal = m_causal;
        input.scale = m_scale;
        input.softcap = m_softcap;
        return input;
    }
    torch::Tensor projected(torch::Tensor heads_BTC, const RunContext& context) const {
        if (m_headMask.defined()) {
            heads_BTC = heads_BTC * m_headMask;
        }
        context.tap(TapPoint::HeadOutputs, heads_BTC);
        return m_postNorm(context.kept(m_o(heads_BTC)));
    }
    /// Keys and values of all tokens; queries, scores and the output projection of the asking ones only. Rows are filled up to the K of the row with most.
    torch::Tensor forwardAsking(const torch::Tensor& x_BTD, const RunContext& context) const {
        const std::int64_t b = x_BTD.size(0), t = x_BTD.size(1), h = m_shape.headDim, n = m_shape.numHeads, g = m_shape.numKvHeads;
        const std::int64_t k = context.asking_BT.sum(1).max().item<std::int64_t>();
        const auto order_BT = std::get<1>(context.asking_BT.to(torch::kInt32).sort(/*stable=*/true, 1, /*descending=*/true));
        const auto index_BK = order_BT.narrow(1, 0, k);
        const auto h_BTD = m_norm(x_BTD);
        const auto [q_BTC, k_BTC, v_BTC] = projectAsking(h_BTD, index_BK);
        std::map<int, RotaryTable::Rows> rotaryRows;
        const auto rotary = [&](int rotating) -> const RotaryTable::Rows& {
            const auto& all = context.rotary(rotating);
            return rotaryRows.try_emplace(rotating, RotaryTable::Rows{tokensOf(all.cos, index_BK), tokensOf(all.sin, index_BK)}).first->second;
        };
        AttentionInput input = emptyInput(context);
        input.k_BSGH = positioned(headsOf(k_BTC, m_kNorm, {b, t, g, h}), context.rotary);
        input.v_BSGH = clipped(v_BTC.reshape({b, t, g, h}));
        if (context.cache) {
            append(*context.cache, input);
        }
        auto out_BTD = torch::zeros_like(x_BTD);
        if (k == 0) {
            return out_BTD;
        }
        input.q_BTNH = positioned(headsOf(q_BTC, m_qNorm, {b, k, n, h}), rotary);
        input.span.last_BT = (index_BK + input.span.offset).to(torch::kInt32);
        if (input.span.first_BT.defined()) {
            input.span.first_BT = input.span.first_BT.gather(1, index_BK);
        }
        const auto added_BKD = projected(attend(input, context).reshape({b, k, n * h}), context);
        const auto asks_BK1 = context.asking_BT.gather(1, index_BK).unsqueeze(2);
        return out_BTD.scatter(1, index_BK.unsqueeze(2).expand_as(added_BKD), added_BKD * asks_BK1);
    }
    /// x [B or 1,T,C] at index [B,K]: [B,K,C].
    static torch::Tensor tokensOf(const torch::Tensor& x_BTC, const torch::Tensor& index_BK) {
        const auto whole_BTC = x_BTC.expand({index_BK.size(0), -1, -1});
        return whole_BTC.gather(1, index_BK.unsqueeze(2).expand({-1, -1, x_BTC.size(2)}));
    }
    std::array<torch::Tensor, 3> projectAsking(const torch::Tensor& normed_BTD, const torch::Tensor& index_BK) const {
        if (m_inputs.size() == 3) {
            return {m_inputs[0](tokensOf(normed_BTD, index_BK)), m_inputs[1](normed_BTD), m_inputs[2](normed_BTD)};
        }
        auto qkv = project(normed_BTD);
        qkv[0] = tokensOf(qkv[0], index_BK);
        return qkv;
    }
    std::array<torch::Tensor, 3> project(const torch::Tensor& normed_BTD) const {
        std::array<torch::Tensor, 3> qkv;
        if (m_inputs.size() == 1) {
            const auto all = m_inputs.front()(normed_BTD);
            const std::int64_t q = std::int64_t{m_shape.numHeads} * m_shape.headDim, kv = std::int64_t{m_shape.numKvHeads} * m_shape.headDim;
            qkv = {all.narrow(-1, 0, q), all.narrow(-1, q, kv), all.narrow(-1, q + kv, kv)};
        } else {
            for (std::size_t i = 0; i < 3; ++i) {
                qkv[i] = m_inputs[i](normed_BTD);
            }
        }
        return qkv;
    }
    /// Normed over each head, or over all heads together before they are told apart.
    torch::Tensor headsOf(const torch::Tensor& x_BTC, const Norm& norm, std::array<std::int64_t, 4> sizes) const {
        return clipped(m_normsHeads ? norm(x_BTC.view(sizes)) : norm(x_BTC).view(sizes));
    }
    torch::Tensor clipped(const torch::Tensor& x) const { return m_clip > 0 ? x.clamp(-m_clip, m_clip) : x; }
    torch::Tensor positioned(const torch::Tensor& x_BTNH, const std::function<const RotaryTable::Rows&(int)>& rotaryRows) const {
        if (m_rotaryDim == 0) {
            return x_BTNH;
        }
        const RotaryTable::Rows& rotary = rotaryRows(m_rotaryDim);
        if (m_rotaryDim == m_shape.headDim) {
            return ops::rotate(x_BTNH, rotary.cos, rotary.sin);
        }
        const auto turned = ops::rotate(x_BTNH.narrow(-1, 0, m_rotaryDim).contiguous(), rotary.cos, rotary.sin);
        return torch::cat({turned, x_BTNH.narrow(-1, m_rotaryDim, m_shape.headDim - m_rotaryDim)}, -1);
    }
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
    int m_rotaryDim;                   // 0 = positions are not rotated
    double m_clip, m_softcap, m_scale; // 0 = no clipping, no cap
    std::vector<RoleLinear> m_inputs;  // q, k, v, or all three in one
    RoleLinear m_o;
    Norm m_qNorm, m_kNorm, m_norm, m_postNorm;
    bool m_normsHeads = true, m_causal = true;
    torch::Tensor m_headMask;          // [N*H]
    std::shared_ptr<const AttentionKernel> m_kernel;
};

/// down(activation(gate(x)) * up(x)), or down(activation(up(x))): a dense MLP, or one expert.
struct Mlp {
    std::string activation;
    std::vector<RoleLinear> in;  // gate and up, both in one, or up alone
    RoleLinear down;
    bool gated = true;

    torch::Tensor channels(const torch::Tensor& x) const {
        if (!gated) {
            return ops::activation(in.front()(x), activation);
        }
        if (in.size() == 2) {
            return ops::gatedActivation(in[0](x), in[1](x), activation);
        }
        const auto halves = in.front()(x).chunk(2, -1);
        return ops::gatedActivation(halves[0].contiguous(), halves[1].contiguous(), activation);
    }
    void visitParameters(const ParameterVisitor& visit) {
        for (RoleLinear& linear : in) {
            linear.visitParameters(visit);
        }
        down.visitParameters(visit);
    }
    void visitLinears(const LinearVisitor& visit) {
        for (RoleLinear& linear : in) {
            visit(linear.role, linear.linear);
        }
        visit(down.role, down.linear);
    }
};

Mlp denseMlp(const ModelShape& shape, const BlockWeights& weights) {
    const Family& family = familyOf(shape);
    Mlp mlp{.activation = shape.activation, .in = {}, .down = weights.linear(TensorRole::DownWeight, TensorRole::DownBias), .gated = family.gatedMlp};
    if (family.fusedGateUp) {
        mlp.in.push_back(weights.linear(TensorRole::GateUpWeight));
        return mlp;
    }
    if (family.gatedMlp) {
        mlp.in.push_back(weights.linear(TensorRole::GateWeight, TensorRole::GateBias));
    }
    mlp.in.push_back(weights.linear(TensorRole::UpWeight, TensorRole::UpBias));
    return mlp;
}

Mlp gatedMlp(const ModelShape& shape, const BlockWeights& weights, std::array<TensorRole, 3> gateUpDown, int expert) {
    Mlp mlp{.activation = shape.activation, .in = {}, .down = weights.linear(gateUpDown[2], {}, expert)};
    mlp.in.push_back(weights.linear(gateUpDown[0], {}, expert));
    mlp.in.push_back(weights.linear(gateUpDown[1], {}, expert));
    return mlp;
}

class MlpBranch final : public Branch {
public:
    MlpBranch(const ModelShape& shape, int block, const TakeWeight& take) : m_shape(shape.blocks[static_cast<std::size_t>(block)]) {
        const BlockWeights weights(shape, block, take);
        m_mlp = denseMlp(shape, weights);
        m_norm = Norm(shape, weights.tensor(TensorRole::FfnNorm), weights.tensor(TensorRole::FfnNormBias));
        m_postNorm = Norm(shape, weights.tensor(TensorRole::PostFfnNorm));
    }
    torch::Tensor forward(const torch::Tensor& x_BTD, const RunContext& context) const override {
        auto channels_BTF = m_mlp.channels(m_norm(x_BTD));
        if (m_channelMask.defined()) {
            channels_BTF = channels_BTF * m_channelMask;
        }
        context.tap(TapPoint::Channels, channels_BTF);
        return m_postNorm(context.kept(m_mlp.down(channels_BTF)));
    }
    torch::Tensor normed(const torch::Tensor& x_BTD) const override { return m_norm(x_BTD); }
    void visitParameters(const ParameterVisitor& visit) override {
        m_mlp.visitParameters(visit);
        m_norm.visitParameters(visit);
        m_postNorm.visitParameters(visit);
    }
    void visitLinears(const LinearVisitor& visit) override { m_mlp.visitLinears(visit); }
    void setCut(const BlockCut& cut) override {
        m_channelMask = unitMask(keptChannels(m_shape, cut), m_shape.ffnSize, 1, m_norm.weight());
    }

private:
    BlockShape m_shape;
    Mlp m_mlp;
    Norm m_norm, m_postNorm;
    torch::Tensor m_channelMask;  // [F]
};

/// A mixture: each token goes through the experts that its router chooses and through the shared expert, if there is one.
class MoeBranch final : public Branch {
public:
    MoeBranch(const ModelShape& shape, int block, const TakeWeight& take)
        : m_shape(shape.blocks[static_cast<std::size_t>(block)]), m_rule(routerRule(shape)) {
        const BlockWeights weights(shape, block, take);
        m_router = weights.linear(TensorRole::RouterWeight);
        m_correction = weights.tensor(TensorRole::RouterCorrection);
        for (int expert = 0; expert < m_shape.numExperts; ++expert) {
            m_experts.push_back(
                gatedMlp(shape, weights, {TensorRole::ExpertGateWeight, TensorRole::ExpertUpWeight, TensorRole::ExpertDownWeight}, expert));
        }
        if (m_shape.sharedFfnSize > 0) {
            m_shared = gatedMlp(shape, weights, {TensorRole::SharedGateWeight, TensorRole::SharedUpWeight, TensorRole::SharedDownWeight}, -1);
            if (familyOf(shape).moe->sharedGate) {
                m_sharedGate = weights.linear(TensorRole::SharedExpertGate);
            }
        }
        m_norm = Norm(shape, weights.tensor(TensorRole::FfnNorm), weights.tensor(TensorRole::FfnNormBias));
        m_postNorm = Norm(shape, weights.tensor(TensorRole::PostFfnNorm));
        m_channelMasks.resize(m_experts.size());
    }

    torch::Tensor forward(const torch::Tensor& x_BTD, const RunContext& context) const override {
        const auto h_MD = m_norm(x_BTD).reshape({-1, x_BTD.size(2)});
        auto router_ME = m_router(h_MD);
        if (m_expertBias.defined()) {
            router_ME = router_ME + m_expertBias;
        }
        context.tap(TapPoint::RouterLogits, router_ME.view({x_BTD.size(0), x_BTD.size(1), -1}));
        const auto [weights_MK, chosen_MK] = route(router_ME, m_correction.tensor, m_expertBias, m_keptExperts, m_rule);
        const auto share_MK = weights_MK.to(h_MD.scalar_type());
        const std::array<std::int64_t, 3> sizes_BTK{x_BTD.size(0), x_BTD.size(1), chosen_MK.size(1)};
        context.tap(TapPoint::ExpertChoice, chosen_MK.view(sizes_BTK));
        context.tap(TapPoint::ExpertGates, weights_MK.view(sizes_BTK));
        auto norms_MK = context.wants(TapPoint::ExpertNorms) ? torch::zeros_like(weights_MK) : torch::Tensor();
        auto out_MD = m_shared ? shared(h_MD) : torch::zeros_like(h_MD);
        for (std::size_t expert = 0; expert < m_experts.size(); ++expert) {
            const auto where = chosen_MK.eq(static_cast<std::int64_t>(expert)).nonzero();  // [n, 2]: token, place among its k
            if (where.size(0) == 0) {
                continue;
            }
            const auto tokens = where.select(1, 0), places = where.select(1, 1);
            auto channels = m_experts[expert].channels(h_MD.index_select(0, tokens));
            if (m_channelMasks[expert].defined()) {
                channels = channels * m_channelMasks[expert];
            }
            const auto expert_ND = m_experts[expert].down(channels);
            if (norms_MK.defined()) {
                norms_MK.index_put_({tokens, places}, expert_ND.detach().to(norms_MK.scalar_type()).norm(2, -1));
            }
            out_MD = out_MD.index_add(0, tokens, expert_ND * share_MK.index({tokens, places}).unsqueeze(1));
        }
        if (norms_MK.defined()) {
            context.tap(TapPoint::ExpertNorms, norms_MK.view(sizes_BTK));
        }
        return m_postNorm(context.kept(out_MD.view(x_BTD.sizes())));
    }
    torch::Tensor normed(const torch::Tensor& x_BTD) const override { return m_norm(x_BTD); }

    void visitParameters(const ParameterVisitor& visit) override {
        m_router.visitParameters(visit);
        m_correction.visitParameters(visit);
        for (Mlp& expert : m_experts) {
            expert.visitParameters(visit);
        }
        if (m_shared) {
            m_shared->visitParameters(visit);
        }
        if (m_sharedGate.linear) {
            m_sharedGate.visitParameters(visit);
        }
        m_norm.visitParameters(visit);
        m_postNorm.visitParameters(visit);
    }
    void visitLinears(const LinearVisitor& visit) override {
        visit(m_router.role, m_router.linear);
        for (Mlp& expert : m_experts) {
            expert.visitLinears(visit);
        }
        if (m_shared) {
            m_shared->visitLinears(visit);
        }
        if (m_sharedGate.linear) {
            visit(m_sharedGate.role, m_sharedGate.linear);
        }
    }
    void setCut(const BlockCut& cut) override {
        const std::vector<int> kept = keptExperts(m_shape, cut);
        const auto mask = unitMask(kept, m_shape.numExperts, 1, m_norm.weight());
        m_expertBias = mask.defined() ? mask.log() : mask;  // 0 or -inf
        m_keptExperts = static_cast<int>(kept.size());
        m_sharedMask = m_shared ? unitMask(keptSharedChannels(m_shape, cut), m_shape.sharedFfnSize, 1, m_norm.weight()) : torch::Tensor();
        for (std::size_t expert = 0; expert < m_experts.size(); ++expert) {
            m_channelMasks[expert] = unitMask(keptChannels(m_shape, cut, static_cast<int>(expert)), m_shape.ffnSize, 1, m_norm.weight());
        }
    }

private:
    torch::Tensor shared(const torch::Tensor& h_MD) const {
        auto channels_MF = m_shared->channels(h_MD);
        if (m_sharedMask.defined()) {
            channels_MF = channels_MF * m_sharedMask;
        }
        const auto out_MD = m_shared->down(channels_MF);
        return m_sharedGate.linear ? torch::sigmoid(m_sharedGate(h_MD)) * out_MD : out_MD;
    }

    BlockShape m_shape;
    RouterRule m_rule;
    RoleLinear m_router, m_sharedGate;
    RoleTensor m_correction;
    std::vector<Mlp> m_experts;
    std::optional<Mlp> m_shared;
    Norm m_norm, m_postNorm;
    torch::Tensor m_expertBias;                 // [E]
    std::vector<torch::Tensor> m_channelMasks;  // [F], of each expert
    torch::Tensor m_sharedMask;                  // [Fs]
    int m_keptExperts = m_shape.numExperts;
};

}  // namespace

std::unique_ptr<Linear> denseLinear(torch::Tensor weight, torch::Tensor bias) {
    return std::make_unique<DenseLinear>(std::move(weight), std::move(bias), Stored::OutIn);
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
