#pragma once
#include "core/anatomy/component.h"
#include "core/anatomy/model_shape.h"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// What a tensor is, whatever its family calls it. One entry per parameter of a block or of the model.
enum class TensorRole {
    TokenEmbedding, PositionEmbedding,
    ClassToken, DistillationToken, PatchWeight, PatchBias, InputNorm, InputNormBias,  ///< of image families: patches, and tokens before them
    FinalNorm, FinalNormBias,
    LmHead, LmHeadBias,                 ///< of image families the classifier
    DistillationHead, DistillationHeadBias, PoolerWeight, PoolerBias,
    ProjectorInWeight, ProjectorInBias, ProjectorOutWeight, ProjectorOutBias,  ///< of LLaVA: from pictures to the language model
    VisualProjection, TextProjection, LogitScale,  ///< of CLIP: into the space where pictures and texts are compared
    // The attention layer: AttentionNorm to PostAttentionNorm.
    AttentionNorm, AttentionNormBias, QueryWeight, QueryBias, KeyWeight, KeyBias, ValueWeight, ValueBias,
    QkvWeight, QkvBias,                 ///< queries, keys and values stacked in this order
    OutputWeight, OutputBias, QueryNorm, KeyNorm,
    PostAttentionNorm,                  ///< of the layer's output, before it is added (sandwich norms)
    // The FFN layer.
    FfnNorm, FfnNormBias, GateWeight, GateBias, UpWeight, UpBias,
    GateUpWeight,                       ///< gate and up stacked in this order
    DownWeight, DownBias, PostFfnNorm,
    RouterWeight,
    RouterCorrection,                   ///< added to the scores for choosing experts only (DeepSeek-V3's form)
    ExpertGateWeight, ExpertUpWeight, ExpertDownWeight,
    SharedGateWeight, SharedUpWeight, SharedDownWeight,
    SharedExpertGate,                   ///< [1, D]: how much of the shared expert is added
};

/// Where config.json of a family keeps a size. Null = the family has no such field.
struct ConfigFields {
    const char* blocks = "num_hidden_layers";
    const char* hidden = "hidden_size";
    const char* heads = "num_attention_heads";
    const char* kvHeads = "num_key_value_heads";
    const char* headDim = "head_dim";
    const char* ffn = "intermediate_size";
    const char* positions = "max_position_embeddings";
    const char* eps = "rms_norm_eps";
    const char* activation = "hidden_act";
};

/// How a family describes its mixtures of experts.
struct MoeFields {
    const char* experts;                ///< number of routed experts
    const char* width;                  ///< channels of a routed expert
    const char* sharedWidth = nullptr;  ///< channels of the shared expert, or ...
    const char* sharedCount = nullptr;  ///< ... how many routed widths it has
    int defaultTopK = 2;
    /// Which blocks are mixtures: all; `mlp_only_layers` and `decoder_sparse_step`; `first_k_dense_replace` and `moe_layer_freq`.
    enum class Blocks { All, SparseStep, AfterFirst } blocks = Blocks::All;
    enum class NormTopK { Always, FromConfig } normTopK = NormTopK::Always;  ///< FromConfig: `norm_topk_prob`, false when absent
    bool sigmoidWithCorrection = false; ///< scores by sigmoid, chosen with a correction, within the best groups (DeepSeek-V3's router)
    bool sharedGate = false;
};

/// How a family of vision transformers turns pictures into tokens.
struct ImageFields {
    bool distilled = false;             ///< a second token after the class token, and with the teacher's architecture a second head
    bool patchBias = true;
    bool inputNorm = false;             ///< a norm before the first block
    const char* labelsField = nullptr;  ///< says how many labels there are, 0 = none; null = `id2label` of architectures for classification
    bool plainTables = false;           ///< class token [D] and positions [n, D] instead of [1, 1, D] and [1, n, D]
};

/// One tower of a family that has several, in the order in which they run. The last one is the language tower.
struct TowerFields {
    const char* name;                   ///< "vision"
    const char* title;                  ///< "Vision tower"
    const char* prefix;                 ///< of its tensors' names
    const char* configField;            ///< where its own configuration stands
    const char* defaultType;            ///< its `model_type` when that is left out
    const char* whenMissing = "{}";     ///< its configuration when the field itself is left out
};

struct RoleName {
    TensorRole role;
    const char* name;                   ///< after the block's prefix, or whole; {e} is the expert
};

/// A family of decoders or vision transformers as data: a new one is a table entry, not code.
struct Family {
    std::string_view modelType;         ///< `model_type`
    std::string_view title;             ///< "Llama"
    std::string_view architecture;      ///< stock class, "LlamaForCausalLM"
    std::span<const RoleName> names{};  ///< where the spelling differs from Llama's
    std::span<const RoleName> blockNames{};  ///< the same, shared with another family
    const char* blockPrefix = "model.layers.";
    ConfigFields fields{};
    const MoeFields* moe = nullptr;
    const ImageFields* image = nullptr; ///< null = a language model. Image families see all positions at once
    std::span<const TowerFields> towers{};  ///< of a family that is made of others; most of what follows is then theirs
    const char* defaults = "{}";        ///< what the configuration of an image family or a tower may leave out, where the single defaults below do not say it

