#include "plugins/llm_drop/llm_drop.h"

#include "core/base/error.h"
#include "core/measure/perplexity.h"
#include "core/measure/similarity.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace resect {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kNoBound = 1e300;

ParameterInfo choice(std::string name, std::string title, std::string help, std::vector<std::string> choices, std::string fallback, bool advanced = false) {
    return {std::move(name), std::move(title), std::move(help), ParameterType::Choice, "", std::move(fallback), -kNoBound, kNoBound, std::move(choices), advanced};
}

MethodInfo describe() {
    MethodInfo info;
    info.id = "llm-drop";
    info.title = "Layer dropping by similarity";
    info.summary = "Finds the blocks, attention layers and MLP layers that change the residual stream least, and drops them without training.";
    info.paper = "What Matters in Transformers? Not All Attention is Needed (arXiv 2406.15786, 2024)";
    info.measureParameters = {
        {"windows", "Block windows", "Compare every run of consecutive blocks too.", ParameterType::Boolean, "", true, -kNoBound, kNoBound, {}, false},
        {"window_tokens", "Tokens per row for windows", "Evenly spaced tokens of each row that the window matrix is computed from; 0 takes all while memory allows.",
         ParameterType::Integer, "tokens", 0, 0, 1e6, {}, true},
        choice("angular_tokens", "Tokens for the angular distance", "The last token of each row, as published (of a picture the class token), or all of them.", {"last", "all"}, "last", true),
        {"delta_loss", "Loss without each block", "Also run the model once without each block and report how much the loss rises (one pass per block).",
         ParameterType::Boolean, "", false, -kNoBound, kNoBound, {}, true},
    };
    info.planParameters = {
        choice("target", "Drop", "What is dropped: whole blocks, attention layers, MLP layers, or attention and MLP layers from one list.",
               {"block", "attn", "mlp", "joint"}, "attn"),
        {"count", "How many", "Number of units to drop.", ParameterType::Integer, "units", 1, 0, 100000, {}, false},
        choice("metric", "Order by", "Cosine is the published method; the others are alternatives for comparison.",
               {"cosine", "block_influence", "relative_magnitude", "angular", "delta_loss", "deepest_first", "reverse", "random"}, "cosine"),
        choice("mode", "Mode", "Discrete takes the lowest scores; consecutive takes the best run of neighbouring blocks.", {"discrete", "consecutive"}, "discrete"),
        {"protect", "Protect", "Blocks that are never touched, as in 0,1,30-31.", ParameterType::IntegerList, "", Json::array(), 0, 1e6, {}, false},
        {"seed", "Seed", "For the random order.", ParameterType::Integer, "", 0, 0, 9e15, {}, true},
    };
    return info;
}

ReportDataset bars(std::string name, std::string title, std::string unit, std::string help, std::string component, const UnitScores& scores, std::int64_t samples) {
    ReportDataset dataset;
    dataset.name = std::move(name);
    dataset.kind = DatasetKind::Bars;
    dataset.title = std::move(title);
    dataset.unit = std::move(unit);
    dataset.help = std::move(help);
    dataset.higher = Direction::Keep;
    dataset.axes = {{"block", std::move(component), {}}};
    dataset.shape = {static_cast<std::int64_t>(scores.score.size())};
    dataset.values = scores.score;
    dataset.errors = scores.error;
    dataset.samples = samples;
    return dataset;
}

ReportDataset curve(std::string name, std::string title, std::string unit, std::string help, DatasetAxis axis, std::vector<double> values, std::vector<double> errors,
                    std::int64_t samples) {
    ReportDataset dataset = bars(std::move(name), std::move(title), std::move(unit), std::move(help), axis.component, {std::move(values), std::move(errors)}, samples);
    dataset.kind = DatasetKind::Curve;
    dataset.higher = Direction::Neutral;
    dataset.axes = {std::move(axis)};
    return dataset;
}

DatasetAxis spanAxis(std::size_t numBlocks) {
    DatasetAxis axis{"span length", "", {}};
    for (std::size_t n = 1; n <= numBlocks; ++n) axis.ids.push_back(static_cast<std::int64_t>(n));
    return axis;
}

