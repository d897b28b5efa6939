#include "core/anatomy/model_shape.h"

#include "core/anatomy/family.h"
#include "core/anatomy/timm_config.h"
#include "core/base/error.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

namespace resect {

namespace {

constexpr std::int64_t kMaxSize = 100'000'000;   // of one dimension
constexpr std::int64_t kMaxBlocks = 10'000;
constexpr std::int64_t kMaxHeads = 16'384;       // of one block: groups are listed one by one
constexpr double kMaxParameters = 1e16;          // so that sums of products stay far from overflowing

[[noreturn]] void bad(const std::string& subject, const std::string& field, const std::string& message) {
    throw Error(ErrorCode::BadInput, subject + ": " + field, message);
}

/// Reads the fields of one config.json.
class Reader {
public:
    Reader(const Json& config, const Json& resectConfig, const std::string& subject)
        : m_config(config), m_resect(resectConfig), m_subject(subject), m_resectSubject("resect.json") {}

    ModelShape run() {
        if (!m_config.is_object()) throw Error(ErrorCode::BadInput, m_subject, "expected an object with the model's configuration");
        readFamily();
        readSizes();
        readScalars();
        readRope();
        m_resect.is_null() ? stockBlocks() : resectBlocks();
        readWindows();
        checkTotal();
        return std::move(m_shape);
    }

private:
    // ---- one field ----
    std::int64_t integer(const char* field) const { return intField(m_config, field, m_subject); }
    int size(const char* field, std::int64_t value, std::int64_t least, std::int64_t most) const {
        if (value < least || value > most)
            bad(m_subject, field, "expected a number from " + toText(least) + " to " + toText(most) + ", found " + toText(value));
        return static_cast<int>(value);
    }
    int size(const char* field) const { return size(field, integer(field), 1, kMaxSize); }
    int size(const char* field, std::int64_t fallback) const { return size(field, intField(m_config, field, m_subject, fallback), 1, kMaxSize); }
    bool flag(Family::Flag kind, const char* field) const {
        if (kind == Family::Flag::FromConfig) return boolField(m_config, field, m_subject, false);
        return kind == Family::Flag::Yes;
    }
    double positive(const Json& object, const char* field, const std::string& subject, std::optional<double> fallback) const {
        const double value = fallback ? numberField(object, field, subject, *fallback) : numberField(object, field, subject);
        if (!(value > 0) || !std::isfinite(value)) bad(subject, field, "expected a number above 0, found " + toText(value));
        return value;
    }

    // ---- parts ----
    void readFamily() {
        const std::string own = stringField(m_config, "model_type", m_subject);
        if (!m_resect.is_null()) {
            if (!m_resect.is_object()) throw Error(ErrorCode::BadInput, m_resectSubject, "expected an object");
            if (const auto version = intField(m_resect, "resect", m_resectSubject); version != 1)
                throw Error(ErrorCode::Unsupported, m_resectSubject + ": resect", "expected version 1, found " + toText(version) + ": written by a newer Resect");
        } else if (own == "resect") {
            bad(m_subject, "model_type", "says that resect.json describes the blocks, but there is no such file beside it");
        }
        m_shape.modelType = m_resect.is_null() ? own : stringField(m_resect, "model_type", m_resectSubject);
        m_family = &familyOf(m_shape);
        if (m_config.contains("quantization_config") && !m_config.at("quantization_config").is_null())
            throw Error(ErrorCode::Unsupported, m_subject + ": quantization_config", "the weights are quantised; open the original checkpoint instead");
        const Json& source = m_resect.is_null() ? m_config : m_resect;
        const auto architectures = source.find("architectures");
        if (architectures != source.end() && architectures->is_array() && !architectures->empty() && architectures->front().is_string())
            m_shape.architecture = architectures->front().get<std::string>();
        else
            m_shape.architecture = m_family->architecture;
    }

