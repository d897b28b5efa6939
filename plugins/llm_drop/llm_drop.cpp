#include "plugins/llm_drop/llm_drop.h"

#include "core/anatomy/cost.h"
#include "core/base/error.h"
#include "core/measure/ablation.h"
#include "core/measure/perplexity.h"
#include "core/measure/similarity.h"
#include "core/method/budget_report.h"
#include "plugins/llm_drop/units.h"

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
        {"delta_loss", "Loss without each unit", "Also run the model once without each block, attention layer and MLP layer and report how much the loss rises (up to three passes per block). An alternative metric, not LLM-Drop.",
         ParameterType::Boolean, "", false, -kNoBound, kNoBound, {}, true},
        choice("curve", "Loss after each drop", "Also run the model with the lowest 1, 2, ... units dropped, in the order of the cosine.", {"off", "block", "attn", "mlp", "joint"}, "off", true),
        {"curve_count", "Drops in that curve", "How many units at most.", ParameterType::Integer, "units", 8, 1, 100000, {}, true},
        choice("iterative", "Iterative order", "Drop step by step and take the scores anew on what is left.", {"off", "block", "attn", "mlp", "joint"}, "off", true),
        choice("iterative_metric", "Iterative metric", "Cosine is the published method; delta_loss drops where the loss rises least and keeps the first and the last block (SLEB, arXiv 2402.09025).",
               {"cosine", "relative_magnitude", "delta_loss"}, "cosine", true),
        {"iterative_count", "Iterative drops", "How many units at most.", ParameterType::Integer, "units", 8, 1, 100000, {}, true},
        {"per_round", "Units per round", "Dropped before scores are taken anew.", ParameterType::Integer, "units", 1, 1, 100000, {}, true},
        {"iterative_protect", "Protect (iterative)", "Blocks that the iterative order never touches, as in 0,1,30-31.", ParameterType::IntegerList, "", Json::array(), 0, 1e6, {}, true},
        {"latency", "Latency", "Time attention and MLP layers on this machine, for plans that have to meet a time.", ParameterType::Boolean, "", false, -kNoBound, kNoBound, {}, true},
        {"latency_context", "Context to time", "Tokens in the cache, or together, when layers are timed.", ParameterType::Integer, "tokens", 256, 2, 1e6, {}, true},
    };
    info.planParameters = {
        choice("target", "Drop", "What is dropped: whole blocks, attention layers, MLP layers, or attention and MLP layers from one list.",
               {"block", "attn", "mlp", "joint"}, "attn"),
        {"count", "How many", "Number of units to drop.", ParameterType::Integer, "units", 1, 0, 100000, {}, false},
        choice("metric", "Order by", "Cosine is the published method; the others are alternatives for comparison.",
               {"cosine", "block_influence", "relative_magnitude", "angular", "delta_loss", "deepest_first", "reverse", "random"}, "cosine"),
        choice("mode", "Mode", "Discrete takes the lowest scores; consecutive takes the best run of neighbouring blocks; iterative takes the order that was measured with scores taken anew.",
               {"discrete", "consecutive", "iterative"}, "discrete"),
        {"ratio", "Share of the budget", "What of the budget goes; used when a budget is chosen and no limit is given.", ParameterType::Real, "", 0.1, 0, 0.95, {}, true},
        {"protect", "Protect", "Blocks that are never touched, as in 0,1,30-31.", ParameterType::IntegerList, "", Json::array(), 0, 1e6, {}, false},
        {"seed", "Seed", "For the random order.", ParameterType::Integer, "", 0, 0, 9e15, {}, true},
    };
    for (auto& parameter : budgetParameters("count", "count: as many units as said.")) {
        parameter.advanced = true;
        info.planParameters.push_back(std::move(parameter));
    }
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
        const Perplexity result = measurePerplexity(run, Positions::All, job);
        return result.rowsDone == result.rowsTotal ? result.loss : kNaN;
    } catch (const Error& error) {
        if (error.code() != ErrorCode::Stopped) throw;
        return kNaN;
    }
}