/// The window matrix and, for each span length, the run that changes the stream least.
void addWindows(Report& report, const std::string& group, const std::string& title, const std::string& unit, const std::string& help, std::size_t numBlocks,
                const std::vector<double>& values, const std::vector<double>& errors, std::int64_t samples) {
    ReportDataset window;
    window.name = group + "/window";
    window.kind = DatasetKind::Matrix;
    window.title = title;
    window.unit = unit;
    window.help = help;
    window.higher = Direction::Keep;
    window.axes = {{"first block", "block", {}}, spanAxis(numBlocks)};
    window.shape = {static_cast<std::int64_t>(numBlocks), static_cast<std::int64_t>(numBlocks)};
    window.values = values;
    window.errors = errors;
    window.samples = samples;
    std::vector<double> best(numBlocks, kNaN), bestError(numBlocks, kNaN), start(numBlocks, kNaN);
    for (std::size_t n = 0; n < numBlocks; ++n) {
        for (std::size_t i = 0; i < numBlocks; ++i) {
            const double value = values[i * numBlocks + n];
            if (std::isnan(value) || value >= best[n]) continue;
            best[n] = value, bestError[n] = errors[i * numBlocks + n], start[n] = static_cast<double>(i);
        }
    }
    report.datasets.push_back(std::move(window));
    report.datasets.push_back(curve(group + "/best_span", "Best span", unit, "For each number of consecutive blocks, the smallest change that removing some run of them makes.",
                                    spanAxis(numBlocks), std::move(best), std::move(bestError), samples));
    report.datasets.push_back(curve(group + "/best_span_start", "First block of the best span", "block", "Where the best span of each length begins.", spanAxis(numBlocks),
                                    std::move(start), {}, samples));
}

void addSimilarity(Report& report, const SimilarityScores& scores) {
    const std::int64_t n = scores.rowsDone;
    auto& out = report.datasets;
    out.push_back(bars("similarity/block", "Block", "1 - cosine", "How much the whole block turns the residual stream; low means that it can be dropped. Equals Block Influence.", "block", scores.block, n));
    out.push_back(bars("similarity/attention", "Attention", "1 - cosine", "How much the attention layer, with its norm, turns the residual stream; low means that it can be dropped.", "attention", scores.attention, n));
    out.push_back(bars("similarity/mlp", "MLP", "1 - cosine", "How much the MLP layer, with its norm, turns the residual stream; low means that it can be dropped.", "ffn", scores.mlp, n));
    const char* const help = "Length of what is added, relative to the residual stream after it; sees changes of scale that the cosine cannot.";
    out.push_back(bars("relative_magnitude/block", "Block, relative magnitude", "ratio", help, "block", scores.relativeBlock, n));
    out.push_back(bars("relative_magnitude/attention", "Attention, relative magnitude", "ratio", help, "attention", scores.relativeAttention, n));
    out.push_back(bars("relative_magnitude/mlp", "MLP, relative magnitude", "ratio", help, "ffn", scores.relativeMlp, n));
    const std::size_t numBlocks = scores.block.score.size();
    if (!scores.window.empty()) {
        const std::string tokens = " Measured on " + std::to_string(scores.windowTokens) + " tokens.";
        addWindows(report, "similarity", "Block windows", "1 - cosine",
                   "Change of the residual stream over a run of blocks: row = first block, column = how many blocks. Low means that the whole run can be dropped." + tokens,
                   numBlocks, scores.window, scores.windowError, n);
        addWindows(report, "angular", "Block windows, angular distance", "half turns",
                   "Angle between the residual streams before and after a run of blocks, 0 = parallel, 1 = opposite (arXiv 2403.17887).", numBlocks, scores.angular, scores.angularError, n);
    }
    const DatasetAxis points{"after block", "", [&] {
                                 std::vector<std::int64_t> ids;
                                 for (std::size_t i = 0; i <= numBlocks; ++i) ids.push_back(static_cast<std::int64_t>(i));
                                 return ids;
                             }()};
    out.push_back(curve("residual/norm", "Length of the residual stream", "norm", "Mean length of the token vectors: 0 = embedding, n = after n blocks.", points, scores.norm.score, scores.norm.error, n));
    out.push_back(curve("residual/largest", "Largest activation", "abs value", "Largest magnitude of any channel over all tokens; jumps mark massive activations.", points, scores.largest, {}, n));
    out.push_back(curve("residual/largest_channel", "Channel of the largest activation", "channel", "The hidden channel in which the largest activation stands.", points, scores.largestChannel, {}, n));
}

