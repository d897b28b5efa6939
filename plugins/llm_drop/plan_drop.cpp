#include "plugins/llm_drop/llm_drop.h"

#include "core/base/error.h"
#include "core/method/budget_report.h"
#include "plugins/llm_drop/units.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

namespace resect {

namespace {

/// The measured scores of one kind under a metric; throws when the metric does not exist for it.
std::vector<double> measuredScores(const Report& report, DropKind kind, const std::string& metric) {
    const auto needBlocks = [&](const char* what) {
        if (kind != DropKind::Block) throw Error(ErrorCode::Usage, "metric", std::string(what) + " scores whole blocks only; choose target = block");
    };
    if (metric == "cosine") return report.dataset(std::string("similarity/") + unitName(kind)).values;
    if (metric == "relative_magnitude") return report.dataset(std::string("relative_magnitude/") + unitName(kind)).values;
    if (metric == "block_influence") {
        needBlocks("block influence");
        return report.dataset("similarity/block").values;
    }
    if (metric == "delta_loss") return report.dataset(std::string("delta_loss/") + unitName(kind)).values;
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
    for (const DropKind kind : dropKindsOf(parameters.text("target"))) {
        const auto scores = isFixed(metric) ? fixedScores(shape.numBlocks(), metric, seed++) : measuredScores(report, kind, metric);
        if (static_cast<int>(scores.size()) != shape.numBlocks())
            throw Error(ErrorCode::Mismatch, "measurement", "is of a model with " + std::to_string(scores.size()) + " blocks, this one has " + std::to_string(shape.numBlocks()));
        for (int block = 0; block < shape.numBlocks(); ++block) {
            const auto index = static_cast<std::size_t>(block);
            if (exists(shape.blocks[index], kind) && !protect.contains(block) && !std::isnan(scores[index])) candidates.push_back({{kind, block}, scores[index]});
        }
    }
    return candidates;
}

std::vector<Candidate> lowest(std::vector<Candidate> candidates, std::size_t count) {
    sortByScore(candidates);
    if (count > candidates.size())
        throw Error(ErrorCode::Usage, "count", "asks for " + std::to_string(count) + " units, but only " + std::to_string(candidates.size()) +
                    " have a score and are not protected");
    candidates.resize(count);
    return candidates;
}

/// The order that was measured with scores taken anew after each round.
std::vector<Candidate> iterative(const ModelShape& shape, const Report& report, const Parameters& parameters, const std::set<int>& protect, std::size_t count) {
    const std::string target = parameters.text("target"), metric = parameters.text("metric"), measured = report.parameters.value("iterative", "off");
    if (measured == "off") throw Error(ErrorCode::NotFound, "measurement of llm-drop", "it holds no iterative order; measure with iterative = " + target);
    if (measured != target || report.parameters.value("iterative_metric", "") != metric)
        throw Error(ErrorCode::Usage, "mode", "the iterative order was measured for target = " + measured + ", metric = " + report.parameters.value("iterative_metric", "") + "; asked for are " + target + " and " + metric);
    const ReportDataset &units = report.dataset("iterative/unit"), &scores = report.dataset("iterative/score");
    std::vector<Candidate> order;
    for (std::size_t i = 0; i < units.values.size(); ++i) {
        const DropUnit unit = unitOf(static_cast<int>(units.values[i]), shape.numBlocks(), target == "mlp" ? "joint" : target);
        if (unit.block >= shape.numBlocks()) throw Error(ErrorCode::Mismatch, "measurement", "is of a model with more blocks");
        if (protect.contains(unit.block))
            throw Error(ErrorCode::Usage, "protect", "the iterative order drops block " + std::to_string(unit.block) + "; measure with iterative_protect instead");
        order.push_back({unit, scores.values[i]});
    }
    if (count > order.size())
        throw Error(ErrorCode::Usage, "count", "asks for " + std::to_string(count) + " units, but the iterative order was measured up to " + std::to_string(order.size()));
    order.resize(count);
    return order;
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
    for (std::int64_t block = best; block < best + count; ++block) run.push_back({{DropKind::Block, static_cast<int>(block)}, window.at({best, count - 1})});
    return run;
}

Json orderOf(const std::vector<Candidate>& chosen) {
    Json order = Json::array();
    for (const Candidate& candidate : chosen) order.push_back(std::string(unitName(candidate.unit.kind)) + " " + std::to_string(candidate.unit.block));
    return order;
}

std::vector<Candidate> choose(const ModelShape& shape, const Report& report, const Parameters& parameters, std::int64_t count) {
    const auto protectedBlocks = parameters.integers("protect");
    const std::set<int> protect(protectedBlocks.begin(), protectedBlocks.end());
    const std::string mode = parameters.text("mode");
    if (mode == "consecutive") return bestRun(shape, report, parameters, protect, count);
    if (mode == "iterative") return iterative(shape, report, parameters, protect, static_cast<std::size_t>(count));
    return lowest(candidatesOf(shape, report, parameters, protect), static_cast<std::size_t>(count));
}

EditPlan planFrom(const std::vector<Candidate>& chosen) {
    std::vector<DropUnit> units;
    for (const Candidate& candidate : chosen) units.push_back(candidate.unit);
    return planOf(units);
}

/// The fewest units with which the budget is met. Some part of the model always stays.
std::vector<Candidate> forBudget(const ModelShape& shape, const Report& report, const Parameters& parameters, const BudgetTarget& target) {
    std::vector<Candidate> chosen;
    for (std::int64_t count = 0;; ++count) {
        std::vector<Candidate> next;
        try {
            next = choose(shape, report, parameters, count);
            if (target.metBy(planFrom(next))) return next;
        } catch (const Error& error) {
            if (count == 0 || (error.code() != ErrorCode::Usage && error.code() != ErrorCode::BadInput)) throw;
            target.refuse(planFrom(chosen), "no more than " + std::to_string(chosen.size()) + " units can be dropped this way");
        }
        chosen = std::move(next);
    }
}

/// Units whose drop is known to hurt: the first block has by far the largest score, and the last ones matter more than those before them.
Json warningsOf(const std::vector<Candidate>& chosen, int numBlocks) {
    Json warnings = Json::array();
    for (const Candidate& candidate : chosen)
        if (candidate.unit.block == 0 || candidate.unit.block == numBlocks - 1)
            warnings.push_back(std::string(unitName(candidate.unit.kind)) + " " + std::to_string(candidate.unit.block) + " is dropped, though the " +
                               (candidate.unit.block == 0 ? "first" : "last") + " block usually matters most; look at the preview");
    return warnings;
}

}  // namespace

EditPlan planDrop(const Anatomy& anatomy, const Report& report, const Parameters& parameters) {
    const ModelShape& shape = anatomy.shape();
    Json budget;
    std::vector<Candidate> chosen;
    if (parameters.text("budget") == "count") {
        chosen = choose(shape, report, parameters, parameters.integer("count"));
    } else {
        const BudgetTarget target(anatomy, report, parameters);
        chosen = forBudget(shape, report, parameters, target);
        budget = target.note(planFrom(chosen));
    }
    EditPlan plan = planFrom(chosen);
    plan.fingerprint = report.modelFingerprint;
    plan.notes = Json{{"method", "llm-drop"}, {"parameters", parameters.json()}, {"order", orderOf(chosen)}};
    if (!budget.is_null()) plan.notes["budget"] = std::move(budget);
    if (Json warnings = warningsOf(chosen, shape.numBlocks()); !warnings.empty()) plan.notes["warnings"] = std::move(warnings);
    return plan;
}

}  // namespace resect
