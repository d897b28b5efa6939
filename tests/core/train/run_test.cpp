#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/hf_writer.h"
#include "core/surgery/edit_plan.h"
#include "core/train/recipe.h"
#include "core/train/trainee.h"
#include "tests/core/train/train_support.h"

#include <gmock/gmock.h>
#include <torch/types.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <sys/resource.h>
#include <thread>

namespace resect::test {
namespace {

std::stop_source g_stop;
volatile std::sig_atomic_t g_terminated = 0;
void onTerm(int) { g_terminated = 1; }

}  // namespace

/// Not a test: what the child of startChild() does. SIGTERM asks it to stop and keep, as the command line program does.
TEST(TrainChild, RunsTheFolderItIsGiven) {
    const char* folder = std::getenv("RESECT_TRAIN_CHILD");
    if (!folder) GTEST_SKIP() << "only as a child of another test";
    if (const char* limit = std::getenv("RESECT_TRAIN_FILE_LIMIT")) {  // what a full disk looks like to this process
        std::signal(SIGXFSZ, SIG_IGN);
        const auto bytes = static_cast<rlim_t>(std::atoll(limit));
        const rlimit files{bytes, bytes};
        setrlimit(RLIMIT_FSIZE, &files);
    }
    std::signal(SIGTERM, onTerm);
    std::jthread watch([](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            if (g_terminated) g_stop.request_stop();
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    });
    int code = 0;
    try {
        const JobContext job(g_stop.get_token(), {});
        const auto status = std::string(std::getenv("RESECT_TRAIN_HOW")) == "resume" ? resumeRun(folder, job) : runJob(folder, job);
        code = status.state == "done" ? 0 : exitCode(ErrorCode::Stopped);
    } catch (const Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        code = exitCode(error.code());
    }
    _exit(code);
}

namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

double lastLoss(const fs::path& run) {
    const auto rows = readMetrics(run);
    for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
        if (row->event.empty()) return row->loss.get<double>();
    }
    return -1;
}

double firstLoss(const fs::path& run) {
    for (const auto& row : readMetrics(run)) {
        if (row.event.empty()) return row.loss.get<double>();
    }
    return -1;
}

TEST(Run, LowersTheLossOfATinyTaskAndKeepsALoadableCheckpoint) {
    auto run = tinyRun("full", {{"steps", 60}, {"checkpoint_every", 0}, {"eval_every", 20}});
    const auto status = run.run();
    EXPECT_EQ(status.state, "done");
    EXPECT_EQ(status.step, 60);
    EXPECT_LT(lastLoss(run.path()), 0.5 * firstLoss(run.path()));
    EXPECT_LT(status.evalPerplexity, 0.5 * status.cutPerplexity);
    const auto result = runResult(run.path());
    EXPECT_EQ(result.filename(), "step-60");
    EXPECT_THAT(verifyFolder(result, {}), testing::IsEmpty());
    EXPECT_EQ(LanguageModel::load(Checkpoint::open(result), {})->shape().numBlocks(), 3);
}

TEST(Run, TrainsTheStructurallyCutModelAndReportsRecovery) {
    auto run = tinyRun("full", {{"steps", 30}});
    // Something worth recovering: train the source first.
    auto teach = tinyRun("full", {{"steps", 60}, {"checkpoint_every", 0}});
    teach.run();
    run.job.source = runResult(teach.path());
    EditPlan plan;
    plan.edits = {dropBlocks({1}), dropChannels(0, {3, 17})};
    run.job.plan = plan.toJson();
    const auto status = run.run();
    EXPECT_EQ(status.state, "done");
    const auto shape = Anatomy::of(Checkpoint::open(runResult(run.path()))).shape();
    EXPECT_EQ(shape.numBlocks(), 2);
    EXPECT_EQ(shape.blocks[0].ffnSize, 41);
    EXPECT_LT(status.baselinePerplexity, status.cutPerplexity);
    const double expected = std::log(status.cutPerplexity / status.evalPerplexity) / std::log(status.cutPerplexity / status.baselinePerplexity);
    EXPECT_NEAR(status.recovery, expected, 1e-9);
    EXPECT_GT(status.recovery, 0.2);
    EXPECT_THAT(status.message, HasSubstr("% of the lost loss is back"));
}

