#include "core/base/error.h"
#include "core/worker/describe.h"
#include "core/worker/export_job.h"
#include "core/worker/logits.h"
#include "core/worker/runs.h"
#include "core/workspace/report_file.h"
#include "tests/core/train/train_support.h"
#include "tests/support/pictures.h"

#include <gmock/gmock.h>
#include <torch/types.h>

namespace resect::test {
namespace {

using testing::HasSubstr;

/// A grey classifier of 12 x 8 pictures with three labels, opened, and pictures for it.
class OpenedImages : public testing::Test {
protected:
    TinyCheckpoint m_tiny = tinyFamily("vit", {{"num_channels", 1}});
    OpenedCheckpoint m_opened{m_tiny.path()};
    TempFolder m_folder;
    protocol::DataMessage m_data;

    void SetUp() override { m_data.file = writeBandImages(m_folder.path(), "t", 1100, 4, 3, 5).string(); }
};

TEST_F(OpenedImages, AreWhatTheModelIsSaidToRun) {
    EXPECT_EQ(describe(m_opened).input, "images");
    const TinyCheckpoint text = tinyLlama();
    EXPECT_EQ(describe(OpenedCheckpoint(text.path())).input, "text");
}

TEST_F(OpenedImages, AreTakenUpToAUsualNumber) {
    EXPECT_EQ(m_opened.data(m_data).rows.size(), 64u);
    m_data.maxRows = -1;
    EXPECT_EQ(m_opened.data(m_data).rows.size(), 1024u);
    m_data.maxRows = 0;
    EXPECT_EQ(m_opened.data(m_data).rows.size(), 1100u);
    m_data.imageAspect = "stretch";
    EXPECT_THROW(m_opened.data(m_data), Error);
}

TEST_F(OpenedImages, GiveTheLogitsOfTheirPixels) {
    m_data.maxRows = 3;
    const auto file = writeBandImages(m_folder.path(), "few", 3, 4, 3, 6);
    LogitsRequest request;
    request.image = file;
    request.gradients = true;
    const auto found = computeLogits(m_opened, request, {"cpu", "f32"}, {});
    ASSERT_EQ(found.front().first, "logits");
    EXPECT_EQ(found.front().second.sizes(), (std::vector<std::int64_t>{3, 1, 3}));
    const auto loss = std::ranges::find(found, "loss", &std::pair<std::string, torch::Tensor>::first);
    ASSERT_NE(loss, found.end());
    EXPECT_GT(loss->second.item<float>(), 0);
}

TEST_F(OpenedImages, AreWhatAnExportIsComparedOn) {
    ExportRequest request;
    request.to = m_folder / "copy";
    request.data = m_data;
    EXPECT_TRUE(exportChecked(m_opened, request, {}).verified);
    request.to = m_folder / "other";
    request.data->file = (m_folder / "nowhere").string();
    EXPECT_THROW(exportChecked(m_opened, request, {}), Error) << "data that is asked for is not passed over";
}

TEST_F(OpenedImages, HaveAnAccuracyCurve) {
    TinyRun run = tinyRun("full", {{"steps", 4}, {"batch_rows", 8}, {"row_length", 0}, {"checkpoint_every", 0}});
    run.job.source = m_tiny.path();
    run.job.data.file = m_data.file;
    run.create();
    EXPECT_EQ(runToEnd(run.path(), RunStart::Fresh, {}).state, "done");
    const Report report = readReport(run.path() / "report.h5");
    EXPECT_EQ(report.dataset("evaluation/accuracy").values.size(), 3u) << "before, after two and after four steps";
    EXPECT_EQ(report.dataset("training/images_per_second").unit, "images/s");
    EXPECT_EQ(report.find("evaluation/perplexity"), nullptr);
    EXPECT_EQ(report.find("training/tokens_per_second"), nullptr);
}

}  // namespace
}  // namespace resect::test
