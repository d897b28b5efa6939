#include "plugins/llm_drop/llm_drop.h"

#include "core/base/error.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

namespace resect {

namespace {

enum class Kind { Block, Attention, Mlp };

/// Something that can be dropped, and its score: low goes first.
struct Candidate {
    Kind kind;
    int block;
    double score;
};

bool exists(const BlockShape& shape, Kind kind) {
    if (kind == Kind::Attention) return shape.hasAttention;
    if (kind == Kind::Mlp) return shape.hasFfn;
    return shape.hasAttention || shape.hasFfn;
}

const char* unitName(Kind kind) { return kind == Kind::Block ? "block" : kind == Kind::Attention ? "attention" : "mlp"; }

std::vector<Kind> kindsOf(const std::string& target) {
    if (target == "block") return {Kind::Block};
    if (target == "attn") return {Kind::Attention};
    if (target == "mlp") return {Kind::Mlp};
    return {Kind::Attention, Kind::Mlp};
}

/// The measured scores of one kind under a metric; throws when the metric does not exist for it.
std::vector<double> measuredScores(const Report& report, Kind kind, const std::string& metric) {
    const auto needBlocks = [&](const char* what) {
        if (kind != Kind::Block) throw Error(ErrorCode::Usage, "metric", std::string(what) + " scores whole blocks only; choose target = block");
    };
    if (metric == "cosine") return report.dataset(std::string("similarity/") + unitName(kind)).values;
    if (metric == "relative_magnitude") return report.dataset(std::string("relative_magnitude/") + unitName(kind)).values;
    if (metric == "block_influence") {
        needBlocks("block influence");
        return report.dataset("similarity/block").values;
    }
    if (metric == "delta_loss") {
        needBlocks("the loss without a block");
        return report.dataset("delta_loss/block").values;
    }
    needBlocks("the angular distance");
    const ReportDataset& window = report.dataset("angular/window");
    std::vector<double> scores;
    for (std::int64_t block = 0; block < window.shape.at(0); ++block) scores.push_back(window.at({block, 0}));
    return scores;
}

/// Orders that need no measurement, as scores: the deepest block first (Gromov et al. keep the last one), the last first, or shuffled.
std::vector<double> fixedScores(int numBlocks, const std::string& metric, std::uint64_t seed) {
    std::vector<double> scores;
    std::mt19937_64 random(seed);
    for (int block = 0; block < numBlocks; ++block) {
        const bool last = block == numBlocks - 1;
        if (metric == "random") scores.push_back(static_cast<double>(random() >> 11));
        else scores.push_back(metric == "deepest_first" && last ? 1.0 : -static_cast<double>(block));
    }
    return scores;
}

bool isFixed(const std::string& metric) { return metric == "deepest_first" || metric == "reverse" || metric == "random"; }

std::vector<Candidate> candidatesOf(const ModelShape& shape, const Report& report, const Parameters& parameters, const std::set<int>& protect) {
    const std::string metric = parameters.text("metric");
    std::vector<Candidate> candidates;
    std::uint64_t seed = static_cast<std::uint64_t>(parameters.integer("seed"));
    for (const Kind kind : kindsOf(parameters.text("target"))) {
        const auto scores = isFixed(metric) ? fixedScores(shape.numBlocks(), metric, seed++) : measuredScores(report, kind, metric);
        if (static_cast<int>(scores.size()) != shape.numBlocks())
            throw Error(ErrorCode::Mismatch, "measurement", "is of a model with " + std::to_string(scores.size()) + " blocks, this one has " + std::to_string(shape.numBlocks()));
        for (int block = 0; block < shape.numBlocks(); ++block) {
            const auto index = static_cast<std::size_t>(block);
            if (exists(shape.blocks[index], kind) && !protect.contains(block) && !std::isnan(scores[index])) candidates.push_back({kind, block, scores[index]});
        }
    }
    return candidates;
}

std::vector<Candidate> lowest(std::vector<Candidate> candidates, std::size_t count) {
    // Attention stands before MLP and lower blocks before higher ones, which settles ties.
    std::stable_sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) { return a.score < b.score; });
    if (count > candidates.size())
        throw Error(ErrorCode::Usage, "count", "asks for " + std::to_string(count) + " units, but only " + std::to_string(candidates.size()) +
                    " have a score and are not protected");
    candidates.resize(count);
    return candidates;
}