TEST(Run, SameSeedSameBytes) {
    auto first = tinyRun("full", {}), second = tinyRun("full", {});
    second.job.source = first.job.source;
    first.run();
    second.run();
    EXPECT_EQ(comparableRows(first.path()), comparableRows(second.path()));
    auto a = hashesBelow(runResult(first.path())), b = hashesBelow(runResult(second.path()));
    for (auto* hashes : {&a, &b}) {
        hashes->erase("state/state.json");  // holds times
        hashes->erase("manifest.json");
    }
    EXPECT_EQ(a, b);
}

TEST(Run, KeepsTheBestAndTheNewestCheckpointOnly) {
    auto run = tinyRun("full", {{"steps", 10}, {"keep", 2}});
    run.run();
    const auto found = runCheckpoints(run.path() / "checkpoints");
    const auto best = pointedCheckpoint(run.path() / "checkpoints", "best"), last = pointedCheckpoint(run.path() / "checkpoints", "last");
    ASSERT_TRUE(best && last);
    EXPECT_EQ(last->filename(), "step-10");
    EXPECT_LE(found.size(), 3u);
    EXPECT_TRUE(fs::exists(run.path() / "checkpoints/step-8"));
}

TEST(Run, RefusesToStartTwice) {
    auto run = tinyRun("full", {});
    run.run();
    try {
        runJob(run.path(), {});
        FAIL() << "started again";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Usage);
        EXPECT_THAT(error.what(), HasSubstr("resume"));
    }
}

TEST(Run, ResumingAFinishedRunChangesNothing) {
    auto run = tinyRun("full", {});
    run.run();
    const auto rows = comparableRows(run.path());
    const auto before = hashesBelow(run.path() / "checkpoints");
    EXPECT_EQ(resumeRun(run.path(), {}).state, "done");
    EXPECT_EQ(comparableRows(run.path()), rows);
    EXPECT_EQ(hashesBelow(run.path() / "checkpoints"), before);
}

TEST(Run, AJobWithMoreStepsGoesOnWhereItEnded) {
    auto run = tinyRun("full", {{"schedule", "constant"}});
    run.run();
    auto job = readRunJob(run.path());
    job.parameters["steps"] = 8;
    writeJsonFile(run.path() / "job.json", job.toJson());
    const auto status = resumeRun(run.path(), {});
    EXPECT_EQ(status.step, 8);
    EXPECT_EQ(status.state, "done");
}

struct Interrupted : testing::TestWithParam<const char*> {};

