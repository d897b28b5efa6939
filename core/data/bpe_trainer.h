#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace resect {

/// Trains a byte-level BPE and returns its tokenizer.json, which Hugging Face and Tokenizer::fromTokenizerJson() read.
///
/// Words are cut as in StarCoder: every digit alone, then GPT-2's word pattern, so that numbers are spelt digit by digit. Ids:
/// 0 "<s>" (put in front of text), 1 "</s>", 2 "<pad>", 3-258 the bytes, then one per merge. In each round the most frequent
/// pair is merged (Sennrich et al. 2016), of equals the one that sorts first, so that the same text gives the same tokenizer.
/// Fewer tokens come out when no pair occurs twice. `text` must be UTF-8. Throws Usage when `vocabSize` is not in [260, 65536],
/// BadInput for an empty text.
std::string trainBpe(std::string_view text, int vocabSize);

/// Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json into an existing folder, each atomically.
/// `maxTokens` is the context length of the model. Throws DiskFull, NoPermission.
void writeTokenizer(const std::filesystem::path& folder, const std::string& tokenizerJson, int maxTokens);

}  // namespace resect
