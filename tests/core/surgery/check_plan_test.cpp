#include "core/base/error.h"
#include "core/surgery/edit_plan.h"
#include "tests/core/surgery/shapes.h"

#include <gmock/gmock.h>

#include <chrono>
#include <numeric>

namespace resect::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

std::vector<PlanProblem> check(std::vector<EditPointer> edits, const ModelShape& shape = stockShape(),
                               std::string_view fingerprint = {}) {
    return checkPlan(EditPlan{"sha256:mine", std::move(edits), nullptr}, shape, fingerprint);
}

bool illegal(const std::vector<PlanProblem>& problems) {
    return std::any_of(problems.begin(), problems.end(),
                       [](const PlanProblem& found) { return found.problem.severity == Severity::Error; });
}

std::vector<std::string> titles(const PlanProblem& problem) {
    std::vector<std::string> result;
    for (const EditPointer& edit : problem.instead) result.push_back(edit->title());
    return result;
}

TEST(CheckPlan, AcceptsALegalPlanWithoutAWord) {
    EXPECT_THAT(check({dropBlocks({3}), dropAttention({2}), dropMlp({1}), dropKvGroups(0, {1}), dropChannels(4, {0, 42})}),
                IsEmpty());
    EXPECT_THAT(check({}), IsEmpty());
}

TEST(CheckPlan, NamesIndicesThatDoNotExistAndOffersTheOthers) {
    const auto problems = check({dropBlocks({-1, 2, 9})});
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_EQ(problems[0].edit, 0);
    EXPECT_THAT(problems[0].problem.message, HasSubstr("no block -1, 9; the model has blocks 0-4"));
    EXPECT_THAT(titles(problems[0]), testing::ElementsAre("Drop block 2"));
    EXPECT_THAT(check({dropHeads(7, {0})})[0].problem.message, HasSubstr("Block 7 does not exist"));
    EXPECT_THAT(check({dropHeads(1, {6})})[0].problem.message, HasSubstr("block 1 has heads 0-5"));
    EXPECT_THAT(check({dropKvGroups(1, {2})})[0].problem.message, HasSubstr("kv groups 0-1"));
    EXPECT_THAT(check({dropChannels(1, {43})})[0].problem.message, HasSubstr("channels 0-42"));
    EXPECT_THAT(check({dropChannels(1, {43})})[0].instead, IsEmpty());
    EXPECT_TRUE(illegal(check({dropBlocks({})})));
}

TEST(CheckPlan, NamesRepeatedIndices) {
    const auto problems = check({dropMlp({2, 1, 2})});
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_THAT(problems[0].problem.message, HasSubstr("more than once: blocks 2"));
    EXPECT_THAT(titles(problems[0]), testing::ElementsAre("Drop MLP of blocks 1, 2"));
}

TEST(CheckPlan, ReturnsEveryProblemNotTheFirst) {
    EXPECT_EQ(check({dropBlocks({9, 1, 1}), dropHeads(8, {0}), dropMlp({})}).size(), 4u);
}

TEST(CheckPlan, KeepsTheLastHeadOfABlock) {
    const auto problems = check({dropHeads(1, {0, 1, 2}), dropHeads(1, {3, 4, 5})});
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_EQ(problems[0].problem.severity, Severity::Error);
    EXPECT_EQ(problems[0].edit, 1);
    EXPECT_THAT(titles(problems[0]), testing::ElementsAre("Drop attention of block 1", "Drop heads 4, 5 of block 1"));
    EXPECT_TRUE(illegal(check({dropKvGroups(1, {0, 1})})));
    EXPECT_TRUE(illegal(check({dropKvGroups(1, {0}), dropHeads(1, {3, 4, 5})})));
    EXPECT_FALSE(illegal(check({dropKvGroups(1, {0, 1}), dropAttention({1})})));
}

TEST(CheckPlan, KeepsTheLastChannelAndTheLastBlock) {
    std::vector<int> all(43);
    std::iota(all.begin(), all.end(), 0);
    const auto channels = check({dropChannels(2, all)});
    ASSERT_EQ(channels.size(), 1u);
    EXPECT_THAT(titles(channels[0])[0], "Drop MLP of block 2");
    EXPECT_FALSE(illegal(check({channels[0].instead[1]})));

    const auto blocks = check({dropBlocks({0, 1, 2, 3, 4})});
    ASSERT_EQ(blocks.size(), 1u);
    EXPECT_THAT(blocks[0].problem.message, HasSubstr("all 5 blocks"));
    EXPECT_THAT(titles(blocks[0]), testing::ElementsAre("Drop blocks 1-4"));
    EXPECT_TRUE(illegal(check({dropAttention({0, 1, 2, 3, 4}), dropMlp({0, 1, 2, 3, 4})})));
}

