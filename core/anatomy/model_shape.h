#pragma once
#include "core/protocol/json.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace resect {

/// Rotary scaling as data (`rope_scaling` of config.json).
struct RopeScaling {
    enum class Kind { None, Linear, Dynamic, Llama3, Yarn, LongRope };
    Kind kind = Kind::None;
    double factor = 1;
    double lowFreqFactor = 1, highFreqFactor = 4;      ///< llama3
    std::int64_t originalMaxPositions = 0;             ///< llama3, yarn, longrope; 0 = max_position_embeddings
    double betaFast = 32, betaSlow = 1;                ///< yarn
    std::optional<double> attentionFactor;             ///< yarn: default 0.1 ln(factor) + 1; longrope: sqrt(1 + ln(factor) / ln(original))
    std::optional<double> mscale, mscaleAllDim;        ///< yarn, DeepSeek's form
    std::vector<double> shortFactor, longFactor;       ///< longrope: divisors of each frequency, up to the original length and beyond it
    bool operator==(const RopeScaling&) const = default;
};

/// Sizes of one block. Surgery makes blocks differ, so sizes are kept per block. An absent layer has counts 0; headDim and slidingWindow stay.
struct BlockShape {
    bool hasAttention = true;       ///< false: the attention layer (norm and body) is absent, not zero
    bool hasFfn = true;
    int numHeads = 0;               ///< query heads; sum of headsPerKv
    int numKvHeads = 0;             ///< kv groups
    int headDim = 0;
    /// Query heads of each kv group, in group order: heads are numbered group by group. Equal counts in stock checkpoints.
    std::vector<int> headsPerKv;
    int ffnSize = 0;                ///< channels (of each routed expert); 0 when the FFN layer is absent
    int numExperts = 0;             ///< 0 = dense MLP
    int sharedFfnSize = 0;          ///< width of the shared expert, 0 = none
    int slidingWindow = 0;          ///< tokens seen, itself included; 0 = all
    int tower = 0;                  ///< which of ModelShape::towers it belongs to; 0 in a model without
    /// KV groups of equal size?
    bool groupsAreEqual() const noexcept;
    bool operator==(const BlockShape&) const = default;
};

/// What a vision transformer makes of a picture.
struct ImageShape {
    int height = 0, width = 0, channels = 3;    ///< of the picture
    int patchHeight = 0, patchWidth = 0;
    int prefixTokens = 1;           ///< before the patches: class token, distillation token
    int labels = 0;                 ///< of each classification head; 0 = none
    int heads = 1;                  ///< 2: logits are the mean over one on the class and one on the distillation token
    bool pooler = false;            ///< a pooler is stored with the bare model; not used here
    int tokens() const noexcept { return prefixTokens + (height / patchHeight) * (width / patchWidth); }
    bool operator==(const ImageShape&) const = default;
};

/// How the towers of a model work together. Unused fields keep their defaults.
struct TowerLink {
    /// LLaVA: pictures enter the language model as what leaves the first so many blocks of the vision tower (0 = its embedding), side by side.
    std::vector<int> featureBlocks;
    bool dropsClassToken = true;    ///< LLaVA: `vision_feature_select_strategy` "default"
    std::int64_t imageTokenId = 0;  ///< LLaVA: the token that stands for one row of picture features
    std::string projectorActivation;///< LLaVA
    bool projectorBias = true;      ///< LLaVA
    int projectionSize = 0;         ///< CLIP: of the space in which pictures and texts are compared
    bool operator==(const TowerLink&) const = default;
};

struct Tower;

