#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/method/method.h"
#include "core/protocol/parameter.h"
#include "tests/core/measure/rows.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace resect {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

const MethodRegistry& registry() {
    static const MethodRegistry* const kRegistry = [] {
        auto* loaded = new MethodRegistry;
        loadPlugins(*loaded, {fs::path(RESECT_BINARY_DIR) / "lib/resect/plugins"});
        return loaded;
    }();
    return *kRegistry;
}

TEST(Plugins, AreFoundBesideTheProgram) {
    MethodRegistry loaded;
    const auto rows = loadPlugins(loaded);
    EXPECT_GE(rows.size(), 2u);
    for (const auto& row : rows) EXPECT_EQ(row.error, "") << row.file;
    EXPECT_NE(loaded.find("llm-drop"), nullptr);
    EXPECT_NE(loaded.find("importance"), nullptr);
}

TEST(Plugins, ASecondLibraryWithTheSameMethodIsARow) {
    const test::TempFolder folder;
    fs::copy_file(fs::path(RESECT_BINARY_DIR) / "lib/resect/plugins/llm_drop.so", folder / "copy.so");
    MethodRegistry loaded;
    const auto rows = loadPlugins(loaded, {fs::path(RESECT_BINARY_DIR) / "lib/resect/plugins", folder.path()});
    ASSERT_FALSE(rows.empty());
    EXPECT_THAT(rows.back().error, HasSubstr("\"llm-drop\" is already registered"));
    EXPECT_TRUE(rows.back().methods.empty());
}

TEST(Plugins, DeclareDefaultsThatTheyAccept) {
    for (const auto& method : registry().methods())
        for (const auto* declared : {&method->info().measureParameters, &method->info().planParameters}) {
            Json defaults = Json::object();
            for (const auto& parameter : *declared) {
                defaults[parameter.name] = parameter.defaultValue;
                EXPECT_FALSE(parameter.title.empty() || parameter.help.empty()) << parameter.name;
            }
            EXPECT_TRUE(checkParameters(*declared, defaults).empty());
        }
}

class Measured : public testing::Test {
protected:
    test::TinyCheckpoint m_tiny = test::tinyLlama({.numBlocks = 5});
    Dataset m_data = test::randomRows({12, 9, 12, 7}, 61);

    Report analyse(const std::string& id, const Json& set = {}, const JobContext& job = {}) {
        const Checkpoint checkpoint = m_tiny.open();
        const Method& method = registry().method(id);
        RunOptions options;
        options.batchRows = 2;
        ModelRun run(checkpoint, m_data, options);
        return method.analyse(run, Parameters(method.info().measureParameters, set), job);
    }
    EditPlan plan(const Report& report, const Json& set) {
        const Checkpoint checkpoint = m_tiny.open();
        const Method& method = registry().method(report.method);
        return method.plan(Anatomy::of(checkpoint), report, Parameters(method.info().planParameters, set));
    }
    std::string refusal(const Report& report, const Json& set) {
        try {
            plan(report, set);
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::Usage);
            return error.what();
        }
        return "accepted";
    }
};

/// A report with chosen scores, so that the order is known.
Report scored(const std::vector<double>& attention, const std::vector<double>& mlp, const std::vector<double>& block) {
    Report report;
    report.method = "llm-drop";
    report.modelFingerprint = "sha256:x";
    const auto add = [&](const char* name, const std::vector<double>& values) {
        ReportDataset dataset;
        dataset.name = name;
        dataset.axes = {{"block", "block", {}}};
        dataset.shape = {static_cast<std::int64_t>(values.size())};
        dataset.values = values;
        report.datasets.push_back(dataset);
    };
    add("similarity/attention", attention);
    add("similarity/mlp", mlp);
    add("similarity/block", block);
    return report;
}

TEST_F(Measured, LlmDropDescribesWhatItMeasured) {
    const Report report = analyse("llm-drop", {{"delta_loss", true}});
    EXPECT_FALSE(report.partial());
    EXPECT_EQ(report.dtype, "f32");
    EXPECT_EQ(report.dataFingerprint, m_data.fingerprint);
    for (const char* name : {"similarity/block", "similarity/attention", "similarity/mlp", "similarity/window", "similarity/best_span", "similarity/best_span_start",
                             "angular/window", "relative_magnitude/block", "residual/norm", "residual/largest", "residual/largest_channel", "delta_loss/block"})
        EXPECT_NE(report.find(name), nullptr) << name;
    for (const auto& dataset : report.datasets) {
        checkDataset(dataset, dataset.name);
        EXPECT_FALSE(dataset.title.empty() || dataset.help.empty() || dataset.unit.empty()) << dataset.name;
        EXPECT_EQ(dataset.samples, 4);
    }
    const auto& window = report.dataset("similarity/window");
    const auto& best = report.dataset("similarity/best_span");
    const auto& start = report.dataset("similarity/best_span_start");
    for (std::int64_t n = 0; n < 5; ++n) EXPECT_EQ(best.at({n}), window.at({static_cast<std::int64_t>(start.at({n})), n}));
    EXPECT_EQ(analyse("llm-drop", {{"windows", false}}).find("similarity/window"), nullptr);
}

