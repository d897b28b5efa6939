#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/data/image_set.h"
#include "core/measure/classification.h"
#include "core/surgery/edit_plan.h"
#include "core/train/estimate.h"
#include "core/train/losses.h"
#include "core/train/trainee.h"
#include "tests/core/train/train_support.h"
#include "tests/support/pictures.h"

#include <gmock/gmock.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A grey classifier of 12 x 8 pictures with three labels learns in which third a picture is bright.
TinyRun imageRun(const std::string& recipe, const Json& parameters) {
    TinyRun run = tinyRun(recipe, {{"batch_rows", 16}, {"eval_rows", 0}, {"row_length", 0}});
    for (const auto& [key, value] : parameters.items()) run.job.parameters[key] = value;
    run.source = tinyFamily("vit", {{"num_channels", 1}});
    run.job.source = run.source.path();
    run.job.data.file = writeBandImages(run.folder->path(), "train", 200, 6, 3, 11);
    run.job.evalData.file = writeBandImages(run.folder->path(), "t10k", 80, 6, 3, 12);
    return run;
}

Classification classified(const fs::path& checkpoint, const fs::path& images) {
    const Checkpoint opened = Checkpoint::open(checkpoint);
    const Dataset data = loadImages(images, opened.folder(), Anatomy::of(opened).shape(), {});
    ModelRun run(opened, data, {});
    return measureClassification(run, {});
}

TEST(ImageRun, LearnsLabelsAndTellsTheirAccuracy) {
    auto run = imageRun("full", {{"steps", 60}, {"eval_every", 20}, {"checkpoint_every", 0}});
    const auto status = run.run();
    EXPECT_EQ(status.state, "done");
    EXPECT_EQ(status.unit, "images");
    EXPECT_EQ(status.tokens, 60 * 16);
    EXPECT_LT(status.cutAccuracy, 0.75);
    EXPECT_GT(status.bestAccuracy, 0.95);
    EXPECT_EQ(status.bestAccuracy, status.evalAccuracy);
    EXPECT_THAT(status.message, HasSubstr(" at its best (step 60); loss "));
    std::vector<double> curve;
    for (const auto& row : readMetrics(run.path()))
        if (row.event == "eval") curve.push_back(row.evalAccuracy.get<double>());
    ASSERT_EQ(curve.size(), 4u);
    EXPECT_DOUBLE_EQ(curve.front(), status.cutAccuracy);
    EXPECT_DOUBLE_EQ(curve.back(), status.evalAccuracy);
    const auto kept = classified(runResult(run.path()), run.job.evalData.file);
    EXPECT_DOUBLE_EQ(kept.top1.share, status.bestAccuracy);
    EXPECT_NEAR(kept.loss.perplexity, status.bestPerplexity, 1e-4 * status.bestPerplexity);
}

TEST(ImageRun, BringsACutModelBackByAnAdapter) {
    auto teach = imageRun("full", {{"steps", 60}, {"checkpoint_every", 0}});
    teach.run();
    auto run = imageRun("lora", {{"steps", 40}, {"checkpoint_every", 0}, {"merge", true}, {"lr", 1e-2}, {"distill_weight", 0.5}});
    run.job.source = runResult(teach.path());
    EditPlan plan;
    plan.edits = {dropBlocks({1, 2})};
    run.job.plan = plan.toJson();
    const auto status = run.run();
    EXPECT_EQ(status.state, "done");
    EXPECT_GT(status.baselineAccuracy, 0.95);
    EXPECT_LT(status.bestPerplexity, status.cutPerplexity);
    EXPECT_GE(status.bestAccuracy, status.cutAccuracy);
    EXPECT_DOUBLE_EQ(classified(run.path() / "merged", run.job.evalData.file).top1.share, status.bestAccuracy);
    EXPECT_TRUE(readJsonFile(runResult(run.path()) / "adapter_config.json")["task_type"].is_null()) << "a causal language model's wrapper would not run pictures";
    for (const auto& row : readMetrics(run.path())) EXPECT_TRUE(!row.event.empty() || row.kl.get<double>() >= 0);
}

TEST(ImageRun, ContinuesExactlyWhereItWasStopped) {
    const Json parameters{{"steps", 6}, {"checkpoint_every", 2}, {"eval_every", 2}};
    auto whole = imageRun("full", parameters), parts = imageRun("full", parameters);
    whole.run();
    parts.create();
    std::stop_source stop;
    runJob(parts.path(), JobContext(stop.get_token(), [&](const Progress& progress) {
               if (progress.unit == "steps" && progress.done >= 3) stop.request_stop();
           }));
    EXPECT_EQ(readStatus(parts.path()).state, "stopped");
    EXPECT_EQ(resumeRun(parts.path(), {}).state, "done");
    EXPECT_EQ(readStatus(parts.path()).bestAccuracy, readStatus(whole.path()).bestAccuracy);
    const auto rows = [](const TinyRun& run) {  // a stop keeps a checkpoint of its own
        auto all = comparableRows(run.path());
        std::erase_if(all, [](const std::string& row) { return row.find("\"checkpoint\"") != row.npos; });
        return all;
    };
    EXPECT_EQ(rows(parts), rows(whole));
    EXPECT_EQ(hashesBelow(parts.path() / "checkpoints/step-6").at("model.safetensors"), hashesBelow(whole.path() / "checkpoints/step-6").at("model.safetensors"));
}

