#include "core/measure/similarity.h"
#include "core/measure/statistics.h"
#include "core/measure/stream_kernels.h"
#include "tests/core/measure/rows.h"
#include "tests/support/tiny_checkpoint.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace resect {
namespace {

using test::randomRows;

void expectNear(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(std::isnan(a[i]), std::isnan(b[i])) << i;
        if (!std::isnan(a[i])) {
            EXPECT_NEAR(a[i], b[i], tolerance) << i;
        }
    }
}

void expectEqualScores(const SimilarityScores& a, const SimilarityScores& b, double tolerance) {
    const auto unit = [&](const UnitScores& x, const UnitScores& y) {
        expectNear(x.score, y.score, tolerance);
        expectNear(x.error, y.error, tolerance);
    };
    unit(a.block, b.block);
    unit(a.attention, b.attention);
    unit(a.mlp, b.mlp);
    unit(a.relativeBlock, b.relativeBlock);
    unit(a.relativeMlp, b.relativeMlp);
    unit(a.norm, b.norm);
    expectNear(a.window, b.window, tolerance);
    expectNear(a.windowError, b.windowError, tolerance);
    expectNear(a.angular, b.angular, 10 * tolerance);
    expectNear(a.largest, b.largest, 100 * tolerance);
}

RunOptions withRows(int batchRows, PaddingSide padding = PaddingSide::Right) {
    RunOptions options;
    options.batchRows = batchRows;
    options.padding = padding;
    return options;
}

TEST(StreamKernels, AgreeWithLibTorch) {
    torch::manual_seed(3);
    for (const auto dtype : {torch::kFloat32, torch::kFloat64, torch::kBFloat16}) {
        const auto h = torch::randn({37, 53}).to(dtype), m = (h.to(torch::kFloat32) + 0.1 * torch::randn({37, 53})).to(dtype), o = torch::randn({37, 53}).to(dtype);
        const auto fast = kernels::tokenSums(h, m, o), plain = kernels::plainTokenSums(h, m, o);
        for (std::size_t t = 0; t < fast.size(); ++t) {
            EXPECT_NEAR(fast[t].hh, plain[t].hh, 1e-12 * plain[t].hh);
            EXPECT_NEAR(fast[t].ho, plain[t].ho, 1e-10);
            EXPECT_NEAR(fast[t].hm, plain[t].hm, 1e-10);
            EXPECT_NEAR(fast[t].mo, plain[t].mo, 1e-10);
            EXPECT_NEAR(fast[t].mh2, plain[t].mh2, 1e-10);
            EXPECT_NEAR(fast[t].om2, plain[t].om2, 1e-10);
            EXPECT_NEAR(fast[t].oh2, plain[t].oh2, 1e-10);
        }
        const auto extents = kernels::tokenExtents(h), plainExtents = kernels::plainTokenExtents(h);
        for (std::size_t t = 0; t < extents.size(); ++t) {
            EXPECT_EQ(extents[t].largest, plainExtents[t].largest);
            EXPECT_NEAR(extents[t].squaredNorm, plainExtents[t].squaredNorm, 1e-10);
        }
        EXPECT_LT((kernels::pairCosines({h, m, o}) - kernels::plainPairCosines({h, m, o})).abs().max().item<double>(), 1e-12);
        auto sums = torch::zeros({53}, torch::kFloat64), absolute = sums.clone(), squares = sums.clone();
        kernels::addColumnSums(h, 5, 30, sums, absolute, squares);
        EXPECT_LT((sums - h.narrow(0, 5, 25).to(torch::kFloat64).sum(0)).abs().max().item<double>(), 1e-12);
        EXPECT_LT((absolute - h.narrow(0, 5, 25).to(torch::kFloat64).abs().sum(0)).abs().max().item<double>(), 1e-12);
        EXPECT_LT((squares - h.narrow(0, 5, 25).to(torch::kFloat64).square().sum(0)).abs().max().item<double>(), 1e-12);
    }
}

TEST(StreamKernels, OrderPairsByTheFirstState) {
    const auto x = torch::tensor({{1.0, 0.0}}), y = torch::tensor({{1.0, 1.0}}), z = torch::tensor({{0.0, 2.0}}), zero = torch::zeros({1, 2});
    const auto cosines = kernels::pairCosines({x, y, z});
    EXPECT_NEAR(cosines[0][0].item<double>(), std::sqrt(0.5), 1e-7);
    EXPECT_NEAR(cosines[0][1].item<double>(), 0, 1e-12);
    EXPECT_NEAR(cosines[0][2].item<double>(), std::sqrt(0.5), 1e-7);
    EXPECT_TRUE(std::isnan(kernels::pairCosines({x, zero})[0][0].item<double>()));
}

