#include "plugins/expert_drop/expert_drop.h"

#include "core/measure/experts.h"

#include <limits>

namespace resect {

namespace {

constexpr double kNoBound = 1e300;

MethodInfo describe() {
    MethodInfo info;
    info.id = "expert-drop";
    info.title = "Expert use";
    info.summary = "Shows which experts a mixture's routers choose, for how much, and which of them go together, and drops the least used ones.";
    info.paper = "Towards Efficient Mixture of Experts: A Holistic Study of Compression Techniques (arXiv 2406.02500, 2024); saliency: REAP (arXiv 2510.13999, 2025)";
    for (const char* family : {"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek", "glm4_moe"}) info.families.emplace_back(family);
    info.planParameters = {
        {"keep", "Experts kept", "Experts that stay in every block; with one number for all blocks the result opens everywhere.", ParameterType::Integer, "experts", 6, 1, 4096, {}, false},
        {"score", "Order by", "Which score decides; the lowest go first.", ParameterType::Choice, "", "load", -kNoBound, kNoBound, {"load", "mass", "gate", "saliency"}, false},
        {"scope", "Compare", "Within each block, which keeps the counts equal, or over the whole model: no stock runtime reads counts that differ.",
         ParameterType::Choice, "", "per_block", -kNoBound, kNoBound, {"per_block", "global"}, true},
        {"reverse", "Highest first", "Drop the highest scores instead: a control that should hurt more.", ParameterType::Boolean, "", false, -kNoBound, kNoBound, {}, true},
        {"protect", "Protect", "Blocks that are never touched, as in 0,1,30-31.", ParameterType::IntegerList, "", Json::array(), 0, 1e6, {}, true},
    };
    return info;
}

struct Score {
    const char *name, *title, *unit, *help;
    Direction higher;
};

std::vector<double> rectangle(const UnitTable& table, std::size_t width) {
    std::vector<double> values(table.size() * width, std::numeric_limits<double>::quiet_NaN());
    for (std::size_t block = 0; block < table.size(); ++block)
        std::copy(table[block].begin(), table[block].end(), values.begin() + static_cast<std::ptrdiff_t>(block * width));
    return values;
}

void addTable(Report& report, const Score& score, const UnitTable& table, const UnitTable& errors, std::size_t experts) {
    ReportDataset dataset;
    dataset.name = std::string("expert/") + score.name;
    dataset.kind = DatasetKind::Matrix;
    dataset.title = score.title;
    dataset.unit = score.unit;
    dataset.help = score.help;
    dataset.higher = score.higher;
    dataset.axes = {{"block", "block", {}}, {"expert", "expert", {}}};
    dataset.shape = {static_cast<std::int64_t>(table.size()), static_cast<std::int64_t>(experts)};
    dataset.values = rectangle(table, experts);
    if (!errors.empty()) dataset.errors = rectangle(errors, experts);
    dataset.samples = report.samplesDone;
    report.datasets.push_back(std::move(dataset));
}

/// One matrix per block with experts: [E, E].
void addPairs(Report& report, const Score& score, const std::vector<std::vector<double>>& pairs, const ModelShape& shape) {
    for (std::size_t block = 0; block < pairs.size(); ++block) {
        if (pairs[block].empty()) continue;
        ReportDataset dataset;
        dataset.name = std::string("pairs/") + score.name + "/block " + std::to_string(block);
        dataset.kind = DatasetKind::Matrix;
        dataset.title = std::string(score.title) + ", block " + std::to_string(block);
        dataset.unit = score.unit;
        dataset.help = score.help;
        dataset.higher = score.higher;
        dataset.axes = {{"expert", "", {}}, {"other expert", "", {}}};
        dataset.shape = {shape.blocks[block].numExperts, shape.blocks[block].numExperts};
        dataset.values = pairs[block];
        dataset.samples = report.samplesDone;
        report.datasets.push_back(std::move(dataset));
    }
}

void noteIdleExperts(Report& report, const ExpertScores& scores) {
    int idle = 0;
    for (const auto& row : scores.load)
        for (const double load : row) idle += load == 0;
    if (idle > 0)
        report.notes.push_back({Severity::Note, "experts", std::to_string(idle) + (idle == 1 ? " expert was" : " experts were") + " never chosen on this data", ""});
}

}  // namespace

ExpertDrop::ExpertDrop() : m_info(describe()) {}

Report ExpertDrop::analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const {
    Report report = startReport(*this, run, parameters);
    const ExpertScores scores = measureExperts(run, job);
    report.samplesDone = scores.rowsDone;
    std::size_t experts = 0;
    for (const BlockShape& block : run.shape().blocks) experts = std::max(experts, static_cast<std::size_t>(block.numExperts));
    using enum Direction;
    addTable(report, {"load", "Load", "share of tokens", "Share of the tokens that the router sends to this expert; low means that it is hardly used.", Keep}, scores.load, scores.loadError, experts);
    addTable(report, {"mass", "Router probability", "mean", "Mean probability that the router gives this expert before it chooses.", Keep}, scores.mass, {}, experts);
    addTable(report, {"gate", "Mean gate", "mean", "Mean weight of the expert's output, 0 where it is not chosen.", Keep}, scores.gate, {}, experts);
    addTable(report, {"gate_chosen", "Gate when chosen", "mean", "Mean weight of the expert's output over the tokens that it is chosen for.", Neutral}, scores.gateChosen, {}, experts);
    addTable(report, {"saliency", "Saliency", "weighted norm", "Mean of weight times size of the expert's output over its tokens; low means that dropping it changes little (REAP).", Keep},
             scores.saliency, {}, experts);
    addPairs(report, {"coactivation", "Chosen together", "share of tokens", "Share of the tokens for which both experts are chosen; the diagonal is the load.", Neutral}, scores.coActivation, run.shape());
    addPairs(report, {"similarity", "Similarity of router logits", "cosine", "How alike the router scores the two experts over all tokens; close to 1 means that they answer to the same tokens.", Neutral},
             scores.similarity, run.shape());
    noteIdleExperts(report, scores);
    return report;
}

EditPlan ExpertDrop::plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const {
    return planExpertDrop(anatomy.shape(), report, parameters);
}

}  // namespace resect

extern "C" int resectPluginAbi() { return resect::kPluginAbi; }
extern "C" void resectRegister(resect::MethodRegistry& registry) { registry.add(std::make_unique<resect::ExpertDrop>()); }
