#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/surgery/edit_plan.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>

namespace resect::test {
namespace {

ModelShape shapeOf(const TinyCheckpoint& tiny) { return Anatomy::of(tiny.open()).shape(); }

std::string firstError(const std::vector<PlanProblem>& problems) {
    for (const PlanProblem& found : problems)
        if (found.problem.severity == Severity::Error) return found.problem.message;
    return "";
}

TEST(DropHidden, NarrowsTheModelAndRaisesTheEpsilonOfItsNorms) {
    const ModelShape source = shapeOf(tinyFamily("llama"));
    const EditPlan plan = EditPlan::fromJson({{"resect_plan", 1}, {"edits", {{{"op", "drop_hidden"}, {"channels", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}}}}}, "plan");
    EXPECT_EQ(plan.edits.front()->title(), "Drop 12 hidden channels");
    const ModelShape after = shapeAfter(source, cutOf(plan, source));
    EXPECT_EQ(after.hiddenSize, 36);
    EXPECT_DOUBLE_EQ(after.normEps, source.normEps * 48 / 36);
    EXPECT_EQ(EditPlan::fromJson(plan.toJson(), "plan").hash(), plan.hash());
}

TEST(DropHidden, IsRefusedWhereLayerNormsMixTheChannels) {
    for (const char* family : {"gpt2", "vit", "clip"}) {
        const ModelShape source = shapeOf(tinyFamily(family));
        EXPECT_THAT(supportedOperations(source), testing::Not(testing::Contains("drop_hidden"))) << family;
        const auto problems = checkPlan({"", {dropHidden({1})}, nullptr}, source, {});
        EXPECT_THAT(firstError(problems), testing::HasSubstr("stay")) << family;
    }
}

TEST(DropHidden, NamesBadIndicesAndTheNearestLegalEdit) {
    const ModelShape source = shapeOf(tinyFamily("llama"));
    const auto outside = checkPlan({"", {dropHidden({3, 48})}, nullptr}, source, {});
    EXPECT_THAT(firstError(outside), testing::HasSubstr("0-47"));
    ASSERT_FALSE(outside.front().instead.empty());
    EXPECT_EQ(outside.front().instead.front()->toJson().at("channels"), Json({3}));
    std::vector<int> all(48);
    for (int i = 0; i < 48; ++i) all[static_cast<std::size_t>(i)] = i;
    EXPECT_THAT(firstError(checkPlan({"", {dropHidden(all)}, nullptr}, source, {})), testing::HasSubstr("every hidden channel"));
    const std::vector<int> first(all.begin(), all.begin() + 24), second(all.begin() + 24, all.end());
    EXPECT_THAT(firstError(checkPlan({"", {dropHidden(first), dropHidden(second)}, nullptr}, source, {})), testing::HasSubstr("every hidden channel"));
    EXPECT_THAT(firstError(checkPlan({"", {dropHidden({2, 2})}, nullptr}, source, {})), testing::HasSubstr("more than once"));
    EXPECT_THROW(EditPlan::fromJson({{"resect_plan", 1}, {"edits", {{{"op", "drop_hidden"}, {"channels", {1}}, {"block", 2}}}}}, "plan"), Error);
}

TEST(DropSharedChannels, WorkOnTheSharedExpertOnly) {
    const ModelShape source = shapeOf(tinyFamily("qwen2_moe"));
    const EditPlan plan = EditPlan::fromJson({{"resect_plan", 1}, {"edits", {{{"op", "drop_channels"}, {"block", 0}, {"expert", "shared"}, {"channels", {0, 2}}}}}}, "plan");
    EXPECT_EQ(plan.edits.front()->title(), "Drop channels 0, 2 of the shared expert of block 0");
    const ModelShape after = shapeAfter(source, cutOf(plan, source));
    EXPECT_EQ(after.blocks[0].sharedFfnSize, source.blocks[0].sharedFfnSize - 2);
    EXPECT_EQ(after.blocks[0].ffnSize, source.blocks[0].ffnSize);
    EXPECT_THAT(firstError(checkPlan({"", {dropSharedChannels(1, {0})}, nullptr}, source, {})), testing::HasSubstr("no shared expert")) << "a dense block";
    EXPECT_THAT(firstError(checkPlan({"", {dropSharedChannels(0, {33})}, nullptr}, source, {})), testing::HasSubstr("0-32"));
    std::vector<int> all(33);
    for (int i = 0; i < 33; ++i) all[static_cast<std::size_t>(i)] = i;
    EXPECT_THAT(firstError(checkPlan({"", {dropSharedChannels(0, all)}, nullptr}, source, {})), testing::HasSubstr("every channel of the shared expert"));
}

}  // namespace
}  // namespace resect::test
