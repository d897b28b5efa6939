#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/measure/importance.h"
#include "core/models/ops.h"
#include "core/models/tensor_file.h"
#include "core/surgery/edit_plan.h"
#include "core/train/adamw.h"
#include "core/train/lora.h"
#include "core/train/losses.h"
#include "core/train/trained_parts.h"
#include "plugins/s2ft/s2_adapter.h"
#include "plugins/s2ft/s2_linear.h"
#include "plugins/s2ft/s2_measure.h"
#include "plugins/s2ft/s2_recipe.h"
#include "plugins/s2ft/s2_scores.h"
#include "plugins/s2ft/s2_selection.h"
#include "tests/core/measure/rows.h"
#include "tests/core/train/train_support.h"

#include <gmock/gmock.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <numeric>
#include <set>

namespace resect::s2 {
namespace {

namespace fs = std::filesystem;
using namespace resect::test;
using testing::ElementsAre;
using testing::HasSubstr;

TrainBatch batchOf(const std::vector<TokenRow>& rows) {
    std::vector<const TokenRow*> pointers;
    for (const auto& row : rows) pointers.push_back(&row);
    return makeBatch(pointers);
}

std::vector<TokenRow> someRows(int count, int length, int vocabulary = 61, std::uint64_t seed = 1) {
    return randomRows(std::vector<int>(static_cast<std::size_t>(count), length), vocabulary, seed).rows;
}

torch::Tensor logitsOf(const LanguageModel& model) {
    torch::NoGradGuard noGrad;
    return model.logits(batchOf(someRows(2, 9, static_cast<int>(model.shape().vocabSize))).tokens);
}

double largest(const torch::Tensor& x) { return x.abs().max().item<double>(); }

/// All units of some parts of a model.
Selection everything(const ModelShape& shape, std::initializer_list<Part> parts) {
    Selection selection;
    for (const Part part : parts)
        for (const Pool& pool : poolsOf(shape, part)) {
            std::vector<int> units(static_cast<std::size_t>(pool.units));
            std::iota(units.begin(), units.end(), 0);
            selection.push_back({pool, units});
        }
    return selection;
}

std::map<std::string, S2Linear*> attach(LanguageModel& model, const Selection& selection) {
    std::map<std::string, S2Linear*> layers;
    for (const Trained& trained : selection)
        model.replaceLinear(trained.pool.block, trained.pool.role, [&](std::unique_ptr<Linear> base) {
            auto made = std::make_unique<S2Linear>(std::move(base), trained.pool.side(), trained.pool.places(trained.units));
            layers[trained.pool.tensor] = made.get();
            return made;
        });
    return layers;
}

/// A few units of every part that the model has: not neighbours, heads of different kv groups.
Selection someUnits(const ModelShape& shape, std::initializer_list<Part> parts = {Part::Output, Part::Down, Part::Value, Part::Up}) {
    Selection selection;
    for (const Part part : parts)
        for (const Pool& pool : poolsOf(shape, part)) {
            std::set<int> units{0, pool.units - 1, pool.units / 2};
            selection.push_back({pool, {units.begin(), units.end()}});
        }
    return selection;
}

std::map<std::string, torch::Tensor> denseGradients(const Checkpoint& checkpoint, torch::ScalarType dtype, const TrainBatch& batch) {
    const auto model = LanguageModel::load(checkpoint, {.dtype = dtype, .trainable = true});
    model->loss(batch.tokens, batch.targets_BT).backward();
    std::map<std::string, torch::Tensor> gradients;
    model->visitParameters([&](const std::string& name, torch::Tensor& parameter) { gradients[name] = parameter.grad(); });
    return gradients;
}

Adapter randomAdapter(const Checkpoint& base, std::uint64_t seed, const Selection& selection) {
    Adapter adapter;
    const auto shape = Anatomy::of(base).shape();
    adapter.base = base.folder().string();
    adapter.fingerprint = base.fingerprint();
    adapter.numBlocks = shape.numBlocks();
    adapter.transposed = familyOf(shape).transposedLinears;
    torch::manual_seed(seed);
    for (const Trained& trained : selection) {
        auto stored = base.find(trained.pool.tensor)->shape;
        if (adapter.transposed) std::ranges::reverse(stored);
        Delta delta{trained.pool.side(), stored[0], stored[1], {}, {}};
        for (const auto place : trained.pool.places(trained.units)) delta.index.push_back(static_cast<std::int32_t>(place));
        const auto k = static_cast<std::int64_t>(delta.index.size());
        delta.value = delta.side == Side::In ? torch::randn({delta.out, k}) * 0.1 : torch::randn({k, delta.in}) * 0.1;
        adapter.deltas[trained.pool.tensor] = delta;
    }
    return adapter;
}

ModelShape llamaShape(int blocks, int hidden, int heads, int kvHeads, int ffn) {
    ModelShape shape;
    shape.modelType = "llama";
    shape.architecture = "LlamaForCausalLM";
    shape.hiddenSize = hidden;
    shape.vocabSize = 32000;
    BlockShape block;
    block.numHeads = heads;
    block.numKvHeads = kvHeads;
    block.headDim = hidden / heads;
    block.headsPerKv.assign(static_cast<std::size_t>(kvHeads), heads / kvHeads);
    block.ffnSize = ffn;
    shape.blocks.assign(static_cast<std::size_t>(blocks), block);
    return shape;
}

// --- What is chosen ---

TEST(S2Selection, CountsWhatThePaperTrains) {
    const auto recipe = s2Recipe();
    const auto llama2 = llamaShape(32, 4096, 32, 32, 11008), llama3 = llamaShape(32, 4096, 32, 8, 14336);
    EXPECT_EQ((Amount{0.052, 0}.of(32 * 32)), 53);
    EXPECT_EQ((Amount{0.02, 0}.of(32 * 11008)), 7045);
    EXPECT_EQ(recipe->size({llama2}, trainOptions(recipe, {{"o_ratio", 0.052}, {"d_ratio", 0.02}})).parameters, 56'643'584);
    EXPECT_EQ(recipe->size({llama3}, trainOptions(recipe, {{"o_ratio", 0}, {"d_ratio", 0.03}})).parameters, 56'369'152);
    EXPECT_EQ((Amount{0.29, 0}.of(100)), 29) << "not cut off by the binary fraction";
    EXPECT_EQ((Amount{0.9, 4}.of(100)), 4) << "a number goes before the share";
}

TEST(S2Selection, LargestAndSmallestOfUpToHalfAreDisjointAndTiesAreStable) {
    const auto shape = Anatomy::of(tinyLlama().open()).shape();
    const auto pools = poolsOf(shape, Part::Down);
    auto scores = randomScores(pools, 3);
    for (auto& list : scores) list[5] = list[6] = list[7];
    const Amount half{0.5, 0};
    std::set<std::pair<std::string, int>> seen;
    std::size_t total = 0;
    for (const End end : {End::Smallest, End::Largest})
        for (const auto& trained : choose(pools, scores, half, Scope::Global, end))
            for (const int unit : trained.units) seen.insert({trained.pool.tensor, unit}), ++total;
    EXPECT_EQ(total, 2u * 64u);
    EXPECT_EQ(seen.size(), total);
    const Scores even(pools.size(), std::vector<double>(43, 1.0));
    const auto first = choose(pools, even, {0, 3}, Scope::Global, End::Largest);
    ASSERT_EQ(first.size(), 1u);
    EXPECT_THAT(first[0].units, ElementsAre(0, 1, 2));
    EXPECT_EQ(choose(pools, even, {0, 3}, Scope::PerBlock, End::Smallest).size(), 3u);
    EXPECT_THROW(choose(pools, even, {0, 44}, Scope::PerBlock, End::Smallest), Error);
}

TEST(S2Selection, RandomIsDrawnFromTheSeedAlone) {
    const auto shape = Anatomy::of(tinyLlama().open()).shape();
    const auto pools = poolsOf(shape, Part::Output);
    EXPECT_EQ(randomScores(pools, 3), randomScores(pools, 3));
    EXPECT_NE(randomScores(pools, 3), randomScores(pools, 4));
}

TEST(S2Selection, ReadsPlanLikeListsAndNamedSelections) {
    const auto shape = Anatomy::of(tinyLlama().open()).shape();
    const auto selection = readSelection(R"([{"block": 2, "heads": [5, 1]}, {"block": 0, "channels": [7], "projection": "up"}, {"block": 0, "groups": [1]},
        {"kind": "channel", "block": 1, "expert": -1, "index": 3}, {"kind": "head", "block": 2, "index": 0}])", shape, nullptr, nullptr);
    std::map<std::string, std::vector<std::int64_t>> found;
    for (const auto& trained : selection) found[trained.pool.tensor] = trained.pool.places(trained.units);
    ASSERT_EQ(found.size(), 4u);
    EXPECT_EQ(found.at("model.layers.2.self_attn.o_proj.weight").size(), 30u);
    EXPECT_EQ(found.at("model.layers.2.self_attn.o_proj.weight")[10], 10) << "head 1 follows head 0";
    EXPECT_EQ(found.at("model.layers.2.self_attn.o_proj.weight")[20], 50);
    EXPECT_THAT(found.at("model.layers.0.mlp.up_proj.weight"), ElementsAre(7));
    EXPECT_EQ(found.at("model.layers.0.self_attn.v_proj.weight").front(), 10);
    EXPECT_THAT(found.at("model.layers.1.mlp.down_proj.weight"), ElementsAre(3));
    // What a run keeps of it reads back as the same.
    const auto again = selectionFromJson(toJson(selection), shape, "selection.json");
    ASSERT_EQ(again.size(), selection.size());
    for (std::size_t i = 0; i < again.size(); ++i) EXPECT_EQ(again[i].units, selection[i].units);
}

TEST(S2Selection, FollowsThePlanFromTheNumbersOfTheSource) {
    const auto source = Anatomy::of(tinyLlama().open()).shape();
    EditPlan plan;
    plan.edits = {dropBlocks({1}), dropChannels(2, {3, 17}), dropKvGroups(2, {0})};
    const auto cut = cutOf(plan, source);
    const auto left = shapeAfter(source, cut);
    const auto selection = readSelection(R"([{"block": 2, "channels": [2, 4, 40]}, {"block": 2, "heads": [3]}])", left, &source, &cut);
    ASSERT_EQ(selection.size(), 2u);
    EXPECT_EQ(selection[0].pool.tensor, "model.layers.1.self_attn.o_proj.weight");
    EXPECT_THAT(selection[0].units, ElementsAre(0)) << "heads 0 to 2 went with their kv group";
    EXPECT_THAT(selection[1].units, ElementsAre(2, 3, 38));
    for (const char* gone : {R"([{"block": 1, "heads": [0]}])", R"([{"block": 2, "channels": [17]}])", R"([{"block": 2, "heads": [2]}])"})
        EXPECT_THROW(readSelection(gone, left, &source, &cut), Error) << gone;
}

TEST(S2Selection, RefusesWhatTheModelDoesNotHaveByEntry) {
    const auto shape = Anatomy::of(tinyLlama().open()).shape();
    const auto complaint = [&](const char* text) -> std::string {
        try {
            readSelection(text, shape, nullptr, nullptr);
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_THAT(complaint(R"([{"block": 0, "heads": [1]}, {"block": 3, "heads": [1]}])"), testing::AllOf(HasSubstr("entry 1"), HasSubstr("0 to 2"), HasSubstr("found 3")));
    EXPECT_THAT(complaint(R"([{"block": 0, "heads": [6]}])"), HasSubstr("head 0 to 5"));
    EXPECT_THAT(complaint(R"([{"block": 0, "experts": [1]}])"), HasSubstr("experts"));
    EXPECT_THAT(complaint(R"([{"block": 0, "channels": "all"}])"), HasSubstr("channels: expected a list"));
    EXPECT_THAT(complaint(R"([{"block": 0, "expert": 1, "channels": [1]}])"), HasSubstr("no experts"));
    EXPECT_THAT(complaint(R"([{"kind": "block", "block": 0, "index": 0}])"), HasSubstr("found block"));
    EXPECT_THAT(complaint("[]"), HasSubstr("no component"));
}

TEST(S2Scores, ActivationsAreTheMeansThatTheMeasurementFinds) {
    const auto tiny = tinyLlama();
    const auto checkpoint = tiny.open();
    const auto data = randomRows({11, 7, 11, 5}, 61);
    ModelRun run(checkpoint, data, {});
    const auto expected = measureActivations(run, {});
    const auto model = LanguageModel::load(checkpoint, {});
    std::map<Part, std::vector<Pool>> pools;
    for (const Part part : kParts) pools[part] = poolsOf(model->shape(), part);
    const auto before = logitsOf(*model);
    const auto scores = measureScores(*model, pools, Ranking::Activation, data.rows, 2, 0, {});
    EXPECT_TRUE(logitsOf(*model).equal(before)) << "the meters are gone";
    for (std::size_t block = 0; block < 3; ++block) {
        for (std::size_t head = 0; head < 6; ++head) EXPECT_NEAR(scores.at(Part::Output)[block][head], expected.head.mean.score[block][head], 1e-6);
        for (std::size_t channel = 0; channel < 43; ++channel) {
            EXPECT_NEAR(scores.at(Part::Down)[block][channel], expected.channel.mean.score[block][channel], 1e-6);
            EXPECT_EQ(scores.at(Part::Up)[block][channel], scores.at(Part::Down)[block][channel]);
        }
        for (std::size_t group = 0; group < 2; ++group) EXPECT_NEAR(scores.at(Part::Value)[block][group], expected.group.mean.score[block][group] / 3, 1e-6);
    }
}

TEST(S2Scores, WeightsProductsAndGradientsAreNormsOfTheTrainedSlices) {
    const auto tiny = tinyLlama();
    const auto rows = someRows(3, 9);
    const auto batch = batchOf(rows);
    const auto dense = denseGradients(tiny.open(), torch::kFloat32, batch);
    const auto model = LanguageModel::load(tiny.open(), {});
    std::map<Part, std::vector<Pool>> pools;
    for (const Part part : kParts) pools[part] = poolsOf(model->shape(), part);
    const auto weight = measureScores(*model, pools, Ranking::Weight, {}, 2, 0, {}), product = measureScores(*model, pools, Ranking::Product, rows, 2, 0, {}),
               active = measureScores(*model, pools, Ranking::Activation, rows, 2, 0, {}), gradient = measureScores(*model, pools, Ranking::Gradient, rows, 2, 0, {});
    std::map<std::string, torch::Tensor> weights;
    model->visitParameters([&](const std::string& name, torch::Tensor& parameter) {
        weights[name] = parameter;
        EXPECT_FALSE(parameter.requires_grad() || parameter.grad().defined()) << name << " is left as it was";
    });
    for (const auto& [part, list] : pools)
        for (std::size_t p = 0; p < list.size(); ++p)
            for (int unit = 0; unit < list[p].units; ++unit) {
                const auto index = torch::tensor(list[p].places({unit}), torch::kInt64);
                const auto u = static_cast<std::size_t>(unit);
                const double w = sliceOf(weights.at(list[p].tensor), list[p].side(), index).norm().item<double>();
                EXPECT_NEAR(weight.at(part)[p][u], w, 1e-5);
                EXPECT_NEAR(product.at(part)[p][u], w * active.at(part)[p][u], 1e-5);
                EXPECT_NEAR(gradient.at(part)[p][u], sliceOf(dense.at(list[p].tensor), list[p].side(), index).norm().item<double>(), 1e-5) << list[p].tensor << " " << unit;
            }
}

TEST(S2Scores, AreReportedForTheViews) {
    const auto tiny = tinyLlama();
    const auto checkpoint = tiny.open();
    const auto data = randomRows({11, 7, 11}, 61);
    ModelRun run(checkpoint, data, {});
    const S2Measure measure;
    const auto report = measure.analyse(run, Parameters(measure.info().measureParameters, nullptr), {});
    EXPECT_EQ(report.datasets.size(), 12u);
    EXPECT_FALSE(report.partial());
    for (const auto& dataset : report.datasets) EXPECT_NO_THROW(checkDataset(dataset, dataset.name));
    const auto expected = measureActivations(run, {});
    EXPECT_NEAR(report.dataset("channel/s2_activation").at({1, 7}), expected.channel.mean.score[1][7], 1e-6);
    EXPECT_GT(report.dataset("head/s2_gradient").at({2, 5}), 0);
    StopAfter soon(2);
    EXPECT_TRUE(measure.analyse(run, Parameters(measure.info().measureParameters, nullptr), soon.job()).partial());
}

TEST(S2Scores, ExpertsThatNoTokenReachedAreNotChosen) {
    const auto model = LanguageModel::load(tinyMixtral().open(), {});
    const std::map<Part, std::vector<Pool>> pools{{Part::Down, poolsOf(model->shape(), Part::Down)}};
    EXPECT_EQ(pools.at(Part::Down).size(), 12u);
    // One token reaches two experts of four in each block.
    const auto scores = measureScores(*model, pools, Ranking::Activation, someRows(1, 1), 1, 0, {}).at(Part::Down);
    const auto unreached = std::ranges::count_if(scores, [](const auto& list) { return std::isnan(list[0]); });
    EXPECT_EQ(unreached, 6);
    for (const auto& trained : choose(pools.at(Part::Down), scores, {0.3, 0}, Scope::Global, End::Smallest)) {
        const auto& pool = trained.pool;
        EXPECT_FALSE(std::isnan(scores[static_cast<std::size_t>(pool.block * 4 + pool.expert)][0]));
    }
}

// --- The partly trained map ---

TEST(S2Linear, GradientsAreThoseColumnsAndRowsOfTheDenseOnesBitForBit) {
    for (const bool biased : {false, true}) {
        const auto tiny = biased ? tinyQwen2() : tinyLlama();   // grouped queries; Qwen2: biases of q, k and v
        const auto batch = batchOf(someRows(3, 11));
        const auto dense = denseGradients(tiny.open(), torch::kFloat64, batch);
        const auto model = LanguageModel::load(tiny.open(), {.dtype = torch::kFloat64});
        const auto layers = attach(*model, someUnits(model->shape()));
        EXPECT_EQ(layers.size(), 12u);
        model->loss(batch.tokens, batch.targets_BT).backward();
        for (const auto& [name, layer] : layers)
            EXPECT_TRUE(layer->trained().grad().equal(sliceOf(dense.at(name), layer->side(), layer->index()))) << name << largest(layer->trained().grad() - sliceOf(dense.at(name), layer->side(), layer->index()));
        model->visitParameters([](const std::string& name, torch::Tensor& parameter) { EXPECT_FALSE(parameter.grad().defined()) << name; });
    }
}

TEST(S2Linear, ChangesNothingBeforeTheFirstStep) {
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
        const auto tiny = tinyLlama();
        const auto base = LanguageModel::load(tiny.open(), {.dtype = dtype}), model = LanguageModel::load(tiny.open(), {.dtype = dtype});
        const auto layers = attach(*model, someUnits(model->shape()));
        for (const auto& [name, layer] : layers) layer->write();
        EXPECT_TRUE(logitsOf(*model).equal(logitsOf(*base)));
    }
}

TEST(S2Linear, KeepsTheTrainedColumnsOnlyForTheBackwardPass) {
    const auto weight = torch::randn({7, 40});
    const S2Linear in(denseLinear(weight.clone(), {}), Side::In, {3, 8}), out(denseLinear(weight.clone(), {}), Side::Out, {2});
    const auto frozen = denseLinear(weight.clone(), {});
    const auto holders = [](const Linear& linear) {
        auto x = torch::randn({5, 40}).requires_grad_();
        const auto before = x.storage().use_count();
        const auto y = linear.forward(x);
        return x.storage().use_count() - before;
    };
    EXPECT_EQ(holders(in), 0u) << "a copy of two columns";
    EXPECT_GT(holders(out), 0u);
    EXPECT_EQ(holders(*frozen), 0u) << "under a frozen weight nothing of the input is needed";
}

TEST(S2Linear, AccumulatedMicroBatchesEqualOneBatch) {
    const auto tiny = tinyLlama();
    const auto rows = someRows(4, 9);
    const auto once = LanguageModel::load(tiny.open(), {}), parts = LanguageModel::load(tiny.open(), {});
    const auto a = attach(*once, someUnits(once->shape())), b = attach(*parts, someUnits(parts->shape()));
    accumulateGradients(*once, nullptr, batchOf(rows), {}, 1);
    for (const auto& row : rows) accumulateGradients(*parts, nullptr, batchOf({row}), {}, 0.25);
    for (const auto& [name, layer] : a) EXPECT_LT(largest(layer->trained().grad() - b.at(name)->trained().grad()), 1e-6) << name;
}

TEST(S2Linear, RatioOneTrainsAsTheDenseTensorsDo) {
    const auto tiny = tinyLlama();
    const auto batch = batchOf(someRows(3, 11));
    const auto sliced = LanguageModel::load(tiny.open(), {}), dense = LanguageModel::load(tiny.open(), {});
    auto layers = attach(*sliced, everything(sliced->shape(), {Part::Output, Part::Down}));
    const auto slotOf = [](const std::string& name, torch::Tensor parameter) {
        AdamWSlot slot{name, parameter, parameter, torch::zeros_like(parameter).detach(), torch::zeros_like(parameter).detach(), {}, 0.1};
        return slot;
    };
    std::vector<AdamWSlot> ours, theirs;
    for (auto& [name, layer] : layers) ours.push_back(slotOf(name, layer->trained()));
    dense->visitParameters([&](const std::string& name, torch::Tensor& parameter) {
        if (layers.contains(name)) theirs.push_back(slotOf(name, parameter.set_requires_grad(true)));
    });
    for (int step = 1; step <= 3; ++step) {
        for (const auto& [model, slots] : {std::pair{sliced.get(), &ours}, std::pair{dense.get(), &theirs}}) {
            model->loss(batch.tokens, batch.targets_BT).backward();
            for (auto& slot : *slots) slot.gradient = slot.parameter.grad();
            adamwStep(*slots, {.learningRate = 0.01, .step = step});
            for (auto& slot : *slots) slot.gradient = slot.parameter.mutable_grad() = torch::Tensor();
        }
        for (auto& [name, layer] : layers) layer->write();
    }
    ASSERT_EQ(theirs.size(), 6u);
    for (const auto& slot : theirs) EXPECT_TRUE(layers.at(slot.name)->mergedWeight().equal(slot.parameter.detach())) << slot.name;
}

TEST(S2Linear, StructuredPermutationsKeepTheFunctionWhichIsWhyNoneIsNeeded) {
    // Kv groups swapped with their query heads, heads swapped inside a group, channels reversed: with grouped queries and biases of q, k and v.
    const auto tiny = tinyQwen2();
    const auto model = LanguageModel::load(tiny.open(), {.dtype = torch::kFloat64});
    const auto before = logitsOf(*model);
    torch::NoGradGuard noGrad;
    const auto places = [](std::vector<std::int64_t> units, std::int64_t width) {
        std::vector<std::int64_t> list;
        for (const auto unit : units)
            for (std::int64_t i = 0; i < width; ++i) list.push_back(unit * width + i);
        return torch::tensor(list, torch::kInt64);
    };
    const auto heads = places({5, 3, 4, 0, 2, 1}, 10), groups = places({1, 0}, 10), channels = torch::arange(42, -1, -1, torch::kInt64);
    const auto inside = places({0, 1, 2, 3, 4, 5}, 10).view({6, 10}).flip(1).reshape({-1});
    std::map<std::string, torch::Tensor> q;
    model->visitParameters([&](const std::string& name, torch::Tensor& w) {
        const auto is = [&](const char* role) { return name.find(role) != std::string::npos; };
        if (is("q_proj")) q[name] = w, w.copy_(w.index_select(0, heads).clone());
        if (is("k_proj") || is("v_proj")) w.copy_(w.index_select(0, groups).clone());
        if (is("o_proj.weight")) w.copy_(w.index_select(1, heads).clone());
        if (is("gate_proj") || is("up_proj")) w.copy_(w.index_select(0, channels).clone());
        if (is("down_proj.weight")) w.copy_(w.index_select(1, channels).clone());
    });
    EXPECT_LT(largest(logitsOf(*model) - before), 1e-10);
    for (auto& [name, w] : q) w.copy_(w.index_select(0, inside).clone());
    EXPECT_GT(largest(logitsOf(*model) - before), 1e-3) << "dimensions inside a query head are tied to their rotation";
}

// --- Adapters ---

class S2Families : public testing::TestWithParam<const char*> {};

TEST_P(S2Families, DeltaInPlaceMergedAndPeftFormsAgree) {
    const std::string type = GetParam();
    const auto tiny = type == "llama" ? tinyLlama() : type == "mixtral" ? tinyMixtral() : tinyFamily(type);
    const auto base = tiny.open();
    const bool mixture = type == "mixtral";
    const auto model = LanguageModel::load(base, {});
    const auto before = logitsOf(*model);
    const auto selection = someUnits(model->shape());
    ASSERT_FALSE(selection.empty());
    const auto adapter = randomAdapter(base, 5, selection);
    const TempFolder out;
    fs::create_directories(out / "native");
    writeAdapter(out / "native", adapter);
    const auto read = readAdapter(out / "native");
    fs::create_directories(out / "peft");
    writeLoraAdapter(out / "peft", asPeft(read));
    mergeOnto(base, read, out / "merged", {});
    mergeAdapter(base, out / "peft", out / "from-peft");
    const auto merged = logitsOf(*LanguageModel::load(Checkpoint::open(out / "merged"), {}));
    EXPECT_GT(largest(merged - before), 1e-3);
    const double tolerance = 1e-5 * std::max(1.0, largest(merged));
    EXPECT_LT(largest(merged - logitsOf(*LanguageModel::load(Checkpoint::open(out / "from-peft"), {}))), tolerance);
    {
        Switcher switcher(*model);
        switcher.apply(&read);
        EXPECT_LT(largest(merged - logitsOf(*model)), tolerance);
    }
    EXPECT_TRUE(logitsOf(*model).equal(before)) << "the base is back";
    if (mixture) {
        EXPECT_THROW(Server(*model, std::array{&read}), Error);
        return;
    }
    Server server(*model, std::array<const Adapter*, 1>{&read});
    server.assign({0, 0});
    torch::NoGradGuard noGrad;
    EXPECT_LT(largest(merged - logitsOf(*model)), tolerance);
}
INSTANTIATE_TEST_SUITE_P(Shapes, S2Families, testing::Values("llama", "mixtral", "gpt2", "phi3", "gemma2", "qwen3"));

TEST(S2Adapter, OutsideTheTrainedSlicesEveryByteIsTheBases) {
    const auto tiny = tinyLlama({.dtype = DType::BF16});
    const auto base = tiny.open();
    const auto selection = someUnits(Anatomy::of(base).shape());
    const auto adapter = randomAdapter(base, 3, selection);
    const TempFolder out;
    mergeOnto(base, adapter, out / "merged", {});
    const auto merged = Checkpoint::open(out / "merged");
    for (const auto& info : base.tensors()) {
        const auto before = storedTensor(base, info), after = storedTensor(merged, *merged.find(info.name));
        const auto found = adapter.deltas.find(info.name);
        if (found == adapter.deltas.end()) {
            EXPECT_TRUE(before.equal(after)) << info.name;
            continue;
        }
        const auto& delta = found->second;
        const auto index = torch::tensor(std::vector<std::int64_t>(delta.index.begin(), delta.index.end()));
        const auto expected = (sliceOf(before, delta.side, index).to(torch::kFloat32) + delta.value).to(torch::kBFloat16);
        EXPECT_TRUE(sliceOf(after, delta.side, index).equal(expected)) << "rounded once";
        auto restored = after.clone();
        writeSlice(restored, delta.side, index, sliceOf(before, delta.side, index));
        EXPECT_TRUE(restored.equal(before)) << info.name;
    }
    EXPECT_EQ(readJsonFile(base.folder() / "config.json"), readJsonFile(out / "merged/config.json"));
}

TEST(S2Adapter, OfNothingLeavesEveryByte) {
    const auto tiny = tinyLlama();
    const auto base = tiny.open();
    const TempFolder out;
    mergeOnto(base, randomAdapter(base, 1, {}), out / "same", {});
    EXPECT_EQ(sha256File(out / "same/model.safetensors"), sha256File(base.folder() / "model.safetensors"));
    EXPECT_THROW(trainOptions(s2Recipe(), {{"o_ratio", 0}, {"d_ratio", 0}}), Error) << "a run that trains nothing is refused";
}

TEST(S2Adapter, SwitchingFromOneToAnotherToNoneRestoresTheBaseBitForBit) {
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
        const auto tiny = tinyLlama();
        const auto base = tiny.open();
        const auto shape = Anatomy::of(base).shape();
        const auto a = randomAdapter(base, 1, someUnits(shape)), b = randomAdapter(base, 2, everything(shape, {Part::Down}));
        const auto model = LanguageModel::load(base, {.dtype = dtype}), fresh = LanguageModel::load(base, {.dtype = dtype});
        const auto none = logitsOf(*model);
        Switcher switcher(*model), other(*fresh);
        switcher.apply(&a);
        const auto withA = logitsOf(*model);
        switcher.apply(&b, 0.5);
        other.apply(&b, 0.5);
        EXPECT_TRUE(logitsOf(*model).equal(logitsOf(*fresh))) << "nothing of the first is left";
        switcher.apply(&a);
        EXPECT_TRUE(logitsOf(*model).equal(withA));
        switcher.apply(nullptr);
        EXPECT_TRUE(logitsOf(*model).equal(none));
        EXPECT_FALSE(withA.equal(none));
    }
}

TEST(S2Adapter, FusingDisjointOnesDoesNotDependOnTheOrder) {
    const auto base = tinyLlama().open();
    const auto shape = Anatomy::of(base).shape();
    Selection even, odd, both;
    for (const Pool& pool : poolsOf(shape, Part::Down)) {
        even.push_back({pool, {0, 2, 8}});
        odd.push_back({pool, {1, 7, 41}});
        both.push_back({pool, {7, 8}});
    }
    const auto a = randomAdapter(base, 1, even), b = randomAdapter(base, 2, odd), c = randomAdapter(base, 3, both);
    const auto sum = fused(std::array{Share{&a, 0.75}, Share{&b, 2}}), other = fused(std::array{Share{&b, 2}, Share{&a, 0.75}});
    for (const auto& [name, delta] : sum.deltas) {
        EXPECT_EQ(delta.index, other.deltas.at(name).index);
        EXPECT_THAT(delta.index, ElementsAre(0, 1, 2, 7, 8, 41));
        EXPECT_TRUE(delta.value.equal(other.deltas.at(name).value));
        EXPECT_TRUE(delta.value.select(1, 4).equal(a.deltas.at(name).value.select(1, 2) * 0.75)) << "undisturbed";
    }
    const auto overlapping = fused(std::array{Share{&a, 1}, Share{&c, 1}});
    const auto& name = overlapping.deltas.begin()->first;
    EXPECT_THAT(overlapping.deltas.at(name).index, ElementsAre(0, 2, 7, 8));
    EXPECT_TRUE(overlapping.deltas.at(name).value.select(1, 3).equal(a.deltas.at(name).value.select(1, 2) + c.deltas.at(name).value.select(1, 1)));
    auto foreign = b;
    foreign.fingerprint = "sha256:other";
    EXPECT_THROW(fused(std::array{Share{&a, 1}, Share{&foreign, 1}}), Error);
}

TEST(S2Adapter, ServesSeveralInOneBatch) {
    const auto base = tinyLlama().open();
    const auto shape = Anatomy::of(base).shape();
    const auto a = randomAdapter(base, 1, someUnits(shape)), b = randomAdapter(base, 2, someUnits(shape, {Part::Down, Part::Value}));
    const auto model = LanguageModel::load(base, {});
    const auto rows = someRows(4, 9);
    const std::vector<int> assigned{1, -1, 0, 1};
    torch::NoGradGuard noGrad;
    std::vector<torch::Tensor> alone;
    {
        Switcher switcher(*model);
        for (std::size_t row = 0; row < rows.size(); ++row) {
            switcher.apply(assigned[row] < 0 ? nullptr : assigned[row] == 0 ? &a : &b);
            alone.push_back(model->logits(batchOf({rows[row]}).tokens));
        }
    }
    Server server(*model, std::array{&a, &b});
    server.assign(assigned);
    EXPECT_LT(largest(model->logits(batchOf(rows).tokens) - torch::cat(alone)), 1e-5);
    EXPECT_THROW(server.assign({2}), Error);
    EXPECT_THROW(model->logits(batchOf({rows[0]}).tokens), Error) << "four rows are assigned";
}

TEST(S2Adapter, RefusesForeignBasesAndDamagedFiles) {
    const auto tiny = tinyLlama(), narrow = tinyLlama({.ffnSize = 29});
    const auto base = tiny.open(), other = narrow.open();
    const auto adapter = randomAdapter(base, 1, someUnits(Anatomy::of(base).shape()));
    const TempFolder out;
    try {
        mergeOnto(other, adapter, out / "merged", {});
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Mismatch);
        EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("mlp.down_proj.weight"), HasSubstr("48, 43"), HasSubstr("48, 29")));
    }
    EXPECT_FALSE(fs::exists(out / "merged"));
    const auto model = LanguageModel::load(other, {});
    const auto before = logitsOf(*model);
    Switcher switcher(*model);
    EXPECT_THROW(switcher.apply(&adapter), Error);
    EXPECT_TRUE(logitsOf(*model).equal(before));
    const auto complaint = [&](const std::function<void(Json&, std::vector<std::pair<std::string, torch::Tensor>>&)>& damage) -> std::string {
        fs::create_directories(out / "native");
        writeAdapter(out / "native", adapter);
        auto config = readJsonFile(out / "native/s2_config.json");
        std::vector<std::pair<std::string, torch::Tensor>> tensors;
        for (auto& [name, tensor] : readTensors(out / "native/adapter.safetensors")) tensors.emplace_back(name, tensor);
        damage(config, tensors);
        writeJsonFile(out / "native/s2_config.json", config);
        writeTensors(out / "native/adapter.safetensors", tensors);
        try {
            readAdapter(out / "native");
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    using Tensors = std::vector<std::pair<std::string, torch::Tensor>>;
    EXPECT_EQ(complaint([](Json&, Tensors&) {}), "");
    EXPECT_THAT(complaint([](Json& config, Tensors&) { config["resect_s2ft"] = 2; }), HasSubstr("expected version 1, found 2"));
    EXPECT_THAT(complaint([](Json&, Tensors& tensors) { tensors[1].second = tensors[1].second.flip(0).contiguous(); }), HasSubstr("ascending"));
    EXPECT_THAT(complaint([](Json&, Tensors& tensors) { tensors[1].second.add_(1000); }), HasSubstr("ascending"));
    EXPECT_THAT(complaint([](Json&, Tensors& tensors) { tensors[0].second = tensors[0].second.t().contiguous(); }), HasSubstr("expected a delta"));
    EXPECT_THAT(complaint([](Json&, Tensors& tensors) { tensors.pop_back(); }), HasSubstr("one of them"));
    EXPECT_THAT(complaint([](Json& config, Tensors&) { config["tensors"].erase(config["tensors"].begin().key()); }), HasSubstr("is not listed"));
}

// --- Runs ---

TinyRun s2Run(const Json& parameters, const TinyOptions& options = {}) {
    addRecipe(s2Recipe());
    Json all{{"o_ratio", 0.3}, {"d_ratio", 0.1}};
    all.update(parameters);
    return tinyRun("s2ft", all, options);
}

class S2FirstStep : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Dtypes, S2FirstStep, testing::Values("f32", "bf16"));

