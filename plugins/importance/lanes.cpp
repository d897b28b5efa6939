#include "plugins/importance/lanes.h"

#include "core/base/error.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace resect {

namespace {

struct Unit {
    int pool, expert, index;
    double score;
};

int unitsOf(const BlockShape& shape, ComponentKind kind) {
    if (kind == ComponentKind::KvGroup) return shape.hasAttention ? shape.numKvHeads : 0;
    if (kind == ComponentKind::Head) return shape.hasAttention ? shape.numHeads : 0;
    if (kind == ComponentKind::Expert) return shape.hasFfn ? shape.numExperts : 0;
    return shape.hasFfn ? shape.ffnSize : 0;
}

/// Of which units as many must go: heads of kv groups, channels of experts, experts of groups.
int poolOf(const ModelShape& shape, const BlockShape& block, ComponentKind kind, int expert, int index) {
    if (kind == ComponentKind::Head && block.groupsAreEqual()) return groupOfHead(block, index);
    if (kind == ComponentKind::Channel) return std::max(0, expert);
    if (kind == ComponentKind::Expert && shape.expertGroups > 1) return index / std::max(1, block.numExperts / shape.expertGroups);
    return 0;
}

void checkSize(const ReportDataset& dataset, std::size_t axis, int wanted, int block) {
    if (dataset.shape.size() <= axis || wanted > dataset.shape[axis])
        throw Error(ErrorCode::Mismatch, "measurement", "\"" + dataset.name + "\" has fewer units in block " + std::to_string(block) + " than the model");
}

std::vector<Unit> unitsWithScores(const ModelShape& shape, const Report& report, ComponentKind kind, const std::string& metric, int block) {
    const BlockShape& own = shape.blocks[static_cast<std::size_t>(block)];
    const int count = unitsOf(own, kind);
    std::vector<Unit> units;
    if (count == 0) return units;
    const bool routed = kind == ComponentKind::Channel && own.numExperts > 0;
    const ReportDataset& dataset = report.dataset((routed ? std::string("expert_channel") : datasetGroup(kind)) + "/" + metric);
    if (dataset.shape.at(0) != shape.numBlocks())
        throw Error(ErrorCode::Mismatch, "measurement", "is of a model with " + std::to_string(dataset.shape.at(0)) + " blocks, this one has " + std::to_string(shape.numBlocks()));
    if (routed) checkSize(dataset, 1, own.numExperts, block);
    checkSize(dataset, routed ? 2 : 1, count, block);
    for (int expert = routed ? 0 : -1; expert < (routed ? own.numExperts : 0); ++expert)
        for (int i = 0; i < count; ++i) {
            const double score = routed ? dataset.at({block, expert, i}) : dataset.at({block, i});
            if (!std::isnan(score)) units.push_back({poolOf(shape, own, kind, expert, i), expert, i, score});
        }
    return units;
}

/// The lowest of every pool together, then the next lowest, as long as every pool has one; one pool when they are not equally large.
std::vector<Bundle> bundlesOf(std::vector<Unit> units) {
    std::map<int, std::vector<Unit>> pools;
    for (const Unit& unit : units) pools[unit.pool].push_back(unit);
    const auto size = pools.begin()->second.size();
    if (std::any_of(pools.begin(), pools.end(), [&](const auto& pool) { return pool.second.size() != size; })) {
        pools.clear();
        pools[0] = std::move(units);
    }
    for (auto& [name, pool] : pools) std::stable_sort(pool.begin(), pool.end(), [](const Unit& a, const Unit& b) { return a.score < b.score; });
    std::vector<Bundle> bundles(pools.begin()->second.size());
    for (std::size_t i = 0; i < bundles.size(); ++i)
        for (const auto& [name, pool] : pools) {
            bundles[i].units.emplace_back(pool[i].expert, pool[i].index);
            bundles[i].score += pool[i].score / static_cast<double>(pools.size());
        }
    return bundles;
}

EditPointer editOf(ComponentKind kind, int block, int expert, std::vector<int> indices) {
    std::sort(indices.begin(), indices.end());
    switch (kind) {
        case ComponentKind::KvGroup: return dropKvGroups(block, std::move(indices));
        case ComponentKind::Head: return dropHeads(block, std::move(indices));
        case ComponentKind::Expert: return dropExperts(block, std::move(indices));
        default: return expert < 0 ? dropChannels(block, std::move(indices)) : dropExpertChannels(block, expert, std::move(indices));
    }
}

void divide(Lane& lane, double by) {
    if (by > 0) for (Bundle& bundle : lane.bundles) bundle.score /= by;
}

}  // namespace

