#include "plugins/importance/importance_method.h"

#include "core/base/error.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace resect {

namespace {

enum class Target { KvGroups, Heads, Channels };

Target targetOf(const std::string& text) { return text == "kv_groups" ? Target::KvGroups : text == "heads" ? Target::Heads : Target::Channels; }

int unitsOf(const BlockShape& shape, Target target) {
    if (target == Target::KvGroups) return shape.hasAttention ? shape.numKvHeads : 0;
    if (target == Target::Heads) return shape.hasAttention ? shape.numHeads : 0;
    return shape.hasFfn && shape.numExperts == 0 ? shape.ffnSize : 0;
}

struct Unit {
    int block, index;
    double score;
};

/// The scored units of every block; empty for blocks that are protected or have none.
std::vector<std::vector<Unit>> scoredUnits(const ModelShape& shape, const Report& report, const Parameters& parameters, Target target) {
    const char* const component = target == Target::KvGroups ? "kv_group" : target == Target::Heads ? "head" : "channel";
    const ReportDataset& dataset = report.dataset(std::string(component) + "/" + parameters.text("metric"));
    if (dataset.shape.at(0) != shape.numBlocks())
        throw Error(ErrorCode::Mismatch, "measurement", "is of a model with " + std::to_string(dataset.shape.at(0)) + " blocks, this one has " + std::to_string(shape.numBlocks()));
    const auto protectedBlocks = parameters.integers("protect");
    std::vector<std::vector<Unit>> units(shape.blocks.size());
    for (int block = 0; block < shape.numBlocks(); ++block) {
        const int count = unitsOf(shape.blocks[static_cast<std::size_t>(block)], target);
        if (std::find(protectedBlocks.begin(), protectedBlocks.end(), block) != protectedBlocks.end()) continue;
        if (count > dataset.shape.at(1)) throw Error(ErrorCode::Mismatch, "measurement", "has fewer units in block " + std::to_string(block) + " than the model");
        for (int i = 0; i < count; ++i)
            if (const double score = dataset.at({block, i}); !std::isnan(score)) units[static_cast<std::size_t>(block)].push_back({block, i, score});
    }
    return units;
}

void sortByScore(std::vector<Unit>& units) {
    std::stable_sort(units.begin(), units.end(), [](const Unit& a, const Unit& b) { return a.score < b.score; });
}

/// How many of `units` go: the count, or the share; what stays is the nearest multiple of `rounding`, and at least one unit stays.
int numberToCut(int units, const Parameters& parameters, int rounding) {
    const std::int64_t count = parameters.integer("count");
    const double wanted = count > 0 ? static_cast<double>(count) : parameters.real("ratio") * units;
    if (count >= units && units > 0)
        throw Error(ErrorCode::Usage, "count", "asks for " + std::to_string(count) + " units, but a block has " + std::to_string(units) + "; at least one stays");
    if (wanted <= 0) return 0;
    double kept = units - wanted;
    if (rounding > 1) kept = std::max(1.0, std::round(kept / rounding)) * rounding;
    return std::clamp(units - static_cast<int>(std::lround(kept)), 0, std::max(0, units - 1));
}

/// The lowest units of each block. Heads go in equal numbers from every kv group, because stock attention needs groups of one size.
std::vector<std::vector<int>> cutPerBlock(const ModelShape& shape, const std::vector<std::vector<Unit>>& units, const Parameters& parameters, Target target) {
    std::vector<std::vector<int>> cut(units.size());
    for (std::size_t block = 0; block < units.size(); ++block) {
        const BlockShape& own = shape.blocks[block];
        const bool grouped = target == Target::Heads && own.numKvHeads < own.numHeads;
        std::vector<std::vector<Unit>> pools(grouped ? own.headsPerKv.size() : 1);
        for (const Unit& unit : units[block]) pools[grouped ? static_cast<std::size_t>(groupOfHead(own, unit.index)) : 0].push_back(unit);
        const std::int64_t count = parameters.integer("count");
        if (grouped && count % static_cast<std::int64_t>(pools.size()) != 0)
            throw Error(ErrorCode::Usage, "count", "expected a multiple of the " + std::to_string(pools.size()) + " kv groups, so that each loses as many heads, found " + std::to_string(count));
        for (auto& pool : pools) {
            sortByScore(pool);
            const int size = static_cast<int>(pool.size());
            int number = 0;
            if (grouped && count > 0) {
                number = static_cast<int>(count / static_cast<std::int64_t>(pools.size()));
                if (number >= size && size > 0) throw Error(ErrorCode::Usage, "count", "asks for all heads of a kv group; at least one stays");
            } else {
                number = numberToCut(size, parameters, target == Target::Channels ? static_cast<int>(parameters.integer("rounding")) : 1);
            }
            for (int i = 0; i < number; ++i) cut[block].push_back(pool[static_cast<std::size_t>(i)].index);
        }
    }
    return cut;
}

/// The lowest units of the whole model, scores relative to the mean of their block; the best unit of each block stays.
std::vector<std::vector<int>> cutGlobally(std::vector<std::vector<Unit>> units, const Parameters& parameters) {
    std::vector<Unit> all;
    for (auto& block : units) {
        if (block.empty()) continue;
        const double mean = std::accumulate(block.begin(), block.end(), 0.0, [](double sum, const Unit& unit) { return sum + unit.score; }) / static_cast<double>(block.size());
        if (mean > 0) for (Unit& unit : block) unit.score /= mean;
        sortByScore(block);
        all.insert(all.end(), block.begin(), block.end() - 1);
    }
    sortByScore(all);
    std::size_t total = 0;
    for (const auto& block : units) total += block.size();
    const std::int64_t count = parameters.integer("count");
    const double wanted = count > 0 ? static_cast<double>(count) * static_cast<double>(units.size()) : parameters.real("ratio") * static_cast<double>(total);
    std::vector<std::vector<int>> cut(units.size());
    const auto number = std::min(all.size(), static_cast<std::size_t>(std::llround(wanted)));
    for (std::size_t i = 0; i < number; ++i) cut[static_cast<std::size_t>(all[i].block)].push_back(all[i].index);
    return cut;
}

}  // namespace

EditPlan planImportance(const ModelShape& shape, const Report& report, const Parameters& parameters) {
    const Target target = targetOf(parameters.text("target"));
    const auto units = scoredUnits(shape, report, parameters, target);
    const auto cut = parameters.text("scope") == "global" ? cutGlobally(units, parameters) : cutPerBlock(shape, units, parameters, target);
    EditPlan plan;
    plan.fingerprint = report.modelFingerprint;
    for (std::size_t block = 0; block < cut.size(); ++block) {
        std::vector<int> indices = cut[block];
        if (indices.empty()) continue;
        std::sort(indices.begin(), indices.end());
        const int index = static_cast<int>(block);
        plan.edits.push_back(target == Target::KvGroups ? dropKvGroups(index, indices) : target == Target::Heads ? dropHeads(index, indices) : dropChannels(index, indices));
    }
    plan.notes = Json{{"method", "importance"}, {"parameters", parameters.json()}};
    return plan;
}

}  // namespace resect
