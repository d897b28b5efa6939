#include "tests/support/tiny_checkpoint.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numbers>
#include <random>
#include <stdexcept>

namespace resect::test {

namespace fs = std::filesystem;

namespace {

/// Normally distributed numbers that are the same with every standard library.
class Random {
public:
    explicit Random(std::uint64_t seed) : m_engine(seed) {}
    double normal() {
        const double u = uniform(), v = uniform();
        return std::sqrt(-2 * std::log(1 - u)) * std::cos(2 * std::numbers::pi * v);
    }

private:
    double uniform() { return static_cast<double>(m_engine() >> 11) * 0x1p-53; }
    std::mt19937_64 m_engine;
};

/// Adds random tensors to a checkpoint.
class Filler {
public:
    Filler(TinyCheckpoint& checkpoint, const TinyOptions& options) : m_checkpoint(checkpoint), m_options(options), m_random(options.seed) {}
    void matrix(const std::string& name, std::int64_t out, std::int64_t in) { fill(name, {out, in}, 0, 1 / std::sqrt(static_cast<double>(in))); }
    void embedding(const std::string& name, std::int64_t rows, std::int64_t columns) { fill(name, {rows, columns}, 0, 0.5); }
    void table(const std::string& name, std::vector<std::int64_t> shape) { fill(name, std::move(shape), 0, 0.3); }
    void norm(const std::string& name, std::int64_t size) { fill(name, {size}, 1, 0.1); }
    void bias(const std::string& name, std::int64_t size) { fill(name, {size}, 0, 0.1); }

private:
    void fill(const std::string& name, std::vector<std::int64_t> shape, double mean, double deviation) {
        TinyTensor tensor{m_options.dtype, std::move(shape), {}};
        std::int64_t count = 1;
        for (const auto size : tensor.shape) count *= size;
        for (std::int64_t i = 0; i < count; ++i) tensor.values.push_back(mean + deviation * m_random.normal());
        tensor.values = decode(encode(tensor.values, m_options.dtype), m_options.dtype);  // as they will be read
        m_checkpoint.tensors.emplace(name, std::move(tensor));
    }
    TinyCheckpoint& m_checkpoint;
    const TinyOptions& m_options;
    Random m_random;
};

struct Traits {
    const char* modelType;
    const char* architecture;
    bool qkvBias, outputBias, qkNorm, experts;
};

Json configOf(const TinyOptions& o, const Traits& traits) {
    const std::string type = traits.modelType;
    Json config;
    config["architectures"] = {traits.architecture};
    if (type == "llama" || type == "qwen3") config["attention_bias"] = o.attentionBias;
    config["bos_token_id"] = 1;
    config["eos_token_id"] = 2;
    config["head_dim"] = o.headDim;
    config["hidden_act"] = "silu";
    config["hidden_size"] = o.hiddenSize;
    config["initializer_range"] = 0.02;
    config["intermediate_size"] = o.ffnSize;
    config["max_position_embeddings"] = o.maxPositions;
    if (type == "llama") config["mlp_bias"] = o.mlpBias;
    config["model_type"] = type;
    config["num_attention_heads"] = o.numHeads;
    config["num_hidden_layers"] = o.numBlocks;
    config["num_key_value_heads"] = o.numKvHeads;
    if (traits.experts) {
        config["num_local_experts"] = o.numExperts;
        config["num_experts_per_tok"] = o.numExpertsPerToken;
    }
    config["rms_norm_eps"] = 1e-5;
    if (!o.ropeScaling.is_null()) config["rope_scaling"] = o.ropeScaling;
    config["rope_theta"] = o.ropeTheta;
    if (type == "mistral") config["sliding_window"] = o.slidingWindow ? Json(o.slidingWindow) : Json();
    if (type.starts_with("qwen")) {
        config["use_sliding_window"] = o.slidingWindow > 0;
        config["sliding_window"] = o.slidingWindow ? Json(o.slidingWindow) : Json();
        config["max_window_layers"] = 1;
    }
    config["tie_word_embeddings"] = o.tied;
    config["torch_dtype"] = o.dtype == DType::F16 ? "float16" : o.dtype == DType::BF16 ? "bfloat16" : o.dtype == DType::F64 ? "float64" : "float32";
    config["vocab_size"] = o.vocabSize;
    return config;
}

void fillFfn(Filler& fill, const TinyOptions& o, const Traits& traits, const std::string& block) {
    if (!traits.experts) {
        fill.matrix(block + "mlp.gate_proj.weight", o.ffnSize, o.hiddenSize);
        fill.matrix(block + "mlp.up_proj.weight", o.ffnSize, o.hiddenSize);
        fill.matrix(block + "mlp.down_proj.weight", o.hiddenSize, o.ffnSize);
        if (!o.mlpBias) return;
        fill.bias(block + "mlp.gate_proj.bias", o.ffnSize);
        fill.bias(block + "mlp.up_proj.bias", o.ffnSize);
        fill.bias(block + "mlp.down_proj.bias", o.hiddenSize);
        return;
    }
    fill.matrix(block + "block_sparse_moe.gate.weight", o.numExperts, o.hiddenSize);
    for (int e = 0; e < o.numExperts; ++e) {
        const std::string expert = block + "block_sparse_moe.experts." + std::to_string(e) + ".";
        fill.matrix(expert + "w1.weight", o.ffnSize, o.hiddenSize);
        fill.matrix(expert + "w2.weight", o.hiddenSize, o.ffnSize);
        fill.matrix(expert + "w3.weight", o.ffnSize, o.hiddenSize);
    }
}

void fillBlock(Filler& fill, const TinyOptions& o, const Traits& traits, const std::string& block) {
    const int q = o.numHeads * o.headDim, kv = o.numKvHeads * o.headDim;
    const std::string attention = block + "self_attn.";
    fill.norm(block + "input_layernorm.weight", o.hiddenSize);
    fill.matrix(attention + "q_proj.weight", q, o.hiddenSize);
    fill.matrix(attention + "k_proj.weight", kv, o.hiddenSize);
    fill.matrix(attention + "v_proj.weight", kv, o.hiddenSize);
    fill.matrix(attention + "o_proj.weight", o.hiddenSize, q);
    if (traits.qkvBias) {
        fill.bias(attention + "q_proj.bias", q);
        fill.bias(attention + "k_proj.bias", kv);
        fill.bias(attention + "v_proj.bias", kv);
    }
    if (traits.outputBias) fill.bias(attention + "o_proj.bias", o.hiddenSize);
    if (traits.qkNorm) {
        fill.norm(attention + "q_norm.weight", o.headDim);
        fill.norm(attention + "k_norm.weight", o.headDim);
    }
    fill.norm(block + "post_attention_layernorm.weight", o.hiddenSize);
    fillFfn(fill, o, traits, block);
}

TinyCheckpoint make(TinyOptions options, const Traits& traits) {
    TinyCheckpoint checkpoint;
    checkpoint.config = configOf(options, traits);
    checkpoint.shardBytes = options.shardBytes;
    Filler fill(checkpoint, options);
    fill.embedding("model.embed_tokens.weight", options.vocabSize, options.hiddenSize);
    for (int block = 0; block < options.numBlocks; ++block) fillBlock(fill, options, traits, "model.layers." + std::to_string(block) + ".");
    fill.norm("model.norm.weight", options.hiddenSize);
    if (!options.tied) fill.matrix("lm_head.weight", options.vocabSize, options.hiddenSize);
    checkpoint.save();
    return checkpoint;
}

template <class T>
void append(std::vector<std::byte>& bytes, T value) {
    const auto raw = std::bit_cast<std::array<std::byte, sizeof(T)>>(value);
    bytes.insert(bytes.end(), raw.begin(), raw.end());
}

template <class T>
T load(const std::byte* at) {
    T value;
    std::memcpy(&value, at, sizeof(T));
    return value;
}

std::uint16_t toBf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to nearest, ties to even
}

}  // namespace