TEST_P(S2FirstStep, MovesEveryTrainedWeightByTheLearningRateFromItsStoredValue) {
    auto run = s2Run({{"steps", 1}, {"warmup_steps", 0}, {"schedule", "constant"}, {"clip", 0}, {"lr", 1e-3}, {"eval_every", 0}});
    run.job.dtype = GetParam();
    EXPECT_EQ(run.run().state, "done");
    const auto adapter = readAdapter(runResult(run.path()));
    std::int64_t parameters = 0, moved = 0;
    for (const auto& [name, delta] : adapter.deltas) {
        parameters += delta.value.numel();
        EXPECT_LT(largest(delta.value), 1.001e-3) << name;
        moved += (delta.value.abs() > 0.99e-3).sum().item<std::int64_t>();
    }
    EXPECT_GT(double(moved), 0.95 * double(parameters)) << "by lr |g| / (|g| + eps)";
    EXPECT_EQ(parameters, 5 * 10 * 48 + 12 * 48) << "5 of 18 heads, 12 of 129 channels";
    const auto state = SafetensorsFile::open(runResult(run.path()) / "state/optimizer.safetensors");
    std::int64_t moments = 0;
    for (const auto& tensor : state.tensors())
        if (tensor.name.starts_with("moment")) moments += 4 * tensor.numel();
    EXPECT_EQ(moments, 8 * parameters);
    EXPECT_THAT(readFile(run.path() / "log.txt"), HasSubstr("trained weights; optimiser"));
}

