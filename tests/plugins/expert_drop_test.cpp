#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/method/method.h"
#include "core/protocol/parameter.h"
#include "tests/core/measure/rows.h"
#include "tests/plugins/loaded_method.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>

#include <cmath>

namespace resect {
namespace {

using testing::HasSubstr;

const Method& expertDrop() { return test::loadedMethod("expert-drop"); }

/// Scores of 3 blocks x 5 experts, so that the order is known.
Report scored(std::vector<double> values) {
    Report report;
    report.method = "expert-drop";
    ReportDataset dataset;
    dataset.name = "expert/load";
    dataset.axes = {{"block", "block", {}}, {"expert", "expert", {}}};
    dataset.shape = {3, 5};
    dataset.values = std::move(values);
    report.datasets.push_back(std::move(dataset));
    return report;
}
const std::vector<double> kScores{.5, .1, .4, .2, .8, /**/ .9, .8, .7, .6, .5, /**/ .3, .3, .3, .05, .02};

class Planned : public testing::Test {
protected:
    test::TinyCheckpoint m_tiny = test::tinyFamily("mixtral", {{"num_hidden_layers", 3}});
    Anatomy m_anatomy = Anatomy::of(m_tiny.open());
    std::string edits(const Json& set, const Report& report = scored(kScores)) {
        return expertDrop().plan(m_anatomy, report, Parameters(expertDrop().info().planParameters, set)).toJson()["edits"].dump();
    }
    std::string refusal(const Json& set, const Report& report = scored(kScores)) {
        try {
            edits(set, report);
        } catch (const Error& error) {
            return error.what();
        }
        return "accepted";
    }
};

TEST_F(Planned, TheLeastUsedOfEveryBlockGo) {
    EXPECT_EQ(edits({{"keep", 3}}), R"([{"op":"drop_experts","block":0,"experts":[1,3]},{"op":"drop_experts","block":1,"experts":[3,4]},{"op":"drop_experts","block":2,"experts":[3,4]}])");
    EXPECT_EQ(edits({{"keep", 4}, {"protect", {1}}}), R"([{"op":"drop_experts","block":0,"experts":[1]},{"op":"drop_experts","block":2,"experts":[4]}])");
    EXPECT_EQ(edits({{"keep", 4}, {"reverse", true}}), R"([{"op":"drop_experts","block":0,"experts":[4]},{"op":"drop_experts","block":1,"experts":[0]},{"op":"drop_experts","block":2,"experts":[0]}])");
    EXPECT_EQ(edits({{"keep", 5}}), "[]");
}

TEST_F(Planned, OverTheWholeModelTheLowestGoAndEveryBlockKeepsEnough) {
    EXPECT_EQ(edits({{"keep", 3}, {"scope", "global"}}), R"([{"op":"drop_experts","block":0,"experts":[1,2,3]},{"op":"drop_experts","block":2,"experts":[0,3,4]}])");
}

TEST_F(Planned, WhatCannotBeIsRefused) {
    EXPECT_THAT(refusal({{"keep", 1}}), HasSubstr("each token is sent to 2 experts"));
    Report stopped = scored(kScores);
    stopped.datasets[0].values[7] = std::nan("");
    EXPECT_THAT(refusal({{"keep", 3}}, stopped), HasSubstr("block 1 was not measured"));
    EXPECT_THAT(refusal({{"keep", 3}, {"score", "saliency"}}), HasSubstr("expert/saliency"));
}

TEST(ExpertDrop, KeepsGroupsEquallyLarge) {
    const auto tiny = test::tinyFamily("glm4_moe");
    const Checkpoint checkpoint = tiny.open();
    const Dataset data = test::randomRows({12, 9, 12, 7}, 61);
    ModelRun run(checkpoint, data, {});
    const Report report = expertDrop().analyse(run, Parameters(expertDrop().info().measureParameters, {}), {});
    for (const auto& dataset : report.datasets) {
        checkDataset(dataset, dataset.name);
        EXPECT_FALSE(dataset.title.empty() || dataset.help.empty() || dataset.unit.empty()) << dataset.name;
    }
    const Anatomy anatomy = Anatomy::of(checkpoint);
    const auto plan = [&](int keep) { return expertDrop().plan(anatomy, report, Parameters(expertDrop().info().planParameters, {{"keep", keep}})); };
    EXPECT_THROW(plan(5), Error);
    const EditPlan legal = plan(6);
    EXPECT_EQ(legal.edits.size(), 3u);
    for (const PlanProblem& problem : checkPlan(legal, anatomy.shape(), {})) EXPECT_NE(problem.problem.severity, Severity::Error) << problem.problem.message;
}

}  // namespace
}  // namespace resect
