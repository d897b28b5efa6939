#include "plugins/llm_drop/llm_drop.h"

#include "core/measure/ablation.h"
#include "core/measure/similarity.h"
#include "plugins/llm_drop/units.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace resect {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Is the unit still there under the cut?
bool alive(const ModelShape& shape, const Cut& cut, const DropUnit& unit) {
    const BlockCut& block = cut.blocks[static_cast<std::size_t>(unit.block)];
    if (!exists(shape.blocks[static_cast<std::size_t>(unit.block)], unit.kind) || block.block) return false;
    return unit.kind == DropKind::Block || !(unit.kind == DropKind::Attention ? block.attention : block.ffn);
}

const UnitScores& scoresOf(const SimilarityScores& scores, DropKind kind, bool relative) {
    if (kind == DropKind::Block) return relative ? scores.relativeBlock : scores.block;
    if (kind == DropKind::Attention) return relative ? scores.relativeAttention : scores.attention;
    return relative ? scores.relativeMlp : scores.mlp;
}

/// Scores of the units that are left, on the model as it is cut by now; empty when it was stopped before all rows were run.
std::vector<Candidate> rescored(ModelRun& run, const Cut& cut, std::vector<DropUnit> units, const std::string& metric, const JobContext& job) {
    std::vector<Candidate> candidates;
    if (metric == "delta_loss") {
        std::vector<Ablation> ablations;
        for (const DropUnit& unit : units) {
            Cut without = cut;
            drop(without, unit);
            ablations.push_back({unit.block, without.blocks[static_cast<std::size_t>(unit.block)]});
        }
        const AblationScores scores = measureAblations(run, cut, ablations, job);
        if (scores.rowsDone < scores.rowsTotal) return {};
        for (std::size_t i = 0; i < units.size(); ++i) candidates.push_back({units[i], scores.rise[i].mean});
        return candidates;
    }
    struct Restore {
        ModelRun& run;
        ~Restore() { run.setCut({}); }
    } restore{run};
    run.setCut(cut);
    SimilarityOptions options;
    options.windows = false;
    const SimilarityScores scores = measureSimilarity(run, options, job);
    if (scores.rowsDone < scores.rowsTotal) return {};
    for (const DropUnit& unit : units)
        if (const double score = scoresOf(scores, unit.kind, metric == "relative_magnitude").score[static_cast<std::size_t>(unit.block)]; !std::isnan(score)) candidates.push_back({unit, score});
    return candidates;
}

ReportDataset list(const char* name, const char* title, const char* unit, const char* help, std::vector<double> values, std::int64_t samples) {
    ReportDataset dataset;
    dataset.name = std::string("iterative/") + name;
    dataset.kind = DatasetKind::Curve;
    dataset.title = title;
    dataset.unit = unit;
    dataset.help = help;
    dataset.axes = {{"units dropped", "", {}}};
    for (std::size_t n = 1; n <= values.size(); ++n) dataset.axes[0].ids.push_back(static_cast<std::int64_t>(n));
    dataset.shape = {static_cast<std::int64_t>(values.size())};
    dataset.values = std::move(values);
    dataset.samples = samples;
    return dataset;
}

}  // namespace

void addIterativeOrder(Report& report, ModelRun& run, const Parameters& parameters, const JobContext& job) {
    const ModelShape& shape = run.shape();
    const std::string target = parameters.text("iterative"), metric = parameters.text("iterative_metric");
    const auto wanted = static_cast<std::size_t>(parameters.integer("iterative_count")), perRound = static_cast<std::size_t>(parameters.integer("per_round"));
    const auto protectedBlocks = parameters.integers("iterative_protect");
    const std::set<int> protect(protectedBlocks.begin(), protectedBlocks.end());
    Cut cut = emptyCut(shape);
    std::vector<double> numbers, scores;
    while (numbers.size() < wanted && !job.stopped()) {
        std::vector<DropUnit> units;
        for (const DropKind kind : dropKindsOf(target))
            for (int block = 0; block < shape.numBlocks(); ++block)
                if (!protect.contains(block) && alive(shape, cut, {kind, block})) units.push_back({kind, block});
        if (metric == "delta_loss" && target == "block" && units.size() > 2) {  // SLEB leaves the first and the last block that are left
            units.erase(units.begin());
            units.pop_back();
        }
        const JobContext within(job.stopToken(), [&](const Progress& part) {   // a round may take long
            const double round = part.total > 0 ? part.done / part.total * static_cast<double>(perRound) : 0;
            job.progress({std::min(static_cast<double>(wanted), static_cast<double>(numbers.size()) + round), static_cast<double>(wanted), "units", "dropping and scoring again"});
        });
        auto candidates = rescored(run, cut, std::move(units), metric, within);
        if (candidates.empty()) break;
        sortByScore(candidates);
        const std::size_t take = std::min({perRound, wanted - numbers.size(), candidates.size()});
        for (std::size_t i = 0; i < take; ++i) {
            drop(cut, candidates[i].unit);
            numbers.push_back(unitNumber(candidates[i].unit, shape.numBlocks()));
            scores.push_back(candidates[i].score);
        }
        job.progress({static_cast<double>(numbers.size()), static_cast<double>(wanted), "units", "dropping and scoring again"});
    }
    const auto samples = static_cast<std::int64_t>(run.data().rows.size());
    report.datasets.push_back(list("unit", "Unit that goes next when scores are taken anew", "unit", "Attention (or block) i is number i, the MLP of block i is number of blocks + i.", std::move(numbers), samples));
    report.datasets.push_back(list("score", "Its score at that time", metric == "delta_loss" ? "nats" : "score", "Taken on the model without the units before it.", std::move(scores), samples));
}

}  // namespace resect
