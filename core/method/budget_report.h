#pragma once
#include "core/anatomy/anatomy.h"
#include "core/measure/latency.h"
#include "core/method/report.h"
#include "core/protocol/parameter.h"
#include "core/surgery/edit_plan.h"

#include <functional>
#include <string>
#include <vector>

namespace resect {

/// Adds the measured times as datasets "latency/...".
void addLatencies(Report& report, const Latencies& latencies);

/// `budget`, `limit` and `context` of a plan that has to meet one; `noBudget` is the choice that means there is none ("units").
/// The share comes from the method's own `ratio`.
std::vector<ParameterInfo> budgetParameters(const std::string& noBudget, const std::string& noBudgetHelp);

/// What the plan parameters ask for.
class BudgetTarget {
public:
    /// From `budget`, `limit`, `context` and `ratio` of `parameters`. Throws NotFound when a latency is asked for that `report` does not hold.
    BudgetTarget(const Anatomy& anatomy, const Report& report, const Parameters& parameters);
    double before() const noexcept { return m_before; }
    double limit() const noexcept { return m_limit; }   ///< what may stay
    double of(const EditPlan& plan) const;              ///< what the plan leaves
    bool metBy(const EditPlan& plan) const { return of(plan) <= m_limit; }
    /// Throws Usage: the budget cannot be met, `least` is the plan that cuts most.
    [[noreturn]] void refuse(const EditPlan& least, const std::string& why) const;
    Json note(const EditPlan& plan) const;              ///< for EditPlan::notes

private:
    Budget m_budget;
    ModelShape m_shape;
    double m_before = 0, m_limit = 0;
};

}  // namespace resect