/// Rise of the mean loss when one unit is absent (Shortened LLaMA, arXiv 2402.02834, as a difference of losses). False when it was stopped.
bool addDeltaLoss(Report& report, ModelRun& run, const JobContext& job) {
    const ModelShape& shape = run.shape();
    std::vector<Ablation> ablations;
    std::vector<DropUnit> units;
    for (const DropKind kind : {DropKind::Block, DropKind::Attention, DropKind::Mlp})
        for (int block = 0; block < shape.numBlocks(); ++block) {
            if (!exists(shape.blocks[static_cast<std::size_t>(block)], kind)) continue;
            Cut cut = emptyCut(shape);
            drop(cut, {kind, block});
            units.push_back({kind, block});
            ablations.push_back({block, cut.blocks[static_cast<std::size_t>(block)]});
        }
    const AblationScores scores = measureAblations(run, {}, ablations, job);
    for (const DropKind kind : {DropKind::Block, DropKind::Attention, DropKind::Mlp}) {
        const auto numBlocks = static_cast<std::size_t>(shape.numBlocks());
        UnitScores own{std::vector<double>(numBlocks, kNaN), std::vector<double>(numBlocks, kNaN)};
        for (std::size_t i = 0; i < units.size(); ++i)
            if (units[i].kind == kind) {
                own.score[static_cast<std::size_t>(units[i].block)] = scores.rise[i].mean;
                own.error[static_cast<std::size_t>(units[i].block)] = scores.rise[i].error;
            }
        const std::string word = kind == DropKind::Mlp ? "MLP" : unitName(kind);
        report.datasets.push_back(bars(std::string("delta_loss/") + unitName(kind), "Loss without the " + word, "nats",
                                       "How much the mean loss per token rises when this " + word + (kind == DropKind::Block ? "" : " layer") + " is left out.",
                                       kind == DropKind::Block ? "block" : kind == DropKind::Attention ? "attention" : "ffn", own, scores.rowsDone));
    }
    return scores.rowsDone == scores.rowsTotal;
}

/// The order in which the cosine lets units go.
std::vector<DropUnit> orderByCosine(const Report& report, const ModelShape& shape, const std::string& target) {
    std::vector<Candidate> candidates;
    for (const DropKind kind : dropKindsOf(target)) {
        const auto& scores = report.dataset(std::string("similarity/") + unitName(kind)).values;
        for (int block = 0; block < shape.numBlocks(); ++block)
            if (!std::isnan(scores[static_cast<std::size_t>(block)])) candidates.push_back({{kind, block}, scores[static_cast<std::size_t>(block)]});
    }
    sortByScore(candidates);
    std::vector<DropUnit> order;
    for (const Candidate& candidate : candidates) order.push_back(candidate.unit);
    return order;
}

std::vector<std::int64_t> counting(std::int64_t from, std::size_t count) {
    std::vector<std::int64_t> ids(count);
    for (std::size_t i = 0; i < count; ++i) ids[i] = from + static_cast<std::int64_t>(i);
    return ids;
}

/// Which layers are left after n drops (1 = kept), and what the model then costs.
void addOrder(Report& report, const ModelShape& shape, const std::string& target, double elementBytes) {
    const auto order = orderByCosine(report, shape, target);
    const auto numBlocks = static_cast<std::size_t>(shape.numBlocks()), width = target == "joint" ? 2 * numBlocks : numBlocks;
    ReportDataset map;
    map.name = "order/" + target;
    map.kind = DatasetKind::Matrix;
    map.title = "Dropping order, " + target;
    map.unit = "1 = kept";
    map.help = "Row n: which layers are left after the n lowest were dropped, by the cosine" + std::string(target == "joint" ? "; first all attention layers, then all MLP layers." : ".");
    map.axes = {{"dropped", "", counting(1, order.size())}, {target == "joint" ? "layer" : "block", target == "joint" ? "" : target == "block" ? "block" : target == "attn" ? "attention" : "ffn", {}}};
    map.shape = {static_cast<std::int64_t>(order.size()), static_cast<std::int64_t>(width)};
    map.samples = report.samplesDone;
    std::vector<double> row(width, kNaN), parameters, kvBytes;
    for (const DropUnit& unit : order) row[static_cast<std::size_t>(unitNumber(unit, target == "joint" ? shape.numBlocks() : 0))] = 1;
    ModelShape after = shape;
    const auto addCost = [&] {
        const Cost cost = costOf(after, 1);
        parameters.push_back(static_cast<double>(cost.parameters));
        kvBytes.push_back(static_cast<double>(cost.kvElementsPerToken) * elementBytes);
    };
    addCost();
    Cut cut = emptyCut(shape);
    for (const DropUnit& unit : order) {
        row[static_cast<std::size_t>(unitNumber(unit, target == "joint" ? shape.numBlocks() : 0))] = 0;
        map.values.insert(map.values.end(), row.begin(), row.end());
        drop(cut, unit);
        after.blocks = blocksAfter(shape, cut);
        addCost();
    }
    report.datasets.push_back(std::move(map));
    const DatasetAxis axis{"units dropped", "", counting(0, parameters.size())};
    report.datasets.push_back(curve("cost/" + target + "_parameters", "Parameters left, " + target, "parameters", "After the n lowest by the cosine are dropped.", axis, std::move(parameters), {}, report.samplesDone));
    if (target != "mlp")
        report.datasets.push_back(curve("cost/" + target + "_kv_bytes", "KV cache per token, " + target, "bytes", "After the n lowest by the cosine are dropped, in the precision that was run.", axis, std::move(kvBytes), {}, report.samplesDone));
}

