#pragma once
#include "core/method/method.h"

namespace resect {

/// Which experts a mixture uses, and plans that drop the least used ones.
/// Sources: expert dropping by routing score (arXiv 2406.02500), router-weighted expert activation (REAP, arXiv 2510.13999).
class ExpertDrop final : public Method {
public:
    ExpertDrop();
    const MethodInfo& info() const noexcept override { return m_info; }
    Report analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const override;
    EditPlan plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const override;

private:
    MethodInfo m_info;
};

/// The experts to drop, lowest score first; ties go to the lower index. Every block keeps at least as many as each token is sent to, and as many
/// of every group where experts are chosen by groups.
EditPlan planExpertDrop(const ModelShape& shape, const Report& report, const Parameters& parameters);

}  // namespace resect
