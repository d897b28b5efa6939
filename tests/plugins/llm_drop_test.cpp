#include "core/anatomy/anatomy.h"
#include "core/anatomy/cost.h"
#include "core/base/error.h"
#include "core/export/hf_writer.h"
#include "core/measure/perplexity.h"
#include "core/method/method.h"
#include "core/models/model.h"
#include "tests/core/measure/rows.h"
#include "tests/plugins/loaded_method.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

namespace resect {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const Method& llmDrop() { return test::loadedMethod("llm-drop"); }

class Dropped : public testing::Test {
protected:
    test::TinyCheckpoint m_tiny = test::tinyLlama({.numBlocks = 5});
    Dataset m_data = test::randomRows({12, 9, 12, 7}, 61);

    Report analyse(const Json& set = {}, const JobContext& job = {}) {
        const Checkpoint checkpoint = m_tiny.open();
        RunOptions options;
        options.batchRows = 2;
        ModelRun run(checkpoint, m_data, options);
        return llmDrop().analyse(run, Parameters(llmDrop().info().measureParameters, set), job);
    }
    EditPlan plan(const Report& report, const Json& set) {
        return llmDrop().plan(Anatomy::of(m_tiny.open()), report, Parameters(llmDrop().info().planParameters, set));
    }
    std::vector<int> blocks(const Report& report, const Json& set) {
        const EditPlan made = plan(report, set);
        return made.edits.empty() ? std::vector<int>() : made.edits.at(0)->toJson()["blocks"].get<std::vector<int>>();
    }
    std::string refusal(const Report& report, const Json& set) {
        try {
            plan(report, set);
        } catch (const Error& error) {
            return error.what();
        }
        return "accepted";
    }
    double lossUnder(const EditPlan& plan) {
        const Checkpoint checkpoint = m_tiny.open();
        ModelRun run(checkpoint, m_data, {});
        if (!plan.edits.empty()) run.setCut(cutOf(plan, run.shape()));
        return measurePerplexity(run, Positions::All, {}).loss;
    }
    torch::Tensor logits(const Checkpoint& checkpoint, const Cut& cut = {}) {
        const torch::NoGradGuard noGrad;
        const auto model = LanguageModel::load(checkpoint, {});
        model->setCut(cut);
        return model->logits({torch::tensor(m_data.rows[0].ids, torch::kInt64).unsqueeze(0), {}, {}});
    }
};

TEST_F(Dropped, NothingIsNothing) {
    const Report report = analyse({{"iterative", "attn"}, {"iterative_count", 1}});
    for (const char* mode : {"discrete", "iterative"}) EXPECT_TRUE(plan(report, {{"count", 0}, {"mode", mode}}).edits.empty());
    EXPECT_TRUE(plan(report, {{"count", 0}, {"mode", "consecutive"}, {"target", "block"}}).edits.empty());
    EXPECT_TRUE(plan(report, {{"budget", "kv_bytes"}, {"limit", 1e12}}).edits.empty()) << "a budget that is met already";
    const Checkpoint checkpoint = m_tiny.open();
    const Anatomy anatomy = Anatomy::of(checkpoint);
    for (const SliceWay way : {SliceWay::Exact, SliceWay::Zeroed}) {
        const test::TempFolder folder;
        ExportOptions options;
        options.way = way;
        exportHuggingFace(checkpoint, anatomy, emptyCut(anatomy.shape()), folder / "same", options, {});
        const Checkpoint same = Checkpoint::open(folder / "same");
        for (const auto& [name, tensor] : m_tiny.tensors) EXPECT_EQ(test::valuesOf(same, name), test::valuesOf(checkpoint, name)) << name;
        EXPECT_TRUE(torch::equal(logits(same), logits(checkpoint)));
    }
}

TEST_F(Dropped, PlantedLayersGoFirstAndChangeNothing) {
    m_tiny.zero("model.layers.3.self_attn.o_proj.weight");
    m_tiny.zero("model.layers.1.mlp.down_proj.weight");
    m_tiny.save();
    const Report report = analyse({{"delta_loss", true}, {"iterative", "joint"}, {"iterative_count", 2}});
    EXPECT_LT(report.dataset("similarity/attention").at({3}), 1e-6);
    EXPECT_LT(report.dataset("similarity/mlp").at({1}), 1e-6);
    EXPECT_EQ(report.dataset("delta_loss/attention").at({3}), 0);
    EXPECT_EQ(report.dataset("delta_loss/mlp").at({1}), 0);
    const Checkpoint checkpoint = m_tiny.open();
    const ModelShape shape = Anatomy::of(checkpoint).shape();
    EditPlan expected;
    expected.edits = {dropAttention({3}), dropMlp({1})};
    for (const char* mode : {"discrete", "iterative"}) {
        const EditPlan both = plan(report, {{"target", "joint"}, {"count", 2}, {"mode", mode}});
        EXPECT_EQ(both.hash(), expected.hash()) << mode;
        EXPECT_TRUE(torch::equal(logits(checkpoint, cutOf(both, shape)), logits(checkpoint)));
    }
}

TEST_F(Dropped, ExportsComputeWhatTheMaskedModelDoes) {
    const Checkpoint checkpoint = m_tiny.open();
    const Anatomy anatomy = Anatomy::of(checkpoint);
    const Report report = analyse();
    const auto exported = [&](const EditPlan& made, SliceWay way) {
        const test::TempFolder folder;
        ExportOptions options;
        options.way = way;
        exportHuggingFace(checkpoint, anatomy, cutOf(made, anatomy.shape()), folder / "cut", options, {});
        return logits(Checkpoint::open(folder / "cut"));
    };
    const EditPlan attention = plan(report, {{"target", "attn"}, {"count", 2}}), block = plan(report, {{"target", "block"}, {"count", 2}});
    EXPECT_TRUE(torch::equal(exported(attention, SliceWay::Zeroed), logits(checkpoint, cutOf(attention, anatomy.shape())))) << "x + 0 = x, bit for bit";
    EXPECT_TRUE(torch::equal(exported(block, SliceWay::Exact), logits(checkpoint, cutOf(block, anatomy.shape())))) << "renumbered";
}

TEST_F(Dropped, ScaleOfTheWholeStreamDoesNotMatter) {
    const Report before = analyse({{"windows", true}, {"angular_tokens", "all"}});
    for (auto& [name, tensor] : m_tiny.tensors) {
        const bool writes = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") || name.ends_with("embed_tokens.weight");
        for (double& value : tensor.values) value *= writes ? 4 : 1;
    }
    m_tiny.save();
    const Report after = analyse({{"windows", true}, {"angular_tokens", "all"}});
    for (const char* name : {"similarity/attention", "similarity/mlp", "similarity/block", "relative_magnitude/block", "angular/window"}) {
        const auto &a = before.dataset(name).values, &b = after.dataset(name).values;
        for (std::size_t i = 0; i < a.size(); ++i)
            if (!std::isnan(a[i])) { EXPECT_NEAR(a[i], b[i], 1e-4) << name << " " << i; }
    }
}

TEST_F(Dropped, JointTakesTheSmallestOfBoth) {
    const Report report = analyse();
    const auto &attention = report.dataset("similarity/attention").values, &mlp = report.dataset("similarity/mlp").values;
    const auto lowestAttention = std::min_element(attention.begin(), attention.end()), lowestMlp = std::min_element(mlp.begin(), mlp.end());
    const EditPlan one = plan(report, {{"target", "joint"}, {"count", 1}});
    EXPECT_EQ(one.edits.at(0)->op(), *lowestAttention <= *lowestMlp ? "drop_attention" : "drop_mlp");
    EXPECT_EQ(one.edits.at(0)->toJson()["blocks"][0], *lowestAttention <= *lowestMlp ? lowestAttention - attention.begin() : lowestMlp - mlp.begin());
}

TEST_F(Dropped, IterativeScoresWhatIsLeft) {
    const Report report = analyse({{"iterative", "attn"}, {"iterative_count", 3}});
    const ReportDataset &units = report.dataset("iterative/unit"), &scores = report.dataset("iterative/score");
    ASSERT_EQ(units.shape[0], 3);
    const int first = static_cast<int>(units.values[0]);
    EXPECT_EQ(first, blocks(report, {{"count", 1}})[0]) << "the first round is the dense model";
    EXPECT_NEAR(scores.values[0], report.dataset("similarity/attention").at({first}), 1e-6);
    // The second round: the scores of a checkpoint without that attention, whose MLP runs on.
    EditPlan without;
    without.edits = {dropAttention({first})};
    const Checkpoint checkpoint = m_tiny.open();
    const Anatomy anatomy = Anatomy::of(checkpoint);
    const test::TempFolder folder;
    exportHuggingFace(checkpoint, anatomy, cutOf(without, anatomy.shape()), folder / "cut", {}, {});
    const Checkpoint cut = Checkpoint::open(folder / "cut");
    ModelRun run(cut, m_data, {});
    const Report rescored = llmDrop().analyse(run, Parameters(llmDrop().info().measureParameters, {}), {});
    const auto& left = rescored.dataset("similarity/attention").values;
    double lowest = 9;
    int at = -1;
    for (int block = 0; block < 5; ++block)
        if (const double score = left[static_cast<std::size_t>(block)]; !std::isnan(score) && score < lowest) lowest = score, at = block;
    EXPECT_EQ(units.values[1], at);
    EXPECT_NEAR(scores.values[1], lowest, 1e-6);
    auto dropped = blocks(report, {{"count", 2}, {"mode", "iterative"}});
    EXPECT_THAT(dropped, testing::UnorderedElementsAre(first, at));
    EXPECT_THAT(refusal(report, {{"count", 4}, {"mode", "iterative"}}), HasSubstr("measured up to 3"));
    EXPECT_THAT(refusal(report, {{"count", 1}, {"mode", "iterative"}, {"target", "mlp"}}), HasSubstr("measured for target = attn"));
    EXPECT_THAT(refusal(analyse(), {{"mode", "iterative"}}), HasSubstr("no iterative order"));
    EXPECT_EQ(analyse({{"iterative", "attn"}, {"iterative_count", 3}, {"iterative_protect", Json::array({first})}}).dataset("iterative/unit").values[0] == first, false);
    EXPECT_EQ(analyse({{"iterative", "mlp"}, {"iterative_count", 2}, {"per_round", 2}}).dataset("iterative/unit").values[0], 5 + blocks(report, {{"target", "mlp"}, {"count", 1}})[0]);
}

TEST_F(Dropped, GreedyAndOneShotLossAgreeOnTheFirst) {
    const Report report = analyse({{"delta_loss", true}, {"iterative", "attn"}, {"iterative_metric", "delta_loss"}, {"iterative_count", 2}});
    const auto one = blocks(report, {{"metric", "delta_loss"}, {"count", 1}});
    EXPECT_EQ(one, blocks(report, {{"metric", "delta_loss"}, {"count", 1}, {"mode", "iterative"}}));
    EXPECT_NEAR(report.dataset("delta_loss/attention").at({one[0]}), lossUnder(plan(report, {{"metric", "delta_loss"}, {"count", 1}})) - lossUnder({}), 1e-6);
    const Report blocksOnly = analyse({{"iterative", "block"}, {"iterative_metric", "delta_loss"}, {"iterative_count", 5}});
    const auto& order = blocksOnly.dataset("iterative/unit").values;
    EXPECT_EQ(std::count(order.begin(), order.begin() + 3, 0.0) + std::count(order.begin(), order.begin() + 3, 4.0), 0) << "the first and the last block stay while others are left";
}

TEST_F(Dropped, CurvesAndOrdersAreThoseOfThePlans) {
    const Report report = analyse({{"curve", "attn"}, {"curve_count", 3}});
    const ReportDataset& losses = report.dataset("curve/attn_loss");
    ASSERT_EQ(losses.shape[0], 4);
    for (int n = 0; n <= 3; ++n) {
        EXPECT_NEAR(losses.at({n}), lossUnder(plan(report, {{"count", n}})), 1e-6);
        EXPECT_NEAR(report.dataset("curve/attn_perplexity").at({n}), std::exp(losses.at({n})), 1e-9);
    }
    const ReportDataset &order = report.dataset("order/attn"), &joint = report.dataset("order/joint");
    EXPECT_EQ(order.shape, (std::vector<std::int64_t>{5, 5}));
    EXPECT_EQ(joint.shape, (std::vector<std::int64_t>{10, 10}));
    for (int n = 1; n <= 5; ++n) {
        std::vector<int> dropped;
        for (int block = 0; block < 5; ++block)
            if (order.at({n - 1, block}) == 0) dropped.push_back(block);
        EXPECT_EQ(dropped, blocks(report, {{"count", n}}));
    }
    const Checkpoint checkpoint = m_tiny.open();
    const ModelShape shape = Anatomy::of(checkpoint).shape();
    const EditPlan two = plan(report, {{"target", "mlp"}, {"count", 2}});
    EXPECT_EQ(report.dataset("cost/mlp_parameters").at({2}), static_cast<double>(costOf(shapeAfter(shape, cutOf(two, shape)), 1).parameters));
    EXPECT_EQ(report.find("cost/mlp_kv_bytes"), nullptr) << "MLPs cache nothing";
}

/// The gauge, the allocated cache and decoding through it: absent attention layers hold nothing, and the slots of the others are right.
TEST_F(Dropped, AttentionThatIsGoneCachesNothing) {
    const Report report = analyse();
    const Checkpoint checkpoint = m_tiny.open();
    const Anatomy anatomy = Anatomy::of(checkpoint);
    const torch::NoGradGuard noGrad;
    for (int n : {0, 1, 3}) {
        const EditPlan made = plan(report, {{"count", n}});
        const test::TempFolder folder;
        exportHuggingFace(checkpoint, anatomy, made.edits.empty() ? emptyCut(anatomy.shape()) : cutOf(made, anatomy.shape()), folder / "cut", {}, {});
        const Checkpoint cut = Checkpoint::open(folder / "cut");
        const auto model = LanguageModel::load(cut, {});
        const auto cache = model->makeCache(1, 16);
        EXPECT_EQ(cache->bytes(), static_cast<std::uint64_t>(report.dataset("cost/attn_kv_bytes").at({n})) * 16) << n << " dropped";
        EXPECT_EQ(model->numParameters(), static_cast<std::int64_t>(report.dataset("cost/attn_parameters").at({n})));
        const auto ids = torch::tensor(m_data.rows[0].ids, torch::kInt64).unsqueeze(0);
        const auto whole = model->logits({ids, {}, {}});
        for (std::int64_t t = 0; t < ids.size(1); ++t) {
            const auto step = model->logits({ids.narrow(1, t, 1), {}, {}}, nullptr, cache.get());
            EXPECT_LT((step[0][0] - whole[0][t]).abs().max().item<double>(), 1e-4);
            EXPECT_EQ(step[0][0].argmax().item<std::int64_t>(), whole[0][t].argmax().item<std::int64_t>());
        }
    }
}

TEST_F(Dropped, BudgetsAreMetByTheFewestUnits) {
    const Report report = analyse({{"latency", true}, {"latency_context", 32}});
    const ModelShape shape = Anatomy::of(m_tiny.open()).shape();
    const EditPlan kv = plan(report, {{"budget", "kv_bytes"}, {"ratio", 0.5}});
    EXPECT_EQ(kv.edits.at(0)->toJson()["blocks"].size(), 3u) << "two fifths are not half";
    EXPECT_EQ(kv.notes["budget"]["before"].get<double>(), 5 * 2 * 2 * 10 * 4) << "5 layers x (keys, values) x 2 groups x 10 x 4 bytes";
    EXPECT_EQ(kv.notes["budget"]["after"].get<double>(), 2 * 2 * 2 * 10 * 4);
    for (const char* target : {"attn", "mlp", "block", "joint"})
        for (const char* budget : {"parameters", "bytes", "flops", "latency", "prefill_latency"}) {
            const Json set{{"target", target}, {"budget", budget}, {"ratio", 0.03}};
            // On a busy machine the time of a tiny layer may be anything.
            if (std::string(budget).ends_with("latency") && refusal(report, set).find("cannot be met") != std::string::npos) continue;
            const EditPlan made = plan(report, set);
            const Json& note = made.notes["budget"];
            EXPECT_LE(note["after"].get<double>(), note["limit"].get<double>()) << target << " " << budget;
            const auto count = static_cast<int>(made.notes["order"].size());
            ASSERT_GT(count, 0) << target << " " << budget;
            if (std::string(budget) != "parameters") continue;
            const EditPlan fewer = plan(report, {{"target", target}, {"count", count - 1}});
            const auto left = [&](const EditPlan& each) { return static_cast<double>(costOf(each.edits.empty() ? shape : shapeAfter(shape, cutOf(each, shape)), 1).parameters); };
            EXPECT_GT(left(fewer), note["limit"].get<double>()) << "one fewer does not do";
            EXPECT_EQ(left(made), note["after"].get<double>());
        }
    EXPECT_THAT(refusal(report, {{"target", "attn"}, {"budget", "parameters"}, {"ratio", 0.9}}), HasSubstr("cannot be met: no more than 5 units"));
    EXPECT_THAT(refusal(analyse(), {{"budget", "latency"}}), HasSubstr("latency=true"));
}

TEST_F(Dropped, FirstAndLastBlockAreWarnedOf) {
    const Report report = analyse();
    EXPECT_EQ(plan(report, {{"target", "block"}, {"count", 4}, {"metric", "reverse"}}).notes["warnings"].size(), 1u);
    EXPECT_FALSE(plan(report, {{"target", "block"}, {"count", 1}, {"metric", "reverse"}, {"protect", "4"}}).notes.contains("warnings"));
}

TEST_F(Dropped, AStopKeepsTheFinishedRounds) {
    test::StopAfter stop(8);   // two batches of scores, then two rounds of two batches and a report each
    const Report report = analyse({{"iterative", "attn"}, {"iterative_count", 5}}, stop.job());
    EXPECT_TRUE(report.partial());
    EXPECT_EQ(report.dataset("iterative/unit").shape[0], 2);
}

}  // namespace
}  // namespace resect
