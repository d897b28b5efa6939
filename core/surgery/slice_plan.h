#pragma once
#include "core/anatomy/anatomy.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/surgery/cut.h"

#include <string>
#include <vector>

namespace resect {

/// How one tensor of the result is made from the source: kept index ranges along each axis, zeros where padding is asked for.
struct SlicedTensor {
    std::string source;                     ///< name in the source; empty = all zeros
    std::string name;                       ///< name in the result (blocks renumbered)
    DType dtype = DType::F32;
    std::vector<std::int64_t> sourceShape;
    /// Per axis the source indices in result order; -1 = a row (column) of zeros. An empty list = the whole axis.
    std::vector<std::vector<std::int64_t>> indices;
    std::vector<std::int64_t> shape;        ///< of the result
};

enum class SliceWay {
    Exact,    ///< absent parts are absent
    Padded,   ///< every block padded with zeros to the largest kept sizes, absent layers become zero layers (export.md E-5)
    Zeroed,   ///< source shapes, removed parts zero; dropped blocks stay with zero outputs
};

/// The result tensors in file order and the shape they form. Reads no data.
struct SlicePlan {
    ModelShape shape;
    std::vector<SlicedTensor> tensors;
};
SlicePlan slicePlan(const Anatomy& anatomy, const Cut& cut, SliceWay way);

/// Streams one result tensor from the mapped source, converting to `dtype` where it differs (F32, F16, BF16 among each other).
TensorSource streamSlice(const Checkpoint& source, const SlicedTensor& tensor, DType dtype);

}  // namespace resect
