#pragma once
#include "core/base/problem.h"
#include "core/method/method.h"
#include "core/protocol/messages.h"
#include "core/worker/opened.h"

#include <string_view>
#include <vector>

// The engine's types as messages.

namespace resect {

protocol::ProblemMessage describe(const Problem& problem);
std::vector<protocol::ProblemMessage> describe(const std::vector<Problem>& problems);
protocol::ModelMessage describe(const OpenedCheckpoint& opened);
/// Before, after, legality, verdicts: all that the plan dock shows. Pure; a few milliseconds.
protocol::PlanCheckMessage describe(const OpenedCheckpoint& opened, const EditPlan& plan);
protocol::MethodMessage describe(const Method& method);

}  // namespace resect