TEST(ImageRun, HoldsImagesOfEveryKindBack) {
    auto run = imageRun("full", {{"steps", 2}, {"eval_fraction", 0.2}});
    run.job.evalData = {};
    EXPECT_EQ(run.run().state, "done");
    EXPECT_EQ(countTrainRows(run.job, trainOptions(recipe("full"), run.job.parameters), Anatomy::of(run.source.open()).shape()), 160);
}

TEST(ImageRun, RefusesDataThatTeachesNothing) {
    const auto error = [](const TinyRun& run) -> std::string {
        try {
            run.run();
        } catch (const Error& thrown) {
            return thrown.what();
        }
        return "nothing was thrown";
    };
    auto unlabelled = imageRun("full", {});
    fs::remove(*unlabelled.folder / "train-labels-idx1-ubyte");
    EXPECT_THAT(error(unlabelled), HasSubstr("train-images-idx3-ubyte: holds no labelled image"));
    auto text = imageRun("full", {});
    text.job.data.file = writeCounting(*text.folder / "rows.jsonl", 3, 9, 20);
    EXPECT_THAT(error(text), HasSubstr("rows.jsonl: expected an image folder, an IDX file"));
    EXPECT_THAT(error(imageRun("full", {{"row_length", 7}})), HasSubstr("row_length: is for text; a picture is 7 tokens"));
    auto tower = imageRun("full", {});
    tower.source = tinyFamily("clip_vision_model", {{"num_channels", 3}});
    tower.job.source = tower.source.path();
    EXPECT_THAT(error(tower), HasSubstr("has no classifier whose labels could be trained on"));
}

TEST(ImageRun, IsEstimatedInImages) {
    auto run = imageRun("full", {{"steps", 7}});
    const auto estimate = estimateRun(run.job, Probe::Step);
    EXPECT_TRUE(estimate.images);
    EXPECT_EQ(estimate.tokens, 7 * 16);
    EXPECT_GT(estimate.seconds, 0);
    EXPECT_GT(estimate.memory(), 0u);
}

TEST(ImageLoss, OfPiecesWithTheModelAsItsOwnTeacherIsTheSharedPart) {
    const TinyCheckpoint tiny = tinyFamily("deit", {{"num_channels", 1}});
    const Checkpoint checkpoint = tiny.open();
    TempFolder folder;
    const Dataset data = loadImages(writeBandImages(folder.path(), "t", 12, 6, 3, 4), tiny.path(), Anatomy::of(checkpoint).shape(), {});
    const auto model = LanguageModel::load(checkpoint, {.device = torch::kCPU, .dtype = torch::kFloat32, .trainable = true}), teacher = LanguageModel::load(checkpoint, {});
    const auto batch = makeBatches(data.rows, 12).front();
    EXPECT_EQ(batch.realTokens, 12);
    const auto gradients = [&] {
        std::map<std::string, torch::Tensor> found;
        model->visitParameters([&](const std::string& name, torch::Tensor& parameter) {
            if (parameter.grad().defined()) found[name] = parameter.grad().clone();
            parameter.mutable_grad() = torch::Tensor();
        });
        return found;
    };
    const auto plain = accumulateGradients(*model, nullptr, batch, {}, 1);
    const auto expected = gradients();
    const auto distilled = accumulateGradients(*model, teacher.get(), batch, {0.25, 2, 0}, 1);
    const auto found = gradients();
    EXPECT_NEAR(distilled.crossEntropy, plain.crossEntropy, 1e-6);
    EXPECT_NEAR(distilled.kl, 0, 1e-6);
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [name, gradient] : expected) EXPECT_LT((found.at(name) - 0.75 * gradient).abs().max().item<double>(), 1e-6) << name;
}

TEST(Evaluate, TellsTheAccuracyOfImages) {
    const TinyCheckpoint tiny = tinyFamily("vit", {{"num_channels", 1}});
    const Checkpoint checkpoint = tiny.open();
    TempFolder folder;
    const Dataset data = loadImages(writeBandImages(folder.path(), "t", 50, 6, 3, 4), tiny.path(), Anatomy::of(checkpoint).shape(), {});
    ModelRun run(checkpoint, data, {});
    const auto expected = measureClassification(run, {});
    const auto found = evaluate(run.model(), data.rows, 16, {});
    EXPECT_DOUBLE_EQ(found.accuracy, expected.top1.share);
    EXPECT_NEAR(found.loss, expected.loss.loss, 1e-6);
    EXPECT_EQ(found.counted, 50);
}

}  // namespace
}  // namespace resect::test