TEST(Statistics, ClusteredMeanIsTheRatioEstimator) {
    const std::vector<double> sums{2, 9, 4, 0}, counts{1, 3, 2, 0};
    const MeanError mean = clusteredMean(sums, counts);
    EXPECT_DOUBLE_EQ(mean.mean, 2.5);
    EXPECT_NEAR(mean.error, std::sqrt(1.5 * (0.25 + 2.25 + 1.0)) / 6, 1e-12);
    ClusterTotals totals;
    ClusterCounts rows;
    for (int r = 0; r < 3; ++r) totals.add(sums[static_cast<std::size_t>(r)], counts[static_cast<std::size_t>(r)]), rows.add(counts[static_cast<std::size_t>(r)]);
    EXPECT_NEAR(clusteredMean(totals, rows).error, mean.error, 1e-12);
    EXPECT_TRUE(std::isnan(clusteredMean(std::vector<double>{}, std::vector<double>{}).mean));
    EXPECT_TRUE(std::isnan(clusteredMean(std::vector<double>{1.0}, std::vector<double>{1.0}).error));
    EXPECT_NEAR(halfWidth95(12), 2.201, 3e-3);
    EXPECT_NEAR(halfWidth95(100000), 1.96, 1e-3);
}

class Similarity : public testing::Test {
protected:
    test::TinyCheckpoint m_tiny = test::tinyLlama({.numBlocks = 4});
    Dataset m_data = randomRows({11, 7, 13, 5, 9}, 61);
    SimilarityScores scores(const RunOptions& options, const SimilarityOptions& similarity = {}, const JobContext& job = {}) {
        const Checkpoint checkpoint = m_tiny.open();
        ModelRun run(checkpoint, m_data, options);
        return measureSimilarity(run, similarity, job);
    }
};

/// Written from the definition, token by token in float64.
TEST_F(Similarity, FollowsItsDefinition) {
    const Checkpoint checkpoint = m_tiny.open();
    RunOptions options = withRows(2);
    options.load.dtype = torch::kFloat64;
    ModelRun run(checkpoint, m_data, options);
    const SimilarityScores scores = measureSimilarity(run, {}, {});
    struct Keep : Observer {
        std::vector<torch::Tensor> in, between, out;
        bool wants(TapPoint p, int) const override { return p == TapPoint::BlockInput || p == TapPoint::AfterAttention || p == TapPoint::BlockOutput; }
        void observe(TapPoint p, int, const torch::Tensor& x) override { (p == TapPoint::BlockInput ? in : p == TapPoint::AfterAttention ? between : out).push_back(x[0]); }
    };
    const torch::NoGradGuard noGrad;
    std::vector<double> block(4, 0), attention(4, 0), mlp(4, 0), relative(4, 0), span(4, 0), angle(4, 0), norm(5, 0);
    double tokens = 0;
    for (const auto& row : m_data.rows) {
        Keep keep;
        run.model().logits({torch::tensor(row.ids, torch::kInt64).unsqueeze(0), {}, {}}, &keep);
        const auto cosines = [](const torch::Tensor& a, const torch::Tensor& b) { return (a * b).sum(-1) / (a.norm(2, -1) * b.norm(2, -1)); };
        for (std::size_t l = 0; l < 4; ++l) {
            block[l] += cosines(keep.in[l], keep.out[l]).sum().item<double>();
            attention[l] += cosines(keep.in[l], keep.between[l]).sum().item<double>();
            mlp[l] += cosines(keep.between[l], keep.out[l]).sum().item<double>();
            relative[l] += ((keep.between[l] - keep.in[l]).norm(2, -1) / keep.between[l].norm(2, -1)).sum().item<double>();
            span[l] += cosines(keep.in[0], keep.out[l]).sum().item<double>();
            angle[l] += std::acos(cosines(keep.in[0], keep.out[l])[-1].item<double>()) / std::numbers::pi;
            norm[l + 1] += keep.out[l].norm(2, -1).sum().item<double>();
        }
        tokens += static_cast<double>(row.ids.size());
    }
    for (std::size_t l = 0; l < 4; ++l) {
        EXPECT_NEAR(scores.block.score[l], 1 - block[l] / tokens, 1e-12);
        EXPECT_NEAR(scores.attention.score[l], 1 - attention[l] / tokens, 1e-12);
        EXPECT_NEAR(scores.mlp.score[l], 1 - mlp[l] / tokens, 1e-12);
        EXPECT_NEAR(scores.relativeAttention.score[l], relative[l] / tokens, 1e-12);
        EXPECT_NEAR(scores.window[l], 1 - span[l] / tokens, 1e-12) << "row 0 of the matrix: spans from block 0";
        EXPECT_NEAR(scores.angular[l], angle[l] / 5, 1e-9);
        EXPECT_NEAR(scores.norm.score[l + 1], norm[l + 1] / tokens, 1e-12);
    }
    EXPECT_EQ(scores.windowTokens, 45);
}