    enum class Flag { No, Yes, FromConfig };
    Flag qkvBias = Flag::No;            ///< FromConfig: `attention_bias`, of image families `qkv_bias`
    Flag outputBias = Flag::No;
    Flag mlpBias = Flag::No;            ///< FromConfig: `mlp_bias`
    enum class Norm { Rms, RmsPlusOne, Layer } norm = Norm::Rms;  ///< RmsPlusOne: the stored weight is added to 1; Layer: mean, and a bias
    /// Over each head (always, or as `use_qk_norm` says), or over all heads together.
    enum class QkNorm { None, Head, HeadIfConfigured, Projection } qkNorm = QkNorm::None;
    enum class Window { None, All, QwenRule, Alternating } window = Window::None;  ///< QwenRule: `use_sliding_window`, `max_window_layers`,
                                        ///< `layer_types`; Alternating: every second block from the first, or `layer_types`
    bool postNorms = false;             ///< norms after the layers too
    bool gatedMlp = true;
    bool fusedQkv = false, fusedGateUp = false;
    bool transposedLinears = false;     ///< block matrices are stored [in, out] (GPT-2's Conv1D)
    bool learnedPositions = false;      ///< added to the embedding, no rotation
    bool scaledEmbedding = false;       ///< times sqrt(hidden size)
    bool headless = false;              ///< a text tower: what leaves its final norm is all it gives
    bool partialRotary = false;         ///< `partial_rotary_factor` is honoured

    // What stock runtimes do with it.
    bool needsHiddenDivisibleByHeads = false;  ///< the stock configuration class refuses otherwise (export.md E1)
    bool stockReadsHeadDim = true;      ///< stock runtimes honour an explicit `head_dim`
    // What the stock configuration class assumes for fields that config.json leaves out.
    int defaultHeadDim = 0;             ///< 0 = hidden size / heads
    int defaultWindow = 0;              ///< 0 = none
    double defaultRopeTheta = 1e4, defaultNormEps = 1e-6, defaultRotaryShare = 1;
    const char* defaultActivation = "silu";
    bool tiedByDefault = false;
    double defaultAttentionSoftcap = 0, defaultFinalSoftcap = 0, defaultQueryScale = 0;
};

/// Null when `modelType` is unknown.
const Family* findFamily(std::string_view modelType) noexcept;
/// Throws Unsupported, naming the known ones.
const Family& familyOf(const ModelShape& shape);
std::span<const Family> families() noexcept;

/// A tensor that the shape calls for.
struct ExpectedTensor {
    std::string name;                   ///< Hugging Face spelling
    std::vector<std::int64_t> shape;    ///< as stored
    TensorRole role{};
    int block = -1, expert = -1;
    int tower = 0;                      ///< of ModelShape::towers; -1 = it links them
};

/// The name of one tensor in the family's spelling. `block` and `expert` -1 where they do not apply.
std::string tensorName(const Family& family, TensorRole role, int block = -1, int expert = -1);
/// The same for a model that may have towers: `block` counts through all of them; of tensors outside the blocks the language tower's.
std::string tensorName(const ModelShape& shape, TensorRole role, int block = -1, int expert = -1);
/// Every tensor of a checkpoint of this shape, in file order. A tied head is not listed.
std::vector<ExpectedTensor> expectedTensors(const ModelShape& shape);
/// Those that belong to no block.
std::vector<ExpectedTensor> outerTensors(const ModelShape& shape);
/// The tensors of one block, of the routed experts only the first one's: all have the same.
std::vector<ExpectedTensor> blockTensors(const ModelShape& shape, int block);
/// The roles that one block has tensors of, without repeats.
std::vector<TensorRole> rolesOf(const ModelShape& shape, int block);

/// Which units lie along an axis of a stored tensor: the coupling tables of structured pruning as data. Segments follow each other along the
/// axis; a head or kv group takes headDim places, a channel or expert one.
struct AxisUnits {
    int axis = -1;                      ///< -1 = no axis of it is cut with the units of its block
    std::vector<ComponentKind> segments;
};
AxisUnits unitsAlong(const Family& family, TensorRole role);

/// How many units of a kind a block has, and how many places along an axis each takes.
std::int64_t unitCount(const BlockShape& block, ComponentKind kind) noexcept;
std::int64_t placesPerUnit(const BlockShape& block, ComponentKind kind) noexcept;
/// The axis of a stored tensor along which the hidden channels lie: what reads or writes the residual stream, embedding, norms and head. -1 = none.
int hiddenAxis(const Family& family, TensorRole role) noexcept;

/// Is it used before the first block (embeddings), or after the last one? Of tensors that belong to no block.
bool isEmbeddingRole(TensorRole role) noexcept;
bool isAttentionRole(TensorRole role) noexcept;
bool isNormRole(TensorRole role) noexcept;      ///< weights and biases of norms
bool isExpertRole(TensorRole role) noexcept;    ///< one tensor per routed expert
bool isBiasRole(TensorRole role) noexcept;      ///< a vector added to what a linear map gives

}  // namespace resect
