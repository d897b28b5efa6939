#include "core/anatomy/family.h"
#include "core/export/hf_writer.h"
#include "core/models/model.h"
#include "core/surgery/edit_plan.h"
#include "tests/core/models/some_input.h"
#include "tests/support/tiny_checkpoint.h"

#include <cmath>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

namespace resect::test {
namespace {

namespace fs = std::filesystem;

torch::Tensor logitsOf(const fs::path& folder, const Cut& cut, torch::ScalarType dtype) {
    const Checkpoint checkpoint = Checkpoint::open(folder);
    const auto model = LanguageModel::load(checkpoint, {torch::kCPU, dtype, false});
    model->setCut(cut);
    torch::NoGradGuard noGradients;
    return model->logits(someInput(model->shape(), 2, 17));
}

double largestDifference(const torch::Tensor& a, const torch::Tensor& b) {
    EXPECT_EQ(a.sizes(), b.sizes());
    return (a - b).abs().max().item<double>();
}

/// The masked model and the checkpoint written in each way must compute the same.
void expectEqualEachWay(const fs::path& source, const std::vector<EditPointer>& edits,
                        std::initializer_list<SliceWay> ways = {SliceWay::Exact, SliceWay::Padded, SliceWay::Zeroed}) {
    const Checkpoint checkpoint = Checkpoint::open(source);
    const Anatomy anatomy = Anatomy::of(checkpoint);
    const EditPlan plan{"", edits, nullptr};
    SCOPED_TRACE(anatomy.shape().modelType + " " + plan.toJson().dump());
    const Cut cut = cutOf(plan, anatomy.shape());
    const torch::Tensor candidate = logitsOf(source, cut, torch::kFloat32),
                        candidate64 = logitsOf(source, cut, torch::kFloat64);
    ASSERT_TRUE(candidate.isfinite().all().item<bool>());
    const double changed = largestDifference(candidate, logitsOf(source, {}, torch::kFloat32));
    EXPECT_TRUE(cut.empty() ? changed == 0 : changed > 1e-4) << changed;
    for (SliceWay way : ways) {
        SCOPED_TRACE(std::string(name(way)));
        const TempFolder out;
        ExportOptions options;
        options.way = way;
        exportHuggingFace(checkpoint, anatomy, cut, out / "x", options, {});
        const double largest = std::max(1.0, candidate.abs().max().item<double>());
        const double difference = largestDifference(candidate, logitsOf(out / "x", {}, torch::kFloat32));
        EXPECT_LE(difference, 5e-6 * largest);
        // Norm weights are scaled when hidden channels go, which F32 can hold exactly for some ratios only.
        const double ratio = std::sqrt(static_cast<double>(anatomy.shape().hiddenSize) / static_cast<double>(keptHidden(anatomy.shape(), cut).size()));
        const bool onePlus = ratio != 1 && familyOf(anatomy.shape()).norm == Family::Norm::RmsPlusOne;
        const bool rounded = way != SliceWay::Zeroed && (ratio != std::floor(ratio) || onePlus);
        EXPECT_LE(largestDifference(candidate64, logitsOf(out / "x", {}, torch::kFloat64)), rounded ? 1e-6 * largest : 1e-11);
    }
}

/// One row of the coupling tables after the other, then all together.
std::vector<std::vector<EditPointer>> cuts() {
    return {{},
            {dropBlocks({1})},
            {dropAttention({0, 2})},
            {dropMlp({1})},
            {dropKvGroups(1, {0})},
            {dropHeads(0, {1, 4})},
            {dropHeads(2, {0})},
            {dropChannels(1, {0, 5, 6, 42})},
            {dropBlocks({0}), dropAttention({3}), dropMlp({2}), dropHeads(1, {0, 1, 3}), dropKvGroups(2, {1}),
             dropChannels(3, {2}), dropChannels(1, {7, 8})}};
}

TEST(CutEquality, TheExportedLlamaComputesWhatTheMaskedOneDoes) {
    const TinyCheckpoint tiny = tinyLlama({.numBlocks = 4, .attentionBias = true, .mlpBias = true});
    for (const auto& edits : cuts()) expectEqualEachWay(tiny.path(), edits);
}

TEST(CutEquality, SoDoMistralWithAWindowAndTheQwens) {
    const TinyCheckpoint mistral = tinyMistral({.numBlocks = 4, .tied = true, .slidingWindow = 5});
    const TinyCheckpoint qwen2 = tinyQwen2({.numBlocks = 4, .hiddenSize = 60, .slidingWindow = 6}),
                         qwen3 = tinyQwen3({.numBlocks = 4});
    for (const auto& edits : cuts()) {
        expectEqualEachWay(mistral.path(), edits);
        expectEqualEachWay(qwen2.path(), edits);
        expectEqualEachWay(qwen3.path(), edits);
    }
}

TEST(CutEquality, SoDoesMixtralWithoutBlocksAndLayers) {
    const TinyCheckpoint tiny = tinyMixtral({.numBlocks = 4});
    for (const std::vector<EditPointer>& edits :
         std::vector<std::vector<EditPointer>>{{dropBlocks({0, 2})},
                                               {dropMlp({1})},
                                               {dropAttention({3}), dropHeads(1, {0, 4})},
                                               {dropKvGroups(2, {1}), dropMlp({2})}})
        expectEqualEachWay(tiny.path(), edits);
}

/// Every row of every family's coupling table: heads, kv groups, channels, experts, channels of experts, layers, blocks.
std::vector<std::vector<EditPointer>> cutsOf(const ModelShape& shape) {
    const auto supports = [operations = supportedOperations(shape)](const char* op) {
        return std::find(operations.begin(), operations.end(), op) != operations.end();
    };
    std::vector<std::vector<EditPointer>> cuts{{}, {dropBlocks({0})}, {dropBlocks({1, 2})}, {dropAttention({0, 2})}, {dropMlp({1})}, {dropMlp({2})}};
    if (supports("drop_heads")) {
        cuts.push_back({dropKvGroups(1, {0})});
        if (shape.blocks[0].headsPerKv[0] > 1) cuts.push_back({dropHeads(0, {1}), dropHeads(2, {0, 4})});
        std::vector<EditPointer> everywhere;
        for (int b = 0; b < shape.numBlocks(); ++b) everywhere.push_back(dropKvGroups(b, {1}));
        cuts.push_back(everywhere);
    }
    std::vector<EditPointer> experts, channels;
    for (int b = 0; b < shape.numBlocks(); ++b) {
        const BlockShape& block = shape.blocks[static_cast<std::size_t>(b)];
        if (block.numExperts == 0) {
            channels.push_back(dropChannels(b, {b % 4, 5, block.ffnSize - 1}));
        } else {
            experts.push_back(dropExperts(b, {b, 3 + shape.expertGroups}));
            for (int e = 0; e < block.numExperts; ++e) channels.push_back(dropExpertChannels(b, e, {e, 9 + e, block.ffnSize - 1}));
        }
    }
    cuts.push_back(channels);
    std::vector<EditPointer> shared;
    for (int b = 0; b < shape.numBlocks(); ++b)
        if (const int width = shape.blocks[static_cast<std::size_t>(b)].sharedFfnSize; width > 0) shared.push_back(dropSharedChannels(b, {b, 7, width - 1}));
    if (!shared.empty()) cuts.insert(cuts.end(), {shared, {shared.front()}});
    if (!experts.empty()) cuts.insert(cuts.end(), {experts, {experts.front()}});  // the second: counts that differ between blocks
    if (!supports("drop_hidden")) return cuts;
    std::vector<int> threeQuarters;  // what stays is a quarter, so that norms scale by 2
    for (int i = 0; i < shape.hiddenSize; ++i)
        if (i % 4 != 1) threeQuarters.push_back(i);
    cuts.insert(cuts.end(), {{dropHidden(threeQuarters)}, {dropHidden({0, 5, 6, 47})}, {dropHidden({1, 2}), dropBlocks({1}), channels.back()}});
    return cuts;
}

class CutOfEveryFamily : public testing::TestWithParam<std::string_view> {};

TEST_P(CutOfEveryFamily, ComputesTheSameMaskedAndWrittenInEveryWay) {
    const TinyCheckpoint tiny = tinyFamily(std::string(GetParam()));
    const ModelShape shape = Anatomy::of(tiny.open()).shape();
    for (const auto& edits : cutsOf(shape)) {
        const Cut cut = cutOf({"", edits, nullptr}, shape);
        const bool experts = std::any_of(cut.blocks.begin(), cut.blocks.end(), [](const BlockCut& block) { return !block.experts.empty(); });
        if (experts && edits.size() == 1) expectEqualEachWay(tiny.path(), edits, {SliceWay::Exact});
        else if (experts) expectEqualEachWay(tiny.path(), edits, {SliceWay::Exact, SliceWay::Padded});
        else expectEqualEachWay(tiny.path(), edits);
    }
}

TEST_P(CutOfEveryFamily, CachesWhatItComputesAnew) {
    const TinyCheckpoint tiny = tinyFamily(std::string(GetParam()));
    const auto model = LanguageModel::load(tiny.open(), {torch::kCPU, torch::kFloat64, false});
    if (model->shape().image || !model->shape().towers.empty()) return;  // nothing to continue
    const torch::NoGradGuard noGradients;
    const TokenBatch all = someInput(model->shape(), 2, 17);
    const torch::Tensor whole = model->logits(all);
    const auto cache = model->makeCache(2, 20);
    std::vector<torch::Tensor> parts;
    for (const auto& [first, count] : {std::pair{0, 6}, {6, 1}, {7, 1}, {8, 9}})
        parts.push_back(model->logits({all.ids_BT.narrow(1, first, count), {}, {}}, nullptr, cache.get()));
    EXPECT_LE(largestDifference(torch::cat(parts, 1), whole), 1e-11);
}

INSTANTIATE_TEST_SUITE_P(Families, CutOfEveryFamily, testing::ValuesIn([] {
                             std::vector<std::string_view> types;
                             for (const Family& family : families()) types.push_back(family.modelType);
                             return types;
                         }()),
                         [](const testing::TestParamInfo<std::string_view>& info) { return std::string(info.param); });

TEST(CutEquality, HoldsOnTrainedWeights) {
    RESECT_NEED_SHARED_DATA("models/llama-stories-12l");
    expectEqualEachWay(sharedData("models/llama-stories-12l"),
                       {dropBlocks({5, 6}), dropHeads(2, {1}), dropAttention({9}), dropChannels(3, {1, 2, 3, 200})});
    expectEqualEachWay(sharedData("models/qwen2-stories-8l"), {dropBlocks({3}), dropMlp({5})});
    expectEqualEachWay(sharedData("models/mixtral-stories-6l"), {dropBlocks({2}), dropAttention({4})});
    expectEqualEachWay(sharedData("models/gpt2-stories-8l"), {dropBlocks({2}), dropHeads(4, {1}), dropChannels(5, {3, 9})});
}

/// Cutting what has no effect has no effect: columns of o_proj and down_proj that are zero already.
TEST(CutEquality, RemovingWhatIsZeroAlreadyChangesNothing) {
    TinyCheckpoint tiny = tinyLlama();
    zeroHeads(tiny, 1, {0, 4});
    zeroChannels(tiny, 2, {3, 17});
    tiny.save();
    const Checkpoint checkpoint = tiny.open();
    const Anatomy anatomy = Anatomy::of(checkpoint);
    const TempFolder out;
    exportHuggingFace(checkpoint, anatomy,
                      cutOf({"", {dropHeads(1, {0, 4}), dropChannels(2, {3, 17})}, nullptr}, anatomy.shape()), out / "x", {},
                      {});
    EXPECT_LE(largestDifference(logitsOf(tiny.path(), {}, torch::kFloat32), logitsOf(out / "x", {}, torch::kFloat32)), 1e-5);
}

}  // namespace
}  // namespace resect::test
