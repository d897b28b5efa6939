#include "core/surgery/budget.h"

#include "core/anatomy/cost.h"
#include "core/base/error.h"
#include "core/surgery/cut.h"

#include <algorithm>
#include <array>

namespace resect {

namespace {

struct Words {
    std::string_view name, unit;
};
constexpr std::array<Words, 6> kWords{{{"parameters", "parameters"}, {"bytes", "bytes"}, {"kv_bytes", "bytes per token"}, {"flops", "FLOPs per token"},
                                       {"latency", "s per token"}, {"prefill_latency", "s"}}};

double seconds(const LatencyTable& table, const std::vector<BlockShape>& after) {
    if (table.attention.size() != after.size() || table.ffn.size() != after.size())
        throw Error(ErrorCode::NotFound, "measurement", "it holds no latencies of this model; measure with latency = true");
    double total = table.fixed;
    for (std::size_t block = 0; block < after.size(); ++block) {
        if (after[block].hasAttention) total += table.attention[block].at(after[block].numHeads);
        if (after[block].hasFfn) total += table.ffn[block].at(after[block].ffnSize);
    }
    return total;
}

}  // namespace

double LatencyCurve::at(double size) const {
    if (size <= 0 || points.empty()) return 0;
    if (points.size() == 1) return points[0].second;
    auto right = std::find_if(points.begin(), points.end(), [&](const auto& point) { return point.first >= size; });
    if (right == points.begin()) ++right;
    if (right == points.end()) --right;
    const auto left = right - 1;
    const double slope = (right->second - left->second) / (right->first - left->first);
    return std::max(0.0, left->second + slope * (size - left->first));
}

std::string_view name(BudgetKind kind) noexcept { return kWords[static_cast<std::size_t>(kind)].name; }
std::string_view unitOf(BudgetKind kind) noexcept { return kWords[static_cast<std::size_t>(kind)].unit; }

BudgetKind budgetKind(std::string_view text, const std::string& subject) {
    std::string all;
    for (std::size_t i = 0; i < kWords.size(); ++i) {
        if (kWords[i].name == text) return static_cast<BudgetKind>(i);
        all += (i ? ", " : "") + std::string(kWords[i].name);
    }
    throw Error(ErrorCode::BadInput, subject, "expected one of " + all + ", found \"" + std::string(text) + "\"");
}

double Budget::of(const ModelShape& source, const std::vector<BlockShape>& after) const {
    if (kind == BudgetKind::Latency || kind == BudgetKind::PrefillLatency) return seconds(latency, after);
    ModelShape shape = source;
    shape.blocks = after;
    const Cost cost = costOf(shape, context);
    switch (kind) {
        case BudgetKind::Parameters: return static_cast<double>(cost.parameters);
        case BudgetKind::Bytes: return static_cast<double>(cost.parameters) * bytesPerElement;
        case BudgetKind::KvBytes: return static_cast<double>(cost.kvElementsPerToken) * bytesPerElement;
        default: return cost.decodeFlops;
    }
}

std::vector<BlockShape> blocksAfter(const ModelShape& source, const Cut& cut) {
    Cut inside = cut;
    for (BlockCut& block : inside.blocks)
        if (block.block) block.block = false, block.attention = block.ffn = true;
    return shapeAfter(source, inside).blocks;
}

}  // namespace resect
