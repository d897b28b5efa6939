#pragma once
#include "core/data/added_tokens.h"
#include "core/data/bpe_model.h"
#include "core/protocol/json.h"

#include <filesystem>
#include <optional>
#include <string>

namespace resect {

/// A tokenizer.json taken apart: vocabulary and merges apart from the rest, because they are hundreds of thousands of entries.
struct TokenizerFile {
    Json json;  ///< the document; model.vocab (when it is an object) and model.merges are left out
    BpeModel::Vocabulary vocabulary;
    BpeModel::Merges merges;
};

/// Throws NotFound, BadInput: not JSON (with line and column), not UTF-8, duplicate keys outside the vocabulary, an id that is
/// no integer, a merge that is neither "a b" nor ["a", "b"].
TokenizerFile readTokenizerFile(const std::filesystem::path& path);

/// Names of the special tokens of a checkpoint folder: tokenizer_config.json, else special_tokens_map.json. Missing files give
/// nothing.
struct SpecialTokenNames {
    bool found = false;  ///< one of the files names special tokens
    std::optional<std::string> bos, eos;
    std::optional<bool> addBos, addEos;   ///< tokenizer_config.json: add_bos_token, add_eos_token
    std::vector<AddedToken> addedTokens;  ///< tokenizer_config.json: added_tokens_decoder
};
SpecialTokenNames readSpecialTokenNames(const std::filesystem::path& folder);

/// One entry of `added_tokens` (or of `added_tokens_decoder`, whose key is the id). Throws BadInput.
AddedToken readAddedToken(const Json& json, std::int64_t id, const std::string& subject);

}  // namespace resect