    void readSizes() {
        const ConfigFields& fields = m_family->fields;
        m_shape.hiddenSize = size(fields.hidden);
        if (m_family->image) {
            readImage(*m_family->image);
        } else {
            m_shape.vocabSize = size("vocab_size");
            m_shape.maxPositions = size(fields.positions, m_family->learnedPositions ? 1024 : 2048);
        }
        m_shape.normEps = positive(m_config, fields.eps, m_subject, m_family->defaultNormEps);
        m_shape.activation = stringField(m_config, fields.activation, m_subject, m_family->defaultActivation);
        m_shape.tiedEmbeddings = boolField(m_config, "tie_word_embeddings", m_subject, m_family->tiedByDefault);
        m_shape.qkvBias = m_family->image && m_family->qkvBias == Family::Flag::FromConfig ? boolField(m_config, "qkv_bias", m_subject, true)
                                                                                          : flag(m_family->qkvBias, "attention_bias");
        m_shape.outputBias = flag(m_family->outputBias, "attention_bias");
        m_shape.mlpBias = flag(m_family->mlpBias, "mlp_bias");
        using QkNorm = Family::QkNorm;
        m_shape.qkNorm = m_family->qkNorm == QkNorm::HeadIfConfigured ? boolField(m_config, "use_qk_norm", m_subject, false) : m_family->qkNorm != QkNorm::None;
        m_shape.attentionSoftcap = softcap("attn_logit_softcapping", m_family->defaultAttentionSoftcap);
        m_shape.finalSoftcap = softcap("final_logit_softcapping", m_family->defaultFinalSoftcap);
        if (m_family->defaultQueryScale > 0) m_shape.queryScale = positive(m_config, "query_pre_attn_scalar", m_subject, m_family->defaultQueryScale);
        m_shape.clipQkv = softcap("clip_qkv", 0);
        refuseUnlessDefault("scale_attn_weights", true);
        refuseUnlessDefault("scale_attn_by_inverse_layer_idx", false);
        refuseUnlessDefault("add_cross_attention", false);
        if (m_family->moe) readMoe(*m_family->moe);
    }
    /// A size in pixels: one number, or [height, width].
    std::pair<int, int> pixels(const char* field) const {
        const auto value = m_config.find(field);
        if (value == m_config.end() || !value->is_array()) {
            const int side = size(field);
            return {side, side};
        }
        if (value->size() != 2 || !(*value)[0].is_number_integer() || !(*value)[1].is_number_integer())
            bad(m_subject, field, "expected a number or [height, width], found " + value->dump());
        return {size(field, (*value)[0].get<std::int64_t>(), 1, kMaxSize), size(field, (*value)[1].get<std::int64_t>(), 1, kMaxSize)};
    }
    void readImage(const ImageFields& fields) {
        ImageShape image;
        std::tie(image.height, image.width) = pixels("image_size");
        std::tie(image.patchHeight, image.patchWidth) = pixels("patch_size");
        image.channels = size("num_channels", 3);
        if (image.patchHeight > image.height || image.patchWidth > image.width)
            bad(m_subject, "patch_size", "expected at most the image size, " + toText(image.height) + " x " + toText(image.width) + " pixels");
        image.prefixTokens = fields.distilled ? 2 : 1;
        if (fields.labelsField) {
            image.labels = size(fields.labelsField, integer(fields.labelsField), 0, kMaxSize);
            image.heads = fields.distilled && image.labels > 0 ? 2 : 1;
        } else if (m_shape.architecture.find("ForImageClassification") != std::string::npos) {
            const auto labels = m_config.find("id2label");
            const bool listed = labels != m_config.end() && labels->is_object();
            image.labels = listed ? static_cast<int>(labels->size()) : size("num_labels", 2);
            image.heads = fields.distilled && m_shape.architecture.ends_with("WithTeacher") ? 2 : 1;
        } else {
            image.pooler = !fields.plainTables && m_shape.architecture.ends_with("Model");
        }
        m_shape.vocabSize = image.labels;
        m_shape.maxPositions = image.tokens();
        m_shape.image = image;
    }
    double softcap(const char* field, double fallback) const {
        const auto value = m_config.find(field);
        if (value == m_config.end()) return fallback;
        return value->is_null() ? 0 : positive(m_config, field, m_subject, std::nullopt);
    }
    void refuseUnlessDefault(const char* field, bool fallback) const {
        if (const bool value = boolField(m_config, field, m_subject, fallback); value != fallback)
            throw Error(ErrorCode::Unsupported, m_subject + ": " + field, std::string("only ") + (fallback ? "true" : "false") + " is supported");
    }
    void readMoe(const MoeFields& moe) {
        m_shape.numExpertsPerToken = size("num_experts_per_tok", moe.defaultTopK);
        m_shape.normTopK = moe.normTopK == MoeFields::NormTopK::Always || boolField(m_config, "norm_topk_prob", m_subject, moe.sigmoidWithCorrection);
        m_shape.routedScaling = positive(m_config, "routed_scaling_factor", m_subject, 1);
        const std::string scores = stringField(m_config, "scoring_func", m_subject, moe.sigmoidWithCorrection ? "sigmoid" : "softmax");
        if (scores != (moe.sigmoidWithCorrection ? "sigmoid" : "softmax"))
            throw Error(ErrorCode::Unsupported, m_subject + ": scoring_func", "\"" + scores + "\" is not what " + std::string(m_family->title) + " uses");
        if (!moe.sigmoidWithCorrection) return;
        m_shape.expertGroups = size("n_group", 1);
        m_shape.expertGroupsPerToken = size("topk_group", 1);
        if (m_shape.expertGroupsPerToken > m_shape.expertGroups)
            bad(m_subject, "topk_group", "expected at most n_group " + toText(m_shape.expertGroups) + ", found " + toText(m_shape.expertGroupsPerToken));
    }

