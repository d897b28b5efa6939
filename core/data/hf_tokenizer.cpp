#include "core/base/error.h"
#include "core/base/log.h"
#include "core/data/byte_level.h"
#include "core/data/text_steps.h"
#include "core/data/tokenizer.h"
#include "core/data/tokenizer_file.h"
#include "core/data/tokenizer_pieces.h"

#include <mutex>

namespace resect {
namespace {

/// Tokens around a text: what the post-processor adds.
struct Surroundings {
    std::vector<std::int64_t> before, after;
};

std::int64_t pairedId(const Json& pair, const std::string& subject) {
    if (!pair.is_array() || pair.size() != 2 || !pair[1].is_number_integer())
        throw Error(ErrorCode::BadInput, subject, "expected [token, id]");
    return pair[1].get<std::int64_t>();
}

Surroundings readTemplate(const Json& json, const std::string& subject) {
    requireKnownFields(json, {"type", "single", "pair", "special_tokens"}, subject);
    Surroundings around;
    bool textSeen = false;
    std::size_t index = 0;
    for (const Json& piece : stepsOf(json, "single", subject)) {
        const std::string where = subject + ".single[" + std::to_string(index++) + "]";
        if (piece.is_object() && piece.contains("Sequence")) {
            if (textSeen) throw Error(ErrorCode::Unsupported, where, "a template with the text in it twice is not supported");
            textSeen = true;
            continue;
        }
        if (!piece.is_object() || !piece.contains("SpecialToken"))
            throw Error(ErrorCode::BadInput, where, "expected 'SpecialToken' or 'Sequence'");
        const std::string name = stringField(piece["SpecialToken"], "id", where);
        const auto specials = json.find("special_tokens");
        if (specials == json.end() || !specials->is_object() || !specials->contains(name)) {
            throw Error(ErrorCode::BadInput, where, "'" + name + "' is not among special_tokens");
        }
        for (const Json& id : stepsOf((*specials)[name], "ids", subject + ".special_tokens." + name)) {
            if (!id.is_number_integer())
                throw Error(ErrorCode::BadInput, subject + ".special_tokens." + name, "expected integer ids");
            (textSeen ? around.after : around.before).push_back(id.get<std::int64_t>());
        }
    }
    if (!textSeen) throw Error(ErrorCode::BadInput, subject + ".single", "the text itself is missing");
    return around;
}

Surroundings readPostProcessor(const Json& json, const std::string& subject) {
    if (json.is_null()) return {};
    if (!json.is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object or null");
    const std::string type = stringField(json, "type", subject);
    if (type == "ByteLevel") {  // moves offsets only
        requireKnownFields(json, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, subject);
        return {};
    }
    if (type == "TemplateProcessing") return readTemplate(json, subject);
    if (type == "BertProcessing" || type == "RobertaProcessing") {
        requireKnownFields(json, {"type", "sep", "cls", "trim_offsets", "add_prefix_space"}, subject);
        return {{pairedId(json.value("cls", Json()), subject + ".cls")},
                {pairedId(json.value("sep", Json()), subject + ".sep")}};
    }
    if (type == "Sequence") {
        requireKnownFields(json, {"type", "processors"}, subject);
        Surroundings all;
        std::size_t index = 0;
        for (const Json& step : stepsOf(json, "processors", subject)) {
            const Surroundings inner = readPostProcessor(step, subject + ".processors[" + std::to_string(index++) + "]");
            all.before.insert(all.before.begin(), inner.before.begin(), inner.before.end());
            all.after.insert(all.after.end(), inner.after.begin(), inner.after.end());
        }
        return all;
    }
    throw Error(ErrorCode::Unsupported, subject, "the post-processor '" + type + "' is not supported");
}

BpeModel readModel(TokenizerFile& file, const std::string& subject) {
    const auto found = file.json.find("model");
    if (found == file.json.end() || !found->is_object())
        throw Error(ErrorCode::BadInput, subject, "expected an object 'model'");
    const Json& model = *found;
    const std::string where = subject + ": model";
    const std::string type = stringField(model, "type", where, "");
    if (type.empty() && file.merges.empty()) throw Error(ErrorCode::BadInput, where + ".type", "is missing");
    if (!type.empty() && type != "BPE")
        throw Error(ErrorCode::Unsupported, where, "the model type '" + type + "' is not supported, only BPE");
    requireKnownFields(
        model,
        {"type", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges"},
        where);
    if (file.vocabulary.empty()) throw Error(ErrorCode::BadInput, where + ".vocab", "is missing or empty");
    BpeOptions options;
    options.unknownToken = stringField(model, "unk_token", where, "");
    options.continuingSubwordPrefix = stringField(model, "continuing_subword_prefix", where, "");
    options.endOfWordSuffix = stringField(model, "end_of_word_suffix", where, "");
    options.fuseUnknown = boolField(model, "fuse_unk", where, false);
    options.byteFallback = boolField(model, "byte_fallback", where, false);
    options.ignoreMerges = boolField(model, "ignore_merges", where, false);
    return BpeModel(std::move(file.vocabulary), file.merges, std::move(options), where);
}

struct StringHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>()(text); }
};

/// Tokens of words seen before. One encode() at a time uses the shared one; another that runs beside it has its own.
using WordCache = std::unordered_map<std::string, std::vector<std::int32_t>, StringHash, std::equal_to<>>;
constexpr std::size_t kMaxText = 1 << 30;  // positions are 32-bit in ICU and in the merging
constexpr std::size_t kMaxCachedWords = 1 << 16;
constexpr std::size_t kMaxCachedWordBytes = 128;

class HfTokenizer final : public Tokenizer {
public:
    HfTokenizer(TokenizerFile file, const SpecialTokenNames& names, const std::string& subject)
        : m_model(readModel(file, subject)) {
        const Json& json = file.json;
        requireKnownFields(json,
                           {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                            "decoder", "model"},
                           subject + ": ");
        const auto part = [&](const char* name) { return json.value(name, Json()); };
        m_normalizer = readNormalizer(part("normalizer"), subject + ": normalizer");
        m_preTokenizer = readPreTokenizer(part("pre_tokenizer"), subject + ": pre_tokenizer");
        m_decoder = readDecoder(part("decoder"), subject + ": decoder");
        m_around = readPostProcessor(part("post_processor"), subject + ": post_processor");
        m_byteLevel = part("decoder").dump().find("\"ByteLevel\"") != std::string::npos;
        m_vocabSize = m_model.vocabSize();
        readAddedTokens(part("added_tokens"), subject);
        for (const auto* ids : {&m_around.before, &m_around.after}) {
            for (const std::int64_t id : *ids) {
                if (!tokenText(id))
                    throw Error(ErrorCode::BadInput, subject + ": post_processor",
                                "token id " + std::to_string(id) + " does not exist");
            }
        }
        nameSpecialTokens(names);
    }

