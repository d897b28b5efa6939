#include "plugins/router_tuning/depth.h"

#include "core/base/error.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace resect::depth {

namespace {

using torch::Tensor;

std::string blockText(int block) { return "block " + std::to_string(block); }

/// The tokens of every row that run, side by side and in order. Rows with fewer than K are filled up with others, which are not there.
struct Gathered {
    Tensor index_BK, there_BK;
    std::int64_t tokens() const { return index_BK.size(1); }
    Tensor of(const Tensor& x_BTC) const { return x_BTC.gather(1, index_BK.unsqueeze(2).expand({-1, -1, x_BTC.size(2)})); }
    /// [B,K,D] at its places in zeros [B,T,D].
    Tensor spread(const Tensor& added_BKD, std::int64_t tokensOfRow) const {
        const auto kept_BKD = added_BKD * there_BK.unsqueeze(2);
        return torch::zeros({kept_BKD.size(0), tokensOfRow, kept_BKD.size(2)}, kept_BKD.options()).scatter(1, index_BK.unsqueeze(2).expand_as(kept_BKD), kept_BKD);
    }
};

Gathered gather(const Tensor& chosen_BT) {
    const auto count = chosen_BT.sum(1).max().item<std::int64_t>();
    const auto index_BK = std::get<1>(chosen_BT.to(torch::kInt32).sort(/*stable=*/true, 1, /*descending=*/true)).narrow(1, 0, count);
    return {index_BK, chosen_BT.gather(1, index_BK)};
}

/// Bool [B,T]: the floor(capacity x real tokens) highest scores of each row, equal ones from the first on.
Tensor bestTokens(const Tensor& scores_BT, const Tensor& real_BT, double capacity) {
    const std::int64_t rows = scores_BT.size(0), tokens = scores_BT.size(1);
    const auto there_BT = real_BT.defined() ? real_BT : torch::ones_like(scores_BT, torch::kBool);
    const auto masked_BT = scores_BT.detach().masked_fill(there_BT.logical_not(), -std::numeric_limits<double>::infinity());
    const auto order_BT = std::get<1>(masked_BT.sort(/*stable=*/true, 1, /*descending=*/true));
    const auto real_B1 = there_BT.sum(1, /*keepdim=*/true);
    const auto room_B1 = torch::minimum((real_B1.to(torch::kFloat64) * capacity + 1e-9).floor().clamp_min(1).to(torch::kInt64), real_B1);
    const auto rank_BT = torch::arange(tokens, order_BT.options()).expand({rows, tokens});
    return torch::zeros_like(there_BT).scatter(1, order_BT, rank_BT < room_B1);
}

class Gate {
public:
    Gate(std::shared_ptr<Depth> depth, int block) : m_depth(std::move(depth)), m_block(block) {}
    const std::shared_ptr<Depth>& shared() const noexcept { return m_depth; }

    void decide(const Tensor& x_BTD, const RunContext& context) {
        if (context.layout->hasDocuments())
            throw Error(ErrorCode::Unsupported, "router of " + blockText(m_block), "chooses among the tokens of a sequence, but the rows hold several documents each: lay them out one per row (layout padded)");
        const auto& weights = m_depth->weights.at(m_block);
        const auto wide = x_BTD.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
        const auto stream_BTD = x_BTD.to(wide);
        const auto scores_BT = torch::matmul(stream_BTD, weights.at("router.weight").squeeze(0));
        const auto predicted_BT = predict(weights, stream_BTD.detach(), scores_BT);
        const Tensor& real_BT = context.layout->realTokens();
        const auto best_BT = context.cache ? Tensor() : bestTokens(scores_BT, real_BT, m_depth->options.capacity);
        if (m_depth->selection == Selection::Best && context.cache)
            throw Error(ErrorCode::Unsupported, "router of " + blockText(m_block), "the best tokens of a sequence are not known before it ends: generate with the predictor");
        auto chosen_BT = m_depth->selection == Selection::Best ? best_BT : predicted_BT.detach() > 0;
        if (real_BT.defined()) chosen_BT = chosen_BT & real_BT;
        if (m_depth->onChoice) m_depth->onChoice({m_block, chosen_BT, best_BT, predicted_BT, real_BT});
        chosen = gather(chosen_BT);
        const auto own_BK = scores_BT.gather(1, chosen.index_BK);
        weight_BK1 = m_depth->options.weighing == Weighing::Score     ? own_BK.unsqueeze(2).to(x_BTD.scalar_type())
                     : m_depth->options.weighing == Weighing::Sigmoid ? torch::sigmoid(own_BK).unsqueeze(2).to(x_BTD.scalar_type())
                                                                      : Tensor();
    }
    Tensor weighed(const Tensor& added_BKD) const { return weight_BK1.defined() ? added_BKD * weight_BK1 : added_BKD; }

