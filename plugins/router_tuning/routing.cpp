#include "plugins/router_tuning/routing.h"

#include "core/base/error.h"
#include "core/data/dataset.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

namespace resect::router {

namespace {

using torch::Tensor;

std::string blockText(int block) { return "block " + std::to_string(block); }

/// The score from which on a router is open.
double scoreAt(double threshold) {
    if (threshold <= 0) return -std::numeric_limits<double>::infinity();
    if (threshold >= 1) return std::numeric_limits<double>::infinity();  // no score's sigmoid is 1
    return std::log(threshold / (1 - threshold));
}

/// Which tokens a sequence's router looks at: [B,T] as 1 or 0, or undefined for all.
Tensor seenTokens(const Routing& routing, const RunContext& context, std::int64_t rows, std::int64_t tokens, const Tensor& like) {
    const Tensor& real_BT = context.layout->realTokens();
    const bool isPrefill = context.cache != nullptr;
    const bool whole = routing.gate.pool == Pool::All || isPrefill || (!routing.promptTokens_B.defined() && routing.gate.promptTokens == 0);
    if (whole) return real_BT.defined() ? real_BT.to(like.scalar_type()) : Tensor();
    const auto there_BT = real_BT.defined() ? real_BT : torch::ones({rows, tokens}, like.options().dtype(torch::kBool));
    const auto rank_BT = there_BT.to(torch::kInt64).cumsum(1);  // 1-based among the real ones
    const auto limit_B1 = routing.promptTokens_B.defined() ? routing.promptTokens_B.to(like.device()).view({-1, 1})
                                                           : torch::full({rows, 1}, routing.gate.promptTokens, rank_BT.options());
    if (limit_B1.size(0) != rows)
        throw Error(ErrorCode::Internal, "router", "was told the prompts of " + std::to_string(limit_B1.size(0)) + " rows, the batch has " + std::to_string(rows));
    return (there_BT & (rank_BT <= limit_B1.clamp_min(1))).to(like.scalar_type());
}

/// The router of one block, and what it has decided for the batch that is running.
class Gate {
public:
    Gate(std::shared_ptr<Routing> routing, int block) : m_routing(std::move(routing)), m_block(block) {}

    const Routing& routing() const noexcept { return *m_routing; }
    const GateOptions& options() const noexcept { return m_routing->gate; }
    const std::shared_ptr<Routing>& shared() const noexcept { return m_routing; }

    /// Decides from h = the norm of the block's input. A sequence with cached tokens keeps what was decided for its prompt.
    void decide(const Tensor& h_BTD, const RunContext& context) {
        const bool perSequence = options().granularity == Granularity::Sequence;
        if (perSequence && context.layout->hasDocuments())
            throw Error(ErrorCode::Unsupported, "router of " + blockText(m_block),
                        "decides for whole sequences, but the rows hold several documents each: lay them out one per row (layout padded), or route tokens");
        if (perSequence && context.cache && context.layout->span().offset > 0) {
            if (!context.cache->decided.defined()) throw Error(ErrorCode::Internal, "router of " + blockText(m_block), "has not seen the first tokens of the cache");
            m_open = context.cache->decided;
            m_factor = Tensor();
            return;
        }
        const auto wide = h_BTD.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
        const Tensor& weight_1D = m_routing->weights.at(m_block);
        const auto input = perSequence ? pooled(h_BTD.to(wide), context) : h_BTD.to(wide);
        const auto scores = torch::matmul(input, weight_1D.to(wide).squeeze(0));  // [B] or [B,T]
        const auto held = m_routing->held.find(m_block);
        m_open = held == m_routing->held.end() ? scores >= scoreAt(options().threshold) : held->second.to(scores.device());
        if (m_open.sizes() != scores.sizes())
            throw Error(ErrorCode::Internal, "router of " + blockText(m_block), "is held to decisions of " + c10::str(m_open.sizes()) + ", expected " + c10::str(scores.sizes()));
        const auto probabilities = torch::sigmoid(scores);
        const auto hard = m_open.to(wide);
        auto gates = hard + (probabilities - probabilities.detach());  // forwards exactly 1 or 0
        if (m_routing->onDecision) m_routing->onDecision({m_block, probabilities, gates, context.layout->realTokens()});
        if (m_routing->trainGrad == TrainGrad::Selected) gates = gates * hard;
        m_factor = (perSequence ? gates.view({-1, 1, 1}) : gates.unsqueeze(2)).to(h_BTD.scalar_type());
        if (perSequence && context.cache) context.cache->decided = m_open;
    }
    const Tensor& open() const { return m_open; }      ///< bool [B] or [B,T]
    const Tensor& factor() const { return m_factor; }  ///< [B,1,1] or [B,T,1]; undefined when the decision is an old one

