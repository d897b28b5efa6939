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

/// Text to token ids and back. Thread-safe after construction.
class Tokenizer {
public:
    /// tokenizer.json when the folder has one, else tokenizer.model. Throws NotFound, BadInput, Unsupported (naming the part of the file).
    static std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder);
    static std::unique_ptr<Tokenizer> fromTokenizerJson(const std::filesystem::path& file);
    static std::unique_ptr<Tokenizer> fromSentencePiece(const std::filesystem::path& file);
    virtual ~Tokenizer() = default;

    /// Add puts the post-processor's tokens (BOS, ...) around. Added and special tokens that occur in the text are recognised either way.
    virtual std::vector<std::int64_t> encode(std::string_view text, SpecialTokens special = SpecialTokens::Add) const = 0;
    /// As Hugging Face's decode() with skip_special_tokens=false and no clean-up. Ids past the vocabulary throw BadInput.
    virtual std::string decode(std::span<const std::int64_t> ids) const = 0;
    /// What one token looks like in a strip of tokens: byte-level and Metaspace markers undone, broken UTF-8 shown as <0x..>.
    virtual std::string piece(std::int64_t id) const = 0;
    virtual std::int64_t vocabSize() const noexcept = 0;   ///< largest id + 1
    virtual std::optional<std::int64_t> bosId() const noexcept = 0;
    virtual std::optional<std::int64_t> eosId() const noexcept = 0;
    virtual std::optional<std::int64_t> idOf(std::string_view token) const = 0;
};

}  // namespace resect
