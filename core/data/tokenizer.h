#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

enum class SpecialTokens { Add, Omit };

/// Text to token ids and back, with the results of Hugging Face's tokenizers. Thread-safe after construction.
///
/// Text that is not well-formed UTF-8 is encoded with U+FFFD for each broken part; readers of files check before. Empty text
/// gives no token besides those of SpecialTokens::Add. Text over 1 GB throws BadInput.
class Tokenizer {
public:
    /// tokenizer.json when the folder has one, else tokenizer.model. Throws NotFound, BadInput, Unsupported (naming the part of
    /// the file).
    static std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder);
    /// BPE models: byte-level (GPT-2, Llama 3, Qwen2, CLIP) and SentencePiece-style (Llama 2). Truncation and padding that the
    /// file sets are ignored, as Hugging Face does unless asked. The names of BOS and EOS are read from tokenizer_config.json
    /// or special_tokens_map.json beside it; without these, a token that the post-processor puts in front is BOS, and one
    /// behind is EOS.
    static std::unique_ptr<Tokenizer> fromTokenizerJson(const std::filesystem::path& file);
    /// A SentencePiece model (any type). BOS is put in front and EOS not behind, unless tokenizer_config.json beside it says
    /// otherwise. Control tokens are recognised in the text, and every stretch of text between them gets the model's dummy
    /// space in front, as in the tokenizer.json that Hugging Face converts such a model to (and not as with its option `legacy:
    /// false`). Throws Unsupported for the tiktoken rank files that Llama 3 also calls tokenizer.model.
    static std::unique_ptr<Tokenizer> fromSentencePiece(const std::filesystem::path& file);
    virtual ~Tokenizer() = default;

    /// Add puts the post-processor's tokens (BOS, ...) around. Added and special tokens that occur in the text are recognised
    /// either way.
    virtual std::vector<std::int64_t> encode(std::string_view text, SpecialTokens special = SpecialTokens::Add) const = 0;
    /// As Hugging Face's decode() with skip_special_tokens=false and no clean-up. Ids past the vocabulary throw BadInput.
    virtual std::string decode(std::span<const std::int64_t> ids) const = 0;
    /// What one token looks like in a strip of tokens: byte-level and Metaspace markers undone, broken UTF-8 shown as <0x..>.
    virtual std::string piece(std::int64_t id) const = 0;
    virtual std::int64_t vocabSize() const noexcept = 0;  ///< largest id + 1
    virtual std::optional<std::int64_t> bosId() const noexcept = 0;
    virtual std::optional<std::int64_t> eosId() const noexcept = 0;
    virtual std::optional<std::int64_t> idOf(std::string_view token) const = 0;
};

}  // namespace resect