TEST_F(Similarity, DoesNotDependOnBatchesOrderOrPadding) {
    const SimilarityScores one = scores(withRows(1));
    expectEqualScores(one, scores(withRows(5)), 1e-6);
    expectEqualScores(one, scores(withRows(2, PaddingSide::Left)), 1e-6);
    std::reverse(m_data.rows.begin(), m_data.rows.end());
    expectEqualScores(one, scores(withRows(3)), 1e-6);
}

TEST_F(Similarity, StreamedEqualsResident) {
    RunOptions streamed = withRows(2);
    streamed.streamBlocks = true;
    expectEqualScores(scores(withRows(2)), scores(streamed), 0);
}

TEST_F(Similarity, WindowOfOneBlockIsTheBlockScore) {
    const SimilarityScores all = scores(withRows(2));
    for (std::size_t block = 0; block < 4; ++block) EXPECT_NEAR(all.window[block * 4], all.block.score[block], 1e-12);
    for (std::size_t i = 0; i < 4; ++i)
        for (std::size_t n = 0; n < 4; ++n) EXPECT_EQ(std::isnan(all.window[i * 4 + n]), i + n + 1 > 4);
    SimilarityOptions everyToken;
    everyToken.angularTokens = AngularTokens::All;
    for (const double angle : scores(withRows(2), everyToken).angular)
        EXPECT_TRUE(std::isnan(angle) || (angle >= 0 && angle <= 1));
    SimilarityOptions few;
    few.windowTokens = 3;
    EXPECT_EQ(scores(withRows(2), few).windowTokens, 15);
    SimilarityOptions tight;
    tight.stateMemory = 5 * 48 * 4 * 10;  // ten tokens in all
    EXPECT_EQ(scores(withRows(2), tight).windowTokens, 10);
    SimilarityOptions none;
    none.windows = false;
    EXPECT_TRUE(scores(withRows(2), none).window.empty());
}

TEST_F(Similarity, FindsPlantedLayersThatDoNothing) {
    m_tiny.zero("model.layers.1.self_attn.o_proj.weight");
    m_tiny.zero("model.layers.2.mlp.down_proj.weight");
    m_tiny.save();
    const SimilarityScores found = scores(withRows(2));
    for (std::size_t block = 0; block < 4; ++block) {
        EXPECT_EQ(found.attention.score[block] < 1e-6, block == 1);
        EXPECT_EQ(found.mlp.score[block] < 1e-6, block == 2);
        EXPECT_GT(found.block.score[block], 1e-6);
    }
    EXPECT_EQ(found.relativeAttention.score[1], 0);
}

TEST_F(Similarity, GivesNoScoreToAbsentLayers) {
    const Checkpoint checkpoint = m_tiny.open();
    ModelRun run(checkpoint, m_data, withRows(2));
    Cut cut = emptyCut(run.shape());
    cut.blocks[1].attention = true;
    cut.blocks[3].block = true;
    run.setCut(cut);
    const SimilarityScores left = measureSimilarity(run, {}, {});
    EXPECT_TRUE(std::isnan(left.attention.score[1]));
    EXPECT_FALSE(std::isnan(left.mlp.score[1])) << "the surviving layer still runs";
    EXPECT_TRUE(std::isnan(left.block.score[3]));
    EXPECT_NEAR(left.window[3 * 4], 0, 1e-12);
}

TEST_F(Similarity, KeepsTheFinishedRowsWhenStopped) {
    test::StopAfter stop(2);
    const SimilarityScores part = scores(withRows(1), {}, stop.job());
    EXPECT_EQ(part.rowsDone, 2);
    EXPECT_EQ(part.rowsTotal, 5);
    m_data.rows.resize(2);
    expectNear(part.block.score, scores(withRows(1)).block.score, 0);
}

TEST_F(Similarity, KeepsTheFinishedBlocksWhenAStreamedRunIsStopped) {
    RunOptions streamed = withRows(1);
    streamed.streamBlocks = true;
    test::StopAfter stop(2);
    const SimilarityScores part = scores(streamed, {}, stop.job());
    EXPECT_EQ(part.rowsDone, 0);
    const SimilarityScores whole = scores(streamed);
    for (std::size_t block = 0; block < 4; ++block) {
        EXPECT_TRUE(block < 2 ? part.block.score[block] == whole.block.score[block] : std::isnan(part.block.score[block])) << block;
    }
}

TEST_F(Similarity, NamesTheBlockWhereTheStreamIsNotFinite) {
    m_tiny.tensor("model.layers.2.mlp.down_proj.weight").at(0, 0) = std::numeric_limits<double>::quiet_NaN();
    m_tiny.save();
    const SimilarityScores broken = scores(withRows(2));
    EXPECT_FALSE(std::isnan(broken.block.score[1]));
    EXPECT_TRUE(std::isnan(broken.block.score[2]));
    ASSERT_FALSE(broken.notes.empty());
    EXPECT_NE(broken.notes[0].subject.find("block 2, row 0, token 0"), std::string::npos);
}

}  // namespace
}  // namespace resect