TEST(CheckPlan, OffersTheWholeGroupWhenQueryHeadsPerGroupDiffer) {
    const auto problems = check({dropHeads(1, {5})});
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_EQ(problems[0].problem.severity, Severity::Warning);
    EXPECT_THAT(problems[0].problem.message, HasSubstr("3, 2"));
    EXPECT_THAT(problems[0].problem.advice,
                HasSubstr("Remove the whole kv group 1 (3 heads), or export padded: 1 zero head is added"));
    EXPECT_THAT(titles(problems[0]), testing::ElementsAre("Drop kv group 1 of block 1"));
    EXPECT_THAT(check({dropHeads(1, {2, 5})}), IsEmpty());
    EXPECT_THAT(check({dropHeads(1, {3, 4, 5})}, stockShape("qwen3")), IsEmpty()) << "a whole group";
}

TEST(CheckPlan, WarnsWhenTheFirstBlockLosesItsAttention) {
    const auto problems = check({dropAttention({0})});
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_EQ(problems[0].problem.severity, Severity::Warning);
    EXPECT_THAT(problems[0].problem.message, HasSubstr("Block 0 must keep its attention"));
    EXPECT_THAT(titles(problems[0]), testing::ElementsAre("Drop attention of block 1"));
    const auto shifted = check({dropBlocks({0}), dropAttention({1, 2})});
    ASSERT_EQ(shifted.size(), 1u);
    EXPECT_EQ(shifted[0].edit, 1);
    EXPECT_THAT(titles(shifted[0]), testing::ElementsAre("Drop attention of blocks 2, 3", "Drop attention of block 2"));
}

TEST(CheckPlan, NotesWhatALargerEditRemovesAnyway) {
    const auto problems = check({dropBlocks({3}), dropHeads(3, {1}), dropMlp({3, 1}), dropBlocks({3})});
    ASSERT_EQ(problems.size(), 3u);
    for (const PlanProblem& found : problems) EXPECT_EQ(found.problem.severity, Severity::Note);
    EXPECT_EQ(problems[0].edit, 1);
    EXPECT_THAT(problems[0].problem.message, HasSubstr("Changes nothing"));
    EXPECT_THAT(problems[1].problem.message, HasSubstr("blocks 3: a larger part"));
    EXPECT_THAT(problems[2].problem.message, HasSubstr("earlier entry"));
    EXPECT_THAT(check({dropKvGroups(1, {0}), dropHeads(1, {0, 1, 2})})[0].problem.message, HasSubstr("larger part"));
}

TEST(CheckPlan, NotesHeadCountsThatTheStockClassRefuses) {
    std::vector<EditPointer> edits;
    for (int b = 0; b < 5; ++b) edits.push_back(dropHeads(b, {2}));
    std::vector<EditPointer> uniform;
    const ModelShape shape = stockShape("llama", {.numKvHeads = 1, .headsPerKv = 6});
    for (int b = 0; b < 5; ++b) uniform.push_back(dropHeads(b, {2}));
    const auto problems = check(uniform, shape);
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_EQ(problems[0].problem.severity, Severity::Note);
    EXPECT_THAT(problems[0].problem.message, HasSubstr("refuses 5 heads at hidden size 48"));
    EXPECT_THAT(problems[0].problem.advice, HasSubstr("Keep 4 or 6 heads"));
    EXPECT_THAT(check(uniform, stockShape("qwen3", {.numKvHeads = 1, .headsPerKv = 6})), IsEmpty());
}

TEST(CheckPlan, RefusesAPlanForAnotherCheckpointOrFamily) {
    const auto other = check({dropBlocks({1})}, stockShape(), "sha256:other");
    ASSERT_EQ(other.size(), 1u);
    EXPECT_EQ(other[0].edit, -1);
    EXPECT_THAT(other[0].problem.message, HasSubstr("another checkpoint"));
    EXPECT_THAT(check({dropBlocks({1})}, stockShape(), "sha256:mine"), IsEmpty());
    const auto unknown = check({dropBlocks({1})}, stockShape("foo_lm"));
    ASSERT_EQ(unknown.size(), 1u);
    EXPECT_THAT(unknown[0].problem.message, HasSubstr("Unknown family 'foo_lm'"));
    EXPECT_THAT(supportedOperations(stockShape("foo_lm")), IsEmpty());
}

