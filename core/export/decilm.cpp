#include "core/export/decilm.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/export/block_fields.h"
#include "core/export/config_rewrite.h"

#include <algorithm>
#include <numeric>

namespace resect {

namespace {

constexpr int kWidthStep = 256;

[[noreturn]] void refuse(std::string subject, std::string message) {
    throw Error(ErrorCode::Unsupported, std::move(subject), std::move(message) + ". Use --way padded, or write a .gguf");
}

void requireExpressible(const ModelShape& shape) {
    if (shape.modelType != "llama" && shape.modelType != "mistral")
        refuse("way heterogeneous", "a folder with sizes per block is written for Llama and Mistral weights, not for \"" + shape.modelType + "\"");
    if (shape.qkvBias || shape.outputBias || shape.mlpBias) refuse("way heterogeneous", "DeciLM has no biases");
    if (shape.activation != "silu") refuse("hidden_act", "DeciLM computes silu, the model " + shape.activation);
    for (const BlockShape& block : shape.blocks)
        if (block.slidingWindow > 0 && block.slidingWindow < shape.maxPositions) refuse("sliding_window", "DeciLM attends to all positions");
}

/// The fewest kv heads, at least `groups`, that divide `heads` into groups of at least `perGroup`; 0 when there are none.
int kvHeadsFor(int heads, int groups, int perGroup) {
    for (int kv = groups; kv <= heads; ++kv)
        if (heads % kv == 0) return heads / kv >= perGroup ? kv : 0;
    return 0;
}

int largestGroup(const BlockShape& block) { return *std::max_element(block.headsPerKv.begin(), block.headsPerKv.end()); }

/// The one number of query heads that costs least when every block is filled up to it.
int commonHeads(const ModelShape& after, int most) {
    int least = 1;
    for (const BlockShape& block : after.blocks)
        if (block.hasAttention) least = std::max(least, block.numKvHeads * largestGroup(block));
    for (int heads = least; heads <= std::max(most, least); ++heads) {
        const bool all = std::all_of(after.blocks.begin(), after.blocks.end(), [&](const BlockShape& block) {
            return !block.hasAttention || kvHeadsFor(heads, block.numKvHeads, largestGroup(block)) > 0;
        });
        if (all) return heads;
    }
    return 0;
}

Json blockConfig(const BlockShape& block, std::int64_t hidden) {
    Json attention{{"n_heads_in_group", nullptr}, {"no_op", !block.hasAttention}, {"replace_with_linear", false}};
    if (block.hasAttention) attention["n_heads_in_group"] = block.headsPerKv.front();
    Json ffn{{"ffn_mult", nullptr}, {"no_op", !block.hasFfn}, {"replace_with_linear", false}};
    if (block.hasFfn) ffn["ffn_mult"] = deciFfnMult(block.ffnSize, hidden);
    return {{"attention", std::move(attention)}, {"ffn", std::move(ffn)}};
}

}  // namespace

double deciFfnMult(std::int64_t width, std::int64_t hidden) noexcept { return 1.5 * (static_cast<double>(width) - 0.5) / static_cast<double>(hidden); }

ModelShape deciShape(const ModelShape& source, const Cut& cut) {
    requireExpressible(source);
    ModelShape shape = shapeAfter(source, cut);
    int most = 0;
    for (const BlockShape& block : source.blocks) most = std::max(most, 2 * block.numHeads);
    const int heads = commonHeads(shape, most);
    if (heads == 0) refuse("heads", "no one number of query heads suits the kv heads of all blocks");
    for (std::size_t b = 0; b < shape.blocks.size(); ++b) {
        BlockShape& block = shape.blocks[b];
        if (!block.hasAttention && b == 0) {  // runtimes take the head layout from the first block
            block.hasAttention = true;
            block.numKvHeads = 1;
            block.headsPerKv = {1};
        }
        if (block.hasAttention) {
            block.numKvHeads = kvHeadsFor(heads, block.numKvHeads, largestGroup(block));
            block.numHeads = heads;
            block.headsPerKv.assign(static_cast<std::size_t>(block.numKvHeads), heads / block.numKvHeads);
        }
        const bool needsMlp = block.hasAttention || b + 1 == shape.blocks.size();  // else llama.cpp loses what attention gave
        if (!block.hasFfn && !needsMlp) continue;
        block.hasFfn = true;
        block.ffnSize = std::max(1, (block.ffnSize + kWidthStep - 1) / kWidthStep) * kWidthStep;
    }
    return shape;
}

Json deciConfig(const Json& config, const ModelShape& source, const Cut& cut, const ModelShape& shape, std::optional<DType> dtype, std::vector<Problem>& notes) {
    Json result = config;
    const std::vector<int> kept = keptBlocks(cut);
    if (kept.size() != source.blocks.size()) rewriteBlockFields(result, source.numBlocks(), kept, notes);
    if (dtype) setConfigDtype(result, *dtype);
    for (const char* field : {"intermediate_size", "num_key_value_heads", "sliding_window", "auto_map", "layer_types"}) result.erase(field);
    result["architectures"] = Json::array({"DeciLMForCausalLM"});
    result["model_type"] = "nemotron-nas";
    const std::string module = std::string(kDeciConfigurationFile).substr(0, std::string(kDeciConfigurationFile).rfind('.'));
    result["auto_map"] = {{"AutoConfig", module + ".DeciLMConfig"}};
    result["head_dim"] = shape.blocks.front().headDim;
    result["num_attention_heads"] = shape.blocks.front().numHeads;
    result["num_hidden_layers"] = shape.numBlocks();
    result["hidden_act"] = shape.activation;
    result["rms_norm_eps"] = shape.normEps;
    result["rope_theta"] = shape.ropeTheta;
    result["tie_word_embeddings"] = shape.tiedEmbeddings;
    result["max_position_embeddings"] = shape.maxPositions;
    result["block_configs"] = Json::array();
    for (const BlockShape& block : shape.blocks) result["block_configs"].push_back(blockConfig(block, shape.hiddenSize));
    const ModelShape read = readModelShape(result, nullptr, "config.json");
    if (!(read.blocks == shape.blocks)) throw Error(ErrorCode::Internal, "config.json: block_configs", "they do not describe the tensors that are written");
    return result;
}

std::string deciConfigurationCode() {
    return R"(# Configuration of a checkpoint whose blocks differ in size, for runtimes that build DeciLM themselves (vLLM: --trust-remote-code).
from types import SimpleNamespace

from transformers import PretrainedConfig


def _as_objects(value):
    if isinstance(value, dict):
        return SimpleNamespace(**{key: _as_objects(entry) for key, entry in value.items()})
    return value


def _as_dicts(value):
    if isinstance(value, SimpleNamespace):
        return {key: _as_dicts(entry) for key, entry in vars(value).items()}
    return value


class DeciLMConfig(PretrainedConfig):
    model_type = "nemotron-nas"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(self, block_configs=None, **kwargs):
        self.block_configs = [_as_objects(block) for block in block_configs or []]
        super().__init__(**kwargs)

    def to_dict(self):
        result = super().to_dict()
        result["block_configs"] = [_as_dicts(block) for block in self.block_configs]
        return result
)";
}

}  // namespace resect
