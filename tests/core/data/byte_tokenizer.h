#pragma once
#include "core/data/tokenizer.h"

namespace resect::test {

/// Every byte is a token; 256 is BOS, which is put in front, 257 is EOS, which is not put behind.
class ByteTokenizer final : public Tokenizer {
public:
    static constexpr std::int64_t kBos = 256, kEos = 257;
    std::vector<std::int64_t> encode(std::string_view text, SpecialTokens special) const override {
        std::vector<std::int64_t> ids;
        if (special == SpecialTokens::Add) ids.push_back(kBos);
        for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
        return ids;
    }
    std::string decode(std::span<const std::int64_t> ids) const override {
        std::string out;
        for (const std::int64_t id : ids) out += piece(id);
        return out;
    }
    std::string piece(std::int64_t id) const override { return id < 256 ? std::string(1, static_cast<char>(id)) : ""; }
    std::int64_t vocabSize() const noexcept override { return 258; }
    std::optional<std::int64_t> bosId() const noexcept override { return kBos; }
    std::optional<std::int64_t> eosId() const noexcept override { return kEos; }
    std::optional<std::int64_t> idOf(std::string_view) const override { return std::nullopt; }
};

}  // namespace resect::test