void TinyCheckpoint::save() const {
    for (const auto& entry : fs::directory_iterator(path()))
        if (entry.path().string().find(".safetensors") != std::string::npos) fs::remove(entry.path());
    writeJsonFile(path() / "config.json", config);
    std::vector<std::pair<std::string, const TinyTensor*>> inOrder;
    for (const auto& [name, tensor] : tensors) inOrder.emplace_back(name, &tensor);
    std::sort(inOrder.begin(), inOrder.end(), [](const auto& a, const auto& b) { return naturalLess(a.first, b.first); });
    std::vector<TensorSource> sources;
    for (const auto& [name, tensor] : inOrder)
        sources.push_back({name, tensor->dtype, tensor->shape, [tensor = tensor](const auto& sink) { sink(encode(tensor->values, tensor->dtype)); }});
    WriteOptions options;
    if (shardBytes) options.shardBytes = shardBytes;
    writeShards(path(), sources, options, {});
}

void TinyCheckpoint::zero(const std::string& name) { std::fill(tensor(name).values.begin(), tensor(name).values.end(), 0.0); }

void TinyCheckpoint::zeroRows(const std::string& name, const std::vector<int>& rows) {
    TinyTensor& target = tensor(name);
    const auto width = static_cast<std::ptrdiff_t>(target.values.size()) / target.shape.at(0);
    for (const int row : rows) std::fill_n(target.values.begin() + row * width, width, 0.0);
}

