#pragma once
#include "core/base/problem.h"
#include "core/data/tokenizer.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace resect {

/// Loss is taken where `targets` is not this.
inline constexpr std::int64_t kIgnoredTarget = -100;

/// One tokenised example. `targets` has the length of `ids`; targets[t] is the token to be predicted after ids[t], or kIgnoredTarget.
struct TokenRow {
    std::vector<std::int64_t> ids;
    std::vector<std::int64_t> targets;
    std::vector<std::int64_t> documents;  ///< document number per token for packed rows; empty = one document
};

enum class DataForm { PlainText, JsonLines };
/// How rows are laid out.
enum class RowLayout {
    Chunks,   ///< BOS + all text, cut into consecutive rows of `rowLength`, tail dropped, first token of every row replaced by BOS (perplexity)
    Packed,   ///< examples one after another in rows of `rowLength`, each attending to itself only
    Padded,   ///< one example per row, at most `rowLength` tokens
};

struct DataOptions {
    RowLayout layout = RowLayout::Chunks;
    int rowLength = 256;                   ///< tokens per row
    std::int64_t maxRows = 0;              ///< 0 = all
    std::uint64_t maxBytes = 0;            ///< read only so many bytes of a text file (a broken last character is dropped); 0 = all
    bool answersOnly = true;               ///< instruction data: loss on the answer only
};

/// A tokenised data file and what was found in it.
struct Dataset {
    std::vector<TokenRow> rows;
    std::int64_t tokens = 0;
    std::string fingerprint;               ///< "sha256:..." of the rows
    std::string description;               ///< "tinystories-sample.txt: 1,843 rows of 256 tokens, 471,808 tokens"
    std::vector<Problem> problems;         ///< rejected lines, each with its number and reason
};

/// Reads `.txt`, `.jsonl` or `.json` (rows with `text`, `messages`, instruction/input/output, or `input_ids`).
/// `tokenizer` may be null when every row is already tokenised. Throws NotFound, BadInput: empty file, no usable row, a token id
/// outside [0, vocabSize) naming the line, not UTF-8 naming the byte.
Dataset loadDataset(const std::filesystem::path& file, const Tokenizer* tokenizer, std::int64_t vocabSize, const DataOptions& options);

}  // namespace resect
