#pragma once
#include "core/checkpoint/gguf_file.h"
#include "core/export/gguf_export.h"
#include "core/protocol/json.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace resect {

/// The tokenizer of a checkpoint folder as tokenizer.* keys, `vocabSize` tokens long (the embedding's rows).
///
/// A tokenizer.model, or a tokenizer.json with byte fallback, becomes model "llama" (tokens, scores, kinds); a byte-level tokenizer.json becomes "gpt2"
/// (tokens, kinds, merges) with tokenizer.ggml.pre found by the pattern of its pre_tokenizer: "default" and a warning when llama.cpp has none that cuts
/// like it. Tokens that the tokenizer lacks are filled up as unused ones. Without tokenizer files the model is "none", with a note. `config` gives ids
/// of special tokens that no tokenizer file names. Throws BadInput when the tokenizer has more tokens than the embedding, Unsupported for other kinds.
GgufVocabulary readGgufVocabulary(const std::filesystem::path& folder, std::int64_t vocabSize, const Json& config);

/// Writes tokenizer.model or tokenizer.json and tokenizer_config.json from the tokenizer.* keys into the existing `folder`, so that Tokenizer::load
/// reads it with the same ids. Returns what could not be kept. Throws BadInput naming the key.
std::vector<Problem> writeTokenizerFiles(const GgufFile& file, const std::filesystem::path& folder);

/// How llama.cpp calls a byte-level pre-tokenizer, and how a tokenizer.json writes it.
struct GgufPreTokenizer {
    std::string_view id;     ///< tokenizer.ggml.pre
    std::string_view regex;  ///< of the Split step; empty = none: the pattern that is built into ByteLevel
    bool digits = false;     ///< every digit is a word of its own (a Digits step)
    bool nfc = false, ignoreMerges = false;
};
/// Null when llama.cpp has none that cuts like this `pre_tokenizer`.
const GgufPreTokenizer* findPreTokenizer(const Json& preTokenizer) noexcept;
const GgufPreTokenizer* findPreTokenizer(std::string_view id) noexcept;

}  // namespace resect
