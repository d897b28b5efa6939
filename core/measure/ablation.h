#pragma once
#include "core/measure/model_run.h"
#include "core/measure/statistics.h"

#include <cstdint>
#include <span>
#include <vector>

namespace resect {

/// Something to leave out: what the cut of its block becomes.
struct Ablation {
    int block = 0;
    BlockCut cut;
};

struct AblationScores {
    /// Rise of the mean loss per scored token in nats, one entry per ablation; the error is that of the paired difference, over rows. NaN where it
    /// was not reached.
    std::vector<MeanError> rise;
    double loss = 0;                             ///< without any of them
    std::int64_t rowsDone = 0, rowsTotal = 0;    ///< rows that every ablation saw
};

/// Exact ablation, the yardstick of importance scores: the model run once without each unit. `base` is cut in any case (empty = nothing). Resident,
/// each runs from its block on only; streamed, each is a whole pass. Progress counts ablations times rows. Stopping keeps the finished
/// batches, and where there is none the finished ablations. Throws BadInput where a loss is not finite or no position has a target.
AblationScores measureAblations(ModelRun& run, const Cut& base, std::span<const Ablation> ablations, const JobContext& job);

}  // namespace resect