TEST_F(Measured, LlmDropPicksPlantedLayersFirst) {
    m_tiny.zero("model.layers.3.self_attn.o_proj.weight");
    m_tiny.zero("model.layers.1.mlp.down_proj.weight");
    m_tiny.save();
    const Report report = analyse("llm-drop");
    EXPECT_EQ(plan(report, {{"target", "attn"}, {"count", 1}}).edits.at(0)->toJson()["blocks"], Json::array({3}));
    EXPECT_EQ(plan(report, {{"target", "mlp"}, {"count", 1}}).edits.at(0)->toJson()["blocks"], Json::array({1}));
    const EditPlan both = plan(report, {{"target", "joint"}, {"count", 2}});
    EXPECT_EQ(both.edits.size(), 2u);
    EXPECT_EQ(both.fingerprint, report.modelFingerprint);
}

TEST_F(Measured, LlmDropTakesTheLowestAndSettlesTiesByIndex) {
    const Report report = scored({.5, .2, .2, .4, .9}, {.3, .6, .1, .8, .2}, {.5, .4, .3, .2, .1});
    const auto blocks = [&](const Json& set) { return plan(report, set).edits.at(0)->toJson()["blocks"].get<std::vector<int>>(); };
    EXPECT_THAT(blocks({{"target", "attn"}, {"count", 2}}), ElementsAre(1, 2));
    EXPECT_THAT(blocks({{"target", "attn"}, {"count", 1}}), ElementsAre(1));
    EXPECT_THAT(blocks({{"target", "attn"}, {"count", 2}, {"protect", "1"}}), ElementsAre(2, 3));
    EXPECT_THAT(blocks({{"target", "block"}, {"count", 2}}), ElementsAre(3, 4));
    EXPECT_THAT(blocks({{"target", "block"}, {"count", 2}, {"metric", "deepest_first"}}), ElementsAre(2, 3));
    EXPECT_THAT(blocks({{"target", "block"}, {"count", 2}, {"metric", "reverse"}}), ElementsAre(3, 4));
    const EditPlan joint = plan(report, {{"target", "joint"}, {"count", 4}});
    EXPECT_THAT(joint.edits.at(0)->toJson()["blocks"].get<std::vector<int>>(), ElementsAre(1, 2));
    EXPECT_THAT(joint.edits.at(1)->toJson()["blocks"].get<std::vector<int>>(), ElementsAre(2, 4));
    EXPECT_EQ(joint.notes["order"], Json::array({"mlp 2", "attention 1", "attention 2", "mlp 4"}));
    EXPECT_TRUE(plan(report, {{"count", 0}}).edits.empty());
    EXPECT_EQ(plan(report, {{"target", "block"}, {"count", 3}, {"metric", "random"}, {"seed", 4}}).toJson(),
              plan(report, {{"target", "block"}, {"count", 3}, {"metric", "random"}, {"seed", 4}}).toJson());
}

TEST_F(Measured, LlmDropConsecutiveComparesExactlyThatManyBlocks) {
    Report report = scored({1, 1, 1, 1, 1}, {1, 1, 1, 1, 1}, {.5, .1, .5, .1, .5});
    ReportDataset window;
    window.name = "similarity/window";
    window.shape = {5, 5};
    window.axes = {{"first block", "block", {}}, {"span length", "", {}}};
    window.values.assign(25, .9);
    for (int i = 0; i < 5; ++i)
        for (int n = 0; n < 5; ++n)
            if (i + n + 1 > 5) window.values[static_cast<std::size_t>(i * 5 + n)] = std::nan("");
    window.values[2 * 5 + 1] = .2;  // blocks 2 and 3
    window.values[1 * 5 + 2] = .1;  // blocks 1, 2 and 3
    report.datasets.push_back(window);
    const auto blocks = [&](const Json& set) { return plan(report, set).edits.at(0)->toJson()["blocks"].get<std::vector<int>>(); };
    EXPECT_THAT(blocks({{"target", "block"}, {"mode", "consecutive"}, {"count", 2}}), ElementsAre(2, 3));
    EXPECT_THAT(blocks({{"target", "block"}, {"mode", "consecutive"}, {"count", 3}}), ElementsAre(1, 2, 3));
    EXPECT_THAT(blocks({{"target", "block"}, {"mode", "consecutive"}, {"count", 2}, {"protect", "3"}}), ElementsAre(0, 1));
    EXPECT_THAT(refusal(report, {{"target", "block"}, {"mode", "consecutive"}, {"count", 6}}), HasSubstr("no run of 6"));
    EXPECT_THAT(refusal(report, {{"target", "attn"}, {"mode", "consecutive"}}), HasSubstr("whole blocks"));
}

