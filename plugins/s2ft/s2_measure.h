#pragma once
#include "core/method/method.h"

namespace resect::s2 {

/// Shows what the recipe chooses from: the scores of heads, kv groups and channels by weight, activation, their product and, when asked for, the
/// gradient (see s2_scores.h). Measures only. Needs the model resident.
class S2Measure final : public Method {
public:
    S2Measure();
    const MethodInfo& info() const noexcept override { return m_info; }
    Report analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const override;
    EditPlan plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const override;

private:
    MethodInfo m_info;
};

}  // namespace resect::s2
