#include "core/worker/runs.h"

#include "core/base/error.h"
#include "core/surgery/edit_plan.h"
#include "core/workspace/report_file.h"
#include "tests/core/train/train_support.h"

#include <gmock/gmock.h>

#include <cmath>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A cut model whose source has learnt the task, so that the cut costs something.
class ControlledRun : public testing::Test {
protected:
    TinyRun m_teach = tinyRun("full", {{"steps", 60}, {"checkpoint_every", 0}});
    TinyRun m_run = tinyRun("full", {{"steps", 12}, {"eval_every", 4}, {"checkpoint_every", 4}});

    void SetUp() override {
        m_teach.run();
        m_run.job.source = runResult(m_teach.path());
        EditPlan plan;
        plan.edits = {dropBlocks({1})};
        m_run.job.plan = plan.toJson();
        m_run.job.control = *m_run.folder / "run-control";
        m_run.create();
    }
};

TEST_F(ControlledRun, TrainsTheUncutModelTheSameWayAndComparesLikeWithLike) {
    const auto status = runToEnd(m_run.path(), RunStart::Fresh, {});
    EXPECT_EQ(status.state, "done");
    const auto control = findControl(m_run.path());
    ASSERT_TRUE(control);
    EXPECT_EQ(control->status.state, "done");
    EXPECT_EQ(control->status.totalSteps, status.totalSteps);
    // The control starts where the run's baseline was measured: the same uncut model on the same rows.
    EXPECT_NEAR(control->status.cutPerplexity, status.baselinePerplexity, 1e-9 * status.baselinePerplexity);
    const double expected = 1 - std::log(status.bestPerplexity / control->status.bestPerplexity) / std::log(status.cutPerplexity / status.baselinePerplexity);
    EXPECT_NEAR(control->likeForLike, expected, 1e-12);
    EXPECT_LT(control->likeForLike, status.recovery);  // training the uncut model helps it too
    EXPECT_TRUE(readRunJob(control->folder).plan.is_null());
    EXPECT_TRUE(fs::exists(control->folder / "report.h5"));
}

TEST_F(ControlledRun, AStopLeavesTheControlToAResume) {
    std::stop_source source;
    const JobContext job(source.get_token(), [&](const Progress&) {
        if (readStatus(*m_run.folder / "run-control").state == "running") source.request_stop();
    });
    EXPECT_EQ(runToEnd(m_run.path(), RunStart::Fresh, job).state, "done");
    EXPECT_EQ(findControl(m_run.path())->status.state, "stopped");
    EXPECT_EQ(runToEnd(m_run.path(), RunStart::Resume, {}).state, "done");
    EXPECT_EQ(findControl(m_run.path())->status.state, "done");
}

TEST(Control, NeedsSomethingThatIsCut) {
    auto run = tinyRun("full", {});
    run.job.control = *run.folder / "run-control";
    try {
        run.create();
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Usage);
        EXPECT_THAT(error.what(), HasSubstr("nothing is cut"));
    }
    EXPECT_FALSE(fs::exists(run.path() / "job.json"));
}

TEST(RunReport, HoldsTheCurvesOverTheStep) {
    auto run = tinyRun("full", {{"steps", 6}, {"eval_every", 2}});
    run.create();
    const auto status = runToEnd(run.path(), RunStart::Fresh, {});
    const Report report = readReport(run.path() / "report.h5");
    EXPECT_EQ(report.method, "full");
    EXPECT_EQ(report.samplesDone, 6);
    EXPECT_FALSE(report.partial());
    const auto& loss = report.dataset("training/loss");
    EXPECT_EQ(loss.kind, DatasetKind::Curve);
    EXPECT_THAT(loss.axes.at(0).ids, testing::ElementsAre(1, 2, 3, 4, 5, 6));
    EXPECT_EQ(loss.values.back(), status.loss);
    const auto& perplexity = report.dataset("evaluation/perplexity");
    EXPECT_THAT(perplexity.axes.at(0).ids, testing::ElementsAre(0, 2, 4, 6));
    EXPECT_EQ(perplexity.values.back(), status.evalPerplexity);
}

}  // namespace
}  // namespace resect::test
