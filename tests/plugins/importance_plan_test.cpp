#include "core/anatomy/anatomy.h"
#include "core/anatomy/cost.h"
#include "core/base/error.h"
#include "core/method/method.h"
#include "core/surgery/budget.h"
#include "plugins/importance/lanes.h"
#include "tests/core/measure/rows.h"
#include "tests/plugins/loaded_method.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>

#include <cmath>

namespace resect {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const Method& importance() { return test::loadedMethod("importance"); }

// ---- lanes

Lane laneOf(std::vector<double> scores) {
    Lane lane;
    for (std::size_t i = 0; i < scores.size(); ++i) lane.bundles.push_back({scores[i], {{-1, static_cast<int>(i)}}});
    return lane;
}
std::vector<double> normalised(std::vector<double> scores, const std::string& how) {
    Lane lane = laneOf(std::move(scores));
    normalise(lane, how);
    std::vector<double> result;
    for (const Bundle& bundle : lane.bundles) result.push_back(bundle.score);
    return result;
}

TEST(Lanes, AreNormalisedByTheirClosedForms) {
    EXPECT_THAT(normalised({1, 2, 5}, "none"), ElementsAre(1, 2, 5));
    EXPECT_THAT(normalised({1, 2, 5}, "sum"), ElementsAre(.125, .25, .625));
    EXPECT_THAT(normalised({1, 3, 4, 8}, "mean"), ElementsAre(.25, .75, 1, 2));
    EXPECT_THAT(normalised({1, 3, 4, 8}, "max"), ElementsAre(.125, .375, .5, 1));
    EXPECT_THAT(normalised({1, 3, 5}, "min_max"), ElementsAre(0, .5, 1));
    EXPECT_THAT(normalised({1, 3, 5}, "gaussian"), ElementsAre(-1, 0, 1));
    EXPECT_THAT(normalised({1, 2, 4, 8}, "quantile"), ElementsAre(.25, .5, 1, 2));
    EXPECT_THAT(normalised({3, 4}, "l2"), ElementsAre(.6, .8));
    EXPECT_THAT(normalised({1, 2, 5}, "lamp"), ElementsAre(1.0 / 8, 2.0 / 7, 1)) << "each by the sum of those not smaller";
    EXPECT_THAT(normalised({1, 1, 2}, "lamp"), ElementsAre(.25, .25, 1)) << "equals count among those not smaller";
    EXPECT_THAT(normalised({-1, 0, 3}, "auto"), ElementsAre(-1, 0, 3));
    EXPECT_THAT(normalised({1, 3}, "auto"), ElementsAre(.5, 1.5));
    EXPECT_THAT(normalised({0, 0}, "sum"), ElementsAre(0, 0));
}

TEST(Lanes, KeepMultiplesOfChannels) {
    const Lane lane = laneOf(std::vector<double>(200, 1.0));
    EXPECT_EQ(200 - snapped(lane, 60, 32), 128);
    EXPECT_EQ(200 - snapped(lane, 10, 64), 192);
    EXPECT_EQ(200 - snapped(lane, 150, 128), 128);
    EXPECT_EQ(200 - snapped(lane, 199, 1), 1);
    EXPECT_EQ(200 - snapped(lane, 60, 256), 200) << "there is no multiple of 256 below";
    Lane heads = lane;
    heads.kind = ComponentKind::Head;
    EXPECT_EQ(snapped(heads, 60, 32), 60);
    EXPECT_EQ(snapped(heads, 200, 1), 199) << "one stays";
}

// ---- plans

class Solved : public testing::Test {
protected:
    test::TinyCheckpoint m_tiny = test::tinyLlama({.numBlocks = 4, .ffnSize = 128});
    Dataset m_data = test::randomRows({12, 9, 12, 7}, 61);

