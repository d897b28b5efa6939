#include "plugins/importance/importance_method.h"

#include "core/base/error.h"
#include "core/measure/ablation.h"
#include "core/measure/gradients.h"
#include "core/measure/importance.h"
#include "core/method/budget_report.h"
#include "plugins/importance/lanes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace resect {

namespace {

constexpr double kNoBound = 1e300;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

ParameterInfo choice(std::string name, std::string title, std::string help, std::vector<std::string> choices, std::string fallback, bool advanced = false) {
    return {std::move(name), std::move(title), std::move(help), ParameterType::Choice, "", std::move(fallback), -kNoBound, kNoBound, std::move(choices), advanced};
}

const std::vector<std::string> kMetrics{"magnitude", "activation", "rms", "wanda", "ifv", "wifv", "flap", "gate", "gate_token", "gate_batch", "taylor", "taylor_vector", "taylor2", "taylor_mix", "loo"};
const std::vector<std::string> kTargets{"kv_groups", "heads", "channels", "experts", "kv_groups_and_channels", "heads_and_channels"};
const std::vector<std::string> kSingleTargets{"off", "kv_groups", "heads", "channels", "experts"};

std::vector<ParameterInfo> measureParameters() {
    return {
        {"activations", "Activations", "Run the data; without it only weight norms are computed.", ParameterType::Boolean, "", true, -kNoBound, kNoBound, {}, false},
        choice("gradients", "Gradients", "Gates: how much the loss asks for each unit (one backward pass). Weights: Taylor scores of every weight too, which takes a copy of the weights. Rows: squared gradients of each row as well, row by row.",
               {"off", "gates", "weights", "rows"}, "off"),
        choice("ablation", "Leave out one at a time", "The exact rise of the loss without each unit: one forward pass per unit, the yardstick of all other scores.", kSingleTargets, "off", true),
        {"ablation_blocks", "Blocks to ablate", "Only in these blocks, as in 0,1,30-31; none = all.", ParameterType::IntegerList, "", Json::array(), 0, 1e6, {}, true},
        choice("greedy", "Greedy order", "Cut step by step where the loss rises least, previewing every block at every step.", kSingleTargets, "off", true),
        choice("greedy_metric", "Greedy ranking", "Which score ranks the units inside a block.", kMetrics, "wanda", true),
        {"greedy_step", "Greedy step", "Share of a block's units that one step cuts.", ParameterType::Real, "", 0.125, 0.001, 0.5, {}, true},
        {"greedy_ratio", "Greedy until", "Share of all units at which it ends.", ParameterType::Real, "", 0.5, 0.01, 0.95, {}, true},
        {"hidden", "Hidden channels", "Also score the dimensions of the residual stream, by all weights that go with them and by what they carry.", ParameterType::Boolean, "", false, -kNoBound, kNoBound, {}, true},
        {"latency", "Latency", "Time attention and MLP layers at several sizes on this machine, for plans that have to meet a time.", ParameterType::Boolean, "", false, -kNoBound, kNoBound, {}, true},
        {"latency_context", "Context to time", "Tokens in the cache, or together, when layers are timed.", ParameterType::Integer, "tokens", 256, 2, 1e6, {}, true},
        {"power", "Power of the norm", "Weights enter as |w| to this power.", ParameterType::Real, "", 2.0, 0.5, 4, {}, true},
        choice("reduction", "Over tensors", "How the norms of the tensors that are cut together are put together (Taylor scores are summed unless this is max, prod or first).", {"mean", "sum", "max", "prod", "first"}, "mean", true),
        choice("normalise", "Within a block", "Divide weight norms by their mean over the block, so that blocks compare.", {"mean", "none"}, "mean", true),
        {"agreement", "Agreement", "Rank correlations between all criteria that were measured.", ParameterType::Boolean, "", true, -kNoBound, kNoBound, {}, true},
    };
}

std::vector<ParameterInfo> planParameters() {
    std::vector<ParameterInfo> parameters{
        choice("target", "Cut", "What is cut.", kTargets, "channels"),
        choice("metric", "Order by", "Which score decides; the lowest go first.", kMetrics, "wanda"),
        {"ratio", "Share to cut", "Share of the units of every block (or of the model), or of the budget, that is cut.", ParameterType::Real, "", 0.2, 0, 0.95, {}, false},
        {"count", "Units per block", "Number of units cut in every block instead of a share; 0 = use the share.", ParameterType::Integer, "units", 0, 0, 1e6, {}, true},
        choice("scope", "Share out", "The same share within each block, which keeps the shape uniform and loads everywhere; one threshold over the whole model; a threshold for each kind; or the greedy order that was measured.",
               {"per_block", "global", "isomorphic", "greedy"}, "per_block"),
        choice("normalise", "Compare blocks by", "What a block's scores are divided by before blocks are compared; auto: the mean, and nothing where scores may be negative.",
               {"auto", "none", "sum", "mean", "max", "min_max", "gaussian", "quantile", "l2", "lamp"}, "auto", true),
    };
    for (auto& parameter : budgetParameters("units", "units: the share counts units.")) parameters.push_back(std::move(parameter));
    parameters.push_back({"rounding", "Keep multiples of", "The channels that stay are a multiple of this (the nearest one; 256, 128, 64 or 32 suit kernels and block formats); 1 = any number.", ParameterType::Integer,
                          "channels", 32, 1, 1024, {}, true});
    parameters.push_back({"protect", "Protect", "Blocks that are never touched, as in 0,1,30-31.", ParameterType::IntegerList, "", Json::array(), 0, 1e6, {}, true});
    return parameters;
}

MethodInfo describe() {
    MethodInfo info;
    info.id = "importance";
    info.title = "Importance of heads, channels and experts";
    info.summary = "Scores attention heads, kv groups, MLP channels and experts by weights, activations, gradients or by leaving them out, and cuts the least important.";
    info.paper = "A Simple and Effective Pruning Approach for Large Language Models (Wanda, arXiv 2306.11695, 2023); LLM-Pruner (arXiv 2305.11627, 2023); FLAP (arXiv 2312.11983, 2023); "
                 "Are Sixteen Heads Really Better than One? (arXiv 1905.10650, 2019); group norms as in DepGraph (arXiv 2301.12900, 2023)";
    info.measureParameters = measureParameters();
    info.planParameters = planParameters();
    return info;
}

struct Score {
    const char *metric, *title, *unit, *help;
};
constexpr Score kMagnitude{"magnitude", "weight norm", "relative", "Sum of squares of all weights that go with the unit, relative to the mean of its block; low means that it can be cut."};
constexpr Score kActivation{"activation", "activation", "mean abs", "Mean magnitude of what the unit passes on; low means that it can be cut."};
constexpr Score kRms{"rms", "activation (RMS)", "RMS", "Root mean square of what the unit passes on; outliers weigh more than in the mean."};
constexpr Score kWanda{"wanda", "weight times activation (Wanda)", "score", "Size of the output weights times the size of what flows through them (arXiv 2306.11695)."};
constexpr Score kVariance{"ifv", "variance (FLAP, IFV)", "variance", "How much what the unit passes on varies over tokens; a constant could be replaced by a bias (arXiv 2312.11983)."};
constexpr Score kWeightedVariance{"wifv", "variance times weight (FLAP, WIFV)", "score", "Variance over tokens times the squared size of the output weights (arXiv 2312.11983)."};
constexpr Score kFlap{"flap", "standardised variance (FLAP)", "standard deviations", "FLAP's score in standard deviations from its block's mean, on one scale for heads and channels of all blocks."};
constexpr Score kGate{"gate", "gate gradient", "nats", "Mean over rows of how much the loss changes with a gate on the unit's output (arXiv 1905.10650)."};
constexpr Score kGateToken{"gate_token", "gate gradient by token", "nats per token", "The same taken token by token, as the authors' code does."};
constexpr Score kGateBatch{"gate_batch", "gate gradient of all rows", "nats", "The same from the gradient of the mean loss: rows that disagree cancel."};
constexpr Score kTaylor{"taylor", "Taylor score", "nats", "Sum of |weight times gradient| over all weights that go with the unit (LLM-Pruner, arXiv 2305.11627)."};
constexpr Score kTaylorVector{"taylor_vector", "Taylor score by row or column", "nats", "|weight times gradient summed over each row or column|, then added up."};
constexpr Score kTaylor2{"taylor2", "squared Taylor score", "nats", "Sum of squared weight times mean squared gradient of each row: the diagonal of the Fisher information."};
constexpr Score kTaylorMix{"taylor_mix", "Taylor score to second order", "nats", "Sum of |weight times gradient minus half the squared term| over all weights that go with the unit."};
constexpr Score kLoo{"loo", "loss without it", "nats", "How much the mean loss per token rises when this unit alone is left out: the yardstick of the other scores."};

struct Kind {
    ComponentKind kind;
    const char *component, *title;
};
constexpr Kind kHead{ComponentKind::Head, "head", "head"}, kGroup{ComponentKind::KvGroup, "kv_group", "kv group"}, kChannel{ComponentKind::Channel, "channel", "channel"},
    kExpert{ComponentKind::Expert, "expert", "expert"};

/// Adds the score of one kind: [L, most units of any block], NaN where a block has fewer; channels of experts apart as [L, E, F].
class TableWriter {
public:
    TableWriter(Report& report, const ModelShape& shape) : m_report(report), m_shape(shape) {}

