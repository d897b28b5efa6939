#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/export/gguf_config.h"
#include "core/export/gguf_import.h"
#include "core/export/gguf_layout.h"
#include "core/export/verdict.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace resect {

namespace {

class Reader {
public:
    explicit Reader(const GgufFile& file) : m_file(file), m_name(file.text("general.architecture")) {}

    GgufModel run() && {
        chooseFamily();
        sizes();
        blocks();
        rope();
        special();
        m_model.config = ggufConfig(m_file, *m_model.architecture, m_model.shape);
        m_model.resectConfig = isUniform(m_model.shape) ? Json() : resectConfigOf(m_model.shape);
        m_model.shape = readModelShape(m_model.config, m_model.resectConfig, m_file.path().string());
        return std::move(m_model);
    }

private:
    [[noreturn]] void unsupported(const std::string& key, const std::string& message) const { throw Error(ErrorCode::Unsupported, m_file.subject(key), message); }
    std::string key(std::string_view suffix) const { return m_name + "." + std::string(suffix); }
    bool has(const char* tensor) const { return m_file.findTensor(tensor) != nullptr; }
    /// In any block: blocks without attention have none of its tensors.
    bool anyBlockHas(const char* suffix) const {
        const std::string end = std::string(".") + suffix;
        return std::any_of(m_file.tensors().begin(), m_file.tensors().end(), [&](const GgufTensor& tensor) { return tensor.name.ends_with(end); });
    }

    void chooseFamily() {
        const bool outputBias = anyBlockHas("attn_output.bias"), bias = anyBlockHas("attn_q.bias") || anyBlockHas("attn_qkv.bias");
        std::string type = m_name;
        if (m_name == "llama") type = m_file.integer(key("expert_count"), 0) > 0 ? "mixtral" : "llama";
        if (m_name == "deci") type = "llama";
        if (type == "llama" && bias && !outputBias) type = "qwen2";  // Llama has both or none
        if (m_name == "openelm") type = "qwen3";
        const auto rows = architecturesNamed(m_name);
        for (const GgufArchitecture* row : rows)
            if (row->perBlock || row->modelType == type || rows.size() == 1) m_model.architecture = row;
        ModelShape& shape = m_model.shape;
        if (m_model.architecture) shape.modelType = m_model.architecture->perBlock ? type : std::string(m_model.architecture->modelType);
        const Family* family = findFamily(shape.modelType);
        if (!family) unsupported("general.architecture", "\"" + m_name + "\" has no Hugging Face family that Resect knows");
        shape.architecture = family->architecture;
        shape.qkvBias = bias;
        shape.outputBias = outputBias;
        shape.mlpBias = anyBlockHas("ffn_up.bias");
        shape.qkNorm = anyBlockHas("attn_q_norm.weight");
        shape.tiedEmbeddings = !has("output.weight");
        const std::string_view computed = m_model.architecture->activations;
        shape.activation = computed.substr(0, computed.find(' '));
    }

    std::int64_t positive(const std::string& name, std::int64_t value, std::int64_t most = 100'000'000) const {
        if (value < 1 || value > most) throw Error(ErrorCode::BadInput, m_file.subject(name), "expected a number from 1 to " + toText(most) + ", found " + toText(value));
        return value;
    }

    void sizes() {
        ModelShape& shape = m_model.shape;
        shape.hiddenSize = positive(key("embedding_length"), m_file.integer(key("embedding_length")));
        shape.maxPositions = positive(key("context_length"), m_file.integer(key("context_length")));
        const GgufTensor* embedding = m_file.findTensor("token_embd.weight");
        if (!embedding || embedding->shape.size() != 2) throw Error(ErrorCode::NotFound, m_file.subject("token_embd.weight"), "expected a matrix of this name");
        shape.vocabSize = embedding->shape.front();
        shape.normEps = asDecimal(m_file.number(key(m_model.architecture->normEps)));
        shape.torchDtype = embedding->type == GgufType::F16 ? "float16" : embedding->type == GgufType::BF16 ? "bfloat16" : "float32";
        shape.numExpertsPerToken = static_cast<int>(m_file.integer(key("expert_used_count"), 0));
    }

    void blocks() {
        constexpr std::int64_t kMostBlocks = 10'000, kMostHeads = 16'384;
        const auto count = static_cast<std::size_t>(positive(key("block_count"), m_file.integer(key("block_count")), kMostBlocks));
        const auto heads = m_file.integers(key("attention.head_count"), count);
        const auto groups = m_file.find(key("attention.head_count_kv")) ? m_file.integers(key("attention.head_count_kv"), count) : heads;
        const auto widths = m_file.integers(key("feed_forward_length"), count);
        const std::int64_t most = *std::max_element(heads.begin(), heads.end());
        const auto headDim = positive(key("attention.key_length"), m_file.integer(key("attention.key_length"), m_model.shape.hiddenSize / positive(key("attention.head_count"), most)), 1 << 20);
        if (m_file.integer(key("attention.value_length"), headDim) != headDim) unsupported(key("attention.value_length"), "expected the key length " + toText(headDim));
        const std::int64_t rotating = m_file.integer(key("rope.dimension_count"), headDim);
        if (rotating != headDim && !m_model.architecture->partialRotation) unsupported(key("rope.dimension_count"), "only rotation of whole heads is supported: expected " + toText(headDim));
        if (rotating < 2 || rotating > headDim) unsupported(key("rope.dimension_count"), "expected at most the head size " + toText(headDim) + ", found " + toText(rotating));
        m_model.shape.rotaryShare = static_cast<double>(rotating) / static_cast<double>(headDim);
        const auto experts = static_cast<int>(m_file.integer(key("expert_count"), 0));
        for (std::size_t b = 0; b < count; ++b) {
            BlockShape block;
            block.headDim = static_cast<int>(headDim);
            block.hasAttention = heads[b] != 0;
            block.hasFfn = widths[b] != 0;
            if (block.hasAttention) {
                positive(key("attention.head_count"), heads[b], kMostHeads);
                if (groups[b] < 1 || heads[b] % groups[b] != 0)
                    throw Error(ErrorCode::BadInput, m_file.subject(key("attention.head_count_kv")), "block " + toText(b) + ": expected a divisor of " + toText(heads[b]) + " heads, found " + toText(groups[b]));
                block.numHeads = static_cast<int>(heads[b]);
                block.numKvHeads = static_cast<int>(groups[b]);
                block.headsPerKv.assign(static_cast<std::size_t>(groups[b]), static_cast<int>(heads[b] / groups[b]));
            }
            if (block.hasFfn) {
                block.ffnSize = static_cast<int>(positive(key("feed_forward_length"), widths[b]));
                if (static_cast<std::int64_t>(b) >= m_file.integer(key("leading_dense_block_count"), 0)) mixture(block, experts);
            }
            m_model.shape.blocks.push_back(std::move(block));
        }
    }