    void readScalars() {
        m_shape.bosId = tokenId("bos_token_id");
        m_shape.padId = tokenId("pad_token_id");
        const auto eos = m_config.find("eos_token_id");
        if (eos != m_config.end() && eos->is_array()) {
            for (const Json& id : *eos) m_shape.eosIds.push_back(tokenIdOf(id, "eos_token_id"));
        } else if (const auto id = tokenId("eos_token_id")) {
            m_shape.eosIds = {*id};
        }
        m_shape.torchDtype = stringField(m_config, m_config.contains("torch_dtype") ? "torch_dtype" : "dtype", m_subject, "");
    }
    /// Some old files write -1 for "none".
    std::optional<int> tokenId(const char* field) const {
        auto value = m_config.find(field);
        if (value == m_config.end() || value->is_null() || *value == -1) return std::nullopt;
        if (value->is_array()) return value->empty() ? std::nullopt : std::optional(tokenIdOf(value->front(), field));
        return tokenIdOf(*value, field);
    }
    int tokenIdOf(const Json& value, const char* field) const {
        if (!value.is_number_integer()) bad(m_subject, field, "expected token numbers, found " + value.dump());
        return size(field, value.get<std::int64_t>(), 0, kMaxSize);
    }

    void readRope() {
        const Json* parameters = nullptr;
        for (const char* field : {"rope_parameters", "rope_scaling"}) {
            const auto it = m_config.find(field);
            if (it == m_config.end() || it->is_null() || parameters) continue;
            if (!it->is_object()) bad(m_subject, field, "expected an object, found " + it->dump());
            parameters = &*it;
            m_ropeSubject = m_subject + ": " + field;
        }
        const double theta = positive(m_config, "rope_theta", m_subject, m_family->defaultRopeTheta);
        m_shape.ropeTheta = parameters ? positive(*parameters, "rope_theta", m_ropeSubject, theta) : theta;
        const double share = positive(m_config, "partial_rotary_factor", m_subject, m_family->defaultRotaryShare);
        m_shape.rotaryShare = parameters ? positive(*parameters, "partial_rotary_factor", m_ropeSubject, share) : share;
        if (m_shape.rotaryShare > 1) bad(m_subject, "partial_rotary_factor", "expected at most 1, found " + toText(m_shape.rotaryShare));
        if (m_shape.rotaryShare != 1 && !m_family->partialRotary)
            throw Error(ErrorCode::Unsupported, m_subject + ": partial_rotary_factor",
                        "only 1 is supported for " + std::string(m_family->title) + ", found " + toText(m_shape.rotaryShare));
        if (parameters) m_shape.ropeScaling = ropeScaling(*parameters);
    }
    RopeScaling ropeScaling(const Json& from) const {
        RopeScaling rope;
        const std::string type = stringField(from, from.contains("rope_type") ? "rope_type" : "type", m_ropeSubject, "default");
        if (type == "default") return rope;
        using Kind = RopeScaling::Kind;
        rope.kind = type == "linear" ? Kind::Linear : type == "dynamic" ? Kind::Dynamic : type == "llama3" ? Kind::Llama3 : type == "yarn" ? Kind::Yarn
                  : type == "longrope" || type == "su" ? Kind::LongRope : Kind::None;
        if (rope.kind == Kind::None)
            throw Error(ErrorCode::Unsupported, m_ropeSubject, "the rotary scaling \"" + type + "\" is not supported; known: linear, dynamic, llama3, yarn, longrope");
        if (rope.kind == Kind::LongRope) return longRope(from, std::move(rope));
        rope.factor = positive(from, "factor", m_ropeSubject, std::nullopt);
        rope.originalMaxPositions = intField(from, "original_max_position_embeddings", m_ropeSubject, 0);
        if (rope.originalMaxPositions < 0) bad(m_ropeSubject, "original_max_position_embeddings", "expected a number above 0");
        if (rope.kind == Kind::Llama3) {
            rope.lowFreqFactor = positive(from, "low_freq_factor", m_ropeSubject, std::nullopt);
            rope.highFreqFactor = positive(from, "high_freq_factor", m_ropeSubject, std::nullopt);
            if (rope.highFreqFactor <= rope.lowFreqFactor) bad(m_ropeSubject, "high_freq_factor", "expected more than low_freq_factor");
        }
        if (rope.kind == Kind::Yarn) {
            rope.betaFast = positive(from, "beta_fast", m_ropeSubject, 32);
            rope.betaSlow = positive(from, "beta_slow", m_ropeSubject, 1);
            const auto optional = [&](const char* field) {
                return from.contains(field) && !from.at(field).is_null() ? std::optional(numberField(from, field, m_ropeSubject)) : std::nullopt;
            };
            rope.attentionFactor = optional("attention_factor");
            rope.mscale = optional("mscale");
            rope.mscaleAllDim = optional("mscale_all_dim");
        }
        return rope;
    }