void TinyCheckpoint::zeroColumns(const std::string& name, const std::vector<int>& columns) {
    TinyTensor& target = tensor(name);
    for (std::int64_t row = 0; row < target.shape.at(0); ++row)
        for (const int column : columns) target.at(row, column) = 0;
}

TinyCheckpoint tinyLlama(const TinyOptions& o) { return make(o, {"llama", "LlamaForCausalLM", o.attentionBias, o.attentionBias, false, false}); }
TinyCheckpoint tinyMistral(const TinyOptions& o) { return make(o, {"mistral", "MistralForCausalLM", false, false, false, false}); }
TinyCheckpoint tinyQwen2(const TinyOptions& o) { return make(o, {"qwen2", "Qwen2ForCausalLM", true, false, false, false}); }
TinyCheckpoint tinyQwen3(const TinyOptions& o) { return make(o, {"qwen3", "Qwen3ForCausalLM", o.attentionBias, o.attentionBias, true, false}); }
TinyCheckpoint tinyMixtral(const TinyOptions& o) { return make(o, {"mixtral", "MixtralForCausalLM", false, false, false, true}); }

void zeroHeads(TinyCheckpoint& checkpoint, int block, const std::vector<int>& heads) {
    const int headDim = checkpoint.config.at("head_dim").get<int>();
    std::vector<int> columns;
    for (const int head : heads)
        for (int i = 0; i < headDim; ++i) columns.push_back(head * headDim + i);
    checkpoint.zeroColumns("model.layers." + std::to_string(block) + ".self_attn.o_proj.weight", columns);
    checkpoint.save();
}

void zeroChannels(TinyCheckpoint& checkpoint, int block, const std::vector<int>& channels) {
    checkpoint.zeroColumns("model.layers." + std::to_string(block) + ".mlp.down_proj.weight", channels);
    checkpoint.save();
}

