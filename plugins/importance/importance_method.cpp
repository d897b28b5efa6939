#include "plugins/importance/importance_method.h"

#include "core/measure/importance.h"

#include <algorithm>
#include <limits>

namespace resect {

namespace {

constexpr double kNoBound = 1e300;

ParameterInfo choice(std::string name, std::string title, std::string help, std::vector<std::string> choices, std::string fallback, bool advanced = false) {
    return {std::move(name), std::move(title), std::move(help), ParameterType::Choice, "", std::move(fallback), -kNoBound, kNoBound, std::move(choices), advanced};
}

MethodInfo describe() {
    MethodInfo info;
    info.id = "importance";
    info.title = "Importance of heads and channels";
    info.summary = "Scores attention heads, kv groups and MLP channels by their weights and by what flows through them, and cuts the least important.";
    info.paper = "A Simple and Effective Pruning Approach for Large Language Models (Wanda, arXiv 2306.11695, 2023); group norms as in DepGraph (arXiv 2301.12900, 2023)";
    info.measureParameters = {
        {"activations", "Activations", "Run the data; without it only weight norms are computed.", ParameterType::Boolean, "", true, -kNoBound, kNoBound, {}, false},
        {"power", "Power of the norm", "Weights enter as |w| to this power.", ParameterType::Real, "", 2.0, 0.5, 4, {}, true},
        choice("reduction", "Over tensors", "How the norms of the tensors that are cut together are put together.", {"mean", "sum"}, "mean", true),
        choice("normalise", "Within a block", "Divide weight norms by their mean over the block, so that blocks compare.", {"mean", "none"}, "mean", true),
    };
    info.planParameters = {
        choice("target", "Cut", "What is cut.", {"kv_groups", "heads", "channels"}, "channels"),
        choice("metric", "Order by", "Which score decides; the lowest go first.", {"magnitude", "activation", "rms", "wanda"}, "wanda"),
        {"ratio", "Share to cut", "Share of the units of every block (or of the model) that is cut.", ParameterType::Real, "", 0.2, 0, 0.95, {}, false},
        {"count", "Units per block", "Number of units cut in every block instead of a share; 0 = use the share.", ParameterType::Integer, "units", 0, 0, 1e6, {}, true},
        choice("scope", "Compare", "Within each block, which keeps the shape uniform and loads everywhere, or over the whole model.", {"per_block", "global"}, "per_block"),
        {"rounding", "Keep multiples of", "The channels that stay are a multiple of this (the nearest one); 1 = any number.", ParameterType::Integer, "channels", 32, 1, 1024, {}, true},
        {"protect", "Protect", "Blocks that are never touched, as in 0,1,30-31.", ParameterType::IntegerList, "", Json::array(), 0, 1e6, {}, true},
    };
    return info;
}

/// [L, most units of any block], NaN where a block has fewer.
std::vector<double> rectangle(const UnitTable& table, std::size_t width) {
    std::vector<double> values(table.size() * width, std::numeric_limits<double>::quiet_NaN());
    for (std::size_t block = 0; block < table.size(); ++block) std::copy(table[block].begin(), table[block].end(), values.begin() + static_cast<std::ptrdiff_t>(block * width));
    return values;
}

struct Score {
    const char *metric, *title, *unit, *help;
};
constexpr Score kMagnitude{"magnitude", "weight norm", "relative", "Sum of squares of all weights that go with the unit, relative to the mean of its block; low means that it can be cut."};
constexpr Score kActivation{"activation", "activation", "mean abs", "Mean magnitude of what the unit passes on; low means that it can be cut."};
constexpr Score kRms{"rms", "activation (RMS)", "RMS", "Root mean square of what the unit passes on; outliers weigh more than in the mean."};
constexpr Score kWanda{"wanda", "weight times activation (Wanda)", "score", "Size of the output weights times the size of what flows through them (arXiv 2306.11695)."};

void addTable(Report& report, const Score& score, const char* component, const char* unitTitle, const UnitTable& table, const UnitTable& errors, std::int64_t samples) {
    std::size_t width = 0;
    for (const auto& row : table) width = std::max(width, row.size());
    if (width == 0) return;
    ReportDataset dataset;
    dataset.name = std::string(component) + "/" + score.metric;
    dataset.kind = DatasetKind::Matrix;
    dataset.title = std::string(unitTitle) + ", " + score.title;
    dataset.unit = score.unit;
    dataset.help = score.help;
    dataset.higher = Direction::Keep;
    dataset.axes = {{"block", "block", {}}, {unitTitle, component, {}}};
    dataset.shape = {static_cast<std::int64_t>(table.size()), static_cast<std::int64_t>(width)};
    dataset.values = rectangle(table, width);
    if (!errors.empty()) dataset.errors = rectangle(errors, width);
    dataset.samples = samples;
    report.datasets.push_back(std::move(dataset));
}

void addActivations(Report& report, const ActivationScores& scores) {
    const std::int64_t n = scores.rowsDone;
    addTable(report, kActivation, "head", "head", scores.headMean, scores.headError, n);
    addTable(report, kRms, "head", "head", scores.headRms, {}, n);
    addTable(report, kWanda, "head", "head", scores.headWanda, {}, n);
    addTable(report, kActivation, "kv_group", "kv group", scores.groupMean, {}, n);
    addTable(report, kRms, "kv_group", "kv group", scores.groupRms, {}, n);
    addTable(report, kWanda, "kv_group", "kv group", scores.groupWanda, {}, n);
    addTable(report, kActivation, "channel", "channel", scores.channelMean, scores.channelError, n);
    addTable(report, kRms, "channel", "channel", scores.channelRms, {}, n);
    addTable(report, kWanda, "channel", "channel", scores.channelWanda, {}, n);
}

void noteExperts(Report& report, const ModelShape& shape) {
    const auto routed = std::count_if(shape.blocks.begin(), shape.blocks.end(), [](const BlockShape& block) { return block.numExperts > 0; });
    if (routed > 0)
        report.notes.push_back({Severity::Note, "channels", std::to_string(routed) + " blocks have experts; channels of experts are not scored", ""});
}

}  // namespace

Importance::Importance() : m_info(describe()) {}

Report Importance::analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const {
    Report report = startReport(*this, run, parameters);
    MagnitudeOptions options;
    options.power = parameters.real("power");
    options.reduction = parameters.text("reduction") == "sum" ? Reduction::Sum : Reduction::Mean;
    options.normalisation = parameters.text("normalise") == "mean" ? Normalisation::Mean : Normalisation::None;
    const ModelShape& shape = run.shape();
    struct Kind { ComponentKind kind; const char *component, *title; };
    for (const Kind& kind : {Kind{ComponentKind::Head, "head", "head"}, Kind{ComponentKind::KvGroup, "kv_group", "kv group"}, Kind{ComponentKind::Channel, "channel", "channel"}})
        addTable(report, kMagnitude, kind.component, kind.title, magnitude(run.checkpoint(), shape, kind.kind, options, job), {}, 0);
    report.samplesDone = job.stopped() ? 0 : report.samplesTotal;
    if (parameters.boolean("activations") && !job.stopped()) {
        const ActivationScores scores = measureActivations(run, job);
        report.samplesDone = scores.rowsDone;
        addActivations(report, scores);
    }
    noteExperts(report, shape);
    return report;
}

EditPlan Importance::plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const {
    return planImportance(anatomy.shape(), report, parameters);
}

}  // namespace resect

extern "C" int resectPluginAbi() { return resect::kPluginAbi; }
extern "C" void resectRegister(resect::MethodRegistry& registry) { registry.add(std::make_unique<resect::Importance>()); }
