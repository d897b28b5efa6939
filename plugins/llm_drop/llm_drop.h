#pragma once
#include "core/method/method.h"

namespace resect {

/// LLM-Drop: scores blocks, attention layers and MLP layers by how little they change the residual stream, and proposes to drop the lowest.
/// Source: "What Matters in Transformers? Not All Attention is Needed", arXiv 2406.15786. Departures from its code: windows of n blocks are compared
/// over exactly n blocks (the code is off by one), taps are on the stream for every family, and padding never counts.
class LlmDrop final : public Method {
public:
    LlmDrop();
    const MethodInfo& info() const noexcept override { return m_info; }
    Report analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const override;
    EditPlan plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const override;

private:
    MethodInfo m_info;
};

/// The units to drop, as the plan parameters ask: a number of them, or the fewest with which a budget is met. Deterministic: ties go to the lower index.
EditPlan planDrop(const Anatomy& anatomy, const Report& report, const Parameters& parameters);

/// Drops `per_round` units at a time and scores what is left on the model without them; a surviving layer of the same block runs on (the published code
/// skips it): datasets "iterative/unit" and "iterative/score". Stopping keeps the finished rounds.
void addIterativeOrder(Report& report, ModelRun& run, const Parameters& parameters, const JobContext& job);

}  // namespace resect