/// The run of `count` blocks with the smallest change: entry (i, count - 1) of the window matrix compares the stream entering block i with the one
/// entering block i + count, which is exactly what removing blocks i .. i + count - 1 joins together.
std::vector<Candidate> bestRun(const ModelShape& shape, const Report& report, const Parameters& parameters, const std::set<int>& protect, std::int64_t count) {
    const std::string metric = parameters.text("metric");
    if (parameters.text("target") != "block") throw Error(ErrorCode::Usage, "mode", "consecutive is for whole blocks; choose target = block");
    if (metric != "cosine" && metric != "block_influence" && metric != "angular")
        throw Error(ErrorCode::Usage, "metric", "consecutive needs cosine or angular, found " + metric);
    const ReportDataset& window = report.dataset(metric == "angular" ? "angular/window" : "similarity/window");
    const std::int64_t numBlocks = shape.numBlocks();
    if (window.shape.at(0) != numBlocks) throw Error(ErrorCode::Mismatch, "measurement", "is of a model with another number of blocks");
    std::int64_t best = -1;
    for (std::int64_t first = 0; count > 0 && first + count <= numBlocks; ++first) {
        bool allowed = !std::isnan(window.at({first, count - 1}));
        for (std::int64_t block = first; block < first + count; ++block) allowed = allowed && !protect.contains(static_cast<int>(block));
        if (allowed && (best < 0 || window.at({first, count - 1}) < window.at({best, count - 1}))) best = first;
    }
    if (count > 0 && best < 0)
        throw Error(ErrorCode::Usage, "count", "no run of " + std::to_string(count) + " consecutive blocks has a score and is free of protected blocks");
    std::vector<Candidate> run;
    for (std::int64_t block = best; block < best + count; ++block) run.push_back({Kind::Block, static_cast<int>(block), window.at({best, count - 1})});
    return run;
}

Json orderOf(const std::vector<Candidate>& chosen) {
    Json order = Json::array();
    for (const Candidate& unit : chosen) order.push_back(std::string(unitName(unit.kind)) + " " + std::to_string(unit.block));
    return order;
}

}  // namespace

EditPlan planDrop(const ModelShape& shape, const Report& report, const Parameters& parameters) {
    const auto protectedBlocks = parameters.integers("protect");
    const std::set<int> protect(protectedBlocks.begin(), protectedBlocks.end());
    const std::int64_t count = parameters.integer("count");
    const auto chosen = parameters.text("mode") == "consecutive" ? bestRun(shape, report, parameters, protect, count)
                                                                  : lowest(candidatesOf(shape, report, parameters, protect), static_cast<std::size_t>(count));
    EditPlan plan;
    plan.fingerprint = report.modelFingerprint;
    for (const Kind kind : {Kind::Block, Kind::Attention, Kind::Mlp}) {
        std::vector<int> blocks;
        for (const Candidate& unit : chosen)
            if (unit.kind == kind) blocks.push_back(unit.block);
        if (blocks.empty()) continue;
        std::sort(blocks.begin(), blocks.end());
        plan.edits.push_back(kind == Kind::Block ? dropBlocks(blocks) : kind == Kind::Attention ? dropAttention(blocks) : dropMlp(blocks));
    }
    plan.notes = Json{{"method", "llm-drop"}, {"parameters", parameters.json()}, {"order", orderOf(chosen)}};
    return plan;
}

}  // namespace resect