    /// What the attention layer of a routed block had and made, for the FFN layer behind it.
    Tensor x_BTD, attended_BTD;
    bool decided = false;

private:
    Tensor pooled(const Tensor& h_BTD, const RunContext& context) const {
        const auto seen_BT = seenTokens(*m_routing, context, h_BTD.size(0), h_BTD.size(1), h_BTD);
        if (!seen_BT.defined()) return h_BTD.mean(1);
        return (h_BTD * seen_BT.unsqueeze(2)).sum(1) / seen_BT.sum(1, /*keepdim=*/true).clamp_min(1);
    }

    std::shared_ptr<Routing> m_routing;
    int m_block;
    Tensor m_open, m_factor;
};

/// A branch behind a router. What it does not change it passes on.
class Routed : public Branch {
public:
    Routed(std::unique_ptr<Branch> inside, std::shared_ptr<Gate> gate) : m_inside(std::move(inside)), m_gate(std::move(gate)) {}
    Tensor normed(const Tensor& x_BTD) const override { return m_inside->normed(x_BTD); }
    void visitParameters(const std::function<void(const std::string&, Tensor&)>& visit) override { m_inside->visitParameters(visit); }
    void visitLinears(const std::function<void(const std::string&, std::unique_ptr<Linear>&)>& visit) override { m_inside->visitLinears(visit); }
    void setCut(const BlockCut& cut) override { m_inside->setCut(cut); }
    void setAttentionKernel(std::shared_ptr<const AttentionKernel> kernel) override { m_inside->setAttentionKernel(std::move(kernel)); }
    std::unique_ptr<Branch> takeInside() { return std::move(m_inside); }
    const std::shared_ptr<Routing>& routing() const { return m_gate->shared(); }

protected:
    bool perSequence() const { return m_gate->options().granularity == Granularity::Sequence; }
    /// Observers see a layer for all tokens, so it runs for all while one looks into it.
    static bool runsDense(const RunContext& context, std::span<const TapPoint> inside) {
        const bool watched = std::ranges::any_of(inside, [&](TapPoint point) { return context.wants(point); });
        if (watched && context.cache)
            throw Error(ErrorCode::Unsupported, "router of " + blockText(context.block), "the layer cannot be observed while it runs with a cache and skips sequences or tokens");
        return !context.cache && (watched || torch::GradMode::is_enabled());
    }
    /// What the layer adds to the rows that run; nothing to the others, which are not computed.
    Tensor addToRows(const Tensor& x_BTD, const RunContext& context, const Tensor& runs_B) const {
        const auto rows_R = runs_B.nonzero().view(-1);
        if (rows_R.size(0) == x_BTD.size(0)) return m_inside->forward(x_BTD, context);
        auto added_BTD = torch::zeros_like(x_BTD);
        if (rows_R.size(0) == 0) return added_BTD;
        const TokenLayout layout = context.layout->ofRows(rows_R);
        std::map<int, RotaryTable::Rows> rotaryRows;
        RunContext own = context;
        own.layout = &layout;
        own.rotary = [&](int rotating) -> const RotaryTable::Rows& {
            auto rows = context.rotary(rotating);
            if (rows.cos.size(0) > 1) rows = {rows.cos.index_select(0, rows_R), rows.sin.index_select(0, rows_R)};
            return rotaryRows.try_emplace(rotating, std::move(rows)).first->second;
        };
        return added_BTD.index_copy(0, rows_R, m_inside->forward(x_BTD.index_select(0, rows_R), own));
    }

