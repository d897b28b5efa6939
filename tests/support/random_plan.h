#pragma once
#include "core/surgery/edit_plan.h"

#include <random>

namespace resect::test {

/// Up to 6 random edits of any kind that the shape supports; an illegal one is replaced as the check proposes, or left out.
EditPlan randomPlan(std::mt19937& random, const ModelShape& shape);

}  // namespace resect::test
