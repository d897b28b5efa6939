#pragma once
#include "core/anatomy/component.h"
#include "core/measure/coupled_weights.h"
#include "core/measure/model_run.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace resect {

struct MagnitudeOptions {
    double power = 2;
    Reduction reduction = Reduction::Mean;
    Normalisation normalisation = Normalisation::Mean;
};
/// Weight norms: for every tensor that is cut together with the unit sum |w|^power over the unit's slice (see coupledScores), then reduced and
/// normalised. Source: Torch-Pruning's magnitude importance; the tensors are those of the coupling tables.
/// Reads the weights from the mapped files, block by block, in f32 (f64 when `dtype` says so). Empty rows from the block on where the job was stopped.
UnitTable magnitude(const Checkpoint& checkpoint, const ModelShape& shape, ComponentKind kind, const MagnitudeOptions& options, const JobContext& job,
                    torch::ScalarType dtype = torch::kFloat32);

/// Scores and their standard errors over the rows of the data; NaN errors for a single row.
struct ScoreTable {
    UnitTable score, error;
};
/// What flows through units of one kind; x is the activation of one of the unit's columns of W, the projection that reads it. Means over a unit's
/// columns where nothing else is said.
struct ActivationTables {
    ScoreTable mean;              ///< mean |x| over tokens
    ScoreTable rms;               ///< sqrt(mean x^2)
    ScoreTable wanda;             ///< sum over columns of mean_i |W_ij| x sqrt(mean over rows of sum_t x^2) (Wanda, arXiv 2306.11695; FLAP calls it WIFN)
    ScoreTable variance;          ///< variance of x over all tokens (FLAP's IFV, arXiv 2312.11983)
    ScoreTable weightedVariance;  ///< variance x sum_i W_ij^2 (FLAP's WIFV)
    /// WIFV (of attention: squared) in standard deviations from the mean over the block's columns: FLAP's scale for ranking across blocks and kinds.
    ScoreTable standardised;
};
/// Heads: input of the output projection; kv groups: sums over their heads. Channels: input of the down projection; those of a mixture's experts are
/// scored over the tokens that the expert is given (all 0 when it is given none) and need the resident model: streamed, their rows are empty.
struct ActivationScores {
    ActivationTables head, group, channel;
    std::int64_t rowsDone = 0, rowsTotal = 0;
    bool expertsSkipped = false;  ///< the run streams, so channels of experts have no scores
};
/// Padding never counts. Statistics of rows are merged (Chan et al.), so that batches and their order do not matter; standard errors by
/// leaving out one of up to 10 groups of rows in turn (jackknife). Stopping keeps what each block saw; a block that saw nothing has an empty row.
/// Throws BadInput naming block and unit where a score is not finite.
ActivationScores measureActivations(ModelRun& run, const JobContext& job);

/// Hidden channels: dimensions of the residual stream.
struct HiddenScores {
    std::vector<double> magnitude;    ///< [D], as magnitude() does for the others: see hiddenChannelScores
    UnitTable activation, error;      ///< [L+1][D] mean |x| over tokens of the embedding output and behind each block, and its standard error over rows
    std::int64_t rowsDone = 0, rowsTotal = 0;
};
/// Padding never counts. Stopping keeps what each block saw.
HiddenScores measureHidden(ModelRun& run, const MagnitudeOptions& options, const JobContext& job);

}  // namespace resect