TEST(S2Run, LearnsAndItsResultComputesWhatWasTrained) {
    for (const char* dtype : {"f32", "bf16"}) {
        auto run = s2Run({{"steps", 40}, {"lr", 0.02}, {"o_ratio", 0.5}, {"d_ratio", 0.5}, {"v_ratio", 0.5}, {"u_ratio", 0.2}, {"merge", true}, {"accumulation", 2}, {"checkpoint_every", 0}});
        run.job.dtype = dtype;
        const auto status = run.run();
        EXPECT_EQ(status.state, "done");
        EXPECT_LT(status.evalPerplexity, 0.9 * status.cutPerplexity) << dtype;
        // The merged checkpoint measures as the run did.
        const auto merged = LanguageModel::load(Checkpoint::open(run.path() / "merged"), {.dtype = parseDtype(dtype)});
        DataOptions wanted;
        wanted.layout = RowLayout::Padded;
        wanted.rowLength = 17;
        const auto data = loadDataset(run.job.data.file, nullptr, 61, wanted);
        const std::vector<TokenRow> held(data.rows.end() - 3, data.rows.end());
        EXPECT_NEAR(evaluate(*merged, held, 3, {}).perplexity(), status.evalPerplexity, std::string(dtype) == "f32" ? 1e-3 : 0.05) << dtype;
    }
}

