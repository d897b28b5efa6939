#pragma once
#include "core/anatomy/component.h"
#include "core/models/branch.h"

#include <torch/types.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace resect {

/// One number per unit of every block, [L][units]; a block without such units has an empty row. Higher = keep. The channels of a mixture's
/// experts stand expert by expert: expert e's channel c of F at e F + c.
using UnitTable = std::vector<std::vector<double>>;

/// How the numbers of the tensors that are cut together become one.
enum class Reduction { Mean, Sum, Max, Product, First };
enum class Normalisation { None, Mean };     ///< divide by the mean over the units of the block

/// The matrices of each block by role, as [out, in]: cut out of fused tensors and turned where the family stores them so.
class BlockMatrices {
public:
    /// `source` hands out the stored tensor; it is asked each time. `shape` must outlive this.
    BlockMatrices(const ModelShape& shape, WeightSource source);
    bool has(int block, TensorRole role, int expert = -1) const;
    torch::Tensor read(int block, TensorRole role, int expert = -1) const;   ///< throws std::out_of_range when has() is false
    const ModelShape& shape() const noexcept { return m_shape; }
    /// The stored tensors that hold the matrices of a block, names as in the checkpoint.
    std::vector<std::string> names(int block) const;

private:
    const ModelShape& m_shape;
    WeightSource m_source;
    std::map<std::tuple<int, TensorRole, int>, ExpectedTensor> m_tensors;
};

/// What a unit's slice of one tensor counts: the sum of |w|^power over it, or (Vectorised) |sum over the row or column| added over the slice.
struct SliceForm {
    double power = 2;
    bool vectorised = false;
};

/// The score of every unit of one block: each tensor that is cut together with the unit gives one number, `reduction` puts them together. Units:
/// Head (rows of q_proj, columns of o_proj), KvGroup (those of its heads, its rows of k_proj and v_proj), Channel (rows of gate_proj and up_proj,
/// column of down_proj; in a mixture those of each expert), Expert (its three matrices and its row of the router). Biases and norms do not count.
/// Empty when the block has no such units. Throws Unsupported for another kind. First: the query, gate (up without gates) or router tensor.
std::vector<double> coupledScores(const BlockMatrices& matrices, int block, ComponentKind kind, SliceForm form, Reduction reduction);

/// The same of every hidden channel, over all blocks at once: its column of the embeddings and of an untied head, its entry of every norm, its column of
/// every matrix that reads the residual stream and its row of every matrix that writes it. Biases do not count. Units [D].
std::vector<double> hiddenChannelScores(const ModelShape& shape, const WeightSource& source, SliceForm form, Reduction reduction);

/// Sums over the query heads of each kv group, in group order.
std::vector<double> foldHeads(const std::vector<double>& perHead, const std::vector<int>& headsPerKv);

/// Throws BadInput naming block (-1 = none) and unit where a score is not finite.
void requireFiniteScores(const std::vector<double>& scores, int block, std::string_view unit);

}  // namespace resect
