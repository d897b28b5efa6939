#include "core/base/files.h"
#include "tests/core/export/exported.h"

#include <random>

namespace resect::test {
namespace {

namespace fs = std::filesystem;

/// Some of 0 .. count - 1, at least one, often not all.
std::vector<int> some(std::mt19937& random, int count) {
    std::vector<int> indices;
    const unsigned oneIn = 2 + random() % 4;
    for (int i = 0; i < count; ++i)
        if (random() % oneIn == 0) indices.push_back(i);
    if (indices.empty()) indices.push_back(static_cast<int>(random() % static_cast<unsigned>(count)));
    return indices;
}

EditPointer randomEdit(std::mt19937& random, const ModelShape& shape) {
    const int b = static_cast<int>(random() % shape.blocks.size());
    const BlockShape& block = shape.blocks[static_cast<std::size_t>(b)];
    switch (random() % 6) {
    case 0:
        return dropBlocks(some(random, shape.numBlocks()));
    case 1:
        return dropAttention(some(random, shape.numBlocks()));
    case 2:
        return dropMlp(some(random, shape.numBlocks()));
    case 3:
        return dropKvGroups(b, some(random, block.numKvHeads));
    case 4:
        return dropHeads(b, some(random, block.numHeads));
    default:
        return block.numExperts > 0 ? dropMlp({b}) : dropChannels(b, some(random, block.ffnSize));
    }
}

/// Random edits; an illegal one is replaced as the check proposes, or left out.
EditPlan randomPlan(std::mt19937& random, const ModelShape& shape) {
    EditPlan plan;
    for (unsigned i = random() % 6 + 1; i > 0; --i) {
        plan.edits.push_back(randomEdit(random, shape));
        for (int attempt = 0; attempt < 4; ++attempt) {
            const auto problems = checkPlan(plan, shape, {});
            const auto found = std::find_if(problems.begin(), problems.end(),
                                            [](const PlanProblem& p) { return p.problem.severity == Severity::Error; });
            if (found == problems.end()) break;
            const auto at = plan.edits.begin() + (found->edit < 0 ? static_cast<int>(plan.edits.size()) - 1 : found->edit);
            if (!found->instead.empty() && attempt < 2)
                *at = found->instead[random() % found->instead.size()];
            else
                plan.edits.erase(at);
        }
    }
    return plan;
}

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
            const ExportResult result = exportHuggingFace(checkpoint, anatomy, cut, to, options, {});
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
    EXPECT_EQ(exports, 600);
}

}  // namespace
}  // namespace resect::test