TinyCheckpoint tinyFamily(const std::string& modelType, const Json& change, std::uint64_t seed) {
    const Json sizes{{"vocab_size", 61}, {"max_position_embeddings", 128}, {"hidden_size", 48}, {"num_hidden_layers", 4},
                     {"num_attention_heads", 6}, {"num_key_value_heads", 2}, {"intermediate_size", 43}};
    const Json routed{{"num_experts", 6}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 21}};
    const std::map<std::string, std::vector<Json>> own{
        {"llama", {sizes, {{"head_dim", 10}, {"attention_bias", true}, {"mlp_bias", true}}}},
        {"mistral", {sizes, {{"head_dim", 10}, {"sliding_window", 7}}}},
        {"qwen2", {sizes}},
        {"qwen3", {sizes, {{"head_dim", 10}}}},
        {"gemma", {sizes, {{"head_dim", 10}, {"hidden_activation", "gelu_pytorch_tanh"}}}},
        {"gemma2", {sizes, {{"head_dim", 10}, {"sliding_window", 5}, {"query_pre_attn_scalar", 12}, {"attn_logit_softcapping", 3.0},
                            {"final_logit_softcapping", 5.0}}}},
        {"phi3", {sizes, {{"sliding_window", 9}}}},
        {"gpt2", {{{"vocab_size", 61}, {"n_positions", 40}, {"n_embd", 48}, {"n_layer", 4}, {"n_head", 4}, {"n_inner", nullptr}}}},
        {"mixtral", {sizes, {{"head_dim", 10}, {"num_local_experts", 5}, {"num_experts_per_tok", 2}}}},
        {"qwen2_moe", {sizes, routed, {{"shared_expert_intermediate_size", 33}, {"mlp_only_layers", {1}}, {"decoder_sparse_step", 1}}}},
        {"qwen3_moe", {sizes, routed, {{"head_dim", 10}, {"norm_topk_prob", true}, {"mlp_only_layers", Json::array()}, {"decoder_sparse_step", 2}}}},
        {"olmoe", {sizes, {{"num_experts", 6}, {"num_experts_per_tok", 2}, {"clip_qkv", 1.5}}}},
        {"deepseek", {sizes, {{"n_routed_experts", 6}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 21}, {"n_shared_experts", 2},
                              {"first_k_dense_replace", 1}, {"moe_layer_freq", 1}, {"norm_topk_prob", false}}}},
        {"glm4_moe", {sizes, {{"head_dim", 10}, {"n_routed_experts", 8}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 21},
                              {"n_shared_experts", 1}, {"first_k_dense_replace", 1}, {"n_group", 2}, {"topk_group", 1}, {"norm_topk_prob", true},
                              {"routed_scaling_factor", 1.5}, {"attention_bias", true}, {"use_qk_norm", true}, {"partial_rotary_factor", 0.5}}}},
        {"clip_text_model", {sizes, {{"eos_token_id", 60}}}},
    };
    const Json picture{{"hidden_size", 48}, {"num_hidden_layers", 4}, {"num_attention_heads", 4}, {"intermediate_size", 43}, {"image_size", {12, 8}},
                       {"patch_size", 4}, {"num_channels", 2}};
    const std::map<std::string, Json> pictures{{"vit", {{"id2label", {{"0", "a"}, {"1", "b"}, {"2", "c"}}}}},
                                               {"deit", {{"id2label", {{"0", "a"}, {"1", "b"}, {"2", "c"}}}, {"qkv_bias", false}}},
                                               {"clip_vision_model", Json::object()}};
    // timm says its sizes by name, and by what differs from it.
    Json timm{{"num_classes", 3}, {"pretrained_cfg", {{"input_size", {2, 12, 8}}}},
              {"model_args", {{"embed_dim", 48}, {"depth", 4}, {"num_heads", 4}, {"mlp_ratio", 43.25 / 48}, {"patch_size", 4}}}};
    timm["architecture"] = modelType == "timm_deit" ? "deit_tiny_distilled_patch16_224" : "vit_tiny_patch16_224.own_tag";
    Json text = sizes, vision = picture;
    text["model_type"] = modelType == "clip" ? "clip_text_model" : "llama";
    const std::map<std::string, Json> towers{{"clip", {{"text_config", text}, {"vision_config", vision}, {"projection_dim", 20}}},
                                             {"llava", {{"text_config", text}, {"vision_config", vision}, {"image_token_index", 60}}}};
    TinyCheckpoint checkpoint;
    checkpoint.config = {{"architectures", {std::string(findFamily(modelType)->architecture)}}, {"model_type", modelType}, {"torch_dtype", "float32"}};
    if (modelType == "timm_vit" || modelType == "timm_deit") checkpoint.config = timm;
    else if (modelType == "timm_wrapper") checkpoint.config.update(timm);
    else if (const auto found = towers.find(modelType); found != towers.end()) checkpoint.config.update(found->second);
    else if (const auto found = pictures.find(modelType); found != pictures.end()) checkpoint.config.update(picture), checkpoint.config.update(found->second);
    else for (const Json& fields : own.at(modelType)) checkpoint.config.update(fields);
    checkpoint.config.update(change);
    const TinyOptions options{.seed = seed};
    Filler fill(checkpoint, options);
    for (const ExpectedTensor& tensor : expectedTensors(readModelShape(checkpoint.config, nullptr, "config.json"))) {
        if (tensor.role == TensorRole::PatchWeight || (isEmbeddingRole(tensor.role) && tensor.shape.size() > 2)) fill.table(tensor.name, tensor.shape);
        else if (tensor.role == TensorRole::TokenEmbedding || tensor.role == TensorRole::PositionEmbedding) fill.embedding(tensor.name, tensor.shape[0], tensor.shape[1]);
        else if (tensor.shape.size() == 2) fill.matrix(tensor.name, tensor.shape[0], tensor.shape[1]);
        else if (tensor.shape.empty()) fill.table(tensor.name, tensor.shape);
        else if (isNormRole(tensor.role) && !tensor.name.ends_with(".bias")) fill.norm(tensor.name, tensor.shape[0]);
        else fill.bias(tensor.name, tensor.shape[0]);
    }
    checkpoint.save();
    return checkpoint;
}