    /// Phi-3 keeps the original length beside rope_scaling; the factor is then what the positions grew by.
    RopeScaling longRope(const Json& from, RopeScaling rope) const {
        const std::int64_t original = intField(from, "original_max_position_embeddings", m_ropeSubject, 0);
        rope.originalMaxPositions = intField(m_config, "original_max_position_embeddings", m_subject, original);
        if (rope.originalMaxPositions < 0) bad(m_ropeSubject, "original_max_position_embeddings", "expected a number above 0");
        const double grown = rope.originalMaxPositions > 0 ? static_cast<double>(m_shape.maxPositions) / static_cast<double>(rope.originalMaxPositions) : 1;
        rope.factor = rope.originalMaxPositions > 0 ? grown : positive(from, "factor", m_ropeSubject, 1);
        if (from.contains("attention_factor") && !from.at("attention_factor").is_null()) rope.attentionFactor = numberField(from, "attention_factor", m_ropeSubject);
        for (const auto& [field, factors] : {std::pair{"short_factor", &rope.shortFactor}, std::pair{"long_factor", &rope.longFactor}}) {
            const auto list = from.find(field);
            if (list == from.end() || !list->is_array() || list->empty()) bad(m_ropeSubject, field, "expected a list of numbers");
            for (const Json& factor : *list) {
                if (!factor.is_number() || !(factor.get<double>() > 0)) bad(m_ropeSubject, field, "expected numbers above 0, found " + factor.dump());
                factors->push_back(factor.get<double>());
            }
        }
        return rope;
    }

    int headDim(int numHeads) const {
        if (m_resect.is_object() && m_resect.contains("head_dim")) return checkedHeadDim(bounded(intField(m_resect, "head_dim", m_resectSubject), m_resectSubject, "head_dim"), m_resectSubject);
        const char* field = m_family->fields.headDim;
        const bool explicitly = field && m_config.contains(field) && !m_config.at(field).is_null();
        if (explicitly) return checkedHeadDim(size(field), m_subject);
        if (m_family->defaultHeadDim) return m_family->defaultHeadDim;
        if (m_shape.hiddenSize % numHeads != 0)
            bad(m_subject, "head_dim", "is absent, and the hidden size " + toText(m_shape.hiddenSize) + " is not a multiple of the number of heads " + toText(numHeads));
        return checkedHeadDim(static_cast<int>(m_shape.hiddenSize / numHeads), m_subject);
    }
    int checkedHeadDim(int value, const std::string& subject) const {
        if (value % 2 != 0 && !m_family->learnedPositions) bad(subject, "head_dim", "expected an even number, because rotation turns pairs; found " + toText(value));
        return value;
    }