class S2Interrupted : public testing::TestWithParam<const char*> {};

TEST_P(S2Interrupted, ResumedEqualsUninterruptedBitForBit) {
    const std::string dtype = GetParam();
    const Json parameters{{"steps", 6}, {"schedule", "constant"}, {"ranking", "gradient"}, {"accumulation", 2}, {"v_count", 2}};
    auto whole = s2Run(parameters), split = s2Run(parameters);
    for (auto* run : {&whole, &split}) run->job.dtype = dtype;
    split.job.source = whole.job.source;
    split.job.parameters["steps"] = 4;
    whole.run();
    split.run();
    auto job = readRunJob(split.path());
    job.parameters["steps"] = 6;
    writeJsonFile(split.path() / "job.json", job.toJson());
    EXPECT_EQ(resumeRun(split.path(), {}).step, 6);
    EXPECT_EQ(comparableRows(whole.path()), comparableRows(split.path()));
    for (const char* file : {"adapter.safetensors", "state/optimizer.safetensors"})
        EXPECT_EQ(sha256File(whole.path() / "checkpoints/step-6" / file), sha256File(split.path() / "checkpoints/step-6" / file)) << file;
    EXPECT_EQ(readFile(whole.path() / "recipe/selection.json"), readFile(split.path() / "recipe/selection.json"));
}
INSTANTIATE_TEST_SUITE_P(Dtypes, S2Interrupted, testing::Values("f32", "bf16"));

