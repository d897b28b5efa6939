#include "core/export/verdict.h"
#include "core/surgery/edit_plan.h"
#include "tests/core/surgery/shapes.h"

#include <gmock/gmock.h>

namespace resect::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Verdicts in the order transformers, vLLM, llama.cpp, PEFT.
std::vector<std::string> judged(const ModelShape& shape, std::vector<EditPointer> edits) {
    std::vector<std::string> names;
    for (const RuntimeVerdict& row : verdicts(shape, cutOf({"", std::move(edits), nullptr}, shape)))
        names.emplace_back(name(row.verdict));
    return names;
}

std::vector<EditPointer> everywhere(const ModelShape& shape, EditPointer (*edit)(int, std::vector<int>),
                                    std::vector<int> indices) {
    std::vector<EditPointer> edits;
    for (int b = 0; b < shape.numBlocks(); ++b) edits.push_back(edit(b, indices));
    return edits;
}

/// 8 heads of 8 at hidden size 64: every stock rule is met before the cut.
ModelShape stock(const std::string& family) {
    return stockShape(family, {.hiddenSize = 64, .numKvHeads = 2, .headsPerKv = 4, .headDim = 8, .ffnSize = 96});
}

TEST(Verdicts, UncutAndBlockDropsOpenEverywhere) {
    for (const char* family : {"llama", "mistral", "qwen2", "qwen3", "mixtral"}) {
        EXPECT_THAT(judged(stock(family), {}), ElementsAre("opens", "opens", "opens", "opens")) << family;
        EXPECT_THAT(judged(stock(family), {dropBlocks({1, 3})}), ElementsAre("opens", "opens", "opens", "opens")) << family;
    }
}

TEST(Verdicts, OneNarrowerMlpForAllOpensEverywhere) {
    const ModelShape shape = stock("llama");
    const std::vector<EditPointer> edits = everywhere(shape, dropChannels, {3});
    EXPECT_THAT(judged(shape, edits), ElementsAre("opens", "opens", "opens", "opens"));
    const auto rows = verdicts(shape, cutOf({"", edits, nullptr}, shape));
    EXPECT_THAT(rows[2].reasons, ElementsAre(HasSubstr("width 95 is not a multiple of 32")));
    EXPECT_TRUE(rows[0].reasons.empty());
}

TEST(Verdicts, DifferentSizesPerBlockNeedPadding) {
    const ModelShape shape = stock("mistral");
    for (const EditPointer& edit : {dropChannels(1, {3}), dropKvGroups(1, {0}), dropHeads(1, {0, 4}), dropAttention({2}),
                                    dropMlp({2}), dropAttention({0})})
        EXPECT_THAT(judged(shape, {edit}), ElementsAre("padded", "padded", "opens", "padded")) << edit->title();
}

TEST(Verdicts, FewerHeadsEverywhereDependOnTheFamily) {
    const auto threePerGroup = [](const std::string& family) {
        const ModelShape shape = stock(family);
        return judged(shape, everywhere(shape, dropHeads, {0, 4}));  // 6 heads; 64 is not a multiple
    };
    EXPECT_THAT(threePerGroup("llama"), ElementsAre("padded", "padded", "opens", "padded"));
    EXPECT_THAT(threePerGroup("mistral"), ElementsAre("opens", "opens", "opens", "opens"));
    EXPECT_THAT(threePerGroup("qwen3"), ElementsAre("opens", "opens", "opens", "opens"));
    EXPECT_THAT(threePerGroup("qwen2"), ElementsAre("opens", "padded", "opens", "opens")) << "llama.cpp by the graph of Llama";
    EXPECT_THAT(threePerGroup("mixtral"), ElementsAre("opens", "opens", "opens", "opens"));

    const ModelShape llama = stock("llama");
    EXPECT_THAT(judged(llama, everywhere(llama, dropKvGroups, {1})), ElementsAre("opens", "opens", "opens", "opens"))
        << "4 heads divide 64";
    const auto rows = verdicts(llama, cutOf({"", everywhere(llama, dropHeads, {0, 4}), nullptr}, llama));
    EXPECT_THAT(rows[0].reasons, testing::Contains(HasSubstr("refuses 6 heads: hidden_size 64")));
}

TEST(Verdicts, UnequalGroupsNeedPaddingEvenWhenAllBlocksAreAlike) {
    const ModelShape shape = stock("qwen3");
    const auto edits = everywhere(shape, dropHeads, {0});
    EXPECT_THAT(judged(shape, edits), ElementsAre("padded", "padded", "padded", "padded"));
    EXPECT_FALSE(isUniform(shapeAfter(shape, cutOf({"", edits, nullptr}, shape))));
}

TEST(Verdicts, ExpertCountsThatDifferCannotBePadded) {
    const ModelShape shape = stockShape("mixtral", {.numExperts = 4});
    Cut cut = emptyCut(shape);
    cut.blocks[2].experts = {1};
    for (const RuntimeVerdict& row : verdicts(shape, cut)) EXPECT_EQ(row.verdict, Verdict::No);
    for (BlockCut& block : cut.blocks) block.experts = {1};
    for (const RuntimeVerdict& row : verdicts(shape, cut)) EXPECT_EQ(row.verdict, Verdict::Opens);
}

TEST(Verdicts, AnUnknownFamilyOpensNowhereAsFarAsWeKnow) {
    for (const RuntimeVerdict& row : verdicts(stockShape("foo_lm"))) {
        EXPECT_EQ(row.verdict, Verdict::No);
        EXPECT_FALSE(row.reasons.empty());
    }
}

TEST(IsUniform, WantsAllBlocksAlikeAndEveryLayer) {
    ModelShape shape = stock("llama");
    EXPECT_TRUE(isUniform(shape));
    shape.blocks[1].slidingWindow = 8;
    EXPECT_TRUE(isUniform(shape));
    shape.blocks[1].ffnSize = 95;
    EXPECT_FALSE(isUniform(shape));
    shape = stock("llama");
    shape.blocks[2].hasAttention = false;
    EXPECT_FALSE(isUniform(shape));
    shape.blocks.clear();
    EXPECT_FALSE(isUniform(shape));
}

TEST(LoadAdvice, GivesACommandForWhatOpensAndSaysHowItIsKnown) {
    const auto rows = loadAdvice(stock("llama"), "/tmp/my model", LoadAdvice::Evidence::Checked);
    ASSERT_EQ(rows.size(), 5u);
    EXPECT_EQ(rows[0].program, "Resect");
    EXPECT_EQ(rows[0].evidence, LoadAdvice::Evidence::Checked);
    EXPECT_EQ(rows[1].evidence, LoadAdvice::Evidence::Expected);
    EXPECT_EQ(rows[1].command, "AutoModelForCausalLM.from_pretrained(\"/tmp/my model\")");
    EXPECT_EQ(rows[2].command, "vllm serve '/tmp/my model'");
    ModelShape uneven = stock("llama");
    uneven.blocks[1].ffnSize = 95;
    const auto unevenRows = loadAdvice(uneven, "/tmp/x", LoadAdvice::Evidence::Expected);
    EXPECT_EQ(unevenRows[0].verdict, Verdict::Opens);
    for (std::size_t i = 1; i < unevenRows.size(); ++i) {
        EXPECT_EQ(unevenRows[i].verdict, Verdict::AfterPadding);
        EXPECT_TRUE(unevenRows[i].command.empty());
    }
}

}  // namespace
}  // namespace resect::test
