#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/data/image_set.h"
#include "core/export/hf_writer.h"
#include "core/measure/classification.h"
#include "core/measure/image_batch.h"
#include "core/measure/importance.h"
#include "core/measure/preview.h"
#include "core/measure/similarity.h"
#include "core/surgery/edit_plan.h"
#include "tests/support/pictures.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <numeric>

namespace resect::test {
namespace {

using testing::HasSubstr;

/// A grey classifier of 12 x 8 pictures with 3 labels, and 70 pictures for it.
class Images : public testing::Test {
protected:
    TinyCheckpoint m_tiny = tinyFamily("vit", {{"num_channels", 1}});
    Checkpoint m_checkpoint = m_tiny.open();
    TempFolder m_folder;
    Dataset m_data = load();

    Dataset load() { return loadImages(writeBandImages(m_folder.path(), "t", 70, 6, 3, 4), m_tiny.path(), Anatomy::of(m_checkpoint).shape(), {}); }
    ModelRun run(RunOptions options = {}) { return ModelRun(m_checkpoint, m_data, options); }
};

torch::Tensor allPixels(const Dataset& data) {
    std::vector<const TokenRow*> rows;
    for (const TokenRow& row : data.rows) rows.push_back(&row);
    return imagePixels(rows);
}

TEST(Proportion, HasWilsonsInterval) {
    const Proportion some = proportion(8, 10), none = proportion(0, 20), all = proportion(20, 20);
    EXPECT_DOUBLE_EQ(some.share, 0.8);
    EXPECT_NEAR(some.low, 0.4902, 1e-4);
    EXPECT_NEAR(some.high, 0.9433, 1e-4);
    EXPECT_EQ(none.low, 0);
    EXPECT_NEAR(none.high, 3.8415 / 23.8415, 1e-4);  // z^2 / (n + z^2)
    EXPECT_NEAR(all.low, 1 - none.high, 1e-12);
    EXPECT_TRUE(std::isnan(proportion(0, 0).share));
}

TEST(LabelHits, CountTheLikeliestAndTheFirstFive) {
    const auto logits = torch::tensor({{0.f, 5.f, 4.f, 3.f, 2.f, 1.f}, {9.f, 9.f, 0.f, 0.f, 0.f, 0.f}, {9.f, 9.f, 0.f, 0.f, 0.f, 0.f}, {1.f, 0.f, 0.f, 0.f, 0.f, 0.f}}).unsqueeze(1);
    const auto hits = countHits(logits, torch::tensor(std::vector<std::int64_t>{0, 0, 1, kIgnoredTarget}).view({-1, 1}));
    EXPECT_EQ(hits.total, 3);
    EXPECT_EQ(hits.right1, 1) << "of equals the lower label counts as the likelier";
    EXPECT_EQ(hits.right5, 2) << "a sixth place is none of the first five";
}

TEST_F(Images, BecomeBatchesOfPixelsAndLabels) {
    const auto model = run({.batchRows = 32});
    EXPECT_EQ(model.numBatches(), 3u);
    EXPECT_STREQ(model.unit(), "images");
    const TokenBatch last = model.batch(2);
    EXPECT_EQ(last.pixels_BCHW.sizes(), (std::vector<std::int64_t>{6, 1, 12, 8}));
    EXPECT_FALSE(last.ids_BT.defined());
    EXPECT_TRUE(last.pixels_BCHW.equal(allPixels(m_data).narrow(0, 64, 6)));
    EXPECT_EQ(model.targets(2).sizes(), (std::vector<std::int64_t>{6, 1}));
    EXPECT_EQ(model.targets(2)[3][0].item<std::int64_t>(), m_data.rows[67].targets[0]);
    EXPECT_EQ(model.rowSpans(2)[0].end, 7) << "the class token and 6 patches";
    EXPECT_EQ(model.targetSpans(2)[0].end, 1);
}

TEST_F(Images, AreClassifiedResidentAndBlockByBlock) {
    const torch::NoGradGuard noGrad;
    const auto logits_BV = LanguageModel::load(m_checkpoint, {})->logits({{}, {}, {}, allPixels(m_data)}).select(1, 0);
    std::vector<std::int64_t> labels;
    for (const auto& row : m_data.rows) labels.push_back(row.targets[0]);
    const auto expected = torch::cross_entropy_loss(logits_BV, torch::tensor(labels)).item<double>();
    for (const bool streamed : {false, true}) {
        auto model = run({.streamBlocks = streamed, .batchRows = 16});
        const Classification found = measureClassification(model, {});
        EXPECT_NEAR(found.loss.loss, expected, 1e-6);
        EXPECT_EQ(found.top1.total, 70);
        EXPECT_EQ(found.top1.right, logits_BV.argmax(1).eq(torch::tensor(labels)).sum().item<std::int64_t>());
        EXPECT_EQ(found.top5.right, 70) << "there are three labels";
        EXPECT_EQ(std::accumulate(found.confusion.begin(), found.confusion.end(), std::int64_t{0}), 70);
        EXPECT_EQ(found.confusion[0] + found.confusion[4] + found.confusion[8], found.top1.right);
        EXPECT_EQ(found.confusion[3] + found.confusion[4] + found.confusion[5], std::ranges::count(labels, 1));
        EXPECT_NEAR(measurePerplexity(model, Positions::All, {}).loss, expected, 1e-6);
    }
}

TEST_F(Images, WithoutLabelsHaveNoAccuracy) {
    for (auto& row : m_data.rows) row.targets = {kIgnoredTarget};
    auto model = run();
    try {
        measureClassification(model, {});
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("no image has a label"));
    }
    PreviewCache cache;
    Cut cut = emptyCut(model.shape());
    cut.blocks[1].block = true;
    const auto message = preview(model, cut, cache, {}, {}, {});
    EXPECT_TRUE(std::isnan(message.accuracy));
    EXPECT_TRUE(std::isnan(message.perplexity));
    EXPECT_GT(message.kl, 0);
}

TEST_F(Images, OfATowerWithoutAClassifierAreMeasuredButNotScored) {
    m_tiny = tinyFamily("clip_vision_model", {{"num_channels", 3}});
    m_checkpoint = m_tiny.open();
    m_data = load();
    EXPECT_EQ(m_data.targets, 0);
    auto model = run();
    EXPECT_EQ(measureSimilarity(model, {}, {}).rowsDone, 70);
    try {
        measureClassification(model, {});
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("clip_vision_model: has no classifier"));
    }
}

