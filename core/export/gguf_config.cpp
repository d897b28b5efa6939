#include "core/export/gguf_config.h"

#include "core/base/numbers.h"
#include "core/export/verdict.h"

#include <algorithm>

namespace resect {

namespace {

Json ropeScaling(const RopeScaling& rope) {
    using Kind = RopeScaling::Kind;
    Json scaling{{"rope_type", rope.kind == Kind::Linear ? "linear" : rope.kind == Kind::Yarn ? "yarn" : "llama3"}, {"factor", rope.factor}};
    if (rope.kind == Kind::Llama3) {
        scaling["low_freq_factor"] = rope.lowFreqFactor;
        scaling["high_freq_factor"] = rope.highFreqFactor;
    }
    if (rope.originalMaxPositions > 0) scaling["original_max_position_embeddings"] = rope.originalMaxPositions;
    if (rope.kind == Kind::Yarn) {
        scaling["beta_fast"] = rope.betaFast;
        scaling["beta_slow"] = rope.betaSlow;
        if (rope.attentionFactor) scaling["attention_factor"] = *rope.attentionFactor;
    }
    return scaling;
}

/// The largest sizes: those of every block where blocks are alike.
struct Sizes {
    int heads = 1, groups = 1, width = 1, routedWidth = 0, experts = 0;
};

Sizes sizesOf(const ModelShape& shape) {
    Sizes sizes;
    for (const BlockShape& block : shape.blocks) {
        if (block.hasAttention && block.numHeads >= sizes.heads) {
            sizes.heads = block.numHeads;
            sizes.groups = block.numKvHeads;
        }
        int& width = block.numExperts > 0 ? sizes.routedWidth : sizes.width;
        width = std::max(width, block.ffnSize);
        sizes.experts = std::max(sizes.experts, block.numExperts);
    }
    return sizes;
}

/// What stands in config.json under its own name.
void addFields(Json& config, const GgufFile& file, const GgufArchitecture& architecture) {
    for (const GgufField& field : architecture.fields) {
        const std::string key = std::string(architecture.name) + "." + std::string(field.key), name(field.field);
        if (!file.find(key)) continue;
        if (field.type == GgufValueType::F32) config[name] = asDecimal(file.number(key));
        else config[name] = file.integer(key);
    }
}

}  // namespace

double asDecimal(double value) { return parseDouble(toText(value, 7)).value_or(value); }

Json ggufConfig(const GgufFile& file, const GgufArchitecture& architecture, const ModelShape& shape) {
    const Sizes sizes = sizesOf(shape);
    const Family& family = familyOf(shape);
    const ConfigFields& fields = family.fields;
    const bool stock = isUniform(shape);
    Json config;
    config["architectures"] = Json::array({stock ? shape.architecture : std::string("ResectForCausalLM")});
    if (family.qkvBias == Family::Flag::FromConfig) config["attention_bias"] = shape.qkvBias;
    if (shape.bosId) config["bos_token_id"] = *shape.bosId;
    if (!shape.eosIds.empty()) config["eos_token_id"] = shape.eosIds.front();
    if (fields.headDim) config[fields.headDim] = shape.blocks.front().headDim;
    config[fields.activation] = shape.activation;
    config[fields.hidden] = shape.hiddenSize;
    config[fields.ffn] = sizes.width;
    config[fields.positions] = shape.maxPositions;
    if (family.mlpBias == Family::Flag::FromConfig) config["mlp_bias"] = shape.mlpBias;
    config["model_type"] = stock ? shape.modelType : "resect";
    config[fields.heads] = sizes.heads;
    config[fields.blocks] = shape.numBlocks();
    if (fields.kvHeads) config[fields.kvHeads] = sizes.groups;
    if (sizes.experts > 0) {
        config[family.moe->experts] = sizes.experts;
        config[family.moe->width] = sizes.routedWidth;
        config["num_experts_per_tok"] = shape.numExpertsPerToken;
        if (family.moe->normTopK == MoeFields::NormTopK::FromConfig) config["norm_topk_prob"] = architecture.normTopK;
        const std::string width = std::string(architecture.name) + ".feed_forward_length";
        if (family.moe->width != std::string_view(fields.ffn) && file.find(width)) config[fields.ffn] = std::max<std::int64_t>(1, file.integer(width));
    }
    if (shape.padId) config["pad_token_id"] = *shape.padId;
    config[fields.eps] = shape.normEps;
    if (shape.ropeScaling.kind != RopeScaling::Kind::None) config["rope_scaling"] = ropeScaling(shape.ropeScaling);
    if (!family.learnedPositions) config["rope_theta"] = shape.ropeTheta;
    if (family.defaultQueryScale > 0) config["query_pre_attn_scalar"] = shape.blocks.front().headDim;
    if (family.window == Family::Window::All || family.window == Family::Window::QwenRule) config["sliding_window"] = nullptr;
    addFields(config, file, architecture);
    if (shape.rotaryShare != 1) config["partial_rotary_factor"] = shape.rotaryShare;
    config["tie_word_embeddings"] = shape.tiedEmbeddings;
    config["torch_dtype"] = shape.torchDtype;
    config["vocab_size"] = shape.vocabSize;
    return config;
}

}  // namespace resect
