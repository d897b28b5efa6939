#pragma once
#include "core/checkpoint/gguf_writer.h"
#include "core/export/gguf_architecture.h"
#include "core/surgery/slice_plan.h"

#include <optional>
#include <string>
#include <vector>

namespace resect {

/// One tensor of the GGUF: which slices of the source make it, and in which form it is stored.
struct GgufPlannedTensor {
    std::string name;
    GgufType type = GgufType::F32;
    std::vector<std::int64_t> shape;
    std::vector<SlicedTensor> parts;  ///< one below the other: q, k, v, or expert by expert
    GgufStep step = GgufStep::Plain;  ///< PlusOne and Transposed change the values on the way
    std::vector<float> values;        ///< instead of parts: computed ones
};

/// The tensors of a GGUF in file order, for the shape that `plan` writes. `wanted` is the type of the matrices; norms, biases and routers are F32.
/// Of Q4_0, the head (or an embedding that is the head) and keys and values beside experts are Q8_0. A matrix whose rows are no multiple of 32 falls back to F16, with a note. Without
/// `wanted` every matrix keeps its stored type. Throws Unsupported for a tensor that the architecture has no place for.
std::vector<GgufPlannedTensor> ggufLayout(const GgufArchitecture& architecture, const SlicePlan& plan, std::optional<GgufType> wanted, std::vector<Problem>& notes);

/// Divisors of the rotary frequencies as llama.cpp reads them (rope_freqs.weight) for Llama 3's scaling, one per pair. Empty for other scalings.
std::vector<float> ropeFactors(const ModelShape& shape);

/// Streams it from the mapped source. Throws BadInput while producing when a value does not fit the type.
GgufTensorSource streamTensor(const Checkpoint& source, const GgufPlannedTensor& tensor);
/// The same values as 32-bit floats, before they are rounded to the tensor's type.
GgufTensorSource streamFloats(const Checkpoint& source, const GgufPlannedTensor& tensor);

}  // namespace resect
