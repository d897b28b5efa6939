#pragma once
#include "core/method/method.h"

namespace resect {

/// Importance of heads, kv groups and channels by weight norm and by activation, and plans that cut the least important ones.
/// Sources: magnitude (Torch-Pruning's group norm), activation and Wanda (arXiv 2306.11695).
class Importance final : public Method {
public:
    Importance();
    const MethodInfo& info() const noexcept override { return m_info; }
    Report analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const override;
    EditPlan plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const override;

private:
    MethodInfo m_info;
};

/// The units to cut, as the plan parameters ask. Deterministic: ties go to the lower index. Every block keeps at least one unit.
EditPlan planImportance(const ModelShape& shape, const Report& report, const Parameters& parameters);

}  // namespace resect