    Report analyse(const test::TinyCheckpoint& tiny, const Json& set = {}) {
        const Checkpoint checkpoint = tiny.open();
        ModelRun run(checkpoint, m_data, {});
        return importance().analyse(run, Parameters(importance().info().measureParameters, set), {});
    }
    EditPlan plan(const Report& report, const Json& set) { return importance().plan(Anatomy::of(m_tiny.open()), report, Parameters(importance().info().planParameters, set)); }
    std::string refusal(const Report& report, const Json& set) {
        try {
            plan(report, set);
        } catch (const Error& error) {
            return error.what();
        }
        return "accepted";
    }
    std::vector<BlockShape> after(const EditPlan& plan) {
        const ModelShape shape = Anatomy::of(m_tiny.open()).shape();
        for (const PlanProblem& problem : checkPlan(plan, shape, "")) EXPECT_NE(problem.problem.severity, Severity::Error) << problem.problem.message;
        return plan.edits.empty() ? shape.blocks : blocksAfter(shape, cutOf(plan, shape));
    }
};

TEST_F(Solved, EveryCriterionCutsAndIsCompared) {
    const Report report = analyse(m_tiny, {{"gradients", "rows"}, {"ablation", "heads"}, {"ablation_blocks", "1,2"}});
    EXPECT_FALSE(report.partial());
    for (const auto& dataset : report.datasets) {
        checkDataset(dataset, dataset.name);
        EXPECT_FALSE(dataset.title.empty() || dataset.help.empty() || dataset.unit.empty()) << dataset.name;
    }
    for (const char* metric : {"magnitude", "activation", "rms", "wanda", "ifv", "wifv", "flap", "gate", "gate_token", "gate_batch", "taylor", "taylor_vector", "taylor2", "taylor_mix"})
        for (const char* target : {"channels", "heads", "kv_groups"}) {
            const EditPlan cut = plan(report, {{"metric", metric}, {"target", target}, {"ratio", 0.5}, {"scope", "global"}});
            EXPECT_FALSE(cut.edits.empty()) << metric << " " << target;
            after(cut);
        }
    for (const char* kind : {"head", "kv_group", "channel"}) {
        const ReportDataset& rho = report.dataset(std::string("agreement/") + kind + "_spearman");
        const std::int64_t count = rho.shape[0];
        EXPECT_GE(count, 14);
        for (std::int64_t i = 0; i < count; ++i) {
            EXPECT_NEAR(rho.at({i, i}), 1, 1e-12) << rho.help;
            for (std::int64_t j = 0; j < i; ++j) EXPECT_TRUE(std::isnan(rho.at({i, j})) || std::abs(rho.at({i, j}) - rho.at({j, i})) < 1e-12);
        }
    }
    const ReportDataset &loo = report.dataset("head/loo"), &with = report.dataset("agreement/head_with_loo");
    EXPECT_EQ(with.shape[0], 4);
    EXPECT_TRUE(std::isnan(with.at({0, 0}))) << "not ablated";
    EXPECT_NEAR(with.at({1, with.shape[1] - 1}), 1, 1e-12) << "itself";
    EXPECT_EQ(report.find("agreement/channel_with_loo"), nullptr);
    EXPECT_TRUE(std::isnan(loo.at({0, 0})));
    EXPECT_FALSE(std::isnan(loo.at({1, 0})));
    EXPECT_EQ(plan(report, {{"metric", "loo"}, {"target", "heads"}, {"ratio", 0.34}}).edits.size(), 2u) << "only blocks that were measured";
    EXPECT_THROW(plan(report, {{"metric", "loo"}}), Error) << "channels were not left out";
    for (const char* metric : {"wanda", "flap", "gate"}) EXPECT_FALSE(report.dataset(std::string("channel/") + metric).errors.empty()) << metric;
}

TEST_F(Solved, BudgetsAreMetByTheLeastCut) {
    const Report report = analyse(m_tiny, {{"latency", true}, {"latency_context", 32}});
    const Anatomy anatomy = Anatomy::of(m_tiny.open());
    const ModelShape& shape = anatomy.shape();
    for (const char* budget : {"parameters", "bytes", "flops", "latency", "prefill_latency", "kv_bytes"})
        for (const char* scope : {"per_block", "global", "isomorphic"}) {
            const bool cache = std::string(budget) == "kv_bytes", timed = std::string(budget).find("latency") != std::string::npos;
            const char* target = cache ? "kv_groups" : timed ? "channels" : "kv_groups_and_channels";
            // Times are whatever this machine gives: the budget is taken from what cutting half of the channels saves.
            Json set{{"target", target}, {"scope", scope}, {"budget", budget}, {"ratio", cache ? 0.25 : 0.1}, {"rounding", 1}, {"normalise", "gaussian"}};
            if (timed) {
                const EditPlan half = plan(report, {{"target", target}, {"ratio", 0.5}, {"rounding", 1}});
                Json probe = set;
                probe["limit"] = 1e9;
                const double before = plan(report, probe).notes["budget"]["before"].get<double>();
                EXPECT_TRUE(plan(report, probe).edits.empty()) << "a budget that is met already";
                if (refusal(report, set).find("cannot be met") != std::string::npos) continue;   // a layer's time need not shrink with its size here
                EXPECT_GT(before, 0);
            }
            const EditPlan solved = plan(report, set);
            const Json& note = solved.notes["budget"];
            EXPECT_LE(note["after"].get<double>(), note["limit"].get<double>()) << budget << " " << scope;
            EXPECT_EQ(note["obtained"], timed ? "estimated from measured layers" : "counted");
            const auto blocks = after(solved);
            for (const BlockShape& block : blocks) {
                EXPECT_GE(block.numKvHeads, 1);
                EXPECT_GE(block.ffnSize, 1);
            }
            if (std::string(budget) == "parameters") {
                ModelShape left = shape;
                left.blocks = blocks;
                EXPECT_EQ(note["after"].get<double>(), static_cast<double>(costOf(left, 1).parameters));
                // No further than needed: a kv group of every block, or a channel of every block, is the coarsest step.
                const double slack = 4.0 * (2 * 48 * 30 + 2 * 48 * 10 + 3 * 48);
                EXPECT_GT(note["after"].get<double>(), note["limit"].get<double>() - slack) << scope;
            }
        }
}

TEST_F(Solved, WhatCannotBeMetIsSaidWithTheLeast) {
    const Report report = analyse(m_tiny);
    EXPECT_THAT(refusal(report, {{"budget", "parameters"}, {"ratio", 0.9}}), HasSubstr("cannot be met: one unit stays in every layer"));
    EXPECT_THAT(refusal(report, {{"budget", "latency"}}), HasSubstr("latency=true"));
    EXPECT_THAT(refusal(report, {{"scope", "greedy"}}), HasSubstr("no greedy order"));
    EXPECT_THAT(refusal(report, {{"metric", "taylor"}}), HasSubstr("channel/taylor"));
}

TEST_F(Solved, WidthsAreMultiplesAndProtectedBlocksStay) {
    const Report report = analyse(m_tiny);
    for (const char* scope : {"per_block", "global", "isomorphic"})
        for (const char* budget : {"units", "parameters"}) {
            const auto blocks = after(plan(report, {{"scope", scope}, {"budget", budget}, {"ratio", std::string(budget) == "units" ? 0.3 : 0.1}, {"rounding", 32}, {"protect", "0,3"}}));
            for (const BlockShape& block : blocks) EXPECT_EQ(block.ffnSize % 32, 0) << scope;
            EXPECT_EQ(blocks[0].ffnSize, 128);
            EXPECT_EQ(blocks[3].ffnSize, 128);
            EXPECT_LT(blocks[1].ffnSize + blocks[2].ffnSize, 256);
        }
}

TEST_F(Solved, IsomorphicSharesOutByKind) {
    const Report report = analyse(m_tiny);
    const auto blocks = after(plan(report, {{"target", "heads_and_channels"}, {"scope", "isomorphic"}, {"ratio", 0.5}, {"rounding", 1}}));
    int heads = 0, channels = 0;
    for (const BlockShape& block : blocks) {
        heads += block.numHeads, channels += block.ffnSize;
        EXPECT_TRUE(block.groupsAreEqual());
    }
    EXPECT_EQ(channels, 256) << "half of 512";
    EXPECT_EQ(heads, 12) << "half of 24";
}

TEST_F(Solved, GreedyOrderFollowsTheLoss) {
    const Report report = analyse(m_tiny, {{"greedy", "channels"}, {"greedy_step", 0.25}, {"greedy_ratio", 0.25}});
    const ReportDataset &loss = report.dataset("greedy/loss"), &block = report.dataset("greedy/block"), &cut = report.dataset("greedy/cut");
    ASSERT_EQ(loss.shape[0], 4) << "a quarter of 4 x 4 quarters";
    const EditPlan two = plan(report, {{"scope", "greedy"}, {"ratio", 0.125}, {"rounding", 1}});
    int channels = 0;
    for (const BlockShape& one : after(two)) channels += 128 - one.ffnSize;
    EXPECT_EQ(channels, 64) << "two steps of 32";
    EXPECT_EQ(128 - after(two)[static_cast<std::size_t>(block.values[0])].ffnSize, block.values[1] == block.values[0] ? cut.values[1] : cut.values[0]);
    // The first step is the best of all single ones, and its loss is what the model has under it.
    const Checkpoint checkpoint = m_tiny.open();
    ModelRun run(checkpoint, m_data, {});
    const auto lanes = lanesOf(run.shape(), report, {ComponentKind::Channel}, "wanda", {});
    double best = 1e9;
    for (std::size_t i = 0; i < 4; ++i) {
        std::vector<int> counts(4, 0);
        counts[i] = 32;
        run.setCut(cutOf(planOf(lanes, counts), run.shape()));
        double sum = 0, count = 0;
        run.run(nullptr, [&](std::size_t index, const torch::Tensor& logits_BTV) {
            const auto targets = run.targets(index);
            const auto losses = torch::cross_entropy_loss(logits_BTV.reshape({-1, logits_BTV.size(2)}), targets.reshape({-1}), {}, at::Reduction::Sum, kIgnoredTarget);
            sum += losses.item<double>(), count += targets.ne(kIgnoredTarget).sum().item<double>();
        }, {});
        best = std::min(best, sum / count);
    }
    EXPECT_NEAR(loss.values[0], best, 1e-5);
    EXPECT_THAT(refusal(report, {{"scope", "greedy"}, {"ratio", 0.8}}), HasSubstr("larger greedy_ratio"));
    EXPECT_THAT(refusal(report, {{"scope", "greedy"}, {"metric", "magnitude"}}), HasSubstr("measured for channels by wanda"));
    EXPECT_LE(plan(report, {{"scope", "greedy"}, {"budget", "parameters"}, {"ratio", 0.1}, {"rounding", 1}}).notes["budget"]["after"].get<double>(),
              0.9 * plan(report, {{"scope", "greedy"}, {"budget", "parameters"}, {"ratio", 0.1}, {"rounding", 1}}).notes["budget"]["before"].get<double>());
}

TEST_F(Solved, ExpertsLoseEqualNumbersOfChannels) {
    m_tiny = test::tinyMixtral();
    const Report report = analyse(m_tiny, {{"gradients", "weights"}});
    for (const char* metric : {"wanda", "taylor", "gate", "magnitude"}) {
        const ReportDataset& scores = report.dataset(std::string("expert_channel/") + metric);
        EXPECT_EQ(scores.shape, (std::vector<std::int64_t>{3, 4, 43}));
        const EditPlan channels = plan(report, {{"metric", metric}, {"ratio", 0.3}, {"rounding", 1}});
        EXPECT_EQ(channels.edits.size(), 12u) << "every expert of every block";
        for (const BlockShape& block : after(channels)) EXPECT_EQ(block.ffnSize, 30);
    }
    const EditPlan experts = plan(report, {{"target", "experts"}, {"metric", "taylor"}, {"ratio", 0.95}});
    for (const BlockShape& block : after(experts)) EXPECT_EQ(block.numExperts, 2) << "as many as each token is sent to";
    EXPECT_NE(report.find("expert/gate"), nullptr);
    EXPECT_NE(report.find("agreement/expert_spearman"), nullptr);
}

}  // namespace
}  // namespace resect
