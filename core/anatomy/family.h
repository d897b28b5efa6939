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
    TokenEmbedding, FinalNorm, LmHead,
    AttentionNorm, QueryWeight, QueryBias, KeyWeight, KeyBias, ValueWeight, ValueBias, OutputWeight, OutputBias, QueryNorm, KeyNorm,
    FfnNorm, GateWeight, GateBias, UpWeight, UpBias, DownWeight, DownBias,
    RouterWeight, ExpertGateWeight, ExpertUpWeight, ExpertDownWeight,
};

/// A Llama-like family as data: a new one is a table entry, not code.
struct Family {
    std::string_view modelType;     ///< `model_type`
    std::string_view title;         ///< "Llama"
    std::string_view architecture;  ///< stock class, "LlamaForCausalLM"
    enum class Flag { No, Yes, FromConfig };
    Flag qkvBias;                   ///< FromConfig: `attention_bias`
    Flag outputBias;
    Flag mlpBias;                   ///< FromConfig: `mlp_bias`
    bool qkNorm;
    enum class Window { None, All, QwenRule } window;  ///< QwenRule: `use_sliding_window`, `max_window_layers`, `layer_types`
    bool mixtureOfExperts;
    bool needsHiddenDivisibleByHeads;   ///< the stock configuration class refuses otherwise (export.md E1)
    bool stockReadsHeadDim;             ///< stock runtimes honour an explicit `head_dim`
    // What the stock configuration class assumes for fields that config.json leaves out.
    int defaultHeadDim;                 ///< 0 = hidden_size / num_attention_heads
    int defaultWindow;                  ///< 0 = none
    double defaultRopeTheta, defaultNormEps;
};

/// Null when `modelType` is unknown.
const Family* findFamily(std::string_view modelType) noexcept;
std::span<const Family> families() noexcept;

/// A tensor that the shape calls for.
struct ExpectedTensor {
    std::string name;                  ///< Hugging Face spelling
    std::vector<std::int64_t> shape;
    TensorRole role{};
    int block = -1, expert = -1;
};

/// The name of one tensor in the family's spelling. `block` and `expert` -1 where they do not apply.
std::string tensorName(const Family& family, TensorRole role, int block = -1, int expert = -1);
/// Every tensor of a checkpoint of this shape, in file order. A tied head is not listed.
std::vector<ExpectedTensor> expectedTensors(const ModelShape& shape);

/// Along which axis of a tensor the units of a component lie, for one unit: the coupling tables of structured pruning as data.
/// Axis 0 = rows of [out, in]. `rowsPerUnit`: headDim for heads and kv groups, 1 for channels.
struct Coupling {
    TensorRole role;
    int axis;
};
/// The tensors that are cut together when a unit of this kind goes. Kind: Head, KvGroup (its own k and v rows; its heads follow), Channel, Expert.
std::span<const Coupling> couplings(ComponentKind kind) noexcept;

}  // namespace resect