    // Of the run in hand, from the attention layer to the FFN layer.
    Gathered chosen;
    Tensor weight_BK1, between_BKD;   ///< weights of the outputs; the chosen tokens' own stream between the layers

private:
    static Tensor predict(const DepthWeights& weights, const Tensor& stream_BTD, const Tensor& scores_BT) {
        const auto out = weights.find("predictor.out.weight");
        if (out == weights.end()) return scores_BT;
        auto hidden = stream_BTD;
        if (const auto up = weights.find("predictor.up.weight"); up != weights.end()) hidden = torch::silu(torch::matmul(hidden, up->second.t()) + weights.at("predictor.up.bias"));
        return torch::matmul(hidden, out->second.squeeze(0)) + weights.at("predictor.out.bias");
    }
    std::shared_ptr<Depth> m_depth;
    int m_block;
};

class Deep : public Branch {
public:
    Deep(std::unique_ptr<Branch> inside, std::shared_ptr<Gate> gate) : m_inside(std::move(inside)), m_gate(std::move(gate)) {}
    Tensor normed(const Tensor& x_BTD) const override { return m_inside->normed(x_BTD); }
    void visitParameters(const std::function<void(const std::string&, Tensor&)>& visit) override { m_inside->visitParameters(visit); }
    void visitLinears(const std::function<void(const std::string&, std::unique_ptr<Linear>&)>& visit) override { m_inside->visitLinears(visit); }
    void setCut(const BlockCut& cut) override { m_inside->setCut(cut); }
    void setAttentionKernel(std::shared_ptr<const AttentionKernel> kernel) override { m_inside->setAttentionKernel(std::move(kernel)); }
    const std::shared_ptr<Depth>& depth() const { return m_gate->shared(); }

protected:
    /// Observers are shown whole rows, which there are none of inside.
    static RunContext unwatched(const RunContext& context) {
        RunContext own = context;
        own.observer = nullptr;
        return own;
    }
    std::unique_ptr<Branch> m_inside;
    std::shared_ptr<Gate> m_gate;
};

class DeepAttention final : public Deep {
public:
    using Deep::Deep;
    bool choosesRows() const noexcept override { return true; }
    Tensor forward(const Tensor& x_BTD, const RunContext& context) const override {
        m_gate->decide(x_BTD, context);
        const Gathered& chosen = m_gate->chosen;
        if (chosen.tokens() == 0) {
            if (context.cache) keepPlaces(*context.cache, context);
            return torch::zeros_like(x_BTD);
        }
        const auto x_BKD = chosen.of(x_BTD);
        const auto attended_BKD = context.cache ? attendCached(x_BKD, context) : attend(x_BKD, context, chosen, *context.layout, 0, nullptr, kAllRows);
        m_gate->between_BKD = x_BKD + attended_BKD;
        return chosen.spread(m_gate->weighed(attended_BKD), x_BTD.size(1));
    }

private:
    static constexpr std::int64_t kAllRows = -1;
    /// `layout` is that of the rows of x: all, or one.
    Tensor attend(const Tensor& x_BKD, const RunContext& context, const Gathered& chosen, const TokenLayout& layout, std::int64_t cached, LayerCache* cache, std::int64_t row) const {
        const TokenLayout own = layout.ofTokens(chosen.index_BK, chosen.there_BK, cached);
        std::map<int, RotaryTable::Rows> rotaryRows;
        RunContext inner = unwatched(context);
        inner.layout = &own;
        inner.cache = cache;
        inner.rotary = [&](int rotating) -> const RotaryTable::Rows& {
            const auto& all = context.rotary(rotating);
            const auto rowsOf = [&](const Tensor& table) { return table.size(0) > 1 && row != kAllRows ? table.narrow(0, row, 1) : table; };
            const auto pick = [&](const Tensor& table) { return chosen.of(rowsOf(table).expand({chosen.index_BK.size(0), -1, -1})); };
            return rotaryRows.try_emplace(rotating, RotaryTable::Rows{pick(all.cos), pick(all.sin)}).first->second;
        };
        return m_inside->forward(x_BKD, inner);
    }
    /// The places of the cached tokens that lie before the run: those behind were cut off.
    static Tensor placesBefore(LayerCache& cache, const RunContext& context) {
        const auto offset = context.layout->span().offset;
        if (!cache.k_BCGH.defined()) cache.allocate(cache.sizes.front());
        if (!cache.decided.defined()) cache.decided = torch::full({cache.sizes[0], cache.sizes[1]}, -1, torch::TensorOptions(cache.k_BCGH.device()).dtype(torch::kInt64));
        cache.decided.masked_fill_(cache.decided >= offset, -1);
        return cache.decided;
    }
    static void keepPlaces(LayerCache& cache, const RunContext& context) { placesBefore(cache, context); }
    /// Row by row: each has its own number of cached tokens.
    Tensor attendCached(const Tensor& x_BKD, const RunContext& context) const {
        LayerCache& cache = *context.cache;
        auto places_BC = placesBefore(cache, context);
        const auto held_B = (places_BC >= 0).sum(1).to(torch::kCPU), count_B = m_gate->chosen.there_BK.sum(1).to(torch::kCPU);
        auto attended_BKD = torch::zeros_like(x_BKD);
        for (std::int64_t row = 0; row < x_BKD.size(0); ++row) {
            const auto held = held_B[row].item<std::int64_t>(), count = count_B[row].item<std::int64_t>();
            if (count == 0) continue;
            const auto index_1n = m_gate->chosen.index_BK.narrow(0, row, 1).narrow(1, 0, count);
            const Gathered own{index_1n, torch::ones_like(index_1n, torch::kBool)};
            LayerCache ownCache = cache;
            ownCache.k_BCGH = cache.k_BCGH.narrow(0, row, 1);
            ownCache.v_BCGH = cache.v_BCGH.narrow(0, row, 1);
            places_BC[row].narrow(0, held, count).copy_(index_1n[0] + context.layout->span().offset);
            const TokenLayout layout = context.layout->ofRows(torch::full({1}, row, index_1n.options()));
            const auto attended_1nD = attend(x_BKD.narrow(0, row, 1).narrow(1, 0, count), context, own, layout, held, &ownCache, row);
            attended_BKD.narrow(0, row, 1).narrow(1, 0, count).copy_(attended_1nD);
        }
        return attended_BKD;
    }
};

class DeepFfn final : public Deep {
public:
    using Deep::Deep;
    Tensor forward(const Tensor& x_BTD, const RunContext& context) const override {
        const Gathered chosen = std::exchange(m_gate->chosen, {});
        if (!chosen.index_BK.defined()) throw Error(ErrorCode::Unsupported, "router of " + blockText(context.block), "looks at what enters the attention layer, which is cut");
        if (chosen.tokens() == 0) return torch::zeros_like(x_BTD);
        const auto between_BKD = std::exchange(m_gate->between_BKD, {});
        return chosen.spread(m_gate->weighed(m_inside->forward(between_BKD, unwatched(context))), x_BTD.size(1));
    }
};

std::map<std::string, std::vector<std::int64_t>> shapesOf(const DepthOptions& options, std::int64_t hidden) {
    std::map<std::string, std::vector<std::int64_t>> shapes{{"router.weight", {1, hidden}}};
    if (options.predictor == Predictor::Router) return shapes;
    const bool deep = options.predictor == Predictor::Mlp;
    shapes["predictor.out.weight"] = {1, deep ? hidden / 2 : hidden};
    shapes["predictor.out.bias"] = {1};
    if (deep) shapes["predictor.up.weight"] = {hidden / 2, hidden}, shapes["predictor.up.bias"] = {hidden / 2};
    return shapes;
}

}  // namespace

