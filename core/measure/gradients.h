#pragma once
#include "core/base/problem.h"
#include "core/measure/coupled_weights.h"
#include "core/measure/model_run.h"

#include <cstdint>
#include <map>
#include <vector>

namespace resect {

struct GradientOptions {
    /// Scores from dL/dw of every coupled matrix. Needs an f32 copy (f64 for an f64 model) of those matrices, two with `perRow`.
    bool elements = false;
    /// Row by row, for the squared gradients of each row (slower; needs `elements`).
    bool perRow = false;
    Reduction reduction = Reduction::Sum;   ///< over the coupled tensors
};

/// The gate xi = 1 multiplies what a unit passes on (its part of the input of o_proj or down_proj; of an expert: its output). One value per unit.
struct GateTables {
    UnitTable row, rowError;   ///< mean over rows n of |dL_n / dxi|, and its standard error ("Are Sixteen Heads Really Better than One?", arXiv 1905.10650)
    UnitTable token;           ///< the same with the absolute value taken token by token, summed and divided by all tokens, as the authors' code does
    UnitTable batch;           ///< |mean over rows of dL_n / dxi|
    UnitTable signedMean;      ///< mean over rows of dL_n / dxi
};

/// From G = mean_n dL_n/dw and F = mean_n (dL_n/dw)^2, elementwise, then summed over the slices of the coupled tensors as coupledScores does.
struct TaylorTables {
    UnitTable first;       ///< |w G| (LLM-Pruner's param_first, arXiv 2305.11627)
    UnitTable vectorised;  ///< |sum of w G| per row or column, before tensors are added (LLM-Pruner's vectorize)
    UnitTable second;      ///< w^2 F; empty without perRow (Torch-Pruning's Hessian importance)
    UnitTable mixed;       ///< |w G - w^2 F / 2|; empty without perRow
};

struct GradientScores {
    GateTables head, group, channel, expert;           ///< group: sums over its heads, of the signed one too
    std::map<ComponentKind, TaylorTables> taylor;      ///< Head, KvGroup, Channel, Expert; empty without `elements`
    double loss = 0;                                   ///< mean over rows
    std::int64_t rowsDone = 0, rowsTotal = 0;
    std::vector<Problem> notes;                        ///< a loss or gradients so small that the scores say nothing
};

/// L_n is the mean next-token loss of row n (rows without a target are left out). One backward pass per batch, block by block with the block run
/// again, so that activations and weight gradients of one block exist at a time. Weights are not changed. Batches and their order do not matter.
/// Stopping keeps the finished batches. Throws Unsupported when streaming, OutOfMemory with the numbers before it starts, BadInput naming the row
/// whose loss is not finite.
GradientScores measureGradients(ModelRun& run, const GradientOptions& options, const JobContext& job);

}  // namespace resect