    void stockBlocks() {
        const ConfigFields& fields = m_family->fields;
        const int count = size(fields.blocks, integer(fields.blocks), 1, kMaxBlocks);
        BlockShape block;
        block.numHeads = size(fields.heads, integer(fields.heads), 1, kMaxHeads);
        block.numKvHeads = fields.kvHeads ? size(fields.kvHeads, block.numHeads) : block.numHeads;
        if (block.numHeads % block.numKvHeads != 0)
            bad(m_subject, fields.kvHeads, "expected a divisor of " + std::string(fields.heads) + " " + toText(block.numHeads) + ", found " + toText(block.numKvHeads));
        block.headDim = headDim(block.numHeads);
        block.headsPerKv.assign(static_cast<std::size_t>(block.numKvHeads), block.numHeads / block.numKvHeads);
        BlockShape routed = block;
        const MoeFields* moe = m_family->moe;
        bool mixtures = false;
        for (int b = 0; moe && b < count && !mixtures; ++b) mixtures = isMixture(*moe, b);
        if (mixtures) {
            routed.numExperts = checkedExperts(size(moe->experts), m_subject, moe->experts);
            routed.ffnSize = size(moe->width);
            routed.sharedFfnSize = sharedWidth(*moe, routed.ffnSize);
        }
        for (int b = 0; b < count; ++b) {
            const bool mixture = moe && isMixture(*moe, b);
            if (!mixture && block.ffnSize == 0) block.ffnSize = ffnSize();
            m_shape.blocks.push_back(mixture ? routed : block);
        }
    }
    /// GPT-2 writes null for four times the hidden size.
    int ffnSize() const {
        const char* field = m_family->fields.ffn;
        const auto value = m_config.find(field);
        if (m_family->learnedPositions && (value == m_config.end() || value->is_null())) return static_cast<int>(4 * m_shape.hiddenSize);
        return size(field);
    }
    int sharedWidth(const MoeFields& moe, int width) const {
        if (moe.sharedWidth) return size(moe.sharedWidth, intField(m_config, moe.sharedWidth, m_subject, 0), 0, kMaxSize);
        if (!moe.sharedCount || !m_config.contains(moe.sharedCount) || m_config.at(moe.sharedCount).is_null()) return 0;
        return width * size(moe.sharedCount, integer(moe.sharedCount), 0, 1000);
    }
    bool isMixture(const MoeFields& moe, int block) const {
        using Blocks = MoeFields::Blocks;
        if (moe.blocks == Blocks::SparseStep) {
            const int step = size("decoder_sparse_step", intField(m_config, "decoder_sparse_step", m_subject, 1), 1, kMaxSize);
            const auto dense = m_config.find("mlp_only_layers");
            const bool listed = dense != m_config.end() && dense->is_array() && std::find(dense->begin(), dense->end(), Json(block)) != dense->end();
            return !listed && (block + 1) % step == 0;
        }
        if (moe.blocks == Blocks::AfterFirst) {
            const auto first = intField(m_config, "first_k_dense_replace", m_subject, moe.sigmoidWithCorrection ? 1 : 0);
            return block >= first && block % size("moe_layer_freq", intField(m_config, "moe_layer_freq", m_subject, 1), 1, kMaxSize) == 0;
        }
        return true;
    }
    int checkedExperts(int experts, const std::string& subject, const std::string& field) const {
        if (experts < m_shape.numExpertsPerToken)
            bad(subject, field, "expected at least num_experts_per_tok " + toText(m_shape.numExpertsPerToken) + ", found " + toText(experts));
        if (experts > kMaxBlocks) bad(subject, field, "expected at most " + toText(kMaxBlocks) + ", found " + toText(experts));
        return experts;
    }