    void add(const Score& score, const Kind& kind, const UnitTable& table, const UnitTable& errors, std::int64_t samples) {
        UnitTable plain(table.size()), plainErrors(errors.size());
        std::size_t width = 0, experts = 0, channels = 0;
        for (std::size_t block = 0; block < table.size(); ++block) {
            if (routed(kind, block)) {
                if (table[block].empty()) continue;
                experts = std::max(experts, static_cast<std::size_t>(m_shape.blocks[block].numExperts));
                channels = std::max(channels, static_cast<std::size_t>(m_shape.blocks[block].ffnSize));
                continue;
            }
            plain[block] = table[block];
            if (!errors.empty()) plainErrors[block] = errors[block];
            width = std::max(width, table[block].size());
        }
        if (width > 0) put(score, kind, {static_cast<std::int64_t>(table.size()), static_cast<std::int64_t>(width)}, rectangle(plain, width), rectangle(plainErrors, width), samples);
        if (experts > 0)
            put(score, kind, {static_cast<std::int64_t>(table.size()), static_cast<std::int64_t>(experts), static_cast<std::int64_t>(channels)}, cuboid(kind, table, experts, channels),
                errors.empty() ? std::vector<double>() : cuboid(kind, errors, experts, channels), samples);
    }
    void add(const Score& score, const Kind& kind, const ScoreTable& table, std::int64_t samples) { add(score, kind, table.score, table.error, samples); }

private:
    bool routed(const Kind& kind, std::size_t block) const { return kind.kind == ComponentKind::Channel && m_shape.blocks[block].numExperts > 0; }
    static std::vector<double> rectangle(const UnitTable& table, std::size_t width) {
        std::vector<double> values(table.size() * width, kNaN);
        for (std::size_t block = 0; block < table.size(); ++block) std::copy(table[block].begin(), table[block].end(), values.begin() + static_cast<std::ptrdiff_t>(block * width));
        return values;
    }
    std::vector<double> cuboid(const Kind& kind, const UnitTable& table, std::size_t experts, std::size_t channels) const {
        std::vector<double> values(table.size() * experts * channels, kNaN);
        for (std::size_t block = 0; block < table.size(); ++block) {
            if (!routed(kind, block)) continue;
            const auto own = static_cast<std::size_t>(m_shape.blocks[block].ffnSize);
            for (std::size_t i = 0; i < table[block].size(); ++i) values[(block * experts + i / own) * channels + i % own] = table[block][i];
        }
        return values;
    }
    void put(const Score& score, const Kind& kind, std::vector<std::int64_t> sizes, std::vector<double> values, std::vector<double> errors, std::int64_t samples) {
        const bool inExperts = sizes.size() == 3;
        ReportDataset dataset;
        dataset.name = (inExperts ? std::string("expert_") : std::string()) + kind.component + "/" + score.metric;
        dataset.kind = DatasetKind::Matrix;
        dataset.title = (inExperts ? std::string("experts' ") : std::string()) + kind.title + ", " + score.title;
        dataset.unit = score.unit;
        dataset.help = score.help;
        dataset.higher = Direction::Keep;
        dataset.axes = {{"block", "block", {}}};
        if (inExperts) dataset.axes.push_back({"expert", "expert", {}});
        dataset.axes.push_back({kind.title, kind.component, {}});
        dataset.shape = std::move(sizes);
        dataset.values = std::move(values);
        dataset.errors = std::move(errors);
        dataset.samples = samples;
        m_report.datasets.push_back(std::move(dataset));
    }
    Report& m_report;
    const ModelShape& m_shape;
};

Reduction reductionOf(const std::string& text) {
    using enum Reduction;
    return text == "sum" ? Sum : text == "max" ? Max : text == "prod" ? Product : text == "first" ? First : Mean;
}

void addActivations(TableWriter& writer, const ActivationScores& scores) {
    const std::int64_t n = scores.rowsDone;
    for (const auto& [kind, tables] : {std::pair(kHead, &scores.head), std::pair(kGroup, &scores.group), std::pair(kChannel, &scores.channel)}) {
        writer.add(kActivation, kind, tables->mean, n);
        writer.add(kRms, kind, tables->rms, n);
        writer.add(kWanda, kind, tables->wanda, n);
        writer.add(kVariance, kind, tables->variance, n);
        writer.add(kWeightedVariance, kind, tables->weightedVariance, n);
        writer.add(kFlap, kind, tables->standardised, n);
    }
}

void addGradients(TableWriter& writer, const GradientScores& scores) {
    const std::int64_t n = scores.rowsDone;
    for (const auto& [kind, gates] : {std::pair(kHead, &scores.head), std::pair(kGroup, &scores.group), std::pair(kChannel, &scores.channel), std::pair(kExpert, &scores.expert)}) {
        writer.add(kGate, kind, gates->row, gates->rowError, n);
        writer.add(kGateToken, kind, gates->token, {}, n);
        writer.add(kGateBatch, kind, gates->batch, {}, n);
        const auto taylor = scores.taylor.find(kind.kind);
        if (taylor == scores.taylor.end()) continue;
        writer.add(kTaylor, kind, taylor->second.first, {}, n);
        writer.add(kTaylorVector, kind, taylor->second.vectorised, {}, n);
        writer.add(kTaylor2, kind, taylor->second.second, {}, n);
        writer.add(kTaylorMix, kind, taylor->second.mixed, {}, n);
    }
}

/// Returns the rows that were run.
std::int64_t addHidden(Report& report, ModelRun& run, const MagnitudeOptions& options, const JobContext& job) {
    const HiddenScores scores = measureHidden(run, options, job);
    const auto size = static_cast<std::size_t>(run.shape().hiddenSize);
    ReportDataset weights;
    weights.name = "hidden/magnitude";
    weights.kind = DatasetKind::Curve;
    weights.title = "hidden channel, weight norm";
    weights.unit = "relative";
    weights.help = "Sum of squares of all weights that read or write the dimension of the residual stream, relative to the mean.";
    weights.higher = Direction::Keep;
    weights.axes = {{"hidden channel", "", {}}};
    weights.shape = {static_cast<std::int64_t>(size)};
    weights.values = scores.magnitude;
    ReportDataset stream;
    stream.name = "hidden/activation";
    stream.kind = DatasetKind::Matrix;
    stream.title = "hidden channel, activation";
    stream.unit = "mean abs";
    stream.help = "Mean magnitude of each dimension of the residual stream: row 0 is the embedding, row n after n blocks. Few dimensions far above the others are outliers that must stay.";
    stream.higher = Direction::Keep;
    stream.axes = {{"after block", "", {}}, {"hidden channel", "", {}}};
    stream.shape = {static_cast<std::int64_t>(scores.activation.size()), static_cast<std::int64_t>(size)};
    for (std::size_t point = 0; point < scores.activation.size(); ++point) {
        auto row = scores.activation[point], error = scores.error[point];
        row.resize(size, kNaN), error.resize(size, kNaN);
        stream.values.insert(stream.values.end(), row.begin(), row.end());
        stream.errors.insert(stream.errors.end(), error.begin(), error.end());
    }
    stream.samples = weights.samples = scores.rowsDone;
    report.datasets.push_back(std::move(weights));
    report.datasets.push_back(std::move(stream));
    return scores.rowsDone;
}

/// What leaving out each unit of a kind means, in the order of the score tables.
std::vector<std::vector<BlockCut>> unitsToAblate(const ModelShape& shape, ComponentKind kind, const std::set<int>& blocks) {
    std::vector<std::vector<BlockCut>> cuts(shape.blocks.size());
    for (int number = 0; number < shape.numBlocks(); ++number) {
        if (!blocks.empty() && !blocks.contains(number)) continue;
        const auto index = static_cast<std::size_t>(number);
        const BlockShape& block = shape.blocks[index];
        const auto add = [&](auto set) { cuts[index].emplace_back(); set(cuts[index].back()); };
        if (kind == ComponentKind::Head && block.hasAttention) for (int i = 0; i < block.numHeads; ++i) add([&](BlockCut& cut) { cut.heads = {i}; });
        if (kind == ComponentKind::KvGroup && block.hasAttention) for (int i = 0; i < block.numKvHeads; ++i) add([&](BlockCut& cut) { cut.kvGroups = {i}; });
        if (kind == ComponentKind::Expert && block.hasFfn && block.numExperts > shape.numExpertsPerToken)
            for (int i = 0; i < block.numExperts; ++i) add([&](BlockCut& cut) { cut.experts = {i}; });
        if (kind != ComponentKind::Channel || !block.hasFfn) continue;
        for (int expert = 0; expert < std::max(1, block.numExperts); ++expert)
            for (int i = 0; i < block.ffnSize; ++i)
                add([&](BlockCut& cut) {
                    if (block.numExperts > 0) cut.expertChannels[expert] = {i};
                    else cut.channels = {i};
                });
    }
    return cuts;
}

const Kind& kindNamed(const std::string& target) { return target == "heads" ? kHead : target == "kv_groups" ? kGroup : target == "experts" ? kExpert : kChannel; }

/// Returns the rows that every ablation saw.
std::int64_t addAblation(Report& report, TableWriter& writer, ModelRun& run, const Parameters& parameters, const JobContext& job) {
    const Kind& kind = kindNamed(parameters.text("ablation"));
    const auto blocks = parameters.integers("ablation_blocks");
    const auto cuts = unitsToAblate(run.shape(), kind.kind, {blocks.begin(), blocks.end()});
    std::vector<Ablation> ablations;
    for (std::size_t block = 0; block < cuts.size(); ++block)
        for (const BlockCut& cut : cuts[block]) ablations.push_back({static_cast<int>(block), cut});
    if (ablations.empty()) {
        report.notes.push_back({Severity::Warning, "ablation", "the chosen blocks have no " + std::string(kind.title) + " that could be left out", ""});
        return report.samplesTotal;
    }
    const AblationScores scores = measureAblations(run, {}, ablations, job);
    UnitTable rises(cuts.size()), errors(cuts.size());
    auto next = scores.rise.begin();
    for (std::size_t block = 0; block < cuts.size(); ++block)
        for (std::size_t i = 0; i < cuts[block].size(); ++i, ++next) rises[block].push_back(next->mean), errors[block].push_back(next->error);
    writer.add(kLoo, kind, rises, errors, scores.rowsDone);
    return scores.rowsDone;
}

}  // namespace