DepthWeights initialWeights(const DepthOptions& options, std::int64_t hidden, double std, std::uint64_t seed) {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    DepthWeights weights;
    for (const auto& [name, shape] : shapesOf(options, hidden)) {
        weights[name] = torch::zeros(shape);
        if (shape.size() > 1) weights[name].normal_(0, std, generator);
    }
    return weights;
}

std::shared_ptr<Depth> findDepth(LanguageModel& model) {
    std::shared_ptr<Depth> found;
    for (int block = 0; block < model.shape().numBlocks(); ++block)
        model.replaceBranch(block, BranchSlot::Attention, [&](std::unique_ptr<Branch> branch) {
            if (auto* deep = dynamic_cast<Deep*>(branch.get())) found = deep->depth();
            return branch;
        });
    return found;
}

std::shared_ptr<Depth> attachDepth(LanguageModel& model, const DepthOptions& options, const std::map<int, DepthWeights>& weights) {
    if (findDepth(model)) throw Error(ErrorCode::Unsupported, "routers", "the model has some already");
    auto depth = std::make_shared<Depth>(options);
    for (const auto& [block, own] : weights) {
        const auto subject = "router of " + blockText(block);
        if (block < 0 || block >= model.shape().numBlocks()) throw Error(ErrorCode::Mismatch, subject, "the model has " + std::to_string(model.shape().numBlocks()) + " blocks");
        const auto& shape = model.shape().blocks[static_cast<std::size_t>(block)];
        if (!shape.hasAttention || !shape.hasFfn) throw Error(ErrorCode::Unsupported, subject, "the block lacks one of its layers");
        for (const auto& [name, sizes] : shapesOf(options, model.shape().of(block).hiddenSize)) {
            const auto found = own.find(name);
            if (found == own.end()) throw Error(ErrorCode::Mismatch, subject + ": " + name, "is missing");
            if (found->second.sizes() != c10::IntArrayRef(sizes)) throw Error(ErrorCode::Mismatch, subject + ": " + name, "expected " + c10::str(c10::IntArrayRef(sizes)) + ", found " + c10::str(found->second.sizes()));
            const auto wide = model.dtype() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
            depth->weights[block][name] = found->second.detach().to(model.device(), wide, false, /*copy=*/true).contiguous();
        }
    }
    for (const auto& [block, own] : depth->weights) {
        const auto gate = std::make_shared<Gate>(depth, block);
        model.replaceBranch(block, BranchSlot::Attention, [&](auto inside) { return std::make_unique<DeepAttention>(std::move(inside), gate); });
        model.replaceBranch(block, BranchSlot::Ffn, [&](auto inside) { return std::make_unique<DeepFfn>(std::move(inside), gate); });
    }
    return depth;
}

Tensor predictorLoss(const std::vector<Depth::Choice>& choices) {
    if (choices.empty()) return {};
    Tensor sum;
    for (const auto& choice : choices) {
        auto logits = choice.predicted_BT, wanted = choice.best_BT.to(choice.predicted_BT.scalar_type());
        if (choice.real_BT.defined()) logits = logits.masked_select(choice.real_BT), wanted = wanted.masked_select(choice.real_BT);
        const auto loss = torch::binary_cross_entropy_with_logits(logits, wanted);
        sum = sum.defined() ? sum + loss : loss;
    }
    return sum / static_cast<double>(choices.size());
}

std::vector<int> routedBlocks(const ModelShape& shape, std::int64_t every) {
    std::vector<int> blocks;
    for (int block = static_cast<int>(every) - 1; block < shape.numBlocks(); block += static_cast<int>(every))
        if (shape.blocks[static_cast<std::size_t>(block)].hasAttention && shape.blocks[static_cast<std::size_t>(block)].hasFfn) blocks.push_back(block);
    return blocks;
}

}  // namespace resect::depth
