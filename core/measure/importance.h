#pragma once
#include "core/anatomy/component.h"
#include "core/measure/model_run.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace resect {

/// One number per unit of every block, [L][units]; a block without such units has an empty row. Higher = keep.
using UnitTable = std::vector<std::vector<double>>;

enum class Reduction { Mean, Sum };          ///< over the coupled tensors of a unit
enum class Normalisation { None, Mean };     ///< divide by the mean over the units of the block

struct MagnitudeOptions {
    double power = 2;
    Reduction reduction = Reduction::Mean;
    Normalisation normalisation = Normalisation::Mean;
};
/// Weight norms: for every tensor that is cut together with the unit sum |w|^power over the unit's slice, then reduced and normalised. Biases do not
/// count. A head owns rows of q_proj and columns of o_proj; a kv group those of its heads and its rows of k_proj and v_proj; a channel rows of
/// gate_proj and up_proj and a column of down_proj. Source: Torch-Pruning's magnitude importance; the tensors are those of the coupling tables.
/// Reads the weights from the mapped files, block by block, in f32. Empty rows from the block on where the job was stopped.
UnitTable magnitude(const Checkpoint& checkpoint, const ModelShape& shape, ComponentKind kind, const MagnitudeOptions& options, const JobContext& job);

/// Sums over the query heads of each kv group, in group order.
std::vector<double> foldHeads(const std::vector<double>& perHead, const std::vector<int>& headsPerKv);

/// Activations of heads (input of the output projection) and channels (input of the down projection). MoE layers have no row.
struct ActivationScores {
    UnitTable headMean, headError;           ///< mean |x| over tokens and head dimensions, and its standard error over rows
    UnitTable headRms, headWanda;            ///< sqrt(mean x^2); sum over columns of mean|W_o| * sqrt(mean over rows of sum_t x^2)
    UnitTable groupMean, groupRms, groupWanda;   ///< sums over the heads of each kv group
    UnitTable channelMean, channelError, channelRms, channelWanda;
    std::int64_t rowsDone = 0, rowsTotal = 0;
};
/// Wanda: arXiv 2306.11695. Padding never counts. Stopping keeps what each block saw; a block that saw nothing has an empty row.
/// Throws BadInput naming block and unit where a score is not finite.
ActivationScores measureActivations(ModelRun& run, const JobContext& job);

}  // namespace resect