TEST(S2Run, TrainsAUsersSelectionOfACutModel) {
    auto run = s2Run({{"steps", 3}, {"components", R"([{"block": 2, "heads": [5], "channels": [3, 9]}, {"block": 0, "groups": [1]}])"}, {"merge", true}});
    EditPlan plan;
    plan.edits = {dropBlocks({1}), dropChannels(2, {0, 1})};
    run.job.plan = plan.toJson();
    EXPECT_EQ(run.run().state, "done");
    const auto adapter = readAdapter(runResult(run.path()));
    ASSERT_EQ(adapter.deltas.size(), 3u);
    EXPECT_THAT(adapter.deltas.at("model.layers.1.mlp.down_proj.weight").index, ElementsAre(1, 7));
    EXPECT_EQ(adapter.deltas.at("model.layers.1.self_attn.o_proj.weight").index.front(), 50);
    EXPECT_EQ(adapter.deltas.at("model.layers.0.self_attn.v_proj.weight").index.size(), 10u);
    EXPECT_EQ(Anatomy::of(Checkpoint::open(run.path() / "merged")).shape().numBlocks(), 2);
}

TEST(S2Run, LeavesOutWhatAnotherAdapterTrains) {
    auto first = s2Run({{"steps", 2}, {"ranking", "weight"}});
    first.run();
    auto second = s2Run({{"steps", 2}, {"ranking", "weight"}, {"avoid", runResult(first.path()).string()}});
    second.job.source = first.job.source;
    second.run();
    const auto a = readAdapter(runResult(first.path())), b = readAdapter(runResult(second.path()));
    EXPECT_NO_THROW(fused(std::array{Share{&a, 1}, Share{&b, 1}}));
    for (const auto& [name, delta] : a.deltas) {
        const auto found = b.deltas.find(name);
        if (found == b.deltas.end()) continue;
        for (const auto index : delta.index) EXPECT_EQ(std::ranges::count(found->second.index, index), 0) << name << " " << index;
    }
}

}  // namespace
}  // namespace resect::s2