    std::vector<std::int64_t> encode(std::string_view text, SpecialTokens special) const override {
        if (text.size() > kMaxText) throw Error(ErrorCode::BadInput, "text", "is longer than 1 GB; encode it in parts");
        std::string repaired;
        if (findInvalidUtf8(text)) text = repaired = replaceInvalidUtf8(text);
        Work work(*this);
        for (const auto& segment : m_rawTokens.split(text)) {
            if (segment.id >= 0)
                work.ids.push_back(static_cast<std::int32_t>(segment.id));
            else
                encodeSegment(text.substr(segment.range.begin, segment.range.end - segment.range.begin),
                              segment.range.begin == 0, work);
        }
        std::vector<std::int64_t> ids;
        ids.reserve(work.ids.size() + m_around.before.size() + m_around.after.size());
        if (special == SpecialTokens::Add) ids = m_around.before;
        ids.insert(ids.end(), work.ids.begin(), work.ids.end());
        if (special == SpecialTokens::Add) ids.insert(ids.end(), m_around.after.begin(), m_around.after.end());
        return ids;
    }

    std::string decode(std::span<const std::int64_t> ids) const override {
        std::vector<std::string> tokens;
        tokens.reserve(ids.size());
        for (const std::int64_t id : ids) {
            requireTokenId(id, m_vocabSize);
            if (const std::string* token = tokenText(id)) tokens.push_back(*token);
        }
        if (m_decoder) m_decoder->apply(tokens);
        std::string out;
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            if (i > 0 && !m_decoder) out += ' ';
            out += tokens[i];
        }
        return out;
    }

    std::string piece(std::int64_t id) const override {
        requireTokenId(id, m_vocabSize);
        const std::string* token = tokenText(id);
        if (!token) return "";
        const bool added = m_addedText.contains(id);
        return m_byteLevel && !added ? showBytes(fromByteCharacters(*token).value_or(*token)) : showSentencePiece(*token);
    }

    std::int64_t vocabSize() const noexcept override { return m_vocabSize; }
    std::optional<std::int64_t> bosId() const noexcept override { return m_bos; }
    std::optional<std::int64_t> eosId() const noexcept override { return m_eos; }
    std::optional<std::int64_t> idOf(std::string_view token) const override {
        if (const auto added = m_addedIds.find(token); added != m_addedIds.end()) return added->second;
        const std::int32_t id = m_model.idOf(token);
        return id < 0 ? std::nullopt : std::optional<std::int64_t>(id);
    }

private:
    struct Work {
        explicit Work(const HfTokenizer& tokenizer)
            : lock(tokenizer.m_cacheMutex, std::try_to_lock), cache(lock ? tokenizer.m_cache : ownCache) {}
        std::unique_lock<std::mutex> lock;
        WordCache ownCache;
        WordCache& cache;
        BpeModel::Workspace workspace;
        std::vector<std::int32_t> ids;
    };