/// kill -9 in the middle, then resume: rows and final bytes are those of a run that nobody disturbed.
TEST_P(Interrupted, KilledAndResumedEqualsUninterrupted) {
    const std::string which = GetParam();
    const std::string recipe = which.starts_with("lora") ? "lora" : "full";
    Json parameters{{"steps", 24}, {"checkpoint_every", 5}, {"eval_every", 4}};
    if (recipe == "lora") parameters.update({{"lora_rank", 3}, {"lora_dropout", 0.25}});
    if (which == "full-accumulating") parameters.update({{"accumulation", 2}, {"distill_weight", 0.5}});
    auto whole = tinyRun(recipe, parameters), killed = tinyRun(recipe, parameters);
    killed.job.source = whole.job.source;
    if (which == "full-bf16") whole.job.dtype = killed.job.dtype = "bf16";
    whole.create();
    ASSERT_EQ(waitForExit(startChild(whole.path(), "run")), 0);
    killed.create();
    for (const int step : {7, 13}) {
        const auto child = startChild(killed.path(), step == 7 ? "run" : "resume");
        waitUntil([&] { return reachedStep(killed.path(), step); });
        kill(child, SIGKILL);
        EXPECT_EQ(waitForExit(child), -SIGKILL);
        EXPECT_EQ(readStatus(killed.path()).state, "lost");
    }
    ASSERT_EQ(waitForExit(startChild(killed.path(), "resume")), 0);
    EXPECT_EQ(comparableRows(killed.path()), comparableRows(whole.path()));
    auto a = hashesBelow(killed.path() / "checkpoints"), b = hashesBelow(whole.path() / "checkpoints");
    for (auto* hashes : {&a, &b}) std::erase_if(*hashes, [](const auto& entry) { return entry.first.ends_with("state.json") || entry.first.ends_with("manifest.json"); });
    EXPECT_EQ(a, b);
    EXPECT_GE(a.size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(Recipes, Interrupted, testing::Values("full", "full-bf16", "full-accumulating", "lora"));

TEST(Run, SigtermStopsAndKeeps) {
    auto run = tinyRun("full", {{"steps", 5000}, {"checkpoint_every", 0}, {"eval_every", 0}});
    run.create();
    const auto child = startChild(run.path(), "run");
    waitUntil([&] { return reachedStep(run.path(), 3); });
    kill(child, SIGTERM);
    EXPECT_EQ(waitForExit(child), 5);
    const auto status = readStatus(run.path());
    EXPECT_EQ(status.state, "stopped");
    EXPECT_EQ(runCheckpoints(run.path() / "checkpoints").back().step, status.step);
    EXPECT_GE(status.step, 3);
}

TEST(Run, ControlFilePausesResumesAndStops) {
    auto run = tinyRun("full", {{"steps", 100000}, {"checkpoint_every", 0}, {"eval_every", 0}});
    run.create();
    std::jthread other([&] {
        waitUntil([&] { return reachedStep(run.path(), 2); });
        writeControl(run.path(), RunControl::Pause);
        waitUntil([&] { return readStatus(run.path()).state == "paused"; });
        const auto before = readMetrics(run.path()).size();
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        EXPECT_EQ(readMetrics(run.path()).size(), before) << "trained while it was paused";
        writeControl(run.path(), RunControl::Resume);
        waitUntil([&] { return readMetrics(run.path()).size() > before + 3; });
        EXPECT_EQ(readStatus(run.path()).state, "running");
        writeControl(run.path(), RunControl::Stop);
    });
    const auto status = runJob(run.path(), {});
    EXPECT_EQ(status.state, "stopped");
    EXPECT_FALSE(fs::exists(run.path() / "control"));
    std::vector<std::string> events;
    for (const auto& row : readMetrics(run.path())) {
        if (!row.event.empty()) events.push_back(row.event);
    }
    EXPECT_THAT(events, testing::ElementsAre("eval", "pause", "resume", "checkpoint", "stop"));
}

TEST(Run, TwoProcessesCannotHoldOneFolder) {
    auto run = tinyRun("full", {});
    run.create();
    RunFolder holder(run.path());
    try {
        resumeRun(run.path(), {});
        FAIL() << "ran a folder that is held";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Mismatch);
        EXPECT_THAT(error.what(), HasSubstr("process " + std::to_string(getpid())));
    }
}

/// Decay beyond 2 / rate makes every matrix grow from step to step until it leaves the range of f32.
TinyRun divergingRun(double rate, double decay, int steps) {
    auto run = tinyRun("full", {{"steps", steps}, {"lr", rate}, {"weight_decay", decay}, {"warmup_steps", 0}, {"schedule", "constant"}, {"eval_every", 0},
                                {"checkpoint_every", 5}, {"eval_rows", 1}});
    run.job.parameters["batch_rows"] = 1;
    return run;
}

std::vector<std::int64_t> stepsOf(const fs::path& run, const std::string& event) {
    std::vector<std::int64_t> steps;
    for (const auto& row : readMetrics(run)) {
        if (row.event == event) steps.push_back(row.step);
    }
    return steps;
}

TEST(Run, GoesBackToTheLastCheckpointWithHalfTheRateWhenAValueIsNotFinite) {
    const auto run = divergingRun(10, 0.3, 160);  // matrices double each step; at half the rate they shrink
    const auto status = run.run();
    EXPECT_EQ(status.state, "done") << status.message;
    EXPECT_EQ(status.step, 160);
    const auto failed = stepsOf(run.path(), "nonfinite"), restarted = stepsOf(run.path(), "restart");
    ASSERT_EQ(failed.size(), 1u);
    ASSERT_EQ(restarted.size(), 1u);
    EXPECT_LT(restarted[0], failed[0]);
    EXPECT_EQ(restarted[0] % 5, 0);
    EXPECT_EQ(readMetrics(run.path()).at(1).learningRate, 10);
    const auto rows = readMetrics(run.path());
    const auto restart = std::ranges::find(rows, "restart", &protocol::MetricsRow::event);
    EXPECT_EQ((restart + 1)->learningRate, 5);
    EXPECT_THAT(readFile(run.path() / "log.txt"), HasSubstr("halved the learning rate"));
}

TEST(Run, GivesUpTheThirdTimeAValueIsNotFiniteAndKeepsTheLastGoodCheckpoint) {
    const auto run = divergingRun(10, 10, 60);
    try {
        run.run();
        FAIL() << "finished";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::BadInput);
        EXPECT_THAT(error.what(), HasSubstr("third time"));
    }
    const auto status = readStatus(run.path());
    EXPECT_EQ(status.state, "failed");
    EXPECT_THAT(status.message, HasSubstr("third time"));
    EXPECT_EQ(stepsOf(run.path(), "nonfinite").size(), 3u);
    EXPECT_EQ(stepsOf(run.path(), "restart").size(), 2u);
    EXPECT_THAT(verifyFolder(runCheckpoints(run.path() / "checkpoints").back().folder, {}), testing::IsEmpty());
}

