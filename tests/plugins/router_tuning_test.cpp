#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/hf_writer.h"
#include "core/models/tensor_file.h"
#include "core/surgery/edit_plan.h"
#include "core/train/batches.h"
#include "core/train/losses.h"
#include "plugins/router_tuning/capacity_loss.h"
#include "plugins/router_tuning/depth.h"
#include "plugins/router_tuning/depth_recipe.h"
#include "plugins/router_tuning/router_files.h"
#include "plugins/router_tuning/router_method.h"
#include "plugins/router_tuning/router_recipe.h"
#include "plugins/router_tuning/routing.h"
#include "tests/core/measure/rows.h"
#include "tests/core/models/tensor_matchers.h"
#include "tests/core/train/train_support.h"

#include <gmock/gmock.h>
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <sstream>

namespace resect::router {
namespace {

namespace fs = std::filesystem;
using namespace resect::test;
using testing::ElementsAre;
using testing::HasSubstr;
using torch::Tensor;

const std::vector<std::string>& everyWay() {
    static const std::vector<std::string> ways{"attn_sequence", "attn_token", "mlp_sequence", "mlp_token", "block_sequence", "block_token"};
    return ways;
}

GateOptions gateOf(const std::string& way) {
    GateOptions gate;
    readSpelling(gate, way, "test");
    return gate;
}

Tensor someIds(std::int64_t rows, std::int64_t tokens, std::uint64_t seed = 4) {
    torch::manual_seed(seed);
    return torch::randint(61, {rows, tokens}, torch::kInt64);
}

std::map<int, Tensor> zeroWeights(const std::vector<int>& blocks) {
    std::map<int, Tensor> weights;
    for (const int block : blocks) weights[block] = torch::zeros({1, 48});
    return weights;
}

std::map<int, Tensor> randomWeights(const std::vector<int>& blocks, std::uint64_t seed = 3) {
    torch::manual_seed(seed);
    std::map<int, Tensor> weights;
    for (const int block : blocks) weights[block] = torch::randn({1, 48}, torch::kFloat64);
    return weights;
}

/// Keeps what the routers decided in the last runs.
struct Recorder {
    explicit Recorder(Routing& routing) {
        routing.onDecision = [this](const Routing::Decision& decision) { last[decision.block] = decision; };
    }
    Tensor open(int block) const { return last.at(block).gates.detach() > 0.5; }
    std::map<int, Routing::Decision> last;
};

class Router : public testing::Test {
protected:
    std::unique_ptr<LanguageModel> load(torch::ScalarType dtype = torch::kFloat64, bool trainable = false) const {
        return LanguageModel::load(m_checkpoint, {.dtype = dtype, .trainable = trainable});
    }
    TinyCheckpoint m_tiny = tinyLlama({.numBlocks = 4});
    Checkpoint m_checkpoint = m_tiny.open();
};

/// The cut that a layer of some blocks leaves.
Cut without(const ModelShape& shape, Target target, const std::vector<int>& blocks) {
    Cut cut = emptyCut(shape);
    for (const int block : blocks) {
        auto& own = cut.blocks[static_cast<std::size_t>(block)];
        (target == Target::Attention ? own.attention : target == Target::Mlp ? own.ffn : own.block) = true;
    }
    return cut;
}

// --- Gate ---

TEST_F(Router, OfZerosLeavesTheDenseModelBitForBit) {
    const TokenBatch batch{someIds(3, 11), {}, {}};
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
        const auto model = load(dtype);
        const auto dense = model->logits(batch);
        for (const auto& way : everyWay()) {
            attachRouters(*model, gateOf(way), zeroWeights({0, 1, 2}));
            EXPECT_TRUE(torch::equal(model->logits(batch), dense)) << way << ", all computed";
            const torch::NoGradGuard noGrad;
            EXPECT_TRUE(torch::equal(model->logits(batch), dense)) << way;
            const auto cache = model->makeCache(3, 11);
            EXPECT_TENSOR_NEAR(model->logits(batch, nullptr, cache.get()).to(torch::kFloat32), dense.to(torch::kFloat32), dtype == torch::kFloat32 ? 1e-5 : 0.1);
            detachRouters(*model);
            EXPECT_EQ(findRouting(*model), nullptr);
            EXPECT_TRUE(torch::equal(model->logits(batch), dense));
        }
    }
}

TEST_F(Router, ThresholdsBelowAndAboveEverythingKeepAllOrDropTheLayer) {
    const TokenBatch batch{someIds(2, 9), {}, {}};
    const torch::NoGradGuard noGrad;
    const auto model = load();
    const auto dense = model->logits(batch);
    for (const auto& way : everyWay()) {
        auto gate = gateOf(way);
        gate.threshold = 0;
        attachRouters(*model, gate, randomWeights({1, 2}));
        EXPECT_TENSOR_NEAR(model->logits(batch), dense, 1e-12);
        detachRouters(*model);
        model->setCut(without(model->shape(), gate.target, {1, 2}));
        const auto dropped = model->logits(batch);
        model->setCut({});
        gate.threshold = 1.01;
        attachRouters(*model, gate, randomWeights({1, 2}));
        EXPECT_TENSOR_NEAR(model->logits(batch), dropped, 1e-12);
        {
            const torch::AutoGradMode withGradients(true);
            EXPECT_TENSOR_NEAR(model->logits(batch), dropped, 1e-12);
        }
        detachRouters(*model);
    }
}

/// The streams around the layers of one block, as parts of the graph.
class Streams final : public Observer {
public:
    explicit Streams(int block) : m_block(block) {}
    bool wants(TapPoint point, int block) const override {
        return block == m_block && (point == TapPoint::BlockInput || point == TapPoint::AfterAttention || point == TapPoint::BlockOutput);
    }
    void observe(TapPoint point, int, const Tensor& value) override {
        (point == TapPoint::BlockInput ? input : point == TapPoint::AfterAttention ? middle : output) = value;
    }
    Tensor input, middle, output;

private:
    int m_block;
};

TEST_F(Router, FirstGradientIsAQuarterOfWhatTheLayerIsWorthTimesTheInput) {
    const auto ids = someIds(3, 8);
    const auto targets_M = someIds(3, 8, 9).view({-1});
    constexpr int kBlock = 2;
    for (const auto& way : everyWay()) {
        auto gate = gateOf(way);
        gate.pool = Pool::All;
        const auto dense = load(torch::kFloat64, /*trainable=*/true);
        Streams seen(kBlock);
        const auto lossOf = [&](const Tensor& logits) { return torch::cross_entropy_loss(logits.view({-1, 61}), targets_M); };
        const auto denseLoss = lossOf(dense->logits({ids, {}, {}}, &seen));
        const auto after = gate.target == Target::Attention ? seen.middle : seen.output;
        const auto before = gate.target == Target::Mlp ? seen.middle : seen.input;
        const auto worth_BTD = torch::autograd::grad({denseLoss}, {after})[0] * (after - before).detach();
        auto& tensor = m_tiny.tensor("model.layers." + std::to_string(kBlock) + ".input_layernorm.weight");
        const auto norm_D = torch::tensor(tensor.values, torch::kFloat64);
        const auto x_BTD = seen.input.detach();
        const auto h_BTD = x_BTD / (x_BTD.square().mean(-1, true) + dense->shape().normEps).sqrt() * norm_D;
        const auto expected_D = gate.granularity == Granularity::Sequence
                                    ? 0.25 * (worth_BTD.sum({1, 2}).unsqueeze(1) * h_BTD.mean(1)).sum(0)
                                    : 0.25 * (worth_BTD.sum(2).unsqueeze(2) * h_BTD).sum(std::vector<std::int64_t>{0, 1});
        const auto model = load();
        const auto routing = attachRouters(*model, gate, zeroWeights({kBlock}));
        routing->weights.at(kBlock).set_requires_grad(true);
        lossOf(model->logits({ids, {}, {}})).backward();
        const auto found_D = routing->weights.at(kBlock).grad().squeeze(0);
        EXPECT_LT((found_D - expected_D).norm().item<double>(), 1e-6 * expected_D.norm().item<double>()) << way;
        EXPECT_GT(expected_D.norm().item<double>(), 1e-9) << way;
    }
}

TEST_F(Router, ClosedRoutersLearnOnlyWhenAllDo) {
    const auto ids = someIds(2, 8);
    for (const auto grad : {TrainGrad::All, TrainGrad::Selected}) {
        const auto model = load();
        const auto routing = attachRouters(*model, gateOf("attn_sequence"), randomWeights({1}));
        routing->trainGrad = grad;
        auto& weight = routing->weights.at(1);
        weight.set_requires_grad(true);
        routing->held[1] = torch::zeros({2}, torch::kBool);
        model->loss({ids, {}, {}}, ids.roll(-1, 1)).backward();
        EXPECT_EQ(weight.grad().abs().max().item<double>() > 0, grad == TrainGrad::All);
    }
}

TEST_F(Router, CapacityLossIsWhatRunsAboveTheTarget) {
    const TokenBatch batch{someIds(3, 7), {}, {}};
    for (const auto& way : everyWay()) {
        const auto model = load();
        const auto routing = attachRouters(*model, gateOf(way), zeroWeights({0, 1, 2}));
        std::vector<Routing::Decision> decisions;
        routing->onDecision = [&](const Routing::Decision& decision) { decisions.push_back(decision); };
        for (auto& [block, weight] : routing->weights) weight.set_requires_grad(true);
        model->logits(batch);
        ASSERT_EQ(decisions.size(), 3u);
        for (const auto scope : {CapacityScope::Layer, CapacityScope::Model}) {
            EXPECT_NEAR(capacityLoss(decisions, {.target = 0.3, .scope = scope}, 0.02).item<double>(), 0.02 * 3 * 0.7, 1e-12) << way;
            const auto none = capacityLoss(decisions, {.target = 1, .scope = scope}, 0.02);
            EXPECT_EQ(none.item<double>(), 0);
            for (const auto& gradient : torch::autograd::grad({none}, {routing->weights.at(0), routing->weights.at(2)}, {}, /*retain_graph=*/true))
                EXPECT_EQ(gradient.abs().max().item<double>(), 0);
        }
        // Half of a third layer closed: layers count one by one, or their mean.
        decisions[0].gates = torch::zeros_like(decisions[0].gates);
        EXPECT_NEAR(capacityLoss(decisions, {.target = 0.5, .scope = CapacityScope::Layer}, 1).item<double>(), 1, 1e-12);
        EXPECT_NEAR(capacityLoss(decisions, {.target = 0.5, .scope = CapacityScope::Model}, 1).item<double>(), 3 * (2.0 / 3 - 0.5), 1e-12);
    }
    EXPECT_FALSE(capacityLoss({}, {}, 1).defined());
}

TEST_F(Router, SizeOfTheWeightsDoesNotMatter) {
    const TokenBatch batch{someIds(6, 9), {}, {}};
    const torch::NoGradGuard noGrad;
    for (const auto& way : everyWay()) {
        const auto model = load(torch::kFloat32);
        Tensor logits;
        std::map<int, Tensor> open;
        for (const double factor : {1.0, 1024.0, 1.0 / 4096}) {
            auto weights = randomWeights({1, 2});
            for (auto& [block, weight] : weights) weight = weight * factor;
            const auto routing = attachRouters(*model, gateOf(way), weights);
            const Recorder seen(*routing);
            const auto found = model->logits(batch);
            for (const int block : {1, 2}) {
                if (factor == 1) open[block] = seen.open(block);
                EXPECT_TRUE(torch::equal(seen.open(block), open[block])) << way;
                EXPECT_TRUE(open[block].any().item<bool>() && !open[block].all().item<bool>()) << way << " tests both decisions";
            }
            if (factor == 1) logits = found;
            EXPECT_TRUE(torch::equal(found, logits)) << way;
            routing->onDecision = {};
            detachRouters(*model);
        }
    }
}

// --- Skipping ---

TEST_F(Router, SkippingEqualsComputingAllAndMultiplying) {
    const auto ids = someIds(5, 10);
    for (const bool padded : {false, true}) {
        TokenBatch batch{ids, {}, {}};
        if (padded) {
            batch.mask_BT = torch::ones({5, 10}, torch::kBool);
            batch.mask_BT[1].slice(0, 7).fill_(false);
            batch.mask_BT[3].slice(0, 0, 4).fill_(false);
        }
        for (const auto& way : everyWay()) {
            const auto model = load();
            attachRouters(*model, gateOf(way), randomWeights({0, 1, 2}));
            const auto all = model->logits(batch).detach();
            const torch::NoGradGuard noGrad;
            auto skipped = model->logits(batch);
            if (padded) {
                for (const auto& x : {all, skipped}) x.masked_fill_(batch.mask_BT.logical_not().unsqueeze(2), 0);
            }
            EXPECT_TENSOR_NEAR(skipped, all, 1e-11);
        }
    }
}

TEST_F(Router, RunsMixturesAndSlidingWindows) {
    const TokenBatch batch{someIds(4, 12), {}, {}};
    for (const auto& tiny : {tinyMixtral({}), tinyMistral({.slidingWindow = 5}), tinyFamily("gpt2"), tinyFamily("gemma2")}) {
        const auto checkpoint = tiny.open();
        const auto model = LanguageModel::load(checkpoint, {.dtype = torch::kFloat64});
        const auto hidden = model->shape().hiddenSize;
        for (const auto& way : everyWay()) {
            torch::manual_seed(5);
            attachRouters(*model, gateOf(way), {{1, torch::randn({1, hidden})}});
            const auto all = model->logits(batch).detach();
            const torch::NoGradGuard noGrad;
            EXPECT_TENSOR_NEAR(model->logits(batch), all, 1e-10);
            detachRouters(*model);
        }
    }
}

TEST_F(Router, CachedGreedyTextEqualsRecomputationWithTheDecisionsOfThePrompt) {
    constexpr std::int64_t kPrompt = 7, kNew = 9;
    const torch::NoGradGuard noGrad;
    for (const auto& way : everyWay()) {
        const auto model = load();
        const auto routing = attachRouters(*model, gateOf(way), randomWeights({0, 1, 2}, 8));
        const Recorder seen(*routing);
        auto ids = someIds(4, kPrompt);
        const auto cache = model->makeCache(4, kPrompt + kNew);
        std::vector<Tensor> cached{model->logits({ids, {}, {}}, nullptr, cache.get()).narrow(1, kPrompt - 1, 1)};
        std::map<int, Tensor> decisions;
        if (routing->gate.granularity == Granularity::Sequence)
            for (const int block : {0, 1, 2}) decisions[block] = seen.open(block);
        for (std::int64_t i = 1; i < kNew; ++i) {
            const auto next_B1 = cached.back().argmax(2);
            ids = torch::cat({ids, next_B1}, 1);
            cached.push_back(model->logits({next_B1, {}, {}}, nullptr, cache.get()));
        }
        routing->held = decisions;
        const auto whole = model->logits({ids, {}, {}}).narrow(1, kPrompt - 1, kNew);
        EXPECT_TENSOR_NEAR(torch::cat(cached, 1), whole, 1e-10);
        EXPECT_TRUE(torch::equal(torch::cat(cached, 1).argmax(2), whole.argmax(2))) << way;
        routing->onDecision = {};
    }
}

TEST_F(Router, BatchesEqualTheirRowsAndPaddingChangesNoDecision) {
    const auto ids = someIds(6, 9);
    const torch::NoGradGuard noGrad;
    for (const auto& way : everyWay()) {
        const auto model = load();
        const auto routing = attachRouters(*model, gateOf(way), randomWeights({1, 2}, 5));
        const Recorder seen(*routing);
        const auto together = model->logits({ids, {}, {}});
        const auto open = seen.open(1);
        EXPECT_TRUE(open.any().item<bool>() && !open.all().item<bool>()) << way << " tests both decisions";
        for (std::int64_t row = 0; row < 6; ++row) {
            const auto one = ids.narrow(0, row, 1);
            EXPECT_TENSOR_NEAR(model->logits({one, {}, {}})[0], together[row], 1e-11);
            EXPECT_TRUE(torch::equal(seen.open(1)[0], open[row])) << way;
            const auto padding = torch::zeros({1, 4}, torch::kInt64), no = torch::zeros({1, 4}, torch::kBool), yes = torch::ones({1, 9}, torch::kBool);
            for (const bool left : {true, false}) {
                const auto padded = left ? torch::cat({padding, one}, 1) : torch::cat({one, padding}, 1);
                const auto mask = left ? torch::cat({no, yes}, 1) : torch::cat({yes, no}, 1);
                const std::int64_t at = left ? 4 : 0;
                EXPECT_TENSOR_NEAR(model->logits({padded, mask, {}})[0].narrow(0, at, 9), together[row], 1e-11);
                const auto decided = seen.open(1)[0];
                EXPECT_TRUE(torch::equal(decided.dim() == 0 ? decided : decided.narrow(0, at, 9), open[row])) << way << (left ? ", left" : ", right");
            }
        }
        routing->onDecision = {};
    }
}

TEST_F(Router, CachesKeysAndValuesOfTheRowsThatRunOnly) {
    constexpr std::int64_t kRows = 6, kTokens = 9, kPerToken = 2 * 2 * 10 * 8;  // keys and values, kv groups, head dim, bytes of f64
    const auto ids = someIds(kRows, kTokens);
    const torch::NoGradGuard noGrad;
    for (const auto& way : everyWay()) {
        const auto model = load();
        const auto routing = attachRouters(*model, gateOf(way), randomWeights({1, 2}, 5));
        const Recorder seen(*routing);
        const auto cache = model->makeCache(kRows, kTokens);
        model->logits({ids, {}, {}}, nullptr, cache.get());
        const bool keepsFewer = routing->gate.granularity == Granularity::Sequence && routing->gate.target != Target::Mlp;
        std::int64_t rows = 0;
        for (int block = 0; block < 4; ++block) rows += keepsFewer && (block == 1 || block == 2) ? seen.open(block).sum().item<std::int64_t>() : kRows;
        EXPECT_EQ(cache->bytes(), static_cast<std::uint64_t>(rows * kTokens * kPerToken)) << way;
        EXPECT_EQ(rows < 4 * kRows, keepsFewer) << way;
        // A new prompt is decided anew, a one-token prompt among them.
        cache->truncate(0);
        model->logits({ids.roll(1, 0).narrow(1, 0, 1), {}, {}}, nullptr, cache.get());
        const auto again = seen.open(1);
        const auto fresh = model->makeCache(kRows, 1);
        model->logits({ids.roll(1, 0).narrow(1, 0, 1), {}, {}}, nullptr, fresh.get());
        EXPECT_TRUE(torch::equal(again, seen.open(1))) << way;
        routing->onDecision = {};
    }
}

/// Counts the tokens that go through a linear map.
class CountingLinear final : public Linear {
public:
    CountingLinear(std::unique_ptr<Linear> inside, std::int64_t& tokens) : m_inside(std::move(inside)), m_tokens(tokens) {}
    Tensor forward(const Tensor& x) const override {
        m_tokens += x.numel() / x.size(-1);
        return m_inside->forward(x);
    }
    Tensor mergedWeight() const override { return m_inside->mergedWeight(); }
    Tensor bias() const override { return m_inside->bias(); }
    void visitParameters(const std::function<void(const std::string&, Tensor&)>& visit) override { m_inside->visitParameters(visit); }

private:
    std::unique_ptr<Linear> m_inside;
    std::int64_t& m_tokens;
};

TEST_F(Router, WhatIsClosedIsNotComputed) {
    constexpr std::int64_t kRows = 4, kTokens = 10, kAll = kRows * kTokens;
    const torch::NoGradGuard noGrad;
    for (const auto& way : everyWay()) {
        const auto model = load();
        std::map<std::string, std::int64_t> tokens;
        for (const auto& role : model->linearRoles(1))
            model->replaceLinear(1, role, [&](auto inside) { return std::make_unique<CountingLinear>(std::move(inside), tokens[role]); });
        const auto routing = attachRouters(*model, gateOf(way), zeroWeights({1}));
        const bool perToken = routing->gate.granularity == Granularity::Token;
        // One of four rows runs; of tokens 3 of every row.
        auto open = perToken ? torch::zeros({kRows, kTokens}, torch::kBool) : torch::zeros({kRows}, torch::kBool);
        if (perToken) open.slice(1, 0, kTokens, 4).fill_(true);
        else open[2].fill_(true);
        routing->held[1] = open;
        model->logits({someIds(kRows, kTokens), {}, {}});
        const std::int64_t some = perToken ? kRows * 3 : kTokens;
        const bool attention = routing->gate.target != Target::Mlp, mlp = routing->gate.target != Target::Attention;
        for (const auto* role : {"self_attn.q_proj", "self_attn.o_proj"}) EXPECT_EQ(tokens.at(role), attention ? some : kAll) << way << " " << role;
        for (const auto* role : {"self_attn.k_proj", "self_attn.v_proj"}) EXPECT_EQ(tokens.at(role), attention && !perToken ? some : kAll) << way << " " << role;
        for (const auto* role : {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) EXPECT_EQ(tokens.at(role), mlp ? some : kAll) << way << " " << role;
    }
}

TEST_F(Router, PoolsThePromptOrEverything) {
    const torch::NoGradGuard noGrad;
    const auto model = load();
    const auto ids = someIds(3, 10);
    auto changed = ids.clone();
    changed.narrow(1, 4, 6).copy_(someIds(3, 6, 17));
    for (const auto pool : {Pool::Prompt, Pool::All}) {
        auto gate = gateOf("attn_sequence");
        gate.pool = pool;
        const auto routing = attachRouters(*model, gate, randomWeights({0}));
        const Recorder seen(*routing);
        routing->promptTokens_B = torch::tensor({4, 3, 2}, torch::kInt64);
        model->logits({ids, {}, {}});
        const auto first = seen.last.at(0).scores;
        model->logits({changed, {}, {}});
        EXPECT_EQ(torch::equal(first, seen.last.at(0).scores), pool == Pool::Prompt) << "what follows the prompt counts only in the authors' way";
        routing->promptTokens_B = torch::Tensor();
        routing->onDecision = {};
        detachRouters(*model);
    }
    // Without a prompt the first tokens of a row stand for it.
    auto gate = gateOf("attn_sequence");
    gate.promptTokens = 4;
    const auto routing = attachRouters(*model, gate, randomWeights({0}));
    const Recorder seen(*routing);
    model->logits({ids, {}, {}});
    const auto first = seen.last.at(0).scores;
    model->logits({changed, {}, {}});
    EXPECT_TRUE(torch::equal(first, seen.last.at(0).scores));
    routing->onDecision = {};
}

TEST_F(Router, RefusesWhatItCannotRoute) {
    const auto model = load();
    EXPECT_THROW(attachRouters(*model, {}, zeroWeights({4})), Error);
    EXPECT_THROW(attachRouters(*model, {}, {{1, torch::zeros({1, 47})}}), Error);
    attachRouters(*model, {}, zeroWeights({1}));
    EXPECT_THROW(attachRouters(*model, {}, zeroWeights({2})), Error);
    const auto ids = someIds(1, 8);
    EXPECT_THROW(model->logits({ids, {}, torch::zeros({1, 8}, torch::kInt64)}), Error) << "packed rows hold several sequences";
    detachRouters(*model);
    attachRouters(*model, gateOf("mlp_token"), zeroWeights({1}));
    model->setCut(without(model->shape(), Target::Attention, {1}));
    EXPECT_THROW(model->logits({ids, {}, {}}), Error) << "the router's input is cut";
    GateOptions gate;
    EXPECT_THROW(readSpelling(gate, "attn_head", "x"), Error);
}

// --- Training ---

void offerRecipes() {
    addRecipe(routerRecipe());
    addRecipe(depth::depthRecipe());
    addModelExtension(routerExtension());
    addModelExtension(depth::depthExtension());
}

TinyRun routerRun(const Json& parameters = {}, const TinyOptions& options = {.numBlocks = 4}) {
    offerRecipes();
    Json set{{"accumulation", 2}, {"lambda", 1}, {"target_capacity", 0.5}, {"warmup_steps", 1}};
    if (parameters.is_object()) set.update(parameters);
    return tinyRun("router-tuning", set, options);
}

TEST(RouterRecipe, RoutesTheDeepestBlocksExceptTheLast) {
    ModelShape shape;
    BlockShape block;
    block.numHeads = block.numKvHeads = block.headDim = block.ffnSize = 1;
    shape.blocks.assign(32, block);
    std::vector<int> expected;
    for (int i = 15; i <= 30; ++i) expected.push_back(i);
    EXPECT_EQ(defaultBlocks(shape, Target::Attention, 16), expected);
    EXPECT_EQ(defaultBlocks(shape, Target::Attention, 0), expected);
    shape.blocks.resize(24);
    EXPECT_THAT(defaultBlocks(shape, Target::Block, 2), ElementsAre(21, 22));
    shape.blocks[22].hasFfn = false;
    EXPECT_THAT(defaultBlocks(shape, Target::Block, 2), ElementsAre(20, 21));
}

TEST(RouterRecipe, DeclaresWhatItAcceptsAndRefusesPackedSequences) {
    const auto recipe = routerRecipe();
    for (const auto& parameter : recipe->info().parameters) EXPECT_FALSE(parameter.title.empty() || parameter.help.empty()) << parameter.name;
    EXPECT_NO_THROW(trainOptions(recipe, {}));
    EXPECT_THROW(trainOptions(recipe, {{"layout", "packed"}}), Error);
    EXPECT_NO_THROW(trainOptions(recipe, {{"layout", "packed"}, {"granularity", "token"}}));
    const auto shape = Anatomy::of(tinyLlama({.numBlocks = 4}).open()).shape();
    EXPECT_EQ(recipe->size({shape}, trainOptions(recipe, {})).parameters, 2 * 48);
    EXPECT_THROW(recipe->size({shape}, trainOptions(recipe, {{"layers", "3,4"}})), Error);
}

TEST(RouterRecipe, TrainsRoutersOnlyAndReportsTheCapacityThatWasReached) {
    for (const auto& way : everyWay()) {
        const auto gate = gateOf(way);
        auto run = routerRun({{"target", way.substr(0, way.find('_'))}, {"granularity", gate.granularity == Granularity::Token ? "token" : "sequence"},
                              {"steps", 12}, {"checkpoint_every", 12}, {"merge", true}});
        const auto before = hashesBelow(run.source.path());
        const auto status = run.run();
        EXPECT_EQ(status.state, "done") << status.message;
        EXPECT_EQ(hashesBelow(run.source.path()), before);
        const auto adapter = readRouterAdapter(runResult(run.path()));
        EXPECT_EQ(adapter.gate, gate);
        EXPECT_EQ(adapter.weights.size(), 2u);
        EXPECT_GT(adapter.weights.at(1).abs().max().item<double>(), 0);
        EXPECT_EQ(adapter.capacity.at("target"), 0.5);
        EXPECT_LT(adapter.capacity.at("overall").get<double>(), 1) << way;
        // Every tensor of the base stands in the merged checkpoint as it was.
        const auto base = run.source.open(), merged = Checkpoint::open(run.path() / "merged");
        ASSERT_EQ(base.tensors().size(), merged.tensors().size());
        for (const auto& tensor : base.tensors()) EXPECT_TRUE(std::ranges::equal(base.bytes(tensor), merged.bytes(*merged.find(tensor.name)))) << tensor.name;
        std::istringstream rows(readFile(run.path() / "recipe" / "capacity.jsonl"));
        std::vector<std::int64_t> steps;
        for (std::string line; std::getline(rows, line);) steps.push_back(parseJson(line, "row").at("step").get<std::int64_t>());
        ASSERT_EQ(steps.size(), 12u);
        EXPECT_EQ(steps.back(), 12);
    }
}

TEST(RouterRecipe, WeightOfTheCapacityGrowsWhileMoreThanTheTargetRuns) {
    CapacityMeter meter({.target = 0.5, .weight = 0.1, .dualRate = 0.2});
    const auto step = [&](double first, double second) {
        const auto decision = [](int block, double share) { return Routing::Decision{block, {}, torch::full({4}, share, torch::kFloat64), {}}; };
        meter.add({decision(3, first), decision(5, second)});
        meter.endStep();
    };
    step(1, 1);
    EXPECT_NEAR(meter.weight(), 0.2, 1e-12);
    EXPECT_NEAR(meter.overall(), 1, 1e-12);
    step(1, 0);   // met
    EXPECT_NEAR(meter.weight(), 0.2, 1e-12);
    EXPECT_NEAR(meter.means().at(5), 0.9, 1e-12);
    EXPECT_NEAR(meter.overall(), 0.95, 1e-12);
    meter.add({Routing::Decision{3, {}, torch::zeros({4}), {}}});
    meter.discardStep();
    meter.endStep();
    EXPECT_NEAR(meter.weight(), 0.2, 1e-12);
    CapacityMeter again({.target = 0.5, .weight = 7, .dualRate = 0.2});
    again.restore(meter.toJson(), "kept");
    EXPECT_EQ(again.weight(), meter.weight());
    EXPECT_EQ(again.means(), meter.means());
    for (int i = 0; i < 3; ++i) step(0, 0);
    EXPECT_EQ(meter.weight(), 0) << "never a reward for running";
    // Without weight nothing pushes, as in the authors' scripts.
    auto free = routerRun({{"steps", 4}, {"lambda", 0}, {"dual_rate", 0}});
    EXPECT_EQ(free.run().state, "done");
    EXPECT_EQ(readRouterAdapter(runResult(free.path())).capacity.at("lambda"), 0.0);
}

TEST(RouterRecipe, ContinuesBitForBit) {
    const Json parameters{{"steps", 6}, {"keep", 9}, {"dual_rate", 0.3}, {"lambda", 0.1}};
    const auto whole = routerRun(parameters);
    whole.run();
    auto first = routerRun(parameters);
    first.create();
    StopAfter three(3);
    runJob(first.path(), three.job());
    EXPECT_EQ(resumeRun(first.path(), {}).state, "done");
    EXPECT_EQ(comparableRows(first.path()), comparableRows(whole.path()));
    EXPECT_EQ(sha256File(first.path() / "checkpoints/step-6/routers.safetensors"), sha256File(whole.path() / "checkpoints/step-6/routers.safetensors"));
    EXPECT_EQ(readFile(first.path() / "recipe/capacity.jsonl"), readFile(whole.path() / "recipe/capacity.jsonl"));
}

TEST(RouterRecipe, NumbersBlocksAsBeforeThePlan) {
    auto run = routerRun({{"layers", "2"}, {"steps", 2}}, {.numBlocks = 5});
    EditPlan plan;
    plan.edits = {dropBlocks({1})};
    run.job.plan = plan.toJson();
    EXPECT_EQ(run.run().state, "done");
    const auto adapter = readRouterAdapter(runResult(run.path()));
    EXPECT_EQ(adapter.numBlocks, 4);
    EXPECT_TRUE(adapter.weights.contains(1));
}

// --- Files ---

RouterAdapter someAdapter(const std::string& way, const std::vector<int>& blocks) {
    RouterAdapter adapter;
    adapter.gate = gateOf(way);
    adapter.prefix = "model.layers.";
    adapter.numBlocks = 4;
    for (auto& [block, weight] : randomWeights(blocks)) adapter.weights[block] = weight.to(torch::kFloat32);
    return adapter;
}

TEST_F(Router, CheckpointsWithRoutersReopenAndRun) {
    offerRecipes();
    const TokenBatch batch{someIds(12, 10), {}, {}};
    const torch::NoGradGuard noGrad;
    const TempFolder folder;
    for (const auto& way : everyWay()) {
        const auto adapter = someAdapter(way, {1, 2});
        fs::create_directories(folder / way);
        writeRouterAdapter(folder / way, adapter);
        EXPECT_TRUE(routerRecipe()->recognises(folder / way));
        const auto again = readRouterAdapter(folder / way);
        EXPECT_EQ(again.gate, adapter.gate);
        EXPECT_TRUE(torch::equal(again.weights.at(2), adapter.weights.at(2)));
        const auto to = folder / (way + "-model");
        routerRecipe()->writeCheckpoint(m_checkpoint, folder / way, to, {});
        const auto routed = Checkpoint::open(to);
        EXPECT_TRUE(routed.problems().empty()) << routed.problems().front().message;
        EXPECT_TRUE(Anatomy::of(routed).understood());
        EXPECT_NE(routed.fingerprint(), m_checkpoint.fingerprint());
        EXPECT_EQ(routed.config().at("model_type"), "resect");
        const auto opened = LanguageModel::load(routed, {.dtype = torch::kFloat64}), attached = load();
        attachRouters(*attached, adapter.gate, adapter.weights);
        EXPECT_TRUE(torch::equal(opened->logits(batch), attached->logits(batch))) << way;
        EXPECT_FALSE(torch::equal(opened->logits(batch), load()->logits(batch))) << way;
    }
    // What would lose the routers is refused, and a file that is not the one that was written.
    const auto routed = Checkpoint::open(folder / "attn_sequence-model");
    EXPECT_THROW(exportHuggingFace(routed, Anatomy::of(routed), emptyCut(Anatomy::of(routed).shape()), folder / "cut", {}, {}), Error);
    EXPECT_THROW(BlockStream(routed, {}), Error);
    EXPECT_THROW(routerRecipe()->writeCheckpoint(routed, folder / "attn_sequence", folder / "twice", {}), Error);
    fs::copy_file(folder / "mlp_token" / "routers.safetensors", folder / "attn_sequence-model" / "routers.safetensors", fs::copy_options::overwrite_existing);
    writeTensors(folder / "attn_sequence-model" / "routers.safetensors", {{"model.layers.1.router.weight", torch::ones({1, 48})}});
    EXPECT_THROW(LanguageModel::load(routed, {}), Error);
    fs::remove(folder / "attn_sequence-model" / "routers.safetensors");
    EXPECT_THROW(LanguageModel::load(routed, {}), Error);
    Json resect = readJsonFile(folder / "mlp_token-model" / "resect.json");
    resect["extensions"][0]["id"] = "no-such-thing";
    writeJsonFile(folder / "mlp_token-model" / "resect.json", resect);
    try {
        LanguageModel::load(Checkpoint::open(folder / "mlp_token-model"), {});
        ADD_FAILURE() << "loaded";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Unsupported);
        EXPECT_THAT(error.what(), HasSubstr("no-such-thing"));
    }
}

TEST_F(Router, BrokenAdaptersAreRefusedByName) {
    const TempFolder folder;
    const auto refusal = [&](const std::function<void(const fs::path&)>& spoil) {
        const auto own = folder / std::to_string(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()));
        fs::create_directories(own);
        writeRouterAdapter(own, someAdapter("attn_sequence", {1, 2}));
        spoil(own);
        try {
            const auto adapter = readRouterAdapter(own);
            checkFits(adapter, Anatomy::of(m_checkpoint).shape(), "here");
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string("accepted");
    };
    const auto change = [](const char* field, const Json& value) {
        return [=](const fs::path& own) {
            Json config = readJsonFile(own / "router_config.json");
            config[field] = value;
            writeJsonFile(own / "router_config.json", config);
        };
    };
    const auto replace = [](const std::string& name, const Tensor& tensor) { return [=](const fs::path& own) { writeTensors(own / "routers.safetensors", {{name, tensor}}); }; };
    EXPECT_EQ(refusal([](const fs::path&) {}), "accepted");
    EXPECT_THAT(refusal(change("resect_method", "lora")), HasSubstr("resect_method"));
    EXPECT_THAT(refusal(change("version", 2)), HasSubstr("version"));
    EXPECT_THAT(refusal(change("granularity", "attn_head")), HasSubstr("granularity"));
    EXPECT_THAT(refusal(change("pool", "some")), HasSubstr("pool"));
    EXPECT_THAT(refusal(change("is_mod", Json::array({true, false, false, false}))), HasSubstr("is_mod"));
    EXPECT_THAT(refusal(change("is_mod", Json::array({false, true, true}))), HasSubstr("3 blocks"));
    EXPECT_THAT(refusal(replace("model.layers.1.gate", torch::ones({1, 48}))), HasSubstr("model.layers.1.gate"));
    EXPECT_THAT(refusal(replace("model.layers.1.router.weight", torch::ones({48}))), HasSubstr("[1, hidden]"));
    EXPECT_THAT(refusal(replace("model.layers.1.router.weight", torch::full({1, 48}, std::nan("")))), HasSubstr("not finite"));
    EXPECT_THAT(refusal([](const fs::path& own) {
                    auto adapter = someAdapter("attn_sequence", {1});
                    adapter.weights[1] = torch::ones({1, 47});
                    writeRouterAdapter(own, adapter);
                }), HasSubstr("[1, 48]"));
}

// --- What is measured, and plans ---

TEST_F(Router, MeasurementShowsDecisionsAndPlansDropWhatIsClosed) {
    const TempFolder folder;
    const auto data = randomRows({12, 9, 12, 7, 10}, 61);
    for (const auto& way : everyWay()) {
        auto adapter = someAdapter(way, {1, 2});
        writeRouterAdapter(folder.path(), adapter);
        RunOptions options;
        options.batchRows = 2;
        options.load.dtype = torch::kFloat64;
        ModelRun run(m_checkpoint, data, options);
        const RouterMethod method;
        const auto report = method.analyse(run, Parameters(method.info().measureParameters, {{"adapter", folder.path().string()}}), {});
        for (const auto& dataset : report.datasets) {
            checkDataset(dataset, dataset.name);
            EXPECT_FALSE(dataset.title.empty() || dataset.help.empty() || dataset.unit.empty()) << dataset.name;
        }
        EXPECT_EQ(findRouting(run.model()), nullptr) << "taken off again";
        // The same from the model itself, row by row.
        const auto model = load();
        const auto routing = attachRouters(*model, adapter.gate, adapter.weights);
        const Recorder seen(*routing);
        const torch::NoGradGuard noGrad;
        const auto target = way.substr(0, way.find('_'));
        double executed = 0, units = 0;
        for (std::int64_t row = 0; row < 5; ++row) {
            model->logits({torch::tensor(data.rows[static_cast<std::size_t>(row)].ids, torch::kInt64).unsqueeze(0), {}, {}});
            EXPECT_NEAR(report.dataset("decision/sample").at({1, row}), seen.open(2).to(torch::kFloat64).mean().item<double>(), 1e-12) << way;
            EXPECT_NEAR(report.dataset("score/sample").at({0, row}), seen.last.at(1).scores.mean().item<double>(), 1e-9) << way;
            executed += static_cast<double>(seen.open(2).sum().item<std::int64_t>());
            units += static_cast<double>(seen.open(2).numel());
        }
        EXPECT_NEAR(report.dataset("capacity/" + target).at({1}), executed / units, 1e-12) << way;
        EXPECT_EQ(report.find("score/tokens") != nullptr, adapter.gate.granularity == Granularity::Token);
        routing->onDecision = {};
        // A layer that is closed for enough of the samples goes.
        Report closed = report;
        for (auto& dataset : closed.datasets)
            if (dataset.name == "capacity/" + target) dataset.values = {0, 0.25};
        const auto planOf = [&](double share) {
            return method.plan(Anatomy::of(m_checkpoint), closed, Parameters(method.info().planParameters, {{"closed", share}}));
        };
        const char* op = adapter.gate.target == Target::Attention ? "drop_attention" : adapter.gate.target == Target::Mlp ? "drop_mlp" : "drop_blocks";
        ASSERT_EQ(planOf(1).edits.size(), 1u);
        EXPECT_EQ(planOf(1).edits[0]->toJson(), (Json{{"op", op}, {"blocks", {1}}}));
        EXPECT_EQ(planOf(0.7).edits[0]->toJson(), (Json{{"op", op}, {"blocks", {1, 2}}}));
        closed.datasets[0].values = {1, 1};
        EXPECT_TRUE(planOf(1).edits.empty());
    }
}

// --- Mixture-of-Depths ---

std::map<int, depth::DepthWeights> depthWeights(const depth::DepthOptions& options, const std::vector<int>& blocks, double std = 1) {
    std::map<int, depth::DepthWeights> weights;
    for (const int block : blocks) weights[block] = depth::initialWeights(options, 48, std, 11 + static_cast<std::uint64_t>(block));
    return weights;
}

TEST_F(Router, DepthChoosesExactlyItsCapacityAndTiesGoToTheFirst) {
    const torch::NoGradGuard noGrad;
    const auto ids = someIds(3, 16);
    for (const double capacity : {0.125, 0.4, 1.0}) {
        const auto model = load();
        const depth::DepthOptions options{.capacity = capacity};
        auto weights = depthWeights(options, {1, 3});
        weights[3]["router.weight"].zero_();   // all alike
        const auto routed = depth::attachDepth(*model, options, weights);
        routed->selection = depth::Selection::Best;
        std::map<int, depth::Depth::Choice> seen;
        routed->onChoice = [&](const depth::Depth::Choice& choice) { seen[choice.block] = choice; };
        TokenBatch batch{ids, torch::ones({3, 16}, torch::kBool), {}};
        batch.mask_BT[2].slice(0, 0, 6).fill_(false);
        model->logits(batch);
        for (const int block : {1, 3}) {
            EXPECT_EQ(seen.at(block).chosen_BT[0].sum().item<std::int64_t>(), static_cast<std::int64_t>(capacity * 16));
            EXPECT_EQ(seen.at(block).chosen_BT[2].sum().item<std::int64_t>(), std::max<std::int64_t>(1, static_cast<std::int64_t>(capacity * 10)));
            EXPECT_FALSE((seen.at(block).chosen_BT & batch.mask_BT.logical_not()).any().item<bool>()) << "padding never runs";
        }
        const auto count = static_cast<std::int64_t>(capacity * 16);
        EXPECT_TRUE(seen.at(3).chosen_BT[1].narrow(0, 0, count).all().item<bool>());
    }
}

TEST_F(Router, DepthOfAllTokensWithoutWeightsIsTheDenseModel) {
    const TokenBatch batch{someIds(2, 12), {}, {}};
    const auto dense = load()->logits(batch).detach();
    const auto model = load();
    const depth::DepthOptions options{.capacity = 1, .weighing = depth::Weighing::None};
    const auto routed = depth::attachDepth(*model, options, depthWeights(options, {1, 3}));
    routed->selection = depth::Selection::Best;
    EXPECT_TENSOR_NEAR(model->logits(batch), dense, 1e-11);
    EXPECT_EQ(depth::routedBlocks(model->shape(), 2), (std::vector<int>{1, 3}));
}

/// One block of the paper's, written out for a single row: x + r f(x) among the chosen, x elsewhere.
TEST_F(Router, DepthAddsTheWeighedBlockOfTheChosenTokensAtTheirPositions) {
    const torch::NoGradGuard noGrad;
    const auto model = load();
    const depth::DepthOptions options{.capacity = 0.5};
    const auto routed = depth::attachDepth(*model, options, depthWeights(options, {1}));
    routed->selection = depth::Selection::Best;
    depth::Depth::Choice choice;
    routed->onChoice = [&](const depth::Depth::Choice& seen) { choice = seen; };
    const TokenBatch batch{someIds(1, 8), {}, {}};
    Streams streams(1);
    model->logits(batch, &streams);
    const auto x_TD = streams.input[0];
    const auto chosen = choice.chosen_BT[0].nonzero().view(-1);
    ASSERT_EQ(chosen.size(0), 4);
    const auto moved_TD = (streams.output[0] - x_TD).index_select(0, chosen);
    const auto still = choice.chosen_BT[0].logical_not().nonzero().view(-1);
    EXPECT_EQ((streams.output[0] - x_TD).index_select(0, still).abs().max().item<double>(), 0);
    const auto r_n = torch::matmul(x_TD.index_select(0, chosen), routed->weights.at(1).at("router.weight").squeeze(0));
    // f of the first chosen token sees itself only, wherever it stands: attention is relative.
    const auto dense = load();
    const auto first_11D = x_TD.index_select(0, chosen.narrow(0, 0, 1)).unsqueeze(0);
    const auto out = dense->runBlocks(first_11D, {torch::zeros({1, 1}, torch::kInt64), {}, {}}, 1, 2);
    EXPECT_TENSOR_NEAR(moved_TD[0], (out - first_11D)[0][0] * r_n[0], 1e-10);
}

TEST_F(Router, DepthGeneratesWithThePredictorAsItRunsWhole) {
    const torch::NoGradGuard noGrad;
    for (const auto predictor : {depth::Predictor::Mlp, depth::Predictor::Linear, depth::Predictor::Router}) {
        const auto model = load();
        const depth::DepthOptions options{.capacity = 0.5, .weighing = depth::Weighing::Sigmoid, .predictor = predictor};
        const auto routed = depth::attachDepth(*model, options, depthWeights(options, {1, 3}));
        bool some = false, none = false;
        routed->onChoice = [&](const depth::Depth::Choice& choice) {
            some |= choice.chosen_BT.any().item<bool>();
            none |= !choice.chosen_BT.all().item<bool>();
        };
        const auto ids = someIds(3, 15);
        const auto whole = model->logits({ids, {}, {}});
        EXPECT_TRUE(some && none);
        const auto cache = model->makeCache(3, 15);
        std::vector<Tensor> pieces;
        for (const auto& [begin, end] : {std::pair{0, 6}, {6, 7}, {7, 8}, {8, 13}, {13, 15}}) pieces.push_back(model->logits({ids.slice(1, begin, end), {}, {}}, nullptr, cache.get()));
        EXPECT_TENSOR_NEAR(torch::cat(pieces, 1), whole, 1e-10);
        cache->truncate(7);
        EXPECT_TENSOR_NEAR(model->logits({ids.slice(1, 7), {}, {}}, nullptr, cache.get()), whole.slice(1, 7), 1e-10);
        // Padded on the left, too.
        auto mask = torch::ones({3, 15}, torch::kBool);
        mask[1].slice(0, 0, 4).fill_(false);
        const auto padded = model->logits({ids, mask, {}});
        EXPECT_TENSOR_NEAR(padded[1].slice(0, 4), model->logits({ids.slice(0, 1, 2).slice(1, 4), {}, {}})[0], 1e-10);
        const auto second = model->makeCache(3, 15);
        model->logits({ids.slice(1, 0, 8), mask.slice(1, 0, 8), {}}, nullptr, second.get());
        EXPECT_TENSOR_NEAR(model->logits({ids.slice(1, 8), {}, {}}, nullptr, second.get())[1], padded[1].slice(0, 8), 1e-10);
    }
}

TEST(DepthRecipe, TrainsTheModelWithItsRoutersAndReopens) {
    offerRecipes();
    const Json parameters{{"mod_capacity", 0.25}, {"steps", 6}, {"keep", 9}, {"lr", 1e-3}};
    const auto whole = tinyRun("mixture-of-depths", parameters, {.numBlocks = 4});
    const auto status = whole.run();
    EXPECT_EQ(status.state, "done") << status.message;
    const auto result = Checkpoint::open(runResult(whole.path()));
    EXPECT_TRUE(result.problems().empty());
    const auto model = LanguageModel::load(result, {});
    const auto routed = depth::findDepth(*model);
    ASSERT_NE(routed, nullptr);
    EXPECT_EQ(routed->options.capacity, 0.25);
    EXPECT_EQ(routed->weights.size(), 2u);
    const auto initial = depth::initialWeights(routed->options, 48, 0.02, whole.job.seed + 1);
    EXPECT_GT((routed->weights.at(1).at("router.weight") - initial.at("router.weight")).abs().max().item<double>(), 0) << "the text's loss trains the router";
    EXPECT_GT((routed->weights.at(1).at("predictor.out.weight") - initial.at("predictor.out.weight")).abs().max().item<double>(), 0);
    // Stopped and resumed.
    auto first = tinyRun("mixture-of-depths", parameters, {.numBlocks = 4});
    first.create();
    StopAfter three(3);
    runJob(first.path(), three.job());
    EXPECT_EQ(resumeRun(first.path(), {}).state, "done");
    EXPECT_EQ(comparableRows(first.path()), comparableRows(whole.path()));
    EXPECT_EQ(sha256File(first.path() / "checkpoints/step-6/routers.safetensors"), sha256File(whole.path() / "checkpoints/step-6/routers.safetensors"));
    EXPECT_THROW(trainOptions(depth::depthRecipe(), {{"layout", "packed"}}), Error);
}

}  // namespace
}  // namespace resect::router