    std::unique_ptr<Branch> m_inside;
    std::shared_ptr<Gate> m_gate;
};

class RoutedAttention final : public Routed {
public:
    using Routed::Routed;
    Tensor forward(const Tensor& x_BTD, const RunContext& context) const override {
        m_gate->decide(m_inside->normed(x_BTD), context);
        m_gate->decided = true;
        if (m_gate->options().target == Target::Mlp) return m_inside->forward(x_BTD, context);
        if (runsDense(context, std::array{TapPoint::HeadOutputs, TapPoint::AttentionWeights})) {
            const auto attended_BTD = m_inside->forward(x_BTD, context);
            if (m_gate->options().target == Target::Block) {
                m_gate->x_BTD = x_BTD;
                m_gate->attended_BTD = attended_BTD;
            }
            return attended_BTD * m_gate->factor();
        }
        if (!perSequence()) return addToTokens(x_BTD, context);
        if (context.cache && context.layout->span().offset == 0) context.cache->allocate(m_gate->open().sum().item<std::int64_t>());
        return addToRows(x_BTD, context, m_gate->open());
    }
    bool choosesRows() const noexcept override { return m_gate->options().target != Target::Mlp && perSequence(); }

private:
    Tensor addToTokens(const Tensor& x_BTD, const RunContext& context) const {
        RunContext own = context;
        if (!m_gate->open().all().item<bool>()) own.asking_BT = m_gate->open();
        return m_inside->forward(x_BTD, own);
    }
};

class RoutedFfn final : public Routed {
public:
    using Routed::Routed;
    Tensor forward(const Tensor& x_BTD, const RunContext& context) const override {
        if (!std::exchange(m_gate->decided, false))
            throw Error(ErrorCode::Unsupported, "router of " + blockText(context.block), "looks at what enters the attention layer, which is cut");
        const auto before_BTD = std::exchange(m_gate->x_BTD, {}), attended_BTD = std::exchange(m_gate->attended_BTD, {});
        using enum TapPoint;
        if (m_gate->factor().defined() && runsDense(context, std::array{Channels, RouterLogits, ExpertChoice, ExpertGates, ExpertNorms})) {
            // Of a block the layer sees the stream as it is in an open block, so that the loss tells a closed one what it misses.
            const bool wholeBlock = m_gate->options().target == Target::Block && before_BTD.defined();
            return m_inside->forward(wholeBlock ? before_BTD + attended_BTD : x_BTD, context) * m_gate->factor();
        }
        return perSequence() ? addToRows(x_BTD, context, m_gate->open()) : addToTokens(x_BTD, context);
    }

private:
    Tensor addToTokens(const Tensor& x_BTD, const RunContext& context) const {
        const auto tokens_n = m_gate->open().reshape({-1}).nonzero().view(-1);
        if (tokens_n.size(0) == m_gate->open().numel()) return m_inside->forward(x_BTD, context);
        auto added_MD = torch::zeros_like(x_BTD).view({-1, x_BTD.size(2)});
        if (tokens_n.size(0) == 0) return added_MD.view(x_BTD.sizes());
        const auto x_1nD = x_BTD.reshape({-1, x_BTD.size(2)}).index_select(0, tokens_n).unsqueeze(0);
        return added_MD.index_copy(0, tokens_n, m_inside->forward(x_1nD, context).squeeze(0)).view(x_BTD.sizes());
    }
};

template <class T> std::unique_ptr<Branch> behind(std::unique_ptr<Branch> inside, const std::shared_ptr<Gate>& gate) {
    return std::make_unique<T>(std::move(inside), gate);
}

/// Calls `visit` with every routed branch.
void forRouted(LanguageModel& model, const std::function<std::unique_ptr<Branch>(std::unique_ptr<Branch>, Routed&)>& visit) {
    for (int block = 0; block < model.shape().numBlocks(); ++block)
        for (const BranchSlot slot : {BranchSlot::Attention, BranchSlot::Ffn})
            model.replaceBranch(block, slot, [&](std::unique_ptr<Branch> branch) {
                auto* routed = dynamic_cast<Routed*>(branch.get());
                return routed ? visit(std::move(branch), *routed) : std::move(branch);
            });
}

constexpr std::array<std::pair<Target, std::string_view>, 3> kTargets{{{Target::Attention, "attn"}, {Target::Mlp, "mlp"}, {Target::Block, "block"}}};
constexpr std::array<std::pair<Granularity, std::string_view>, 2> kGranularities{{{Granularity::Sequence, "_sequence"}, {Granularity::Token, "_token"}}};

}  // namespace

std::string spelling(const GateOptions& options) {
    const auto in = [](const auto& table, auto wanted) { return std::ranges::find(table, wanted, [](const auto& entry) { return entry.first; })->second; };
    return std::string(in(kTargets, options.target)).append(in(kGranularities, options.granularity));
}

void readSpelling(GateOptions& options, std::string_view text, const std::string& subject) {
    for (const auto& [target, first] : kTargets)
        for (const auto& [granularity, second] : kGranularities)
            if (text == std::string(first).append(second)) {
                options.target = target;
                options.granularity = granularity;
                return;
            }
    throw Error(ErrorCode::BadInput, subject, "expected attn, mlp or block with _sequence or _token, found \"" + std::string(text) + "\"");
}

Tensor Routing::Decision::capacity() const {
    if (gates.dim() == 1 || !real_BT.defined()) return gates.mean();
    const auto real = real_BT.to(gates.scalar_type());
    return (gates * real).sum() / real.sum();
}

std::string missingLayer(const BlockShape& block, Target target) {
    if (!block.hasAttention) return "attention";
    return target != Target::Attention && !block.hasFfn ? "FFN" : "";
}

Tensor promptsOf(const Tensor& targets_BT, std::int64_t ofText) {
    const auto plain_BT = targets_BT.to(torch::kCPU).contiguous();
    const std::int64_t rows = plain_BT.size(0), tokens = plain_BT.size(1);
    std::vector<std::int64_t> prompts;
    for (std::int64_t row = 0; row < rows; ++row) {
        const auto* targets = plain_BT.data_ptr<std::int64_t>() + row * tokens;
        const auto first = std::find_if(targets, targets + tokens, [](std::int64_t target) { return target != kIgnoredTarget; }) - targets;
        prompts.push_back(first > 0 ? first + 1 : ofText > 0 ? ofText : tokens);  // targets[t] follows ids[t]
    }
    return torch::tensor(prompts, torch::kInt64);
}

std::shared_ptr<Routing> attachRouters(LanguageModel& model, const GateOptions& options, const std::map<int, Tensor>& weights) {
    if (findRouting(model)) throw Error(ErrorCode::Unsupported, "routers", "the model has some already");
    auto routing = std::make_shared<Routing>(options);
    const ModelShape& shape = model.shape();
    for (const auto& [block, weight] : weights) {
        if (block < 0 || block >= shape.numBlocks())
            throw Error(ErrorCode::Mismatch, "router of " + blockText(block), "the model has " + std::to_string(shape.numBlocks()) + " blocks");
        const auto missing = missingLayer(shape.blocks[static_cast<std::size_t>(block)], options.target);
        if (!missing.empty()) throw Error(ErrorCode::Unsupported, "router of " + blockText(block), "the block has no " + missing + " layer");
        const std::int64_t hidden = shape.of(block).hiddenSize;
        if (weight.dim() != 2 || weight.size(0) != 1 || weight.size(1) != hidden)
            throw Error(ErrorCode::Mismatch, "router of " + blockText(block), "expected [1, " + std::to_string(hidden) + "], found " + c10::str(weight.sizes()));
        const auto wide = model.dtype() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
        routing->weights[block] = weight.detach().to(model.device(), wide, /*non_blocking=*/false, /*copy=*/true).contiguous();
    }
    for (const auto& [block, weight] : routing->weights) {
        const auto gate = std::make_shared<Gate>(routing, block);
        model.replaceBranch(block, BranchSlot::Attention, [&](auto inside) { return behind<RoutedAttention>(std::move(inside), gate); });
        if (options.target != Target::Attention)
            model.replaceBranch(block, BranchSlot::Ffn, [&](auto inside) { return behind<RoutedFfn>(std::move(inside), gate); });
    }
    return routing;
}

std::shared_ptr<Routing> findRouting(LanguageModel& model) {
    std::shared_ptr<Routing> found;
    forRouted(model, [&](std::unique_ptr<Branch> branch, Routed& routed) {
        found = routed.routing();
        return branch;
    });
    return found;
}

void detachRouters(LanguageModel& model) {
    forRouted(model, [](std::unique_ptr<Branch>, Routed& routed) { return routed.takeInside(); });
}

}  // namespace resect::router