    void resectBlocks() {
        const auto blocks = m_resect.find("blocks");
        if (blocks == m_resect.end() || !blocks->is_array()) bad(m_resectSubject, "blocks", "expected a list with one entry per block");
        const std::int64_t count = intField(m_config, m_family->fields.blocks, m_subject, static_cast<std::int64_t>(blocks->size()));
        if (blocks->size() > kMaxBlocks || count != static_cast<std::int64_t>(blocks->size()))
            bad(m_resectSubject, "blocks", "expected " + std::string(m_family->fields.blocks) + " " + toText(count) + " entries, found " + toText(blocks->size()));
        for (const Json& entry : *blocks) resectBlock(entry, m_resectSubject + ": blocks[" + toText(m_shape.blocks.size()) + "]");
    }
    void resectBlock(const Json& entry, const std::string& subject) {
        if (!entry.is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object");
        BlockShape block;
        const Json& attention = layer(entry, "attention", subject);
        block.hasAttention = !attention.is_null();
        if (block.hasAttention) resectAttention(attention, subject + ": attention", block);
        else block.headDim = headDim(size(m_family->fields.heads));
        const Json& ffn = layer(entry, "ffn", subject);
        block.hasFfn = !ffn.is_null();
        if (block.hasFfn) {
            const std::string where = subject + ": ffn";
            block.ffnSize = bounded(intField(ffn, "size", where), where, "size");
            if (m_family->moe && ffn.contains("experts")) block.numExperts = checkedExperts(bounded(intField(ffn, "experts", where), where, "experts"), where, "experts");
            if (block.numExperts > 0 && ffn.contains("shared")) block.sharedFfnSize = bounded(intField(ffn, "shared", where), where, "shared");
        }
        m_shape.blocks.push_back(std::move(block));
    }
    const Json& layer(const Json& entry, const char* field, const std::string& subject) const {
        const auto it = entry.find(field);
        if (it == entry.end() || !(it->is_object() || it->is_null())) bad(subject, field, "expected an object, or null for an absent layer");
        return *it;
    }
    int bounded(std::int64_t value, const std::string& subject, const char* field) const {
        if (value < 1 || value > kMaxSize) bad(subject, field, "expected a number from 1 to " + toText(kMaxSize) + ", found " + toText(value));
        return static_cast<int>(value);
    }
    void resectAttention(const Json& attention, const std::string& subject, BlockShape& block) const {
        const auto groups = attention.find("heads_per_kv");
        if (groups == attention.end() || !groups->is_array() || groups->empty()) bad(subject, "heads_per_kv", "expected a list with the number of heads of each kv group");
        for (const Json& heads : *groups) {
            if (!heads.is_number_integer()) bad(subject, "heads_per_kv", "expected whole numbers, found " + heads.dump());
            block.headsPerKv.push_back(bounded(heads.get<std::int64_t>(), subject, "heads_per_kv"));
        }
        block.numKvHeads = static_cast<int>(block.headsPerKv.size());
        const auto heads = std::accumulate(block.headsPerKv.begin(), block.headsPerKv.end(), std::int64_t{0});
        block.numHeads = bounded(heads, subject, "heads_per_kv");
        block.headDim = attention.contains("head_dim") ? checkedHeadDim(bounded(intField(attention, "head_dim", subject), subject, "head_dim"), subject)
                                                       : headDim(size(m_family->fields.heads));
    }

    void readWindows() {
        if (m_family->window == Family::Window::None) return;
        const auto field = m_config.find("sliding_window");
        const bool none = field != m_config.end() && field->is_null();
        const int window = none ? 0 : size("sliding_window", intField(m_config, "sliding_window", m_subject, m_family->defaultWindow), 0, kMaxSize);
        const bool qwen = m_family->window == Family::Window::QwenRule, alternating = m_family->window == Family::Window::Alternating;
        if (window == 0 || (qwen && !boolField(m_config, "use_sliding_window", m_subject, false))) return;
        const auto first = qwen ? intField(m_config, "max_window_layers", m_subject, 28) : 0;
        const auto types = qwen || alternating ? m_config.find("layer_types") : m_config.end();
        const bool listed = types != m_config.end() && !types->is_null();
        if (listed && (!types->is_array() || types->size() != m_shape.blocks.size()))
            bad(m_subject, "layer_types", "expected a list with one entry per block");
        for (std::size_t i = 0; i < m_shape.blocks.size(); ++i) {
            const bool slides = listed ? (*types)[i] == "sliding_attention" : alternating ? i % 2 == 0 : static_cast<std::int64_t>(i) >= first;
            if (slides) m_shape.blocks[i].slidingWindow = window;
        }
    }

    void checkTotal() const {
        double total = 2.0 * static_cast<double>(m_shape.vocabSize) * static_cast<double>(m_shape.hiddenSize), experts = 0;
        for (const BlockShape& block : m_shape.blocks) {
            const double copies = std::max(block.numExperts, 1);
            total += static_cast<double>(m_shape.hiddenSize) * (4.0 * block.numHeads * block.headDim + 3.0 * (copies * block.ffnSize + block.sharedFfnSize));
            experts += copies;
        }
        if (total > kMaxParameters || experts > 1e6)
            throw Error(ErrorCode::BadInput, m_subject, "the sizes describe " + formatCount(total) + " parameters; one of them must be wrong");
    }

    const Json& m_config;
    const Json& m_resect;
    const std::string& m_subject;
    const std::string m_resectSubject;
    std::string m_ropeSubject;
    const Family* m_family = nullptr;
    ModelShape m_shape;
};

}  // namespace

const ModelShape& ModelShape::of(const BlockShape& block) const { return towers.empty() ? *this : towers[static_cast<std::size_t>(block.tower)].shape; }

bool ModelShape::operator==(const ModelShape& other) const = default;

BlockSpan blocksOf(const ModelShape& shape, int tower) noexcept {
    const auto in = [&](const BlockShape& block) { return block.tower == tower; };
    const auto first = std::find_if(shape.blocks.begin(), shape.blocks.end(), in);
    const auto last = std::find_if_not(first, shape.blocks.end(), in);
    return {static_cast<int>(first - shape.blocks.begin()), static_cast<int>(last - shape.blocks.begin())};
}

ModelShape towerShape(const ModelShape& shape, int tower) {
    ModelShape own = shape.towers[static_cast<std::size_t>(tower)].shape;
    const BlockSpan span = blocksOf(shape, tower);
    own.blocks.assign(shape.blocks.begin() + span.first, shape.blocks.begin() + span.last);
    for (BlockShape& block : own.blocks) block.tower = 0;
    return own;
}

bool BlockShape::groupsAreEqual() const noexcept {
    return std::all_of(headsPerKv.begin(), headsPerKv.end(), [this](int heads) { return heads == headsPerKv.front(); });
}

namespace {

/// DeciLM's `block_configs` (model_type "nemotron-nas": Llama's tensors, sizes per block) as a resect.json.
Json blocksOfDeciLm(const Json& config, const std::string& subject) {
    const auto configs = config.find("block_configs");
    if (configs == config.end() || !configs->is_array()) bad(subject, "block_configs", "expected a list with one entry per block");
    const std::int64_t heads = intField(config, "num_attention_heads", subject), hidden = intField(config, "hidden_size", subject);
    Json blocks = Json::array();
    for (const Json& entry : *configs) {
        const std::string where = subject + ": block_configs[" + toText(blocks.size()) + "]";
        const auto layer = [&](const char* name) -> const Json& {
            const auto found = entry.find(name);
            if (!entry.is_object() || found == entry.end() || !found->is_object()) bad(where, name, "expected an object");
            if (boolField(*found, "replace_with_linear", where, false))
                throw Error(ErrorCode::Unsupported, where + ": " + name, "a layer that is replaced by one linear map is not supported");
            return *found;
        };
        const Json &attention = layer("attention"), &ffn = layer("ffn");
        Json block{{"attention", nullptr}, {"ffn", nullptr}};
        if (!boolField(attention, "no_op", where, false)) {
            const std::int64_t inGroup = intField(attention, "n_heads_in_group", where);
            if (inGroup < 1 || heads < 1 || heads > kMaxHeads || heads % inGroup != 0)
                bad(where, "n_heads_in_group", "expected a divisor of num_attention_heads " + toText(heads) + ", found " + toText(inGroup));
            block["attention"] = {{"heads_per_kv", std::vector<std::int64_t>(static_cast<std::size_t>(heads / inGroup), inGroup)}};
        }
        if (!boolField(ffn, "no_op", where, false)) {
            const double multiple = numberField(ffn, "ffn_mult", where);
            if (!(multiple > 0) || multiple > 1e4 || hidden < 1 || hidden > kMaxSize) bad(where, "ffn_mult", "expected a number above 0, found " + toText(multiple));
            block["ffn"] = {{"size", deciWidth(multiple, hidden)}};
        }
        blocks.push_back(std::move(block));
    }
    return Json{{"resect", 1}, {"model_type", "llama"}, {"architectures", {"LlamaForCausalLM"}}, {"blocks", std::move(blocks)}};
}

}  // namespace

namespace {

ModelShape readTowers(const Family& family, const Json& config, const Json& resectConfig, const std::string& subject);

/// Sparse files are filled up with the family's defaults: those of image families and of towers often are.
ModelShape readOne(const Json& config, const Json& resectConfig, const std::string& subject, bool asTower) {
    const Json& source = resectConfig.is_object() ? resectConfig : config;
    const auto type = source.is_object() ? source.find("model_type") : source.end();
    const Family* family = source.is_object() && type != source.end() && type->is_string() ? findFamily(type->get_ref<const std::string&>()) : nullptr;
    if (isTimmConfig(config)) {
        Json filled = Json::parse(findFamily("timm_vit")->defaults);
        filled.update(vitConfigOfTimm(config, subject));
        return Reader(filled, resectConfig, subject).run();
    }
    if (family && !family->towers.empty() && !asTower) return readTowers(*family, config, resectConfig, subject);
    if (!family || !(family->image || asTower) || !config.is_object()) return Reader(config, resectConfig, subject).run();
    Json filled = Json::parse(family->defaults);
    filled.update(config);
    return Reader(filled, resectConfig, subject).run();
}

/// `vision_feature_layer`: hidden states counted from the embedding output, negative ones from the last.
std::vector<int> featureBlocks(const Json& config, int numBlocks, const std::string& subject) {
    Json layers = config.value("vision_feature_layer", Json(-2));
    if (!layers.is_array()) layers = Json::array({layers});
    std::vector<int> result;
    for (const Json& layer : layers) {
        const auto value = layer.is_number_integer() ? layer.get<std::int64_t>() : kMaxSize;
        const auto blocks = value < 0 ? numBlocks + 1 + value : value;
        if (blocks < 0 || blocks > numBlocks)
            bad(subject, "vision_feature_layer", "expected hidden states from " + toText(-numBlocks - 1) + " to " + toText(numBlocks) + ", found " + layer.dump());
        result.push_back(static_cast<int>(blocks));
    }
    if (result.empty()) bad(subject, "vision_feature_layer", "expected at least one hidden state");
    return result;
}

TowerLink readLink(const ModelShape& shape, const Json& config, const std::string& subject) {
    TowerLink link;
    if (shape.modelType == "clip") {
        link.projectionSize = static_cast<int>(intField(config, "projection_dim", subject, 512));
        if (link.projectionSize < 1 || link.projectionSize > kMaxSize) bad(subject, "projection_dim", "expected a number above 0");
        return link;
    }
    const BlockSpan vision = blocksOf(shape, 0);
    link.featureBlocks = featureBlocks(config, vision.last - vision.first, subject);
    const std::string strategy = stringField(config, "vision_feature_select_strategy", subject, "default");
    if (strategy != "default" && strategy != "full") bad(subject, "vision_feature_select_strategy", "expected default or full, found " + strategy);
    link.dropsClassToken = strategy == "default";
    link.imageTokenId = intField(config, config.contains("image_token_index") ? "image_token_index" : "image_token_id", subject, 32000);
    link.projectorActivation = stringField(config, "projector_hidden_act", subject, "gelu");
    link.projectorBias = boolField(config, "multimodal_projector_bias", subject, true);
    return link;
}

/// A file that says nothing of its tower means the one of the first published checkpoints.
Json towerConfig(const TowerFields& fields, const Json& config, const std::string& subject) {
    const auto own = config.find(fields.configField);
    if (own != config.end() && !own->is_null() && !own->is_object()) bad(subject, fields.configField, "expected an object, found " + own->dump());
    Json tower = own == config.end() || own->is_null() ? Json::parse(fields.whenMissing) : *own;
    if (!tower.contains("model_type")) tower["model_type"] = fields.defaultType;
    return tower;
}

ModelShape readTowers(const Family& family, const Json& config, const Json& resectConfig, const std::string& subject) {
    if (!config.is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object with the model's configuration");
    if (config.contains("quantization_config") && !config.at("quantization_config").is_null())
        throw Error(ErrorCode::Unsupported, subject + ": quantization_config", "the weights are quantised; open the original checkpoint instead");
    const auto listed = resectConfig.is_object() ? resectConfig.find("towers") : resectConfig.end();
    if (resectConfig.is_object() && (listed == resectConfig.end() || !listed->is_array() || listed->size() != family.towers.size()))
        bad("resect.json", "towers", "expected a list with one entry for each of the " + toText(family.towers.size()) + " towers");
    std::vector<Tower> towers;
    std::vector<BlockShape> blocks;
    for (const TowerFields& fields : family.towers) {
        const Json none;
        ModelShape own = readOne(towerConfig(fields, config, subject), resectConfig.is_object() ? (*listed)[towers.size()] : none, subject + ": " + fields.configField, true);
        if (own.image.has_value() != (towers.size() + 1 < family.towers.size()))
            throw Error(ErrorCode::Unsupported, subject + ": " + fields.configField, "\"" + own.modelType + "\" is not what " + std::string(family.title) + " has as its " + fields.title);
        for (BlockShape& block : own.blocks) {
            block.tower = static_cast<int>(towers.size());
            blocks.push_back(std::move(block));
        }
        own.blocks.clear();
        towers.push_back({fields.name, fields.title, fields.prefix, fields.configField, std::move(own)});
    }
    ModelShape shape = towers.back().shape;
    shape.modelType = family.modelType;
    const Json& source = resectConfig.is_object() ? resectConfig : config;
    const auto architectures = source.find("architectures");
    const bool named = architectures != source.end() && architectures->is_array() && !architectures->empty() && architectures->front().is_string();
    shape.architecture = named ? architectures->front().get<std::string>() : std::string(family.architecture);
    shape.torchDtype = stringField(config, config.contains("torch_dtype") ? "torch_dtype" : "dtype", subject, "");
    shape.blocks = std::move(blocks);
    shape.towers = std::move(towers);
    shape.link = readLink(shape, config, subject);
    return shape;
}

}  // namespace

ModelShape readModelShape(const Json& config, const Json& resectConfig, const std::string& subject) {
    if (resectConfig.is_null() && config.is_object() && config.value("model_type", Json()) == "nemotron-nas")
        return Reader(config, blocksOfDeciLm(config, subject), subject).run();
    return readOne(config, resectConfig, subject, false);
}

std::int64_t deciWidth(double ffnMult, std::int64_t hidden) noexcept {
    constexpr std::int64_t kStep = 256;
    return (static_cast<std::int64_t>(2 * ffnMult * static_cast<double>(hidden) / 3) + kStep - 1) / kStep * kStep;
}

Json resectConfigOf(const ModelShape& shape) {
    if (!shape.towers.empty()) {
        Json towers = Json::array();
        forEachTower(shape, [&](const ModelShape& tower) { towers.push_back(resectConfigOf(tower)); });
        return Json{{"resect", 1}, {"model_type", shape.modelType}, {"architectures", Json::array({shape.architecture})}, {"towers", std::move(towers)}};
    }
    Json blocks = Json::array();
    for (const BlockShape& block : shape.blocks) {
        Json attention, ffn;
        if (block.hasAttention) attention = Json{{"heads_per_kv", block.headsPerKv}, {"head_dim", block.headDim}};
        if (block.hasFfn) {
            ffn["size"] = block.ffnSize;
            if (block.numExperts > 0) ffn["experts"] = block.numExperts;
            if (block.sharedFfnSize > 0) ffn["shared"] = block.sharedFfnSize;
        }
        blocks.push_back(Json{{"attention", std::move(attention)}, {"ffn", std::move(ffn)}});
    }
    Json resect{{"resect", 1}, {"model_type", shape.modelType}, {"architectures", Json::array({shape.architecture})}};
    if (!shape.blocks.empty()) resect["head_dim"] = shape.blocks.front().headDim;
    resect["blocks"] = std::move(blocks);
    return resect;
}

}  // namespace resect
