#include "core/worker/runs.h"

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/train/run.h"
#include "core/train/run_folder.h"
#include "core/workspace/report_file.h"

namespace resect {

namespace fs = std::filesystem;
using protocol::MetricsRow;
using protocol::RunStatus;

namespace {

struct Curve {
    const char *name, *title, *unit, *help;
    Direction higher;
    Json MetricsRow::*value;
    const char* event;   ///< of the rows that it is drawn from
};

constexpr Curve kCurves[] = {
    {"training/loss", "training loss", "nats", "Mean loss of the rows of each step, before the step: of the next token, of images of the label.", Direction::Neutral, &MetricsRow::loss, ""},
    {"training/kl", "KL to the uncut model", "nats", "Mean divergence of the predicted distribution from the uncut model's.", Direction::Neutral, &MetricsRow::kl, ""},
    {"training/learning_rate", "learning rate", "", "Of each step, warm-up and schedule included.", Direction::Neutral, &MetricsRow::learningRate, ""},
    {"training/gradient_norm", "gradient norm", "", "Global norm before clipping.", Direction::Neutral, &MetricsRow::gradientNorm, ""},
    {"training/tokens_per_second", "speed", "tokens/s", "Tokens of a step over its time.", Direction::Neutral, &MetricsRow::tokensPerSecond, ""},
    {"evaluation/loss", "evaluation loss", "nats", "Mean loss of the evaluation rows: of the next token, of images of the label.", Direction::Neutral, &MetricsRow::evalLoss, "eval"},
    {"evaluation/perplexity", "evaluation perplexity", "", "exp of the evaluation loss.", Direction::Neutral, &MetricsRow::evalPerplexity, "eval"},
    {"evaluation/accuracy", "evaluation accuracy", "", "Share of the evaluation images whose likeliest label is right.", Direction::Neutral, &MetricsRow::evalAccuracy, "eval"},
    {"evaluation/recovery", "recovered share", "", "Of the loss between the uncut and the cut model before training; what any model learns from the data is included.",
     Direction::Neutral, &MetricsRow::recovery, "eval"},
};

ReportDataset datasetOf(const Curve& curve, const std::vector<MetricsRow>& rows) {
    ReportDataset dataset;
    dataset.name = curve.name;
    dataset.kind = DatasetKind::Curve;
    dataset.title = curve.title;
    dataset.unit = curve.unit;
    dataset.help = curve.help;
    dataset.higher = curve.higher;
    DatasetAxis axis{"step", "", {}};
    for (const auto& row : rows) {
        const Json& value = row.*curve.value;
        if (row.event != curve.event || !value.is_number()) continue;
        // A step that was taken again, after a stop or a value that was not finite, counts as it was the last time.
        while (!axis.ids.empty() && axis.ids.back() >= row.step) axis.ids.pop_back(), dataset.values.pop_back();
        axis.ids.push_back(row.step);
        dataset.values.push_back(value.get<double>());
    }
    dataset.shape = {static_cast<std::int64_t>(dataset.values.size())};
    dataset.samples = dataset.shape.front();
    dataset.axes.push_back(std::move(axis));
    return dataset;
}

}  // namespace

void writeRunReport(const fs::path& folder) {
    const RunJob job = readRunJob(folder);
    const RunStatus status = readStatus(folder);
    const auto rows = readMetrics(folder);
    Report report;
    report.method = job.recipe;
    report.parameters = job.parameters;
    report.modelFingerprint = job.sourceFingerprint;
    report.dataDescription = job.data.file.string();
    report.dtype = job.dtype;
    report.seed = job.seed;
    report.version = versionText();
    report.samplesDone = status.step;
    report.samplesTotal = status.totalSteps;
    for (Curve curve : kCurves) {
        if (status.unit == "images" && curve.value == &MetricsRow::tokensPerSecond) curve.name = "training/images_per_second", curve.unit = "images/s", curve.help = "Images of a step over its time.";
        if (status.unit == "images" && curve.value == &MetricsRow::evalPerplexity) continue;  // images have an accuracy
        if (auto dataset = datasetOf(curve, rows); !dataset.values.empty()) report.datasets.push_back(std::move(dataset));
    }
    writeReport(folder / "report.h5", report);
}

std::optional<ControlResult> findControl(const fs::path& folder) {
    const fs::path control = readRunJob(folder).control;
    if (control.empty() || !fs::exists(control / "job.json")) return std::nullopt;  // none, or thrown away since
    ControlResult result{control, readStatus(control), 0};
    result.likeForLike = protocol::likeForLikeRecovery(readStatus(folder), result.status);
    return result;
}

RunStatus runToEnd(const fs::path& folder, RunStart start, const JobContext& job) {
    const RunStatus status = start == RunStart::Fresh ? runJob(folder, job) : resumeRun(folder, job);
    writeRunReport(folder);
    if (status.state != "done" || job.stopped()) return status;
    if (const auto control = findControl(folder); control && control->status.state != "done")
        runToEnd(control->folder, control->status.state == "queued" ? RunStart::Fresh : RunStart::Resume, job);
    return status;
}

}  // namespace resect