TEST(CheckPlan, ExpertsGoAsLongAsEveryTokenFindsItsNumber) {
    ModelShape moe = stockShape("mixtral", {.numBlocks = 2, .numExperts = 4});
    moe.numExpertsPerToken = 2;
    EXPECT_THAT(check({dropMlp({1})}, moe), IsEmpty());
    EXPECT_THAT(check({dropExperts(0, {3}), dropExperts(1, {0})}, moe), IsEmpty());
    EXPECT_THAT(supportedOperations(moe), testing::IsSupersetOf({"drop_channels", "drop_experts"}));
    EXPECT_THAT(supportedOperations(stockShape()), testing::Not(testing::Contains("drop_experts")));
    const auto tooMany = check({dropExperts(0, {0, 1, 3})}, moe);
    ASSERT_TRUE(illegal(tooMany));
    EXPECT_THAT(tooMany[0].problem.message, HasSubstr("would leave 1 expert in block 0, but each token is sent to 2"));
    EXPECT_THAT(titles(tooMany[0]), testing::ElementsAre("Drop experts 1, 3 of block 0"));
    const auto uneven = check({dropExperts(0, {3})}, moe);
    ASSERT_EQ(uneven.size(), 1u);
    EXPECT_EQ(uneven[0].problem.severity, Severity::Warning);
    EXPECT_THAT(uneven[0].problem.message, HasSubstr("no stock runtime reads expert counts that differ"));
    EXPECT_THAT(check({dropExperts(0, {0})}, stockShape())[0].problem.message, HasSubstr("not a mixture of experts"));
}

TEST(CheckPlan, ChannelsOfAMixtureBelongToAnExpert) {
    const ModelShape moe = stockShape("mixtral", {.ffnSize = 5, .numExperts = 4});
    EXPECT_THAT(check({dropChannels(1, {3})}, moe)[0].problem.message, HasSubstr("name the expert"));
    EXPECT_THAT(check({dropExpertChannels(1, 2, {3})}, moe), IsEmpty());
    EXPECT_THAT(check({dropExpertChannels(1, 4, {3})}, moe)[0].problem.message, HasSubstr("there is no expert 4"));
    EXPECT_THAT(check({dropExpertChannels(1, 0, {3})}, stockShape())[0].problem.message, HasSubstr("one MLP"));
    const auto all = check({dropExpertChannels(1, 2, {0, 1, 2, 3, 4})}, moe);
    ASSERT_TRUE(illegal(all));
    EXPECT_THAT(titles(all[0]), testing::ElementsAre("Drop expert 2 of block 1"));
}

TEST(CheckPlan, HeadsThatAreNormedTogetherStayTogether) {
    const ModelShape shape = stockShape("olmoe", {.numExperts = 4});
    EXPECT_THAT(check({dropHeads(1, {0})}, shape)[0].problem.message, HasSubstr("over all heads together"));
    EXPECT_TRUE(illegal(check({dropKvGroups(1, {0})}, shape)));
    EXPECT_THAT(check({dropAttention({1})}, shape), IsEmpty());
}

TEST(CheckPlan, LayersThatAreGoneCannotBeDroppedAgain) {
    ModelShape shape = stockShape();
    shape.blocks[2].hasAttention = false;
    shape.blocks[2].numHeads = shape.blocks[2].numKvHeads = 0;
    shape.blocks[2].headsPerKv.clear();
    const auto problems = check({dropAttention({2, 3})}, shape);
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_THAT(problems[0].problem.message, HasSubstr("Block 2 has no attention any more"));
    EXPECT_THAT(titles(problems[0]), testing::ElementsAre("Drop attention of block 3"));
    EXPECT_TRUE(illegal(check({dropHeads(2, {0})}, shape)));
}

TEST(CutOf, IsTheUnionOfTheEditsInAnyOrder) {
    const ModelShape shape = stockShape();
    const EditPlan plan{"", {dropHeads(1, {2}), dropBlocks({3}), dropHeads(1, {5, 2}), dropChannels(0, {4})}, nullptr};
    const EditPlan shuffled{"", {dropChannels(0, {4}), dropHeads(1, {5, 2}), dropHeads(1, {2}), dropBlocks({3})}, nullptr};
    EXPECT_EQ(cutOf(plan, shape), cutOf(shuffled, shape));
    EXPECT_THROW(cutOf({"", {dropBlocks({0, 1, 2, 3, 4})}, nullptr}, shape), Error);
    EXPECT_TRUE(cutOf({}, shape).empty());
}

}  // namespace
}  // namespace resect::test