/// Spearman-like warning: the cosine ignores scale, so a unit that it calls redundant while it doubles the stream is named.
void warnAboutScale(Report& report, const SimilarityScores& scores) {
    for (std::size_t block = 0; block < scores.block.score.size(); ++block) {
        const double cosine = scores.block.score[block], ratio = scores.relativeBlock.score[block];
        const double expected = std::sqrt(2 * cosine);  // relative change of a turn without stretching
        if (cosine < 0.05 && ratio > 0.3 && ratio > 2 * expected)
            report.notes.push_back({Severity::Warning, "block " + std::to_string(block),
                                    "barely turns the residual stream but changes its length by much; the cosine calls it more redundant than it is", "Compare the relative magnitude."});
    }
}

/// The mean loss with the cut in place; NaN when the job was stopped before all rows were run.
double lossUnder(ModelRun& run, const Cut& cut, const JobContext& job) {
    struct Restore {
        ModelRun& run;
        ~Restore() { run.setCut({}); }
    } restore{run};
    run.setCut(cut);
    try {
        const Perplexity result = measurePerplexity(run, Positions::All, JobContext(job.stopToken(), {}));
        return result.rowsDone == result.rowsTotal ? result.loss : kNaN;
    } catch (const Error& error) {
        if (error.code() != ErrorCode::Stopped) throw;
        return kNaN;
    }
}

/// Rise of the mean loss when one block is absent (Shortened LLaMA, arXiv 2402.02834, as a difference of losses).
void addDeltaLoss(Report& report, ModelRun& run, const JobContext& job) {
    const int numBlocks = run.shape().numBlocks();
    const double whole = lossUnder(run, {}, job);
    UnitScores scores{std::vector<double>(static_cast<std::size_t>(numBlocks), kNaN), {}};
    for (int block = 0; block < numBlocks && !job.stopped(); ++block) {
        Cut cut = emptyCut(run.shape());
        cut.blocks[static_cast<std::size_t>(block)].block = true;
        scores.score[static_cast<std::size_t>(block)] = lossUnder(run, cut, job) - whole;
        job.progress({block + 1.0, static_cast<double>(numBlocks), "blocks", "loss without each block"});
    }
    report.datasets.push_back(bars("delta_loss/block", "Loss without the block", "nats", "How much the mean loss per token (or picture) rises when this block is left out.", "block", scores,
                                   static_cast<std::int64_t>(run.data().rows.size())));
}

}  // namespace

LlmDrop::LlmDrop() : m_info(describe()) {}

Report LlmDrop::analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const {
    Report report = startReport(*this, run, parameters);
    SimilarityOptions options;
    options.windows = parameters.boolean("windows");
    options.windowTokens = static_cast<int>(parameters.integer("window_tokens"));
    options.angularTokens = parameters.text("angular_tokens") == "all" ? AngularTokens::All : AngularTokens::Last;
    const SimilarityScores scores = measureSimilarity(run, options, job);
    report.samplesDone = scores.rowsDone;
    report.notes = scores.notes;
    addSimilarity(report, scores);
    warnAboutScale(report, scores);
    if (parameters.boolean("delta_loss") && !job.stopped()) {
        addDeltaLoss(report, run, job);
        if (job.stopped()) report.samplesDone = std::min(report.samplesDone, report.samplesTotal - 1);
    }
    return report;
}

EditPlan LlmDrop::plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const {
    return planDrop(anatomy.shape(), report, parameters);
}

}  // namespace resect

extern "C" int resectPluginAbi() { return resect::kPluginAbi; }
extern "C" void resectRegister(resect::MethodRegistry& registry) { registry.add(std::make_unique<resect::LlmDrop>()); }
