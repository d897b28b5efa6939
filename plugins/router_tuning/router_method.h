#pragma once
#include "core/method/method.h"

namespace resect::router {

/// "router-tuning": what trained routers decide on data, how much that depends on the input, and plans that drop the layers which are closed anyway,
/// for programs that know no routers. The routers are those of an adapter (or of a run's best one), or of the checkpoint itself.
///
/// Datasets, by routed block: capacity/TARGET (TARGET = attn, mlp, block) the executed share of sequences or tokens; score/sample the mean probability
/// of each row; decision/sample its executed share; dependence/variance and dependence/entropy over rows; of token routers score/tokens, those of the
/// first row.
class RouterMethod final : public Method {
public:
    RouterMethod();
    const MethodInfo& info() const noexcept override { return m_info; }
    Report analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const override;
    EditPlan plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const override;

private:
    MethodInfo m_info;
};

}  // namespace resect::router