TEST_F(Images, ShowWhichBlocksChangeNothing) {
    for (const char* name : {"vit.encoder.layer.2.attention.output.dense.weight", "vit.encoder.layer.2.attention.output.dense.bias", "vit.encoder.layer.2.output.dense.weight",
                             "vit.encoder.layer.2.output.dense.bias", "vit.encoder.layer.1.output.dense.weight", "vit.encoder.layer.1.output.dense.bias"})
        m_tiny.zero(name);
    m_tiny.save();
    m_checkpoint = m_tiny.open();
    SimilarityScores scores[2];
    for (const bool streamed : {false, true}) {
        auto model = run({.streamBlocks = streamed});
        auto& found = scores[streamed] = measureSimilarity(model, {}, {});
        EXPECT_EQ(found.rowsDone, 70);
        EXPECT_NEAR(found.block.score[2], 0, 1e-6);
        EXPECT_NEAR(found.mlp.score[1], 0, 1e-6);
        EXPECT_GT(found.attention.score[1], 1e-4);
        EXPECT_GT(found.block.score[0], 1e-4);
        EXPECT_EQ(found.windowTokens, 70 * 7);
    }
    for (int block = 0; block < 4; ++block) EXPECT_NEAR(scores[0].block.score[std::size_t(block)], scores[1].block.score[std::size_t(block)], 1e-9);
}

/// Keeps the class token of the stream after a block.
class ClassTokens final : public Observer {
public:
    bool wants(TapPoint point, int block) const override { return (point == TapPoint::BlockInput && block == 0) || point == TapPoint::BlockOutput; }
    void observe(TapPoint, int, const torch::Tensor& x_BTD) override { states.push_back(x_BTD.select(1, 0).to(torch::kFloat64)); }
    std::vector<torch::Tensor> states;
};

TEST_F(Images, HaveTheAngleOfTheirClassTokens) {
    auto model = run();
    const auto scores = measureSimilarity(model, {}, {});
    const torch::NoGradGuard noGrad;
    ClassTokens tokens;
    LanguageModel::load(m_checkpoint, {})->logits({{}, {}, {}, allPixels(m_data)}, &tokens);
    const auto cosine = torch::cosine_similarity(tokens.states[0], tokens.states[3], -1);
    EXPECT_NEAR(scores.angular[0 * 4 + 2], cosine.acos().mean().item<double>() / 3.14159265358979, 1e-5);
}

TEST_F(Images, ScoreHeadsAndChannels) {
    m_tiny.zeroColumns("vit.encoder.layer.1.output.dense.weight", {5});
    m_tiny.zeroRows("vit.encoder.layer.0.intermediate.dense.weight", {7});
    m_tiny.zeroRows("vit.encoder.layer.0.intermediate.dense.bias", {7});
    m_tiny.save();
    m_checkpoint = m_tiny.open();
    auto model = run();
    const auto scores = measureActivations(model, {});
    EXPECT_EQ(scores.rowsDone, 70);
    EXPECT_EQ(scores.head.mean.score[0].size(), 4u);
    EXPECT_EQ(scores.channel.wanda.score[1][5], 0);
    EXPECT_GT(scores.channel.mean.score[1][5], 0);
    EXPECT_EQ(scores.channel.mean.score[0][7], 0);
}

