#include "core/export/config_rewrite.h"

#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/export/verdict.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace resect {

namespace {

/// How a field of config.json follows the blocks.
enum class Follows {
    Count,        ///< the number of blocks
    Entries,      ///< one list entry (or character) per block
    Indices,      ///< a list of block indices
    EntriesOrIndices, ///< seen both ways: 0/1 per block, or indices
    Keys,         ///< an object keyed by block index
    Counter,      ///< how many of the first blocks are special
    Period,       ///< every n-th block is special
    TrailingCount,///< how many blocks at or after the end are special
};

struct FieldRule {
    std::string_view field;
    Follows follows;
};

constexpr std::array kFieldRules{
    FieldRule{"num_hidden_layers", Follows::Count},
    FieldRule{"n_layer", Follows::Count},
    FieldRule{"num_layers", Follows::Count},
    FieldRule{"n_layers", Follows::Count},
    FieldRule{"layer_types", Follows::Entries},
    FieldRule{"mlp_layer_types", Follows::Entries},
    FieldRule{"block_configs", Follows::Entries},
    FieldRule{"no_rope_layers", Follows::EntriesOrIndices},
    FieldRule{"moe_layers", Follows::EntriesOrIndices},
    FieldRule{"intermediate_size", Follows::Entries},
    FieldRule{"activation_sparsity_pattern", Follows::Entries},
    FieldRule{"num_attention_heads_per_layer", Follows::Entries},
    FieldRule{"num_key_value_heads_per_layer", Follows::Entries},
    FieldRule{"hybrid_override_pattern", Follows::Entries},
    FieldRule{"layers_block_type", Follows::Entries},
    FieldRule{"mlp_only_layers", Follows::Indices},
    FieldRule{"attn_layer_indices", Follows::Indices},
    FieldRule{"full_attn_idxs", Follows::Indices},
    FieldRule{"cross_attention_layers", Follows::Indices},
    FieldRule{"per_layer_config", Follows::Keys},
    FieldRule{"pruned_heads", Follows::Keys},
    FieldRule{"first_k_dense_replace", Follows::Counter},
    FieldRule{"max_window_layers", Follows::Counter},
    FieldRule{"num_kv_shared_layers", Follows::TrailingCount},
    FieldRule{"num_nextn_predict_layers", Follows::TrailingCount},
    FieldRule{"sliding_window_pattern", Follows::Period},
    FieldRule{"decoder_sparse_step", Follows::Period},
    FieldRule{"interleave_moe_layer_step", Follows::Period},
    FieldRule{"attn_layer_period", Follows::Period},
    FieldRule{"expert_layer_period", Follows::Period},
};

/// Lists that never have one entry per block, whatever their length.
constexpr std::array<std::string_view, 10> kOtherLists{"architectures", "eos_token_id", "bos_token_id", "pad_token_id", "keys_to_ignore_at_inference",
                                                       "suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "forced_decoder_ids", "sep_token_id"};

[[noreturn]] void refuse(std::string_view field, std::string message) {
    throw Error(ErrorCode::Unsupported, "config.json: " + std::string(field), std::move(message));
}

std::string text(std::int64_t number) { return toText(number); }

std::string_view torchName(DType dtype) {
    switch (dtype) {
    case DType::F32: return "float32";
    case DType::F16: return "float16";
    case DType::BF16: return "bfloat16";
    default: throw Error(ErrorCode::Unsupported, "dtype", "weights are written as F32, F16 or BF16, not " + std::string(name(dtype)));
    }
}

/// Everything that changes because blocks are gone.
class BlockFields {
public:
    BlockFields(Json& config, std::vector<Problem>& notes, int numBlocks, std::vector<int> kept)
        : m_config(config), m_notes(notes), m_numBlocks(numBlocks), m_kept(std::move(kept)), m_newIndex(static_cast<std::size_t>(numBlocks), -1) {
        for (std::size_t i = 0; i < m_kept.size(); ++i) m_newIndex[static_cast<std::size_t>(m_kept[i])] = static_cast<int>(i);
    }

    void rewrite() {
        for (const FieldRule& rule : kFieldRules)
            if (const auto field = m_config.find(std::string(rule.field)); field != m_config.end() && !field->is_null()) apply(rule, *field);
        gatherUnknownLists();
    }

private:
    void apply(const FieldRule& rule, Json& value) {
        switch (rule.follows) {
        case Follows::Count: return setCount(rule.field, value);
        case Follows::Entries:
            if (value.is_array() || value.is_string()) gather(rule.field, value);
            return;
        case Follows::EntriesOrIndices:
            if (value.is_array() && static_cast<int>(value.size()) == m_numBlocks) gather(rule.field, value);
            else renumber(rule.field, value);
            return;
        case Follows::Indices: return renumber(rule.field, value);
        case Follows::Keys: return rekey(rule.field, value);
        case Follows::Counter: return recount(rule.field, value);
        case Follows::Period: return checkPeriod(rule.field, value);
        case Follows::TrailingCount:
            if (value.is_number_integer() && value.get<std::int64_t>() == 0) return;
            refuse(rule.field, "expected 0 when blocks are dropped, found " + value.dump() + ": these blocks are counted from the end and depend on the others");
        }
    }

    void setCount(std::string_view field, Json& value) {
        if (!value.is_number_integer() || value.get<std::int64_t>() != m_numBlocks)
            refuse(field, "expected the number of blocks, " + text(m_numBlocks) + ", found " + value.dump());
        value = m_kept.size();
    }

    void gather(std::string_view field, Json& value) {
        const auto length = static_cast<int>(value.is_string() ? value.get_ref<const std::string&>().size() : value.size());
        if (length != m_numBlocks) refuse(field, "expected one entry for each of the " + text(m_numBlocks) + " blocks, found " + text(length));
        if (value.is_string()) {
            std::string kept;
            for (int b : m_kept) kept += value.get_ref<const std::string&>()[static_cast<std::size_t>(b)];
            value = kept;
            return;
        }
        Json kept = Json::array();
        for (int b : m_kept) kept.push_back(value[static_cast<std::size_t>(b)]);
        value = std::move(kept);
    }

    int newIndex(std::string_view field, std::int64_t block) const {
        if (block < 0 || block >= m_numBlocks) refuse(field, "expected block indices from 0 to " + text(m_numBlocks - 1) + ", found " + text(block));
        return m_newIndex[static_cast<std::size_t>(block)];
    }

    void renumber(std::string_view field, Json& value) {
        if (!value.is_array()) refuse(field, "expected a list of block indices, found " + value.dump().substr(0, 80));
        Json kept = Json::array();
        for (const Json& block : value) {
            if (!block.is_number_integer()) refuse(field, "expected a list of block indices, found the entry " + block.dump().substr(0, 80));
            if (const int index = newIndex(field, block.get<std::int64_t>()); index >= 0) kept.push_back(index);
        }
        value = std::move(kept);
    }

    void rekey(std::string_view field, Json& value) {
        if (!value.is_object()) refuse(field, "expected an object keyed by block index, found " + value.dump().substr(0, 80));
        Json kept = Json::object();
        for (const auto& [key, entry] : value.items()) {
            const std::optional<std::int64_t> block = parseInt(key);
            if (!block) refuse(field, "expected block indices as keys, found \"" + key + "\"");
            if (const int index = newIndex(field, *block); index >= 0) kept[text(index)] = entry;
        }
        value = std::move(kept);
    }

    void recount(std::string_view field, Json& value) {
        if (!value.is_number_integer()) refuse(field, "expected a whole number, found " + value.dump().substr(0, 80));
        const auto first = value.get<std::int64_t>();
        value = std::count_if(m_kept.begin(), m_kept.end(), [&](int b) { return b < first; });
    }

    void checkPeriod(std::string_view field, const Json& value) {
        if (!value.is_number_integer()) {
            if (value.is_array() && static_cast<int>(value.size()) == m_numBlocks) return gather(field, m_config[std::string(field)]);
            refuse(field, "expected a whole number, found " + value.dump().substr(0, 80));
        }
        const auto period = value.get<std::int64_t>();
        if (period <= 1 || period > m_numBlocks) return;
        for (std::size_t i = 0; i < m_kept.size(); ++i)
            if (m_kept[i] % period != static_cast<std::int64_t>(i) % period)
                refuse(field, "every " + text(period) + "th block is of another kind; after this cut block " + text(m_kept[i]) + " would become block " +
                                  text(static_cast<std::int64_t>(i)) + " and change its kind; drop multiples of " + text(period) + " consecutive blocks");
    }

    void gatherUnknownLists() {
        for (auto& [key, value] : m_config.items()) {
            if (!value.is_array() || static_cast<int>(value.size()) != m_numBlocks) continue;
            const bool known = std::any_of(kFieldRules.begin(), kFieldRules.end(), [&](const FieldRule& rule) { return rule.field == key; });
            if (known || std::find(kOtherLists.begin(), kOtherLists.end(), key) != kOtherLists.end()) continue;
            gather(key, value);
            m_notes.push_back({Severity::Note, "config.json: " + key, "Taken as one entry per block; the entries of dropped blocks are removed.",
                               "Check this field if it means something else."});
        }
    }

    Json& m_config;
    std::vector<Problem>& m_notes;
    int m_numBlocks;
    std::vector<int> m_kept, m_newIndex;
};

/// Scalars that hold for every block of a stock shape; the largest ones otherwise (resect.json then says the rest).
struct Sizes {
    int heads = 0, kvHeads = 0, headDim = 0, ffnSize = 0, experts = 0;
};

Sizes sizesOf(const ModelShape& shape) {
    Sizes sizes;
    int perGroup = 1;
    for (const BlockShape& block : shape.blocks) {
        sizes.kvHeads = std::max(sizes.kvHeads, block.numKvHeads);
        for (int heads : block.headsPerKv) perGroup = std::max(perGroup, heads);
        sizes.headDim = std::max(sizes.headDim, block.headDim);
        sizes.ffnSize = std::max(sizes.ffnSize, block.ffnSize);
        sizes.experts = std::max(sizes.experts, block.numExperts);
    }
    sizes.kvHeads = std::max(sizes.kvHeads, 1);
    sizes.heads = sizes.kvHeads * perGroup;
    return sizes;
}

void setSizes(Json& config, const ModelShape& source, const ModelShape& result) {
    const Sizes before = sizesOf(source), after = sizesOf(result);
    config["num_attention_heads"] = after.heads;
    if (after.kvHeads != after.heads || config.contains("num_key_value_heads")) config["num_key_value_heads"] = after.kvHeads;
    const bool explicitAlready = config.contains("head_dim") && !config["head_dim"].is_null();
    if (explicitAlready || after.heads != before.heads || std::int64_t{after.heads} * after.headDim != result.hiddenSize) config["head_dim"] = after.headDim;
    if (after.ffnSize > 0 && !config["intermediate_size"].is_array()) config["intermediate_size"] = after.ffnSize;
    if (after.experts == before.experts) return;
    for (const char* field : {"num_local_experts", "num_experts", "n_routed_experts"})
        if (config.contains(field)) config[field] = after.experts;
}

void setDtype(Json& config, DType dtype) {
    const std::string value(torchName(dtype));
    bool written = false;
    for (const char* field : {"torch_dtype", "dtype"})
        if (config.contains(field)) {
            config[field] = value;
            written = true;
        }
    if (!written) config["torch_dtype"] = value;
}

/// Quantised weights are refused when the configuration is read; code files are not carried over.
void removeCodePointers(Json& config, std::vector<Problem>& notes) {
    if (!config.contains("auto_map")) return;
    config.erase("auto_map");
    notes.push_back({Severity::Warning, "config.json: auto_map", "Removed: it points to Python files, which are not carried over.", "The stock class of the family opens the export."});
}

bool editsInside(const Cut& cut) {
    return std::any_of(cut.blocks.begin(), cut.blocks.end(), [](const BlockCut& block) { return !block.block && !block.empty(); });
}

void checkPerBlockOverrides(const Json& config, const Cut& cut) {
    for (const char* field : {"per_layer_config", "pruned_heads"}) {
        const auto value = config.find(field);
        if (value != config.end() && !value->is_null() && !value->empty() && editsInside(cut))
            refuse(field, "it overrides sizes of single blocks, which this edit changes too; only whole blocks can be dropped here");
    }
}

/// What was written must say what was cut; a field that works against it is our mistake or a contradiction in the source.
void checkReadsBack(const ConfigRewrite& rewrite, const ModelShape& result) {
    ModelShape read = readModelShape(rewrite.config, rewrite.resect, "config.json");
    ModelShape expected = result;
    expected.torchDtype = read.torchDtype;
    if (read == expected) return;
    std::string where = "shape";
    if (read.numBlocks() != expected.numBlocks()) where = "num_hidden_layers";
    else
        for (int b = 0; b < read.numBlocks() && where == "shape"; ++b)
            if (!(read.blocks[static_cast<std::size_t>(b)] == expected.blocks[static_cast<std::size_t>(b)])) where = "sizes of block " + text(b);
    throw Error(ErrorCode::Internal, "config.json: " + where, "the rewritten configuration does not describe the tensors that are written");
}

}  // namespace

ConfigRewrite rewriteConfig(const Json& config, const ModelShape& source, const Cut& cut, const ModelShape& result, SliceWay way, std::optional<DType> dtype) {
    ConfigRewrite rewrite{config, nullptr, {}};
    std::vector<int> kept(source.blocks.size());
    std::iota(kept.begin(), kept.end(), 0);
    if (way != SliceWay::Zeroed) kept = keptBlocks(cut);
    checkPerBlockOverrides(config, cut);
    if (kept.size() != source.blocks.size()) BlockFields(rewrite.config, rewrite.notes, source.numBlocks(), kept).rewrite();
    removeCodePointers(rewrite.config, rewrite.notes);
    setSizes(rewrite.config, source, result);
    if (dtype) setDtype(rewrite.config, *dtype);
    const bool stock = isUniform(result);
    const std::string modelType = stock ? result.modelType : "resect";
    if (stringField(rewrite.config, "model_type", "config.json", "") != modelType) {
        rewrite.config["model_type"] = modelType;
        rewrite.config["architectures"] = Json::array({stock ? result.architecture : std::string("ResectForCausalLM")});
    }
    if (!stock) rewrite.resect = resectConfigOf(result);
    checkReadsBack(rewrite, result);
    return rewrite;
}

}  // namespace resect