std::vector<double> valuesOf(const Checkpoint& checkpoint, std::string_view name) {
    const TensorInfo* tensor = checkpoint.find(name);
    if (!tensor) throw Error(ErrorCode::NotFound, std::string(name), "no such tensor");
    return decode(checkpoint.bytes(*tensor), tensor->dtype);
}

std::vector<double> decode(std::span<const std::byte> bytes, DType dtype) {
    std::vector<double> values;
    const std::size_t size = sizeOf(dtype);
    for (std::size_t i = 0; i + size <= bytes.size(); i += size) {
        const std::byte* at = bytes.data() + i;
        switch (dtype) {
        case DType::F64: values.push_back(load<double>(at)); break;
        case DType::F32: values.push_back(load<float>(at)); break;
        case DType::F16: values.push_back(static_cast<float>(load<_Float16>(at))); break;
        case DType::BF16: values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(load<std::uint16_t>(at)) << 16)); break;
        case DType::I64: values.push_back(static_cast<double>(load<std::int64_t>(at))); break;
        case DType::I32: values.push_back(load<std::int32_t>(at)); break;
        case DType::I16: values.push_back(load<std::int16_t>(at)); break;
        case DType::I8: values.push_back(load<std::int8_t>(at)); break;
        case DType::U8:
        case DType::Bool: values.push_back(load<std::uint8_t>(at)); break;
        case DType::F8E4M3:
        case DType::F8E5M2: throw std::invalid_argument("tests have no 8-bit floats");
        }
    }
    return values;
}

std::vector<std::byte> encode(const std::vector<double>& values, DType dtype) {
    std::vector<std::byte> bytes;
    bytes.reserve(values.size() * sizeOf(dtype));
    for (const double value : values) {
        switch (dtype) {
        case DType::F64: append(bytes, value); break;
        case DType::F32: append(bytes, static_cast<float>(value)); break;
        case DType::F16: append(bytes, static_cast<_Float16>(value)); break;
        case DType::BF16: append(bytes, toBf16(static_cast<float>(value))); break;
        case DType::I64: append(bytes, static_cast<std::int64_t>(value)); break;
        case DType::I32: append(bytes, static_cast<std::int32_t>(value)); break;
        case DType::I16: append(bytes, static_cast<std::int16_t>(value)); break;
        case DType::I8: append(bytes, static_cast<std::int8_t>(value)); break;
        case DType::U8:
        case DType::Bool: append(bytes, static_cast<std::uint8_t>(value)); break;
        case DType::F8E4M3:
        case DType::F8E5M2: throw std::invalid_argument("tests have no 8-bit floats");
        }
    }
    return bytes;
}

void writeRawSafetensors(const fs::path& path, std::string_view headerText, std::string_view data, std::int64_t headerLength) {
    const auto length = headerLength >= 0 ? static_cast<std::uint64_t>(headerLength) : headerText.size();
    std::string content;
    for (int byte = 0; byte < 8; ++byte) content += static_cast<char>(length >> (8 * byte) & 0xff);
    writeText(path, content.append(headerText).append(data));
}

void writeText(const fs::path& path, std::string_view content) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(content.data(), static_cast<std::streamsize>(content.size()));
    if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

}  // namespace resect::test
