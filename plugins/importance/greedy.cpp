#include "plugins/importance/importance_method.h"

#include "core/anatomy/cost.h"
#include "core/measure/ablation.h"
#include "core/surgery/budget.h"
#include "plugins/importance/lanes.h"

#include <algorithm>
#include <cmath>

namespace resect {

namespace {

ReportDataset curve(const char* name, const char* title, const char* unit, const char* help, std::vector<double> values, std::int64_t samples) {
    ReportDataset dataset;
    dataset.name = std::string("greedy/") + name;
    dataset.kind = DatasetKind::Curve;
    dataset.title = title;
    dataset.unit = unit;
    dataset.help = help;
    dataset.axes = {{"step", "", {}}};
    dataset.shape = {static_cast<std::int64_t>(values.size())};
    dataset.values = std::move(values);
    dataset.samples = samples;
    return dataset;
}

}  // namespace

void addGreedyOrder(Report& report, ModelRun& run, const Parameters& parameters, const JobContext& job) {
    const ModelShape& shape = run.shape();
    const auto lanes = lanesOf(shape, report, kindsOf(parameters.text("greedy")), parameters.text("greedy_metric"), {});
    std::vector<int> counts(lanes.size(), 0);
    std::vector<double> blocks, cuts, losses;
    double units = 0, total = 0;
    for (const Lane& lane : lanes) total += static_cast<double>(lane.bundles.size());
    const auto stepOf = [&](const Lane& lane) { return std::max(1, static_cast<int>(std::lround(parameters.real("greedy_step") * static_cast<double>(lane.bundles.size())))); };
    const auto parametersAfter = [&](const std::vector<int>& chosen) {
        ModelShape after = shape;
        after.blocks = blocksAfter(shape, cutOf(planOf(lanes, chosen), shape));
        return static_cast<double>(costOf(after, 1).parameters);
    };
    while (units < parameters.real("greedy_ratio") * total && !job.stopped()) {
        const Cut base = cutOf(planOf(lanes, counts), shape);
        const double whole = parametersAfter(counts);
        std::vector<Ablation> candidates;
        std::vector<std::pair<std::size_t, double>> which;   // lane, parameters that go
        for (std::size_t i = 0; i < lanes.size(); ++i) {
            auto next = counts;
            next[i] = std::min(lanes[i].most(), counts[i] + stepOf(lanes[i]));
            if (next[i] == counts[i]) continue;
            candidates.push_back({lanes[i].block, cutOf(planOf(lanes, next), shape).blocks[static_cast<std::size_t>(lanes[i].block)]});
            which.emplace_back(i, whole - parametersAfter(next));
        }
        if (candidates.empty()) break;
        const double goal = parameters.real("greedy_ratio") * total;
        const JobContext within(job.stopToken(), [&](const Progress& part) {   // a round may take long
            job.progress({std::min(goal, units + part.done / part.total), goal, "units", "greedy order"});
        });
        const AblationScores scores = measureAblations(run, base, candidates, within);
        if (scores.rowsDone < scores.rowsTotal) break;
        std::size_t best = 0;
        for (std::size_t i = 1; i < candidates.size(); ++i)
            if (scores.rise[i].mean / which[i].second < scores.rise[best].mean / which[best].second) best = i;
        const std::size_t lane = which[best].first;
        const int before = counts[lane];
        counts[lane] = std::min(lanes[lane].most(), before + stepOf(lanes[lane]));
        units += counts[lane] - before;
        blocks.push_back(lanes[lane].block);
        cuts.push_back(counts[lane]);
        losses.push_back(scores.loss + scores.rise[best].mean);
        job.progress({std::min(goal, units), goal, "units", "greedy order"});
    }
    const auto samples = static_cast<std::int64_t>(run.data().rows.size());
    report.datasets.push_back(curve("block", "Block that the greedy order cuts", "block", "In which block each step cuts: where the loss rises least for each parameter saved.", std::move(blocks), samples));
    report.datasets.push_back(curve("cut", "Cut in that block by then", "units", "How many of that block's lowest units are gone after the step (with kv groups or experts: of each).", std::move(cuts), samples));
    report.datasets.push_back(curve("loss", "Loss after the step", "nats", "Mean loss per token with everything cut so far.", std::move(losses), samples));
}

}  // namespace resect
