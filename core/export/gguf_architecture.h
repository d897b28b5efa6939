#pragma once
#include "core/anatomy/family.h"
#include "core/base/problem.h"
#include "core/checkpoint/gguf_types.h"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// What happens to a tensor on its way between Hugging Face's and llama.cpp's layout.
enum class GgufStep {
    Plain,
    RotaryRows,  ///< rows of q or k: interleaved where the architecture rotates neighbours (GgufArchitecture::rotation)
    Fused,       ///< appended to the tensor of the same GGUF name: q, k, v one below the other
    Expert,      ///< one slice of a stack [E, out, in]
    KeepF32,     ///< small and sensitive: routers, positions
    Vector,      ///< [1, n] becomes [n]; F32
    PlusOne,     ///< norms whose weight is stored less 1
    Transposed,  ///< stored [in, out]
};

/// One line of an architecture's table of names.
struct GgufName {
    std::string_view huggingFace;  ///< without "model." or "transformer.", within a block without "layers.N."; {e} is the expert
    std::string_view gguf;         ///< within a block without "blk.N."
    GgufStep step = GgufStep::Plain;
};

/// A number that llama.cpp reads from metadata and that stands in config.json under its own name.
struct GgufField {
    std::string_view key;    ///< after "ARCH."
    std::string_view field;  ///< of config.json; left out when config.json has none
    GgufValueType type = GgufValueType::U32;  ///< U32, F32 or Bool
    double fallback = -1;    ///< written when config.json has none; negative = nothing is
};

/// How a family is written for llama.cpp: a new one is a table entry.
struct GgufArchitecture {
    std::string_view modelType;     ///< Hugging Face's model_type
    std::string_view name;          ///< general.architecture
    enum class Rotation { Neighbours, Halves, None } rotation;  ///< which elements llama.cpp turns together: (2i, 2i+1), or (i, i + d/2) as Hugging Face
    std::span<const GgufName> names{}; ///< looked up before the common ones
    std::span<const GgufField> fields{};
    std::string_view activations = "silu swish";  ///< values of hidden_act that its graph computes
    bool qkvBias = false, outputBias = false, mlpBias = false, qkNorm = false;  ///< it reads these if they are there
    bool ropeFactors = false;          ///< it reads rope_freqs.weight
    bool partialRotation = false;      ///< it reads rope.dimension_count
    bool sharedExperts = false, denseFirst = false;  ///< it has a shared expert; its first blocks may be dense
    bool softcaps = false;             ///< it caps scores and logits, and scales queries by the head size only
    bool perBlock = false;             ///< sizes may differ from block to block
    bool tiedOnly = false;             ///< it has no output.weight
    bool normTopK = true;              ///< its graph renormalises the routing weights
    bool hiddenIsHeads = false;        ///< its loader expects heads x head size = hidden size
    int windowPeriod = 0;              ///< its graph gives every block but the last of so many a sliding window; 0 = config decides for all alike
    bool checked = true;               ///< files of it were opened in llama.cpp and compared (tests/interop); nothing is written otherwise
    std::string_view normEps = "attention.layer_norm_rms_epsilon";
};

/// The family's own architecture; null when llama.cpp has none.
const GgufArchitecture* findGgufArchitecture(std::string_view modelType) noexcept;
/// The one for a model whose blocks are all alike: the family's own, or one that computes the same where that cannot hold the shape.
const GgufArchitecture* findUniformArchitecture(const ModelShape& shape) noexcept;
/// The one that carries blocks of different sizes for weights like these; null when there is none.
const GgufArchitecture* findPerBlockArchitecture(const ModelShape& shape) noexcept;
/// Rows that write this general.architecture, in the order of the table.
std::vector<const GgufArchitecture*> architecturesNamed(std::string_view name);

/// Where a tensor stands in the GGUF.
struct GgufPlace {
    std::string name;  ///< "blk.3.attn_q.weight"
    GgufStep step = GgufStep::Plain;
};
/// Throws Unsupported for a tensor that the table does not hold.
GgufPlace ggufPlace(const GgufArchitecture& architecture, const ExpectedTensor& tensor);

/// What keeps a model of this shape from being opened or computed by llama.cpp under this architecture: errors, each with the nearest alternative.
std::vector<Problem> ggufObstacles(const GgufArchitecture& architecture, const ModelShape& shape);

}  // namespace resect