std::vector<ComponentKind> kindsOf(const std::string& target) {
    using enum ComponentKind;
    if (target == "kv_groups") return {KvGroup};
    if (target == "heads") return {Head};
    if (target == "experts") return {Expert};
    if (target == "kv_groups_and_channels") return {KvGroup, Channel};
    if (target == "heads_and_channels") return {Head, Channel};
    return {Channel};
}

std::string datasetGroup(ComponentKind kind) { return std::string(name(kind)); }

std::vector<Lane> lanesOf(const ModelShape& shape, const Report& report, const std::vector<ComponentKind>& kinds, const std::string& metric, const std::set<int>& protect) {
    std::vector<Lane> lanes;
    for (const ComponentKind kind : kinds)
        for (int block = 0; block < shape.numBlocks(); ++block) {
            if (protect.contains(block)) continue;
            auto units = unitsWithScores(shape, report, kind, metric, block);
            if (units.empty()) continue;
            Lane lane{kind, block, bundlesOf(std::move(units)), 1, 1};
            const int together = static_cast<int>(lane.bundles.front().units.size());
            if (kind != ComponentKind::Channel) lane.perCount = together;
            if (kind == ComponentKind::Expert) lane.leastKept = (shape.numExpertsPerToken + together - 1) / together;
            lanes.push_back(std::move(lane));
        }
    return lanes;
}

void normalise(Lane& lane, const std::string& how) {
    auto& bundles = lane.bundles;
    if (bundles.empty() || how == "none") return;
    const auto count = static_cast<double>(bundles.size());
    double sum = 0, squares = 0;
    for (const Bundle& bundle : bundles) sum += bundle.score, squares += bundle.score * bundle.score;
    const double low = bundles.front().score, high = bundles.back().score;
    if (how == "auto") return low >= 0 ? divide(lane, sum / count) : void();
    if (how == "sum") return divide(lane, sum);
    if (how == "mean") return divide(lane, sum / count);
    if (how == "max") return divide(lane, high);
    if (how == "l2") return divide(lane, std::sqrt(squares));
    if (how == "quantile") return divide(lane, bundles[bundles.size() / 2].score);
    if (how == "min_max" || how == "gaussian") {
        const double mean = sum / count, deviation = bundles.size() > 1 ? std::sqrt(std::max(0.0, squares - mean * sum) / (count - 1)) : 0;
        const double from = how == "min_max" ? low : mean, by = how == "min_max" ? high - low : deviation;
        for (Bundle& bundle : bundles) bundle.score = (bundle.score - from) / (by > 0 ? by : 1);
        return;
    }
    double notSmaller = 0;   // lamp, from the highest down; equal scores are taken together, before they are overwritten
    for (std::size_t last = bundles.size(); last > 0;) {
        std::size_t first = last;
        while (first > 0 && bundles[first - 1].score == bundles[last - 1].score) --first;
        notSmaller += bundles[last - 1].score * static_cast<double>(last - first);
        for (std::size_t i = first; notSmaller > 0 && i < last; ++i) bundles[i].score /= notSmaller;
        last = first;
    }
}

int snapped(const Lane& lane, double cut, int rounding) {
    const int total = static_cast<int>(lane.bundles.size());
    double kept = total - cut;
    if (rounding > 1 && lane.kind == ComponentKind::Channel) kept = std::max(1.0, std::round(kept / rounding)) * rounding;
    return std::clamp(total - static_cast<int>(std::lround(kept)), 0, lane.most());
}

EditPlan planOf(const std::vector<Lane>& lanes, const std::vector<int>& counts) {
    EditPlan plan;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        std::map<int, std::vector<int>> byExpert;
        for (int n = 0; n < counts[i]; ++n)
            for (const auto& [expert, index] : lanes[i].bundles[static_cast<std::size_t>(n)].units) byExpert[expert].push_back(index);
        for (auto& [expert, indices] : byExpert) plan.edits.push_back(editOf(lanes[i].kind, lanes[i].block, expert, std::move(indices)));
    }
    return plan;
}

}  // namespace resect
