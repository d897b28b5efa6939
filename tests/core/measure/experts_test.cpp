#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/measure/experts.h"
#include "core/surgery/edit_plan.h"
#include "tests/core/measure/rows.h"
#include "tests/support/tiny_checkpoint.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <numeric>

namespace resect {
namespace {

using test::randomRows;

ExpertScores measured(const Checkpoint& checkpoint, const Dataset& data, RunOptions options = {}) {
    options.load.dtype = torch::kFloat64;
    ModelRun run(checkpoint, data, options);
    return measureExperts(run, {});
}

class EveryMixture : public testing::TestWithParam<const char*> {
protected:
    test::TinyCheckpoint m_tiny = test::tinyFamily(GetParam());
    Checkpoint m_checkpoint = m_tiny.open();
    ModelShape m_shape = Anatomy::of(m_checkpoint).shape();
    Dataset m_data = randomRows({12, 5, 12, 9}, 61);
};

TEST_P(EveryMixture, SharesAddUpToWhatEachTokenIsSentTo) {
    const ExpertScores scores = measured(m_checkpoint, m_data);
    EXPECT_EQ(scores.tokens, 38);
    EXPECT_EQ(scores.rowsDone, 4);
    for (std::size_t b = 0; b < m_shape.blocks.size(); ++b) {
        const auto e = static_cast<std::size_t>(m_shape.blocks[b].numExperts);
        ASSERT_EQ(scores.load[b].size(), e);
        if (e == 0) continue;
        EXPECT_NEAR(std::accumulate(scores.load[b].begin(), scores.load[b].end(), 0.0), m_shape.numExpertsPerToken, 1e-12);
        if (m_shape.normTopK) {
            EXPECT_NEAR(std::accumulate(scores.gate[b].begin(), scores.gate[b].end(), 0.0), m_shape.routedScaling, 1e-9);
        }
        for (std::size_t i = 0; i < e; ++i) {
            EXPECT_EQ(scores.coActivation[b][i * e + i], scores.load[b][i]);
            EXPECT_NEAR(scores.similarity[b][i * e + i], 1, 1e-12);
            double row = 0;
            for (std::size_t j = 0; j < e; ++j) {
                EXPECT_EQ(scores.coActivation[b][i * e + j], scores.coActivation[b][j * e + i]);
                EXPECT_LE(std::abs(scores.similarity[b][i * e + j]), 1 + 1e-12);
                row += scores.coActivation[b][i * e + j];
            }
            EXPECT_NEAR(row, scores.load[b][i] * m_shape.numExpertsPerToken, 1e-12) << "each token that chose it chose k in all";
            if (scores.load[b][i] > 0) {
                EXPECT_NEAR(scores.gateChosen[b][i] * scores.load[b][i], scores.gate[b][i], 1e-12);
            }
            EXPECT_EQ(scores.load[b][i] == 0, scores.saliency[b][i] == 0);
        }
    }
}

TEST_P(EveryMixture, NeitherBatchesNorPaddingNorStreamingChangeThem) {
    const ExpertScores expected = measured(m_checkpoint, m_data);
    RunOptions options;
    for (const int variant : {0, 1, 2}) {
        options.batchRows = variant == 0 ? 1 : 3;
        options.streamBlocks = variant == 1;
        options.padding = variant == 2 ? PaddingSide::Left : PaddingSide::Right;
        const ExpertScores scores = measured(m_checkpoint, m_data, options);
        for (const auto member : {&ExpertScores::load, &ExpertScores::mass, &ExpertScores::gate, &ExpertScores::saliency, &ExpertScores::loadError})
            for (std::size_t b = 0; b < m_shape.blocks.size(); ++b)
                for (std::size_t e = 0; e < (expected.*member)[b].size(); ++e) EXPECT_NEAR((scores.*member)[b][e], (expected.*member)[b][e], 1e-9);
    }
}

/// The saliency of an expert is what it adds: a block in which only one expert is left adds weight x its output.
TEST_P(EveryMixture, AZeroedExpertHasNoSaliencyButKeepsItsLoad) {
    const auto before = measured(m_checkpoint, m_data);
    const std::size_t last = m_shape.blocks.size() - 1;
    const auto most = std::max_element(before.load[last].begin(), before.load[last].end()) - before.load[last].begin();
    const Anatomy anatomy = Anatomy::of(m_checkpoint);
    for (const auto& tensor : anatomy.expected())
        if (tensor.second.block == static_cast<int>(last) && tensor.second.expert == most && tensor.second.role == TensorRole::ExpertDownWeight) m_tiny.zero(tensor.first);
    m_tiny.save();
    const auto after = measured(m_tiny.open(), m_data);
    EXPECT_GT(before.saliency[last][static_cast<std::size_t>(most)], 0);
    EXPECT_EQ(after.saliency[last][static_cast<std::size_t>(most)], 0);
    EXPECT_EQ(after.load[last], before.load[last]);
}

INSTANTIATE_TEST_SUITE_P(Families, EveryMixture, testing::Values("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek", "glm4_moe"),
                         [](const testing::TestParamInfo<const char*>& info) { return std::string(info.param); });

TEST(Experts, OfADenseModelAreRefused) {
    const auto tiny = test::tinyLlama();
    const Checkpoint checkpoint = tiny.open();
    const Dataset data = randomRows({5}, 61);
    ModelRun run(checkpoint, data, {});
    EXPECT_THROW(measureExperts(run, {}), Error);
}

TEST(Experts, StoppingKeepsWhatWasSeen) {
    const auto tiny = test::tinyFamily("mixtral");
    const Checkpoint checkpoint = tiny.open();
    const Dataset data = randomRows({5, 5, 5, 5, 5, 5}, 61);
    RunOptions options;
    options.batchRows = 1;
    ModelRun run(checkpoint, data, options);
    run.model();
    test::StopAfter stop(3);
    const ExpertScores scores = measureExperts(run, stop.job());
    EXPECT_LT(scores.rowsDone, 6);
    EXPECT_EQ(scores.rowsTotal, 6);
}

}  // namespace
}  // namespace resect
