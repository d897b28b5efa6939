#pragma once
#include "core/anatomy/anatomy.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/surgery/cut.h"

#include <string>
#include <vector>

namespace resect {

/// How one tensor of the result is made from the source: kept index ranges along each axis, zeros where padding is asked for.
struct SlicedTensor {
    std::string source;        ///< name in the source; empty = all zeros
    std::string name;          ///< name in the result (blocks renumbered)
    DType dtype = DType::F32;  ///< as stored in the source
    std::vector<std::int64_t> sourceShape;
    /// Per axis the source indices in result order; -1 = a row (column) of zeros. An empty list = the whole axis.
    std::vector<std::vector<std::int64_t>> indices;
    std::vector<std::int64_t> shape;  ///< of the result
    /// Values become (value + offset) scale - offset: norms that get narrower, and embeddings whose family scales them. 1 = as they are.
    double scale = 1, offset = 0;
};

enum class SliceWay {
    Exact,  ///< absent parts are absent
    /// Every block padded with zeros to the largest kept sizes, absent layers become zero layers (export.md E-5). Head counts
    /// are padded further where the stock class accepts only some (hidden size a multiple of heads, or heads x headDim = hidden
    /// size).
    Padded,
    Zeroed,  ///< source shapes, removed parts zero; dropped blocks stay with zero outputs (norms keep their values)
};
std::string_view name(SliceWay way) noexcept;  ///< "exact", "padded", "zeroed"

/// The result tensors in file order and the shape they form. Reads no data.
struct SlicePlan {
    ModelShape shape;
    std::vector<SlicedTensor> tensors;
    std::uint64_t bytes(std::optional<DType> dtype = {}) const noexcept;  ///< of all tensors, as stored or as `dtype`
};

/// Throws Unsupported when the way cannot express the cut exactly: expert counts that differ per block cannot be padded, and a
/// zeroed expert could still be chosen by its router. Throws as anatomy.shape() when the checkpoint is not understood.
SlicePlan slicePlan(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, SliceWay way);
/// The same in a shape of the caller's, one entry per kept block, each at least as large as what is kept of it: what is missing is filled with zeros, as in
/// the padded way. Throws BadInput when a block of `result` is too small.
SlicePlan slicePlan(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, const ModelShape& result);

/// The sizes that the padded way gives every block; the source's shape otherwise.
ModelShape paddedShape(const ModelShape& source, const Cut& cut);

/// Streams one result tensor from the mapped source, converting to `dtype` where it differs (F32, F16, BF16 among each other;
/// round to nearest even, NaN kept). `source` must outlive the result. Throws Unsupported for another conversion; producing
/// throws BadInput when a finite value becomes infinite in F16.
TensorSource streamSlice(const Checkpoint& source, const SlicedTensor& tensor, DType dtype);

}  // namespace resect
