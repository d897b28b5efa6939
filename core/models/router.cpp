#include "core/models/router.h"

#include "core/anatomy/family.h"

#include <algorithm>
#include <limits>

namespace resect {

namespace {

/// Scores of experts outside the best groups become 0; a group counts for the sum of its two best.
torch::Tensor withinGroups(const torch::Tensor& scores_ME, const RouterRule& rule) {
    if (rule.groups <= 1 || rule.groupsPerToken >= rule.groups) {
        return scores_ME;
    }
    const std::int64_t m = scores_ME.size(0), e = scores_ME.size(1), perGroup = e / rule.groups;
    const auto grouped = scores_ME.view({m, rule.groups, perGroup});
    const auto best_MG = std::get<0>(grouped.topk(std::min<std::int64_t>(2, perGroup), -1)).sum(-1);
    const auto chosen = std::get<1>(best_MG.topk(rule.groupsPerToken, -1));
    const auto inside_MG = torch::zeros_like(best_MG).scatter(1, chosen, 1.0).to(torch::kBool);
    return grouped.masked_fill(inside_MG.logical_not().unsqueeze(-1), 0.0).view({m, e});
}

}  // namespace

RouterRule routerRule(const ModelShape& shape) {
    const MoeFields* moe = familyOf(shape).moe;
    return {.topK = shape.numExpertsPerToken, .normalised = shape.normTopK, .sigmoid = moe && moe->sigmoidWithCorrection,
            .scaling = shape.routedScaling, .groups = shape.expertGroups, .groupsPerToken = shape.expertGroupsPerToken};
}

std::pair<torch::Tensor, torch::Tensor> route(const torch::Tensor& logits_ME, const torch::Tensor& correction_E, const torch::Tensor& mask_E,
                                              int available, const RouterRule& rule) {
    const auto wide = logits_ME.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    const std::int64_t k = std::min(rule.topK, available);
    torch::Tensor weights_MK, chosen_MK;
    if (rule.sigmoid) {
        const auto scores_ME = torch::sigmoid(logits_ME.to(wide));
        auto choice_ME = scores_ME.detach();
        if (correction_E.defined()) {
            choice_ME = choice_ME + correction_E.detach().to(wide);
        }
        if (mask_E.defined()) {
            choice_ME = choice_ME + mask_E.to(wide);
        }
        choice_ME = withinGroups(choice_ME, rule);
        if (mask_E.defined()) {  // zero is better than what a group mask leaves, so cut experts go below it again
            choice_ME = choice_ME + mask_E.to(wide);
        }
        chosen_MK = std::get<1>(choice_ME.topk(k, -1));
        weights_MK = scores_ME.gather(1, chosen_MK);
    } else {
        std::tie(weights_MK, chosen_MK) = torch::softmax(logits_ME, -1, wide).topk(k, -1);
    }
    if (rule.normalised) {
        const double tiny = rule.sigmoid ? 1e-20 : 0;  // as the reference, against a sum of zero
        weights_MK = weights_MK / (weights_MK.sum(-1, true) + tiny);
    }
    return {rule.scaling == 1 ? weights_MK : weights_MK * rule.scaling, chosen_MK};
}

}  // namespace resect