/// What config.json (and resect.json) say a model is made of: everything needed to build, cut and price it. No weights.
///
/// A model of several towers (CLIP, LLaVA) lists the blocks of all of them in the order in which they run; what holds for one tower only stands in
/// `towers`. Its own fields are then those of its language tower, and `image` is empty.
struct ModelShape {
    std::string modelType;          ///< `model_type`: "llama", "qwen3", ...
    std::string architecture;       ///< first of `architectures`
    std::int64_t vocabSize = 0, hiddenSize = 0, maxPositions = 0;
    double normEps = 1e-6;
    double ropeTheta = 10000;
    double rotaryShare = 1;         ///< of each head that rotates, from its first dimension (`partial_rotary_factor`)
    RopeScaling ropeScaling;
    std::string activation;         ///< `hidden_act`
    double queryScale = 0;          ///< scores are divided by its square root; 0 = headDim
    double attentionSoftcap = 0;    ///< scores become cap tanh(score / cap); 0 = as they are
    double finalSoftcap = 0;        ///< the same for logits
    double clipQkv = 0;             ///< queries, keys and values are cut off at +- this; 0 = not
    bool tiedEmbeddings = false;
    bool qkvBias = false, outputBias = false, mlpBias = false, qkNorm = false;
    int numExpertsPerToken = 0;     ///< top-k; 0 = dense
    bool normTopK = true;           ///< routing weights renormalised over the chosen experts
    double routedScaling = 1;       ///< factor on the routed experts' sum
    int expertGroups = 1, expertGroupsPerToken = 1;  ///< experts are chosen within the best groups only (DeepSeek-V3's router)
    std::optional<int> bosId, padId;
    std::vector<int> eosIds;
    std::string torchDtype;         ///< as written in config.json, may be empty
    std::optional<ImageShape> image;///< of image families; vocabSize is then the number of labels, maxPositions the number of tokens
    std::vector<BlockShape> blocks;
    std::vector<Tower> towers;      ///< empty for all others
    TowerLink link;
    int numBlocks() const noexcept { return static_cast<int>(blocks.size()); }
    /// The shape that holds for a block: this one, or its tower's, which lists no blocks itself.
    const ModelShape& of(int block) const { return of(blocks[static_cast<std::size_t>(block)]); }
    const ModelShape& of(const BlockShape& block) const;
    bool operator==(const ModelShape& other) const;
};

/// One transformer of a model that has several.
struct Tower {
    std::string name;               ///< "vision", "text"
    std::string title;              ///< "Vision tower"
    std::string prefix;             ///< of its tensors' names, before what the same family would write alone
    std::string configField;        ///< of config.json that describes it
    ModelShape shape;               ///< without blocks: they are ModelShape::blocks
    bool operator==(const Tower&) const = default;
};

/// A tower with its blocks, as a model of its own.
ModelShape towerShape(const ModelShape& shape, int tower);
/// Blocks [first, last) of ModelShape::blocks that belong to a tower.
struct BlockSpan { int first = 0, last = 0; };
BlockSpan blocksOf(const ModelShape& shape, int tower) noexcept;
/// Calls `visit` with the model itself, or with each tower as a model of its own.
template <class Visit>
void forEachTower(const ModelShape& shape, Visit visit) {
    if (shape.towers.empty()) return visit(shape);
    for (int tower = 0; tower < static_cast<int>(shape.towers.size()); ++tower) visit(towerShape(shape, tower));
}

/// Reads config.json, with the per-block overrides of resect.json where there is one (null otherwise). resect.json exists for shapes that the stock
/// class cannot express; config.json then says `"model_type": "resect"`, so that no stock runtime builds something else from it:
///
///   {"resect": 1, "model_type": "llama", "architectures": ["LlamaForCausalLM"],
///    "blocks": [{"attention": {"heads_per_kv": [3, 2]}, "ffn": {"size": 41}}, {"attention": null, "ffn": {"size": 43, "experts": 4, "shared": 9}}]}
///
/// `model_type` and `architectures` replace those of config.json; one entry per block, null = the layer is absent; all other fields come from config.json.
/// `head_dim` beside them is that of blocks without attention too; an attention entry may say its own. A legacy `rope_scaling.type`, `rope_type` and the newer `rope_parameters` are all understood.
/// Of a model of several towers `"towers"` holds one such object for each, in order, instead of "blocks".
/// DeciLM checkpoints (model_type "nemotron-nas") are read as Llama with the sizes of their `block_configs`.
/// Throws BadInput naming the field: absent, of the wrong type, or inconsistent (heads not a multiple of kv heads, ...);
/// Unsupported for a model_type that the family table does not hold.
ModelShape readModelShape(const Json& config, const Json& resectConfig, const std::string& subject);
/// The MLP width that DeciLM makes of `ffn_mult`: round_up_256(int(2 ffn_mult hidden / 3)).
std::int64_t deciWidth(double ffnMult, std::int64_t hidden) noexcept;
/// The resect.json of a shape; reading it back with the same config.json (and model_type "resect") gives the shape again.
Json resectConfigOf(const ModelShape& shape);

}  // namespace resect
