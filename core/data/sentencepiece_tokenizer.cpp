#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/byte_level.h"
#include "core/data/sentencepiece_model.h"
#include "core/data/text_steps.h"
#include "core/data/tokenizer.h"
#include "core/data/tokenizer_file.h"
#include "core/data/tokenizer_pieces.h"

#include <algorithm>
#include <unordered_map>

namespace resect {

void requireTokenId(std::int64_t id, std::int64_t vocabSize) {
    if (id >= 0 && id < vocabSize) return;
    throw Error(ErrorCode::BadInput, "token id " + std::to_string(id),
                "is outside the vocabulary of " + std::to_string(vocabSize) + " tokens");
}

std::string showBytes(std::string_view bytes) {
    std::string out;
    while (!bytes.empty()) {
        const std::size_t good = findInvalidUtf8(bytes).value_or(bytes.size());
        out += bytes.substr(0, good);
        bytes.remove_prefix(good);
        if (bytes.empty()) break;
        out += byteFallbackName(static_cast<unsigned char>(bytes.front()));
        bytes.remove_prefix(1);
    }
    return out;
}

std::string showSentencePiece(std::string_view token) {
    if (const auto byte = byteFallbackToken(token))
        return *byte < 0x80 ? std::string(1, static_cast<char>(*byte)) : std::string(token);
    static constexpr std::string_view kMarker = "\xE2\x96\x81";
    std::string out(token);
    for (auto at = out.find(kMarker); at != std::string::npos; at = out.find(kMarker, at)) out.replace(at, kMarker.size(), " ");
    return out;
}

namespace {

class SentencePieceTokenizer final : public Tokenizer {
public:
    SentencePieceTokenizer(const std::string& model, const SpecialTokenNames& names, const std::string& subject)
        : m_model(SentencePieceModel::load(model, subject)) {
        m_vocabSize = m_model->pieceSize();
        for (int id = 0; id < m_model->pieceSize(); ++id) {
            if (!m_model->isControl(id) && !m_model->isUnknown(id)) continue;
            m_added.add(m_model->piece(id), {.id = id, .content = m_model->piece(id), .special = true});
        }
        for (const AddedToken& token : names.addedTokens) {
            if (token.id < m_model->pieceSize()) continue;
            m_added.add(token.content, token);
            m_addedText[token.id] = token.content;
            m_vocabSize = std::max(m_vocabSize, token.id + 1);
        }
        const auto idIfAny = [](int id) { return id < 0 ? std::nullopt : std::optional<std::int64_t>(id); };
        m_bos = names.bos ? idOf(*names.bos) : idIfAny(m_model->bosId());
        m_eos = names.eos ? idOf(*names.eos) : idIfAny(m_model->eosId());
        m_addBos = names.addBos.value_or(true);
        m_addEos = names.addEos.value_or(false);
        m_decoder = readDecoder(decoderJson(), subject);
    }

    std::vector<std::int64_t> encode(std::string_view text, SpecialTokens special) const override {
        std::string repaired;
        if (findInvalidUtf8(text)) text = repaired = replaceInvalidUtf8(text);
        std::vector<std::int64_t> ids;
        if (special == SpecialTokens::Add && m_addBos && m_bos) ids.push_back(*m_bos);
        std::vector<int> part;
        for (const auto& segment : m_added.split(text)) {
            if (segment.id >= 0) {
                ids.push_back(segment.id);
                continue;
            }
            const std::string_view stretch = text.substr(segment.range.begin, segment.range.end - segment.range.begin);
            const std::string error = m_model->encode(stretch, part);
            if (!error.empty()) throw Error(ErrorCode::Internal, "SentencePiece", error);
            ids.insert(ids.end(), part.begin(), part.end());
        }
        if (special == SpecialTokens::Add && m_addEos && m_eos) ids.push_back(*m_eos);
        return ids;
    }

    std::string decode(std::span<const std::int64_t> ids) const override {
        std::vector<std::string> tokens;
        tokens.reserve(ids.size());
        for (const std::int64_t id : ids) tokens.push_back(tokenText(id));
        m_decoder->apply(tokens);
        std::string out;
        for (const std::string& token : tokens) out += token;
        return out;
    }

    std::string piece(std::int64_t id) const override { return showSentencePiece(tokenText(id)); }
    std::int64_t vocabSize() const noexcept override { return m_vocabSize; }
    std::optional<std::int64_t> bosId() const noexcept override { return m_bos; }
    std::optional<std::int64_t> eosId() const noexcept override { return m_eos; }

    std::optional<std::int64_t> idOf(std::string_view token) const override {
        for (const auto& [id, text] : m_addedText) {
            if (text == token) return id;
        }
        const int id = m_model->idOf(token);
        return id >= 0 && m_model->piece(id) == token ? std::optional<std::int64_t>(id) : std::nullopt;
    }

private:
    /// What Hugging Face's converter writes for such a model: the dummy space of the first token is taken away again.
    Json decoderJson() const {
        std::vector<std::string> pieces;
        const bool dummySpace =
            m_model->encode("a", pieces).empty() && !pieces.empty() && pieces.front().starts_with("\xE2\x96\x81");
        Json steps = Json::array({{{"type", "Replace"}, {"pattern", {{"String", "\xE2\x96\x81"}}}, {"content", " "}},
                                  {{"type", "ByteFallback"}},
                                  {{"type", "Fuse"}}});
        if (dummySpace) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
        return {{"type", "Sequence"}, {"decoders", steps}};
    }

    std::string tokenText(std::int64_t id) const {
        requireTokenId(id, m_vocabSize);
        if (id < m_model->pieceSize()) return m_model->piece(static_cast<int>(id));
        const auto added = m_addedText.find(id);
        return added == m_addedText.end() ? std::string() : added->second;
    }

    std::unique_ptr<SentencePieceModel> m_model;
    AddedTokenMatcher m_added;
    std::unordered_map<std::int64_t, std::string> m_addedText;
    std::unique_ptr<TokenDecoder> m_decoder;
    std::int64_t m_vocabSize = 0;
    std::optional<std::int64_t> m_bos, m_eos;
    bool m_addBos = true, m_addEos = false;
};

/// Lines of "base64 rank": the form in which tiktoken, and Llama 3, keep a vocabulary.
bool looksLikeTiktoken(std::string_view content) {
    const std::string_view line = content.substr(0, std::min(content.find('\n'), content.size()));
    const auto space = line.find(' ');
    if (space == line.npos || space == 0 || space + 1 == line.size()) return false;
    const auto isBase64 = [](unsigned char c) { return std::isalnum(c) || c == '+' || c == '/' || c == '='; };
    return std::all_of(line.begin(), line.begin() + static_cast<std::ptrdiff_t>(space), isBase64) &&
           std::all_of(line.begin() + static_cast<std::ptrdiff_t>(space) + 1, line.end(),
                       [](unsigned char c) { return std::isdigit(c) || c == '\r'; });
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::fromSentencePiece(const std::filesystem::path& file) {
    const std::string content = readFile(file);
    if (looksLikeTiktoken(content)) {
        throw Error(ErrorCode::Unsupported, file.string(),
                    "is a tiktoken rank file, which lacks the word pattern and the special tokens; put the model's "
                    "tokenizer.json beside it");
    }
    return std::make_unique<SentencePieceTokenizer>(content, readSpecialTokenNames(file.parent_path()), file.string());
}

}  // namespace resect