/// The loss with the lowest 0, 1, 2, ... units dropped; ends where it is stopped.
void addCurve(Report& report, ModelRun& run, const Parameters& parameters, const JobContext& job) {
    const std::string target = parameters.text("curve");
    auto order = orderByCosine(report, run.shape(), target);
    order.resize(std::min(order.size(), static_cast<std::size_t>(parameters.integer("curve_count"))));
    std::vector<double> losses, perplexities;
    Cut cut = emptyCut(run.shape());
    for (std::size_t n = 0; n <= order.size() && !job.stopped(); ++n) {
        if (n > 0) drop(cut, order[n - 1]);
        const JobContext within(job.stopToken(), [&](const Progress& part) {
            job.progress({static_cast<double>(n) + (part.total > 0 ? part.done / part.total : 0), static_cast<double>(order.size() + 1), "drops", "loss after each drop"});
        });
        losses.push_back(lossUnder(run, cut, within));
        perplexities.push_back(std::exp(losses.back()));
    }
    const DatasetAxis axis{"units dropped", "", counting(0, losses.size())};
    report.datasets.push_back(curve("curve/" + target + "_loss", "Loss after each drop, " + target, "nats", "Mean loss per token with the n lowest by the cosine dropped at once.", axis, losses, {}, report.samplesDone));
    report.datasets.push_back(curve("curve/" + target + "_perplexity", "Perplexity after each drop, " + target, "perplexity", "exp of the mean loss with the n lowest by the cosine dropped at once.", axis, perplexities, {}, report.samplesDone));
}

}  // namespace

LlmDrop::LlmDrop() : m_info(describe()) {}

Report LlmDrop::analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const {
    Report report = startReport(*this, run, parameters);
    SimilarityOptions options;
    options.windows = parameters.boolean("windows") && run.shape().towers.empty();  // text does not run through all of several towers
    options.windowTokens = static_cast<int>(parameters.integer("window_tokens"));
    options.angularTokens = parameters.text("angular_tokens") == "all" ? AngularTokens::All : AngularTokens::Last;
    const SimilarityScores scores = measureSimilarity(run, options, job);
    report.samplesDone = scores.rowsDone;
    report.notes = scores.notes;
    addSimilarity(report, scores);
    warnAboutScale(report, scores);
    const auto stoppedHere = [&] { report.samplesDone = std::min(report.samplesDone, report.samplesTotal - 1); };
    if (scores.rowsDone > 0) {
        const double elementBytes = report.dtype == "f64" ? 8 : report.dtype == "f32" ? 4 : 2;
        for (const char* target : {"attn", "mlp", "block", "joint"}) addOrder(report, run.shape(), target, elementBytes);
    }
    if (parameters.boolean("delta_loss") && !job.stopped() && !addDeltaLoss(report, run, job)) stoppedHere();
    if (parameters.text("curve") != "off" && !job.stopped()) addCurve(report, run, parameters, job);
    if (parameters.text("iterative") != "off" && !job.stopped()) addIterativeOrder(report, run, parameters, job);
    if (parameters.boolean("latency") && !job.stopped()) addLatencies(report, measureLatencies(run, static_cast<int>(parameters.integer("latency_context")), job));
    if (job.stopped() && !report.partial() && parameters.text("curve") + parameters.text("iterative") != "offoff") stoppedHere();
    return report;
}

EditPlan LlmDrop::plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const {
    return planDrop(anatomy, report, parameters);
}

}  // namespace resect

extern "C" int resectPluginAbi() { return resect::kPluginAbi; }
extern "C" void resectRegister(resect::MethodRegistry& registry) { registry.add(std::make_unique<resect::LlmDrop>()); }
