#include "plugins/expert_drop/expert_drop.h"

#include "core/base/error.h"

#include <algorithm>
#include <cmath>

namespace resect {

namespace {

struct Ranked {
    int block, expert;
    double score;
};

/// Lowest first.
void sortByScore(std::vector<Ranked>& experts) {
    std::stable_sort(experts.begin(), experts.end(), [](const Ranked& a, const Ranked& b) { return a.score < b.score; });
}

/// Scored experts of every block that may be touched.
std::vector<std::vector<Ranked>> rankedExperts(const ModelShape& shape, const Report& report, const Parameters& parameters) {
    const ReportDataset& dataset = report.dataset("expert/" + parameters.text("score"));
    if (dataset.shape.at(0) != shape.numBlocks())
        throw Error(ErrorCode::Mismatch, "measurement", "is of a model with " + std::to_string(dataset.shape.at(0)) + " blocks, this one has " + std::to_string(shape.numBlocks()));
    const auto protectedBlocks = parameters.integers("protect");
    std::vector<std::vector<Ranked>> ranked(shape.blocks.size());
    for (int b = 0; b < shape.numBlocks(); ++b) {
        const int count = shape.blocks[static_cast<std::size_t>(b)].numExperts;
        if (std::find(protectedBlocks.begin(), protectedBlocks.end(), b) != protectedBlocks.end()) continue;
        if (count > dataset.shape.at(1)) throw Error(ErrorCode::Mismatch, "measurement", "has fewer experts in block " + std::to_string(b) + " than the model");
        for (int e = 0; e < count; ++e) {
            const double score = dataset.at({b, e});
            if (std::isnan(score)) throw Error(ErrorCode::BadInput, "measurement", "block " + std::to_string(b) + " was not measured: it was stopped early");
            ranked[static_cast<std::size_t>(b)].push_back({b, e, parameters.boolean("reverse") ? -score : score});
        }
    }
    return ranked;
}

/// The lowest experts of one block so that `keep` stay, as many of every group.
std::vector<int> lowest(std::vector<Ranked> experts, int keep, int groups) {
    std::vector<int> dropped;
    const int total = static_cast<int>(experts.size()), perGroup = total / groups;
    if (keep % groups != 0)
        throw Error(ErrorCode::Usage, "keep", "expected a multiple of the " + std::to_string(groups) + " groups that experts are chosen by, found " + std::to_string(keep));
    sortByScore(experts);
    std::vector<int> left(static_cast<std::size_t>(groups), (total - keep) / groups);
    for (const Ranked& expert : experts)
        if (int& toDrop = left[static_cast<std::size_t>(expert.expert / perGroup)]; toDrop > 0) {
            dropped.push_back(expert.expert);
            --toDrop;
        }
    return dropped;
}

/// The lowest of the whole model; every block keeps `least`.
std::vector<std::vector<int>> lowestGlobally(const std::vector<std::vector<Ranked>>& ranked, int keep, int least) {
    std::vector<Ranked> all;
    std::vector<int> left;
    std::size_t blocks = 0;
    for (const auto& experts : ranked) {
        all.insert(all.end(), experts.begin(), experts.end());
        left.push_back(static_cast<int>(experts.size()) - least);
        blocks += !experts.empty();
    }
    sortByScore(all);
    std::size_t toDrop = all.size() - std::min(all.size(), blocks * static_cast<std::size_t>(keep));
    std::vector<std::vector<int>> dropped(ranked.size());
    for (const Ranked& expert : all) {
        const auto b = static_cast<std::size_t>(expert.block);
        if (toDrop == 0 || left[b] <= 0) continue;
        dropped[b].push_back(expert.expert);
        --left[b];
        --toDrop;
    }
    return dropped;
}

}  // namespace

EditPlan planExpertDrop(const ModelShape& shape, const Report& report, const Parameters& parameters) {
    const auto ranked = rankedExperts(shape, report, parameters);
    const int keep = static_cast<int>(parameters.integer("keep")), least = shape.numExpertsPerToken;
    if (keep < least)
        throw Error(ErrorCode::Usage, "keep", "each token is sent to " + std::to_string(least) + " experts, so that at least as many must stay; found " + std::to_string(keep));
    std::vector<std::vector<int>> dropped(ranked.size());
    if (parameters.text("scope") == "global") {
        if (shape.expertGroups > 1) throw Error(ErrorCode::Usage, "scope", "experts are chosen by groups, which must stay equally large: compare within each block");
        dropped = lowestGlobally(ranked, keep, least);
    } else {
        for (std::size_t b = 0; b < ranked.size(); ++b)
            if (keep < static_cast<int>(ranked[b].size())) dropped[b] = lowest(ranked[b], keep, shape.expertGroups);
    }
    EditPlan plan;
    plan.fingerprint = report.modelFingerprint;
    for (std::size_t b = 0; b < dropped.size(); ++b) {
        if (dropped[b].empty()) continue;
        std::sort(dropped[b].begin(), dropped[b].end());
        plan.edits.push_back(dropExperts(static_cast<int>(b), dropped[b]));
    }
    plan.notes = Json{{"method", "expert-drop"}, {"parameters", parameters.json()}};
    return plan;
}

}  // namespace resect