    void mixture(BlockShape& block, int experts) const {
        block.numExperts = experts;
        if (experts == 0) return;
        block.ffnSize = static_cast<int>(positive(key("expert_feed_forward_length"), m_file.integer(key("expert_feed_forward_length"), block.ffnSize)));
        const std::int64_t shared = m_file.integer(key("expert_shared_feed_forward_length"), m_file.integer(key("expert_shared_count"), 0) * block.ffnSize);
        if (shared < 0 || shared > 100'000'000) throw Error(ErrorCode::BadInput, m_file.subject(key("expert_shared_feed_forward_length")), "expected a width, found " + toText(shared));
        block.sharedFfnSize = static_cast<int>(shared);
    }

    void rope() {
        ModelShape& shape = m_model.shape;
        shape.ropeTheta = asDecimal(m_file.number(key("rope.freq_base"), 10000.0));
        RopeScaling& scaling = shape.ropeScaling;
        const std::string type = m_file.text(key("rope.scaling.type"), "none");
        if (type == "linear" || type == "yarn") {
            scaling.kind = type == "linear" ? RopeScaling::Kind::Linear : RopeScaling::Kind::Yarn;
            scaling.factor = asDecimal(m_file.number(key("rope.scaling.factor")));
            scaling.originalMaxPositions = m_file.integer(key("rope.scaling.original_context_length"), 0);
            scaling.betaFast = asDecimal(m_file.number(key("rope.scaling.yarn_beta_fast"), 32.0));
            scaling.betaSlow = asDecimal(m_file.number(key("rope.scaling.yarn_beta_slow"), 1.0));
            if (m_file.find(key("rope.scaling.attn_factor")))
                scaling.attentionFactor = asDecimal(m_file.number(key("rope.scaling.attn_factor")) * (0.1 * std::log(scaling.factor) + 1));
        } else if (type != "none") {
            unsupported(key("rope.scaling.type"), "the rotary scaling \"" + type + "\" is not supported");
        }
        if (const GgufTensor* factors = m_file.findTensor("rope_freqs.weight")) llama3(*factors);
    }

    /// The file holds the divisors only; the parameters that give them are found among those in use.
    void llama3(const GgufTensor& tensor) {
        ModelShape& shape = m_model.shape;
        const auto half = static_cast<std::size_t>(shape.blocks.front().headDim / 2);
        if (tensor.type != GgufType::F32 || tensor.numel() != static_cast<std::int64_t>(half)) unsupported(tensor.name, "expected " + toText(half) + " numbers of F32");
        std::vector<float> stored(half);
        std::memcpy(stored.data(), m_file.bytes(tensor).data(), half * sizeof(float));
        shape.ropeScaling = {};
        shape.ropeScaling.kind = RopeScaling::Kind::Llama3;
        shape.ropeScaling.factor = *std::max_element(stored.begin(), stored.end());
        constexpr std::int64_t kLongest = 1 << 20;
        for (std::int64_t original = 16; original <= kLongest; original *= 2) {
            shape.ropeScaling.originalMaxPositions = original;
            const std::vector<float> tried = ropeFactors(shape);
            if (std::equal(tried.begin(), tried.end(), stored.begin(), [](float a, float b) { return std::fabs(a - b) <= 1e-4f * b; })) return;
        }
        if (std::all_of(stored.begin(), stored.end(), [](float factor) { return factor == 1; })) {
            shape.ropeScaling = {};
            return;
        }
        unsupported(tensor.name, "these frequency factors are not those of a Llama 3 scaling with low_freq_factor 1 and high_freq_factor 4");
    }

    void special() {
        const auto id = [&](const char* name) {
            const std::string full = std::string("tokenizer.ggml.") + name;
            return m_file.find(full) ? std::optional(static_cast<int>(m_file.integer(full))) : std::nullopt;
        };
        m_model.shape.bosId = id("bos_token_id");
        m_model.shape.padId = id("padding_token_id");
        if (const auto eos = id("eos_token_id")) m_model.shape.eosIds = {*eos};
    }

    const GgufFile& m_file;
    const std::string m_name;
    GgufModel m_model;
};

}  // namespace

GgufModel readGgufModel(const GgufFile& file) { return Reader(file).run(); }

}  // namespace resect
