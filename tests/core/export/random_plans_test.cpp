#include "core/base/files.h"
#include "tests/core/export/exported.h"
#include "tests/support/random_plan.h"

#include <algorithm>
#include <random>

namespace resect::test {
namespace {

namespace fs = std::filesystem;

/// Some of 0 .. count - 1, at least one, often not all.

TEST(RandomPlans, EveryLegalPlanReopensCleanlyWhicheverWayItIsWritten) {
    std::mt19937 random(20);
    const std::vector<TinyCheckpoint> models{tinyLlama({.numBlocks = 4, .attentionBias = true, .mlpBias = true}),
                                             tinyMistral({.numBlocks = 5, .tied = true, .slidingWindow = 7}),
                                             tinyQwen2({.numBlocks = 4, .hiddenSize = 60, .slidingWindow = 9}),
                                             tinyQwen3({.numBlocks = 3, .numHeads = 8, .numKvHeads = 4}),
                                             tinyMixtral({.numBlocks = 3})};
    int exports = 0;
    for (int round = 0; round < 200; ++round) {
        const TinyCheckpoint& tiny = models[static_cast<std::size_t>(round) % models.size()];
        const Checkpoint checkpoint = tiny.open();
        const Anatomy anatomy = Anatomy::of(checkpoint);
        const EditPlan plan = randomPlan(random, anatomy.shape());
        const Cut cut = cutOf(EditPlan::fromJson(plan.toJson(), "plan"), anatomy.shape());
        const TempFolder out;
        for (SliceWay way : {SliceWay::Exact, SliceWay::Padded, SliceWay::Zeroed}) {
            SCOPED_TRACE(plan.toJson().dump() + " " + std::string(name(way)) + " " + anatomy.shape().modelType);
            ExportOptions options;
            options.way = way;
            options.shardBytes = random() % 3 ? 1'000'000'000 : 15'000;
            const fs::path to = out / std::string(name(way));
            const bool experts = std::any_of(cut.blocks.begin(), cut.blocks.end(), [](const BlockCut& block) { return !block.experts.empty(); });
            ExportResult result;
            try {
                result = exportHuggingFace(checkpoint, anatomy, cut, to, options, {});
            } catch (const Error& error) {  // padded and zeroed experts could be chosen by the router
                EXPECT_TRUE(experts && way != SliceWay::Exact && error.code() == ErrorCode::Unsupported) << error.what();
                continue;
            }
            const Checkpoint reopened = Checkpoint::open(to);
            const Anatomy after = Anatomy::of(reopened);
            ASSERT_TRUE(after.understood()) << listed(after.problems());
            EXPECT_TRUE(after.problems().empty()) << listed(after.problems());
            EXPECT_EQ(after.shape(), result.shape);
            EXPECT_TRUE(way != SliceWay::Padded || isUniform(after.shape()));
            EXPECT_EQ(fs::exists(to / "resect.json"), !isUniform(after.shape()));
            ++exports;
        }
    }
    EXPECT_GT(exports, 550);
}

}  // namespace
}  // namespace resect::test