TEST(Run, FullDiskFailsWithTheLastCheckpointKeptAndCanBeResumed) {
    auto run = tinyRun("full", {{"steps", 6}, {"checkpoint_every", 3}});
    run.create();
    setenv("RESECT_TRAIN_FILE_LIMIT", "60000", 1);
    const auto child = startChild(run.path(), "run");
    unsetenv("RESECT_TRAIN_FILE_LIMIT");
    EXPECT_EQ(waitForExit(child), 4);
    EXPECT_EQ(readStatus(run.path()).state, "failed");
    EXPECT_TRUE(runCheckpoints(run.path() / "checkpoints").empty());
    EXPECT_EQ(resumeRun(run.path(), {}).state, "done");
}

TEST(Run, AFolderThatCannotBeWrittenIsAnErrorNotACrash) {
    auto run = tinyRun("full", {});
    run.create();
    writeText(run.path() / "checkpoints", "a file where a folder should be");
    EXPECT_THROW(runJob(run.path(), {}), Error);
    EXPECT_EQ(readStatus(run.path()).state, "failed");
}

TEST(Run, ADamagedNewestCheckpointIsSkippedWhenResuming) {
    auto whole = tinyRun("full", {{"keep", 3}}), damaged = tinyRun("full", {{"keep", 3}});
    damaged.job.source = whole.job.source;
    whole.run();
    damaged.run();
    writeText(damaged.path() / "checkpoints/step-6/model.safetensors", "cut short");
    EXPECT_EQ(resumeRun(damaged.path(), {}).state, "done");
    EXPECT_EQ(comparableRows(damaged.path()), comparableRows(whole.path()));
    EXPECT_EQ(sha256File(damaged.path() / "checkpoints/step-6/model.safetensors"), sha256File(whole.path() / "checkpoints/step-6/model.safetensors"));
}

TEST(Run, ResumeRefusesOtherDataThanItStartedWith) {
    auto run = tinyRun("full", {});
    run.run();
    writeCounting(run.job.data.file, 31, 15, 61);
    try {
        resumeRun(run.path(), {});
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Mismatch);
    }
}

TEST(Run, PretrainsAMixtureFromAConfigAlone) {
    auto run = tinyRun("pretrain", {{"steps", 40}, {"lr", 1e-2}, {"checkpoint_every", 0}, {"router_balance", 0.02}});
    const auto mixtral = tinyMixtral();
    const TempFolder shape;
    writeJsonFile(shape / "config.json", mixtral.config);
    run.job.source = shape / "config.json";
    const auto status = run.run();
    EXPECT_EQ(status.state, "done");
    EXPECT_NEAR(std::log(status.cutPerplexity), std::log(61), 0.1) << "random weights should know nothing";
    EXPECT_LT(status.evalPerplexity, 0.5 * status.cutPerplexity);
    const auto checkpoint = Checkpoint::open(runResult(run.path()));
    EXPECT_EQ(checkpoint.config()["model_type"], "mixtral");
    EXPECT_THAT(verifyFolder(checkpoint.folder(), {}), testing::IsEmpty());
}