Importance::Importance() : m_info(describe()) {}

Report Importance::analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const {
    Report report = startReport(*this, run, parameters);
    const ModelShape& shape = run.shape();
    TableWriter writer(report, shape);
    MagnitudeOptions options;
    options.power = parameters.real("power");
    options.reduction = reductionOf(parameters.text("reduction"));
    options.normalisation = parameters.text("normalise") == "mean" ? Normalisation::Mean : Normalisation::None;
    for (const Kind& kind : {kHead, kGroup, kChannel, kExpert}) writer.add(kMagnitude, kind, magnitude(run.checkpoint(), shape, kind.kind, options, job), {}, 0);
    report.samplesDone = job.stopped() ? 0 : report.samplesTotal;
    if (parameters.boolean("activations") && !job.stopped()) {
        const ActivationScores scores = measureActivations(run, job);
        report.samplesDone = scores.rowsDone;
        addActivations(writer, scores);
        if (scores.expertsSkipped)
            report.notes.push_back({Severity::Note, "channels", "activations of experts' channels need the model in memory; streamed, only their weight norms are scored", ""});
    }
    if (const std::string wanted = parameters.text("gradients"); wanted != "off" && !job.stopped()) {
        GradientOptions gradients;
        gradients.elements = wanted != "gates";
        gradients.perRow = wanted == "rows";
        gradients.reduction = options.reduction == Reduction::Mean ? Reduction::Sum : options.reduction;
        const GradientScores scores = measureGradients(run, gradients, job);
        report.samplesDone = std::min(report.samplesDone, scores.rowsDone);
        report.notes.insert(report.notes.end(), scores.notes.begin(), scores.notes.end());
        addGradients(writer, scores);
    }
    if (parameters.boolean("hidden") && !job.stopped()) report.samplesDone = std::min(report.samplesDone, addHidden(report, run, options, job));
    if (parameters.text("ablation") != "off" && !job.stopped()) report.samplesDone = std::min(report.samplesDone, addAblation(report, writer, run, parameters, job));
    if (parameters.boolean("latency") && !job.stopped()) addLatencies(report, measureLatencies(run, static_cast<int>(parameters.integer("latency_context")), job));
    if (parameters.text("greedy") != "off" && !job.stopped()) {
        addGreedyOrder(report, run, parameters, job);
        if (job.stopped()) report.samplesDone = std::min(report.samplesDone, report.samplesTotal - 1);
    }
    if (parameters.boolean("agreement")) addAgreement(report);
    return report;
}

EditPlan Importance::plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const { return planImportance(anatomy, report, parameters); }

}  // namespace resect

extern "C" int resectPluginAbi() { return resect::kPluginAbi; }
extern "C" void resectRegister(resect::MethodRegistry& registry) { registry.add(std::make_unique<resect::Importance>()); }
