#pragma once
#include "core/surgery/cut.h"

#include <string>
#include <utility>
#include <vector>

namespace resect {

/// Seconds of one layer by its size, measured at a few sizes in ascending order; in between they lie on a line, outside on the line of the two
/// nearest points (never below 0). Size 0 is an absent layer: 0 seconds.
struct LatencyCurve {
    std::vector<std::pair<double, double>> points;   ///< size, seconds
    double at(double size) const;
    bool operator==(const LatencyCurve&) const = default;
};

/// How long the parts of a model take on one machine, one row at a time.
struct LatencyTable {
    int context = 0;                       ///< tokens: cached before the one that is timed, or timed together
    double fixed = 0;                      ///< embedding, final norm and head
    std::vector<LatencyCurve> attention;   ///< of each source block by query heads, kv groups cut in proportion
    std::vector<LatencyCurve> ffn;         ///< of each source block by channels, of a mixture by channels of each expert
};

enum class BudgetKind { Parameters, Bytes, KvBytes, Flops, Latency, PrefillLatency };
std::string_view name(BudgetKind kind) noexcept;   ///< "parameters", "bytes", "kv_bytes", "flops", "latency", "prefill_latency"
/// Throws BadInput with `subject` on another word.
BudgetKind budgetKind(std::string_view text, const std::string& subject);
std::string_view unitOf(BudgetKind kind) noexcept; ///< "parameters", "bytes", "bytes per token", "FLOPs per token", "s per token", "s"

/// What a shape costs in the kind's unit.
struct Budget {
    BudgetKind kind = BudgetKind::Parameters;
    double bytesPerElement = 2;            ///< Bytes: stored bytes / parameters of the source; KvBytes: of a cache element
    int context = 1024;                    ///< Flops: of one token that attends to `context` positions
    LatencyTable latency{};                ///< the latency kinds only
    /// `after`: what a plan leaves of `source`, before renumbering its blocks: one entry per source block. Latency is a sum of measured parts,
    /// hence an estimate; the other kinds are exact where all tensors have one type. Throws NotFound when the latency was not measured.
    double of(const ModelShape& source, const std::vector<BlockShape>& after) const;
};

/// The block shapes that a cut leaves, one per source block; a dropped block has neither layer.
std::vector<BlockShape> blocksAfter(const ModelShape& source, const Cut& cut);

/// The smallest n in [0, most] with meets(n), by bisection; most + 1 when there is none. `meets` must stay true once it is.
template <class Meets> std::size_t smallestThat(std::size_t most, Meets meets) {
    std::size_t low = 0, high = most + 1;
    while (low < high) {
        const std::size_t middle = low + (high - low) / 2;
        if (middle <= most && meets(middle)) high = middle;
        else low = middle + 1;
    }
    return low;
}

}  // namespace resect