TEST(Run, Bf16SourcesStayBf16AndContinueFromFullPrecision) {
    auto run = tinyRun("full", {{"steps", 4}}, {.dtype = DType::BF16});
    run.job.dtype = "bf16";
    run.run();
    const auto checkpoint = Checkpoint::open(runResult(run.path()));
    for (const auto& tensor : checkpoint.tensors()) EXPECT_EQ(tensor.dtype, DType::BF16) << tensor.name;
    const auto state = SafetensorsFile::open(runResult(run.path()) / "state/optimizer.safetensors");
    EXPECT_NE(state.find("master.model.norm.weight"), nullptr);
}

TEST(RunJob, RoundTripsAndNamesTheWrongField) {
    auto run = tinyRun("lora", {{"lora_rank", 4}});
    EditPlan plan;
    plan.edits = {dropBlocks({1})};
    run.job.plan = plan.toJson();
    run.job.evalData = {"/somewhere/eval.jsonl", 7, 0};
    const auto json = run.job.toJson();
    EXPECT_EQ(RunJob::fromJson(json, "job.json").toJson(), json);
    const auto complaint = [&](const std::function<void(Json&)>& change) -> std::string {
        auto changed = json;
        change(changed);
        try {
            RunJob::fromJson(changed, "job.json");
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_THAT(complaint([](Json& j) { j.erase("data"); }), HasSubstr("data"));
    EXPECT_THAT(complaint([](Json& j) { j["data"]["maxRows"] = -1; }), HasSubstr("maxRows"));
    EXPECT_THAT(complaint([](Json& j) { j["recipe"] = "bold"; }), HasSubstr("bold"));
    EXPECT_THAT(complaint([](Json& j) { j["colour"] = 1; }), HasSubstr("colour"));
    EXPECT_THAT(complaint([](Json& j) { j["dtype"] = "f16"; }), HasSubstr("dtype"));
    EXPECT_THAT(complaint([](Json& j) { j["set"]["lora_rank"] = 0; }), HasSubstr("lora_rank"));
    EXPECT_THAT(complaint([](Json& j) { j["resect_run"] = 2; }), HasSubstr("resect_run"));
    EXPECT_THAT(complaint([](Json& j) { j["plan"] = Json{{"edits", 3}}; }), HasSubstr("plan"));
}

TEST(Run, RejectsAnotherFingerprintAnotherPlanAndBadData) {
    const auto codeOf = [](const TinyRun& run) {
        run.create();
        try {
            runJob(run.path(), {});
        } catch (const Error& error) {
            EXPECT_EQ(readStatus(run.path()).state, "failed");
            EXPECT_FALSE(readStatus(run.path()).message.empty());
            return error.code();
        }
        return ErrorCode::Internal;
    };
    auto fingerprint = tinyRun("full", {});
    fingerprint.job.sourceFingerprint = "sha256:0000";
    EXPECT_EQ(codeOf(fingerprint), ErrorCode::Mismatch);
    auto plan = tinyRun("full", {});
    EditPlan other;
    other.fingerprint = "sha256:0000";
    other.edits = {dropBlocks({1})};
    plan.job.plan = other.toJson();
    EXPECT_EQ(codeOf(plan), ErrorCode::Mismatch);
    auto empty = tinyRun("full", {});
    writeText(empty.job.data.file, "");
    EXPECT_EQ(codeOf(empty), ErrorCode::BadInput);
    auto nan = tinyRun("full", {});
    nan.source.tensor("model.norm.weight").values[0] = std::nan("");
    nan.source.save();
    EXPECT_EQ(codeOf(nan), ErrorCode::BadInput);
    auto lora = tinyRun("lora", {{"lora_targets", "w_proj"}});
    EXPECT_EQ(codeOf(lora), ErrorCode::Usage);
}

}  // namespace
}  // namespace resect::test