TEST_F(Images, PreviewEqualsTheAppliedPlan) {
    EditPlan plan;
    plan.edits = {dropBlocks({1})};
    const auto anatomy = Anatomy::of(m_checkpoint);
    const Cut cut = cutOf(plan, anatomy.shape());
    const auto to = m_folder / "applied";
    exportHuggingFace(m_checkpoint, anatomy, cut, to, {}, {});
    const Checkpoint applied = Checkpoint::open(to);
    ModelRun cutRun(applied, m_data, {}), uncutRun(m_checkpoint, m_data, {});
    const Classification expected = measureClassification(cutRun, {}), uncut = measureClassification(uncutRun, {});
    const auto p = torch::log_softmax(LanguageModel::load(m_checkpoint, {})->logits({{}, {}, {}, allPixels(m_data)}), -1),
               q = torch::log_softmax(LanguageModel::load(applied, {})->logits({{}, {}, {}, allPixels(m_data)}), -1);
    const double kl = (p.exp() * (p - q)).sum(-1).mean().item<double>();
    for (const bool streamed : {false, true}) {
        auto model = run({.streamBlocks = streamed, .batchRows = 20});
        PreviewCache cache;
        for (int again = 0; again < 2; ++again) {
            const auto message = preview(model, cut, cache, {}, {}, {});
            EXPECT_EQ(message.unit, "images");
            EXPECT_EQ(message.rowsDone, 70);
            EXPECT_DOUBLE_EQ(message.accuracy, expected.top1.share);
            EXPECT_DOUBLE_EQ(message.accuracyLow, expected.top1.low);
            EXPECT_DOUBLE_EQ(message.baselineAccuracy, uncut.top1.share);
            EXPECT_NEAR(std::log(message.perplexity), expected.loss.loss, 1e-5);
            EXPECT_NEAR(std::log(message.baseline), uncut.loss.loss, 1e-5);
            EXPECT_NEAR(message.kl, kl, 1e-6);
        }
    }
}

TEST_F(Images, PreviewEndsWhenTheAccuracyIsKnownWellEnough) {
    auto model = run({.batchRows = 10});
    PreviewCache cache;
    PreviewOptions options;
    options.accuracyInterval = 0.2;
    options.minimumImages = 30;
    const auto message = preview(model, emptyCut(model.shape()), cache, options, {}, {});
    EXPECT_GE(message.rowsDone, 30);
    EXPECT_LT(message.rowsDone, 70);
    EXPECT_LT(message.accuracyHigh - message.accuracy, 0.2);
    EXPECT_NEAR(message.kl, 0, 1e-9);
}

TEST_F(Images, AreNotMixedWithText) {
    const TinyCheckpoint text = tinyLlama();
    const Checkpoint checkpoint = text.open();
    EXPECT_THROW(ModelRun(checkpoint, m_data, {}), Error);
}

TEST(TrainedImages, HaveTheAccuracyOfTheReference) {
    RESECT_NEED_SHARED_DATA("models/vit-mnist-8l");
    const Checkpoint checkpoint = Checkpoint::open(sharedData("models/vit-mnist-8l"));
    const Json golden = readJsonFile(sharedData("golden/trained/vit-mnist-8l/numbers.json"));
    const Dataset data = loadImages(sharedData("vision/mnist/t10k-images-idx3-ubyte.gz"), checkpoint.folder(), Anatomy::of(checkpoint).shape(), {});
    ModelRun run(checkpoint, data, {});
    const int threads = torch::get_num_threads();
    torch::set_num_threads(1);  // waiting threads cost more than they bring at this size
    const Classification found = measureClassification(run, {});
    torch::set_num_threads(threads);
    EXPECT_EQ(found.top1.total, golden["test_images"].get<std::int64_t>());
    EXPECT_NEAR(found.top1.share, golden["accuracy"].get<double>(), 1e-6);
    EXPECT_NEAR(found.loss.loss, golden["cross_entropy"].get<double>(), 1e-6);
    EXPECT_GT(found.top5.share, 0.999);
    std::size_t at = 0;
    for (const Json& row : golden["confusion[true][predicted]"])
        for (const Json& count : row) {
            EXPECT_EQ(found.confusion.at(at), count.get<std::int64_t>()) << at;
            ++at;
        }
    EXPECT_EQ(at, found.confusion.size());
}

}  // namespace
}  // namespace resect::test
