#pragma once
#include "core/method/method.h"

namespace resect {

/// Importance of heads, kv groups, channels and experts by weights, activations, gradients and exact ablation, how far these agree, and plans that cut the
/// least important ones. Sources: magnitude and normalisers (Torch-Pruning, arXiv 2301.12900), activation and Wanda (arXiv 2306.11695), FLAP (arXiv
/// 2312.11983), gates (arXiv 1905.10650), Taylor (LLM-Pruner, arXiv 2305.11627). Departures: heads are folded onto the kv groups that they belong to
/// (LLM-Pruner and S2FT pair others), variances are over all tokens (FLAP's code drops its first batch), squared gradients are of each row (Torch-Pruning
/// keeps the last sample's), one unit of every layer stays, and no compensation biases are made.
class Importance final : public Method {
public:
    Importance();
    const MethodInfo& info() const noexcept override { return m_info; }
    Report analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const override;
    EditPlan plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const override;

private:
    MethodInfo m_info;
};

/// The units to cut, as the plan parameters ask. Deterministic: ties go to the lower index. Every layer keeps at least one unit, a mixture as many
/// experts as each token is sent to. With a budget: the least cut that meets it; Usage when none does.
EditPlan planImportance(const Anatomy& anatomy, const Report& report, const Parameters& parameters);

/// Rank agreement between all criteria that the report holds of a kind, as matrices "agreement/KIND_spearman" and "..._kendall": the mean over blocks;
/// where units were left out, "agreement/KIND_with_loo": each criterion's Spearman correlation with that, block by block.
void addAgreement(Report& report);

/// Cuts step by step where the loss rises least per parameter (ranking inside a block by `metric`): datasets "greedy/block", "greedy/cut" (bundles of
/// that block cut by then) and "greedy/loss". Stopping keeps the finished steps.
void addGreedyOrder(Report& report, ModelRun& run, const Parameters& parameters, const JobContext& job);

}  // namespace resect
