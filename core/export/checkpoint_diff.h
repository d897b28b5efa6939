#pragma once
#include "core/base/job.h"
#include "core/checkpoint/checkpoint.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace resect {

/// What became of one tensor of checkpoint A in checkpoint B.
struct TensorDifference {
    enum class Kind { Added, Removed, Reshaped, Changed };
    Kind kind = Kind::Changed;
    std::string a, b;                            ///< names; "" on the side that lacks it. They differ where blocks were renumbered
    std::vector<std::int64_t> shapeA, shapeB;
    DType dtypeA = DType::F32, dtypeB = DType::F32;
    /// Of Changed tensors of floating-point numbers, else NaN: |B - A| / |A| in the Frobenius norm (infinite when A is zero), and the largest
    /// |b - a| of an element. Computed from f32 values.
    double relative = std::numeric_limits<double>::quiet_NaN(), largest = std::numeric_limits<double>::quiet_NaN();
    std::int64_t changedElements = 0;            ///< of Changed tensors
};

/// Block `a` of A is block `b` of B; -1 = there is none. `stack` is what precedes the number in tensor names: "model.layers".
struct BlockPair {
    std::string stack;
    int a = -1, b = -1;
};

struct ConfigDifference {
    std::string field;
    Json a, b;                                   ///< null where the field is absent
};

struct CheckpointDiff {
    std::vector<ConfigDifference> config;        ///< top-level fields of config.json, ascending
    std::vector<BlockPair> blocks;               ///< every block of both, in order
    std::vector<TensorDifference> tensors;       ///< those that differ, in A's order, added ones last
    std::int64_t equalTensors = 0;               ///< same dtype, shape and bytes
    std::int64_t comparedTensors = 0;            ///< pairs of the same shape whose content was read
    bool complete = true;                        ///< false when it was stopped: later tensors of the same shape were not read
    bool same() const noexcept { return complete && config.empty() && tensors.empty(); }
};

enum class DiffContent { Read, Skip };           ///< Skip: names, shapes and dtypes only

/// Compares two checkpoints of any family. Where the numbers of blocks differ, the blocks of the smaller stack are matched in order with those of
/// the larger one whose weights they resemble most (least sum of relative distances over sampled elements), so that a model with dropped blocks is
/// compared block by block with what it came from. Memory does not grow with the checkpoints.
CheckpointDiff diffCheckpoints(const Checkpoint& a, const Checkpoint& b, DiffContent content, const JobContext& job);
Json toJson(const CheckpointDiff& diff);
std::string_view name(TensorDifference::Kind kind) noexcept;   ///< "added", "removed", "reshaped", "changed"

}  // namespace resect
