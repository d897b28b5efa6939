#pragma once
#include "core/measure/model_run.h"
#include "core/surgery/budget.h"

namespace resect {

struct Latencies {
    LatencyTable decode;    ///< one token with context - 1 cached before it
    LatencyTable prefill;   ///< context tokens from an empty cache
};

/// Times attention and FFN layers of the model's blocks at up to four sizes each, on the run's device and in its dtype, one row, the shortest of
/// repeated passes. Layers of equal shape are timed once. The probes have random weights (of a mixture: its router sends tokens anywhere);
/// embedding and head are the model's own. Throws Usage for a context outside 2..maxPositions, Unsupported when streaming. A stop throws Stopped.
Latencies measureLatencies(ModelRun& run, int context, const JobContext& job);

}  // namespace resect
