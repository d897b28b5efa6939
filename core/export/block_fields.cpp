#include "core/export/block_fields.h"

#include "core/base/error.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <array>

namespace resect {

namespace {

/// How a field of config.json follows the blocks.
enum class Follows {
    Count,             ///< the number of blocks
    Entries,           ///< one list entry (or character) per block
    Indices,           ///< a list of block indices
    EntriesOrIndices,  ///< seen both ways: 0/1 per block, or indices
    Keys,              ///< an object keyed by block index
    Counter,           ///< how many of the first blocks are special
    Period,            ///< every n-th block is special
    TrailingCount,     ///< how many blocks at or after the end are special
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
    FieldRule{"moe_layer_freq", Follows::Period},
    FieldRule{"interleave_moe_layer_step", Follows::Period},
    FieldRule{"attn_layer_period", Follows::Period},
    FieldRule{"expert_layer_period", Follows::Period},
};

/// Lists that never have one entry per block, whatever their length.
constexpr std::array<std::string_view, 10> kOtherLists{
    "architectures",   "eos_token_id",          "bos_token_id",  "pad_token_id",       "keys_to_ignore_at_inference",
    "suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "forced_decoder_ids", "sep_token_id"};

[[noreturn]] void refuse(std::string_view field, std::string message) {
    throw Error(ErrorCode::Unsupported, "config.json: " + std::string(field), std::move(message));
}

std::string text(std::int64_t number) { return toText(number); }

/// Everything that changes because blocks are gone.
class BlockFields {
public:
    BlockFields(Json& config, std::vector<Problem>& notes, int numBlocks, std::vector<int> kept)
        : m_config(config), m_notes(notes), m_numBlocks(numBlocks), m_kept(std::move(kept)),
          m_newIndex(static_cast<std::size_t>(numBlocks), -1) {
        for (std::size_t i = 0; i < m_kept.size(); ++i) m_newIndex[static_cast<std::size_t>(m_kept[i])] = static_cast<int>(i);
    }

    void rewrite() {
        for (const FieldRule& rule : kFieldRules)
            if (const auto field = m_config.find(std::string(rule.field)); field != m_config.end() && !field->is_null())
                apply(rule, *field);
        gatherUnknownLists();
    }

private:
    void apply(const FieldRule& rule, Json& value) {
        switch (rule.follows) {
        case Follows::Count:
            return setCount(rule.field, value);
        case Follows::Entries:
            if (value.is_array() || value.is_string()) gather(rule.field, value);
            return;
        case Follows::EntriesOrIndices:
            if (value.is_array() && static_cast<int>(value.size()) == m_numBlocks)
                gather(rule.field, value);
            else
                renumber(rule.field, value);
            return;
        case Follows::Indices:
            return renumber(rule.field, value);
        case Follows::Keys:
            return rekey(rule.field, value);
        case Follows::Counter:
            return recount(rule.field, value);
        case Follows::Period:
            return checkPeriod(rule.field, value);
        case Follows::TrailingCount:
            if (value.is_number_integer() && value.get<std::int64_t>() == 0) return;
            refuse(rule.field, "expected 0 when blocks are dropped, found " + value.dump() +
                                   ": these blocks are counted from the end and depend on the others");
        }
    }

    void setCount(std::string_view field, Json& value) {
        if (!value.is_number_integer() || value.get<std::int64_t>() != m_numBlocks)
            refuse(field, "expected the number of blocks, " + text(m_numBlocks) + ", found " + value.dump());
        value = m_kept.size();
    }

    void gather(std::string_view field, Json& value) {
        const auto length = static_cast<int>(value.is_string() ? value.get_ref<const std::string&>().size() : value.size());
        if (length != m_numBlocks)
            refuse(field, "expected one entry for each of the " + text(m_numBlocks) + " blocks, found " + text(length));
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
        if (block < 0 || block >= m_numBlocks)
            refuse(field, "expected block indices from 0 to " + text(m_numBlocks - 1) + ", found " + text(block));
        return m_newIndex[static_cast<std::size_t>(block)];
    }

    void renumber(std::string_view field, Json& value) {
        if (!value.is_array()) refuse(field, "expected a list of block indices, found " + value.dump().substr(0, 80));
        Json kept = Json::array();
        for (const Json& block : value) {
            if (!block.is_number_integer())
                refuse(field, "expected a list of block indices, found the entry " + block.dump().substr(0, 80));
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
            if (value.is_array() && static_cast<int>(value.size()) == m_numBlocks)
                return gather(field, m_config[std::string(field)]);
            refuse(field, "expected a whole number, found " + value.dump().substr(0, 80));
        }
        const auto period = value.get<std::int64_t>();
        if (period <= 1 || period > m_numBlocks) return;
        for (std::size_t i = 0; i < m_kept.size(); ++i)
            if (m_kept[i] % period != static_cast<std::int64_t>(i) % period)
                refuse(field, "every " + text(period) + "th block is of another kind; after this cut block " + text(m_kept[i]) +
                                  " would become block " + text(static_cast<std::int64_t>(i)) +
                                  " and change its kind; drop multiples of " + text(period) + " consecutive blocks");
    }

    void gatherUnknownLists() {
        for (auto& [key, value] : m_config.items()) {
            if (!value.is_array() || static_cast<int>(value.size()) != m_numBlocks) continue;
            const bool known =
                std::any_of(kFieldRules.begin(), kFieldRules.end(), [&](const FieldRule& rule) { return rule.field == key; });
            if (known || std::find(kOtherLists.begin(), kOtherLists.end(), key) != kOtherLists.end()) continue;
            gather(key, value);
            m_notes.push_back({Severity::Note, "config.json: " + key,
                               "Taken as one entry per block; the entries of dropped blocks are removed.",
                               "Check this field if it means something else."});
        }
    }

    Json& m_config;
    std::vector<Problem>& m_notes;
    int m_numBlocks;
    std::vector<int> m_kept, m_newIndex;
};

}  // namespace

void rewriteBlockFields(Json& config, int numBlocks, const std::vector<int>& kept, std::vector<Problem>& notes) {
    BlockFields(config, notes, numBlocks, kept).rewrite();
}

}  // namespace resect
