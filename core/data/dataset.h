#pragma once
#include "core/base/job.h"
#include "core/base/problem.h"
#include "core/data/row_report.h"
#include "core/data/tokenizer.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace resect {

/// Loss is taken where `targets` is not this.
inline constexpr std::int64_t kIgnoredTarget = -100;

class ImageSet;

/// One picture of a set, where a row is a picture.
struct RowImage {
    std::shared_ptr<const ImageSet> set;  ///< null: the row is text
    std::size_t index = 0;                ///< in the set
    int tokens = 0;                       ///< that the model makes of it
};

/// One tokenised example. `targets` has the length of `ids`; targets[t] is the token to be predicted after ids[t],
/// or kIgnoredTarget. A row of images has no ids and one target: the label, or kIgnoredTarget where there is none.
struct TokenRow {
    std::vector<std::int64_t> ids;
    std::vector<std::int64_t> targets;
    std::vector<std::int64_t> documents;  ///< packed rows: document number of each token, 0, 1, ... in its row; else empty
    RowImage image{};
    std::int64_t tokens() const noexcept { return image.set ? image.tokens : static_cast<std::int64_t>(ids.size()); }
};

/// How rows are laid out.
enum class RowLayout {
    /// For perplexity: BOS + all text, cut into consecutive rows of `rowLength`, tail dropped, first token of every row
    /// replaced by BOS. Without BOS when the tokenizer puts none in front of text. The rows of a JSON file are joined, each
    /// ended by EOS.
    Chunks,
    /// Examples one after another in rows of `rowLength`, each attending to itself only; the last row is shorter. An example
    /// that does not fit into the rest of a row begins a new one; a text longer than a row fills several, an instruction
    /// longer than a row is cut.
    Packed,
    /// One example per row, at most `rowLength` tokens; a longer text fills several rows, a longer instruction is cut.
    Padded,
    /// Packed when the first usable row of a file has prompt and answer, else Chunks.
    Auto,
};

struct DataOptions {
    RowLayout layout = RowLayout::Chunks;
    int rowLength = 256;         ///< tokens per row, at least 2
    std::int64_t maxRows = 0;    ///< 0 = all; a large file is then read only as far as needed
    std::uint64_t maxBytes = 0;  ///< read only so many bytes of a text file (a broken last character is dropped); 0 = all
    bool answersOnly = true;     ///< instruction data: loss on the answer only
    /// Checkpoint folder whose chat template renders rows of messages; it is read when the first such row comes. Empty, or a
    /// folder without one: the plain form.
    std::filesystem::path chatTemplateFolder;
    bool padToSquare = false;    ///< images: pad to squares first (see ImageOptions)
    /// OutOfMemory is thrown early when the tokenised rows, or a text while it is tokenised, would need more bytes.
    std::uint64_t maxMemory = 4ull << 30;
};

/// A tokenised data file, or a set of images, and what was found in it.
struct Dataset {
    std::vector<TokenRow> rows;
    std::int64_t tokens = 0;   ///< in the rows
    std::int64_t targets = 0;  ///< positions with loss; of images the labelled ones
    /// In what was read, before a tail was dropped or examples were cut; the BOS before a plain text cut into chunks not
    /// counted.
    std::int64_t tokensInText = 0;
    RowLayout layout = RowLayout::Chunks;  ///< of the rows: what Auto has become
    std::string fingerprint;        ///< "sha256:..." of the rows
    /// "tinystories-sample.txt: 1,843 rows of 256 tokens, 471,808 tokens"; for rows also what they were:
    /// "...; rows of messages: 40, rejected: 2; messages by the chat template of chat_template.jinja"
    std::string description;
    std::vector<FormatCount> formats;  ///< of the rows that were taken from a .jsonl or .json file
    std::int64_t rejectedRows = 0;
    std::string chatRendering;      ///< how rows of messages became text; empty when there were none
    std::vector<Problem> problems;  ///< rejected lines with number and reason (the first five of each), and cut examples
    bool holdsImages() const noexcept { return !rows.empty() && rows.front().image.set; }
};

/// Reads `.txt`, `.jsonl` (one object per line) or `.json` (an array of objects). What an object holds decides what it is:
///
///  - `input_ids` (and `labels`, aligned as in Hugging Face, -100 = no loss): taken as they are, no BOS or EOS added
///  - `messages` [{"role", "content"}] or ShareGPT's `conversations` [{"from", "value"}]: the text that the checkpoint's chat
///    template makes of them, with no further BOS or EOS; the answers are what the assistant says (templatedChat() says how they
///    are found). Without a template "role: content" with an empty line between, EOS behind every answer
///  - `instruction`, `output` and perhaps `input`: the prompt form of Stanford Alpaca
///  - `question`, `answer`: "Question: ...\nAnswer: ..."
///  - `prompt` with `completion`, `response` or `answer`: joined by a space unless one of them brings white space
///  - `text`: BOS + text + EOS
///
/// A row that fits several of these is the first of them; other fields are ignored. Every row is looked at by itself, and those
/// that fit none are counted and listed.
///
/// In a plain text, lines that hold only <|endoftext|> separate documents for Packed and Padded; without them it is one
/// document. An answer's tokens are those of prompt + answer behind the tokens that it shares with the prompt alone; EOS
/// belongs to the answer. `tokenizer` may be null when every row is already tokenised. `vocabSize` is the model's.
///
/// Throws NotFound, Usage (rowLength), OutOfMemory, Stopped, Unsupported (extension), BadInput: empty file, no usable row,
/// a token id outside [0, vocabSize) naming the line, not UTF-8 naming the byte.
Dataset loadDataset(const std::filesystem::path& file, const Tokenizer* tokenizer, std::int64_t vocabSize,
                    const DataOptions& options, const JobContext& job = {});

}  // namespace resect