    void readAddedTokens(const Json& list, const std::string& subject) {
        if (list.is_null()) return;
        if (!list.is_array()) throw Error(ErrorCode::BadInput, subject + ": added_tokens", "expected an array");
        std::size_t index = 0;
        for (const Json& entry : list) {
            AddedToken token = readAddedToken(entry, -1, subject + ": added_tokens[" + std::to_string(index++) + "]");
            if (token.content.empty()) continue;
            if (const std::int32_t known = m_model.idOf(token.content); known >= 0 && known != token.id) {
                log(LogLevel::Warning, subject + ": added token '" + token.content + "' is numbered " +
                                           std::to_string(token.id) + ", but the vocabulary's " + std::to_string(known) +
                                           " counts");
                token.id = known;
            }
            m_vocabSize = std::max(m_vocabSize, token.id + 1);
            m_addedText[token.id] = token.content;
            m_addedIds[token.content] = token.id;
            if (token.normalized) {
                std::string content = token.content;
                if (m_normalizer) m_normalizer->apply(content);
                m_normalizedTokens.add(content, token);
            } else {
                m_rawTokens.add(token.content, token);
            }
        }
    }

    void nameSpecialTokens(const SpecialTokenNames& names) {
        if (names.bos) m_bos = idOf(*names.bos);
        if (names.eos) m_eos = idOf(*names.eos);
        if (names.found) return;
        if (!m_around.before.empty()) m_bos = m_around.before.front();
        if (!m_around.after.empty()) m_eos = m_around.after.back();
    }

    void encodeSegment(std::string_view segment, bool atStart, Work& work) const {
        std::string text(segment);
        if (m_normalizer) m_normalizer->apply(text);
        if (m_normalizedTokens.empty()) return encodeText(std::move(text), atStart, work);
        for (const auto& part : m_normalizedTokens.split(text)) {
            if (part.id >= 0)
                work.ids.push_back(static_cast<std::int32_t>(part.id));
            else
                encodeText(text.substr(part.range.begin, part.range.end - part.range.begin), atStart && part.range.begin == 0,
                           work);
        }
    }

    void encodeText(std::string text, bool atStart, Work& work) const {
        if (text.empty()) return;
        if (!m_preTokenizer) return m_model.encode(text, work.workspace, work.ids);
        Words words{std::move(text), {}, atStart};
        words.ranges.push_back({0, words.text.size()});
        m_preTokenizer->apply(words);
        for (const ByteRange& range : words.ranges) {
            encodeWord(std::string_view(words.text).substr(range.begin, range.end - range.begin), work);
        }
    }

    void encodeWord(std::string_view word, Work& work) const {
        if (word.size() > kMaxCachedWordBytes) return m_model.encode(word, work.workspace, work.ids);
        if (const auto known = work.cache.find(word); known != work.cache.end()) {
            work.ids.insert(work.ids.end(), known->second.begin(), known->second.end());
            return;
        }
        const std::size_t from = work.ids.size();
        m_model.encode(word, work.workspace, work.ids);
        if (work.cache.size() < kMaxCachedWords) {
            work.cache.emplace(std::string(word),
                               std::vector<std::int32_t>(work.ids.begin() + static_cast<std::ptrdiff_t>(from), work.ids.end()));
        }
    }

    /// Null where the numbering has a hole.
    const std::string* tokenText(std::int64_t id) const {
        const auto added = m_addedText.find(id);
        return added != m_addedText.end() ? &added->second : m_model.token(id);
    }

    BpeModel m_model;
    std::unique_ptr<Normalizer> m_normalizer;
    std::unique_ptr<PreTokenizer> m_preTokenizer;
    std::unique_ptr<TokenDecoder> m_decoder;
    Surroundings m_around;
    AddedTokenMatcher m_rawTokens, m_normalizedTokens;
    std::unordered_map<std::int64_t, std::string> m_addedText;
    std::map<std::string, std::int64_t, std::less<>> m_addedIds;
    std::int64_t m_vocabSize = 0;
    std::optional<std::int64_t> m_bos, m_eos;
    bool m_byteLevel = false;
    mutable std::mutex m_cacheMutex;
    mutable WordCache m_cache;
};

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::fromTokenizerJson(const std::filesystem::path& file) {
    return std::make_unique<HfTokenizer>(readTokenizerFile(file), readSpecialTokenNames(file.parent_path()), file.string());
}

std::unique_ptr<Tokenizer> Tokenizer::load(const std::filesystem::path& folder) {
    if (const auto json = folder / "tokenizer.json"; std::filesystem::exists(json)) return fromTokenizerJson(json);
    if (const auto model = folder / "tokenizer.model"; std::filesystem::exists(model)) return fromSentencePiece(model);
    throw Error(ErrorCode::NotFound, folder.string(), "expected tokenizer.json or tokenizer.model");
}

}  // namespace resect