TEST_F(Measured, LlmDropRefusesWhatCannotBe) {
    const Report report = scored({.5, .2, .2, .4, .9}, {.3, .6, .1, .8, .2}, {.5, .4, .3, .2, .1});
    EXPECT_THAT(refusal(report, {{"count", 6}}), HasSubstr("only 5"));
    EXPECT_THAT(refusal(report, {{"metric", "block_influence"}}), HasSubstr("whole blocks"));
    EXPECT_THROW(plan(report, {{"target", "block"}, {"metric", "angular"}}), Error) << "not measured";
    EXPECT_THROW(plan(scored({1}, {1}, {1}), {{"target", "block"}}), Error) << "another model";
}

TEST_F(Measured, ImportanceHasAMatrixForEveryScore) {
    const Report report = analyse("importance");
    for (const char* unit : {"head", "kv_group", "channel"})
        for (const char* metric : {"magnitude", "activation", "rms", "wanda"}) {
            const ReportDataset& dataset = report.dataset(std::string(unit) + "/" + metric);
            checkDataset(dataset, dataset.name);
            EXPECT_EQ(dataset.shape[1], std::string(unit) == "head" ? 6 : std::string(unit) == "kv_group" ? 2 : 43);
            EXPECT_EQ(dataset.axes[1].component, unit);
        }
    EXPECT_EQ(analyse("importance", {{"activations", false}}).find("head/wanda"), nullptr);
}

TEST_F(Measured, ImportanceCutsUnitsThatDoNothingFirst) {
    test::zeroChannels(m_tiny, 2, {3, 17, 30, 31});
    test::zeroHeads(m_tiny, 1, {4});
    m_tiny.save();
    const Report report = analyse("importance");
    const EditPlan channels = plan(report, {{"count", 4}, {"rounding", 1}});
    ASSERT_EQ(channels.edits.size(), 5u);
    EXPECT_EQ(channels.edits[2]->toJson()["channels"], Json::array({3, 17, 30, 31}));
    const EditPlan heads = plan(report, {{"target", "heads"}, {"count", 2}, {"metric", "wanda"}});
    const auto cut = heads.edits.at(1)->toJson()["heads"].get<std::vector<int>>();
    EXPECT_EQ(cut.size(), 2u);
    EXPECT_LT(cut[0], 3) << "one of each kv group";
    EXPECT_EQ(cut[1], 4);
    EXPECT_EQ(plan(report, {{"target", "kv_groups"}, {"count", 1}}).edits.size(), 5u);
}

TEST_F(Measured, ImportanceKeepsShapesThatLoad) {
    const Report report = analyse("importance");
    const auto kept = [&](const Json& set) { return 43 - static_cast<int>(plan(report, set).edits.at(0)->toJson()["channels"].size()); };
    EXPECT_EQ(kept({{"ratio", 0.3}, {"rounding", 8}}), 32);
    EXPECT_EQ(kept({{"ratio", 0.95}, {"rounding", 1}}), 2);
    EXPECT_TRUE(plan(report, {{"ratio", 0}}).edits.empty());
    EXPECT_THAT(refusal(report, {{"count", 43}}), HasSubstr("at least one stays"));
    EXPECT_THAT(refusal(report, {{"target", "heads"}, {"count", 3}}), HasSubstr("multiple of the 2 kv groups"));
    const EditPlan global = plan(report, {{"scope", "global"}, {"ratio", 0.95}, {"rounding", 1}});
    std::size_t cut = 0;
    for (const auto& edit : global.edits) {
        EXPECT_LT(edit->toJson()["channels"].size(), 43u);
        cut += edit->toJson()["channels"].size();
    }
    EXPECT_EQ(cut, 204u) << "0.95 of 215";
    const Checkpoint checkpoint = m_tiny.open();
    for (const auto& problem : checkPlan(plan(report, {{"target", "heads"}, {"ratio", 0.34}}), Anatomy::of(checkpoint).shape(), ""))
        EXPECT_NE(problem.problem.severity, Severity::Error) << problem.problem.message;
}

TEST_F(Measured, PartialResultsSaySo) {
    test::StopAfter stop(1);
    const Report report = analyse("llm-drop", {}, stop.job());
    EXPECT_TRUE(report.partial());
    EXPECT_EQ(report.samplesDone, 2);
    EXPECT_EQ(report.dataset("similarity/block").samples, 2);
}

}  // namespace
}  // namespace resect
