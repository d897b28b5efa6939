#pragma once
#include "core/base/job.h"
#include "core/checkpoint/checkpoint.h"

namespace resect {

/// What the window's comparison shows: diffCheckpoints() as JSON, and beside it `left` and `right` {folder, parameters, bytes, tensors}, and
/// `unchanged`: [{a, b, shape, dtype}] of the pairs that are equal to the byte (when the comparison was stopped, also those not read).
Json compareCheckpoints(const Checkpoint& a, const Checkpoint& b, bool shapesOnly, const JobContext& job);

}  // namespace resect
