#include "core/data/gguf_vocabulary.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/data/byte_level.h"
#include "core/data/sentencepiece_proto.h"
#include "core/data/tokenizer.h"
#include "core/data/tokenizer_file.h"

#include <algorithm>
#include <array>
#include <unordered_map>

namespace resect {

namespace fs = std::filesystem;

namespace {

using Kind = SentencePieceProto::Kind;

constexpr float kPadScore = -10000, kAddedScore = -1000;  // as llama.cpp's converter gives

/// Texts that are special although no file says so.
bool looksSpecial(std::string_view text) {
    constexpr std::array<std::string_view, 4> kKnown{"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    return std::find(kKnown.begin(), kKnown.end(), text) != kKnown.end() || (text.starts_with("<|") && text.ends_with("|>")) ||
           (text.starts_with("<unused") && text.ends_with(">"));
}

Json jsonIfThere(const fs::path& path) {
    if (!fs::exists(path)) return Json::object();
    Json json = readJsonFile(path);
    return json.is_object() ? json : Json::object();
}

/// A special token is written as its text or as an object that holds it as `content`.
std::string tokenText(const Json& object, const char* field) {
    const auto found = object.find(field);
    if (found == object.end()) return {};
    if (found->is_string()) return found->get<std::string>();
    return found->is_object() && found->contains("content") && (*found)["content"].is_string() ? (*found)["content"].get<std::string>() : std::string();
}

class Builder {
public:
    Builder(const fs::path& folder, std::int64_t vocabSize, const Json& config)
        : m_folder(folder), m_config(config), m_tokenizerConfig(jsonIfThere(folder / "tokenizer_config.json")),
          m_specialMap(jsonIfThere(folder / "special_tokens_map.json")), m_size(vocabSize) {}

    GgufVocabulary run() {
        const fs::path model = m_folder / "tokenizer.model", json = m_folder / "tokenizer.json";
        const bool hasJson = fs::exists(json);
        if (hasJson) load(json);
        if (m_byteLevel) byteLevel();
        else if (fs::exists(model)) sentencePiece(model);
        else if (hasJson) byteFallback();
        else return none();
        specialTokens();
        chatTemplates();
        return std::move(m_result);
    }

private:
    void add(std::string key, GgufValue value) { m_result.entries.push_back({"tokenizer." + std::move(key), std::move(value)}); }
    void note(Severity severity, std::string message, std::string advice = {}) {
        m_result.notes.push_back({severity, "tokenizer", std::move(message), std::move(advice)});
    }

    GgufVocabulary none() {
        m_result.kind = "none";
        add("ggml.model", GgufValue::of(std::string("none")));
        note(Severity::Note, "the checkpoint has none: the file holds weights only, and programs must be given token ids");
        return std::move(m_result);
    }

    void load(const fs::path& path) {
        m_file = readTokenizerFile(path);
        m_subject = path.string();
        const Json model = m_file.json.value("model", Json::object());
        const std::string type = model.is_object() ? stringField(model, "type", m_subject + ": model", "BPE") : std::string();
        m_bpe = type == "BPE";
        m_byteLevel = m_bpe && m_file.json.value("decoder", Json()).dump().find("\"ByteLevel\"") != std::string::npos;
    }

    // ---- tokens ----
    void start() {
        m_tokens.resize(static_cast<std::size_t>(m_size));
        for (std::size_t i = 0; i < m_tokens.size(); ++i) m_tokens[i] = "[PAD" + toText(i) + "]";
        m_kinds.assign(m_tokens.size(), Kind::Unused);
        m_scores.assign(m_tokens.size(), kPadScore);
    }
    void set(std::int64_t id, std::string text, int kind, float score, const std::string& subject) {
        if (id < 0 || id >= m_size)
            throw Error(ErrorCode::BadInput, subject, "token \"" + text + "\" has id " + toText(id) + ", but the embedding has " + toText(m_size) + " rows");
        const auto at = static_cast<std::size_t>(id);
        m_ids[text] = id;
        m_tokens[at] = std::move(text);
        m_kinds[at] = kind;
        m_scores[at] = score;
    }

    void sentencePiece(const fs::path& path) {
        const SentencePieceProto model = SentencePieceProto::parse(readFile(path), path.string());
        if (model.modelType != SentencePieceProto::Bpe)
            note(Severity::Warning, path.filename().string() + " is no BPE model: llama.cpp may cut text differently", "Compare token ids before relying on it.");
        if (model.normalizes) note(Severity::Warning, path.filename().string() + " rewrites characters first, which llama.cpp does not");
        start();
        for (std::size_t i = 0; i < model.pieces.size(); ++i) {
            const auto& piece = model.pieces[i];
            set(static_cast<std::int64_t>(i), piece.text, piece.kind, piece.score, path.string());
        }
        for (const AddedToken& token : addedTokens()) addSentencePiece(token);
        m_defaultIds = {{"bos", model.bosId}, {"eos", model.eosId}, {"unk", model.unkId}, {"pad", model.padId}};
        m_addSpace = model.addDummyPrefix;
        writeLlama("SentencePiece");
    }

    void addSentencePiece(const AddedToken& token) {
        const bool special = token.special || looksSpecial(token.content);
        std::string text = token.content;
        if (!special)
            for (auto at = text.find("\xE2\x96\x81"); at != std::string::npos; at = text.find("\xE2\x96\x81", at + 1)) text.replace(at, 3, " ");
        set(token.id, text, special ? Kind::Control : Kind::UserDefined, kAddedScore, m_folder.string() + ": added tokens");
    }

    std::vector<AddedToken> addedTokens() const {
        const SpecialTokenNames names = readSpecialTokenNames(m_folder);
        if (!names.addedTokens.empty()) return names.addedTokens;
        return addedTokensOf(m_file.json, m_subject);
    }
    static std::vector<AddedToken> addedTokensOf(const Json& json, const std::string& subject) {
        std::vector<AddedToken> tokens;
        const auto list = json.find("added_tokens");
        if (list == json.end() || !list->is_array()) return tokens;
        for (const Json& entry : *list) tokens.push_back(readAddedToken(entry, -1, subject + ": added_tokens"));
        return tokens;
    }

    /// A SentencePiece vocabulary that only tokenizer.json holds. llama.cpp joins the pair of best score first, tokenizer.json that of the first merge.
    void byteFallback() {
        const Json model = m_file.json.value("model", Json::object());
        if (!m_bpe || !boolField(model, "byte_fallback", m_subject + ": model", false))
            throw Error(ErrorCode::Unsupported, m_subject + ": model", "expected BPE that is byte-level or has byte_fallback; llama.cpp's form of others is not written. "
                                                                       "Export a Hugging Face folder");
        std::unordered_map<std::string, std::size_t> firstMerge;
        for (std::size_t i = 0; i < m_file.merges.size(); ++i) firstMerge.try_emplace(m_file.merges[i].first + m_file.merges[i].second, i);
        start();
        const std::string unknown = stringField(model, "unk_token", m_subject + ": model", "");
        for (const auto& [token, id] : m_file.vocabulary) {
            const auto merge = firstMerge.find(token);
            const bool byte = byteFallbackToken(token).has_value();
            const std::size_t rank = merge != firstMerge.end() ? merge->second : m_file.merges.size();
            set(id, token, byte ? Kind::Byte : token == unknown ? Kind::Unknown : Kind::Normal, byte ? 0.0f : -static_cast<float>(rank), m_subject);
        }
        for (const AddedToken& token : addedTokensOf(m_file.json, m_subject)) addSentencePiece(token);
        m_defaultIds = {{"unk", m_ids.contains(unknown) ? m_ids.at(unknown) : -1}};
        const std::string steps = m_file.json.value("normalizer", Json()).dump() + m_file.json.value("pre_tokenizer", Json()).dump();
        m_addSpace = steps.find("\"Prepend\"") != std::string::npos || steps.find("\"always\"") != std::string::npos || steps.find("\"first\"") != std::string::npos;
        writeLlama("SentencePiece (from tokenizer.json)");
    }

    void writeLlama(std::string kind) {
        m_result.kind = std::move(kind);
        constexpr std::ptrdiff_t kBytes = 256;
        if (std::count(m_kinds.begin(), m_kinds.end(), int{Kind::Byte}) < kBytes)
            note(Severity::Warning, "the vocabulary lacks tokens for single bytes (<0x00> to <0xFF>), without which llama.cpp ends when it meets other characters",
                 "Give programs token ids, or use a tokenizer with byte fallback.");
        add("ggml.model", GgufValue::of(std::string("llama")));
        add("ggml.pre", GgufValue::of(std::string("default")));
        notePadding();
        add("ggml.tokens", GgufValue::ofTexts(m_tokens));
        add("ggml.scores", GgufValue::ofF32(m_scores));
        add("ggml.token_type", GgufValue::ofI32(m_kinds));
    }

    void byteLevel() {
        const GgufPreTokenizer* pre = findPreTokenizer(m_file.json.value("pre_tokenizer", Json()));
        const std::string id = pre ? std::string(pre->id) : "default";
        if (!pre)
            note(Severity::Warning, "llama.cpp has no pre-tokenizer that cuts words like this tokenizer.json; \"default\" is written, with which token ids may differ",
                 "Compare token ids before relying on it.");
        start();
        for (const auto& [token, number] : m_file.vocabulary) set(number, token, Kind::Normal, 0, m_subject);
        for (const AddedToken& token : addedTokensOf(m_file.json, m_subject)) {
            const auto known = m_ids.find(token.content);
            set(known == m_ids.end() ? token.id : known->second, token.content, token.special || looksSpecial(token.content) ? Kind::Control : Kind::UserDefined, 0, m_subject);
        }
        std::vector<std::string> merges;
        for (const auto& [left, right] : m_file.merges) merges.push_back(withoutSpaces(left) + " " + withoutSpaces(right));
        m_result.kind = "byte-level BPE (" + id + ")";
        add("ggml.model", GgufValue::of(std::string("gpt2")));
        add("ggml.pre", GgufValue::of(id));
        notePadding();
        add("ggml.tokens", GgufValue::ofTexts(m_tokens));
        add("ggml.token_type", GgufValue::ofI32(m_kinds));
        add("ggml.merges", GgufValue::ofTexts(std::move(merges)));
    }
    /// A space separates the two halves of a merge; within one it is written as the byte-level alphabet does.
    static std::string withoutSpaces(std::string piece) {
        for (auto at = piece.find(' '); at != std::string::npos; at = piece.find(' ', at)) piece.replace(at, 1, "\xC4\xA0");
        return piece;
    }

    void notePadding() {
        const auto unused = std::count(m_kinds.begin(), m_kinds.end(), int{Kind::Unused});
        if (unused > 0) note(Severity::Note, "the embedding has " + toText(m_size) + " rows, the tokenizer fewer: " + toText(unused) + " unused tokens fill it up");
    }

    // ---- special tokens ----
    void specialTokens() {
        struct Special {
            const char *role, *field, *key, *configId;
        };
        constexpr Special kSpecials[] = {{"bos", "bos_token", "bos_token_id", "bos_token_id"},
                                         {"eos", "eos_token", "eos_token_id", "eos_token_id"},
                                         {"unk", "unk_token", "unknown_token_id", ""},
                                         {"sep", "sep_token", "seperator_token_id", ""},  // llama.cpp's spelling
                                         {"pad", "pad_token", "padding_token_id", "pad_token_id"},
                                         {"mask", "mask_token", "mask_token_id", ""}};
        std::int64_t bos = -1, eos = -1;
        for (const Special& special : kSpecials) {
            const std::int64_t id = specialId(special.role, special.field, special.configId);
            if (id < 0 || id >= m_size) continue;
            add(std::string("ggml.") + special.key, GgufValue::of(static_cast<std::uint32_t>(id)));
            if (std::string_view(special.role) == "bos") bos = id;
            if (std::string_view(special.role) == "eos") eos = id;
        }
        addFlags(bos, eos);
        if (!m_addSpace) add("ggml.add_space_prefix", GgufValue::of(false));
    }

    std::int64_t specialId(const char* role, const char* field, const char* configId) const {
        for (const Json* source : {&m_tokenizerConfig, &m_specialMap})
            if (const std::string text = tokenText(*source, field); !text.empty())
                if (const auto known = m_ids.find(text); known != m_ids.end()) return known->second;
        if (const auto value = m_config.find(configId); *configId && value != m_config.end()) {
            const Json& id = value->is_array() && !value->empty() ? value->front() : *value;
            if (id.is_number_integer()) return id.get<std::int64_t>();
        }
        const auto fallback = m_defaultIds.find(role);
        return fallback == m_defaultIds.end() ? -1 : fallback->second;
    }

    /// What this tokenizer really puts around a text.
    void addFlags(std::int64_t bos, std::int64_t eos) {
        const std::vector<std::int64_t> around = Tokenizer::load(m_folder)->encode("", SpecialTokens::Add);
        const bool addsBos = !around.empty() && around.front() == bos;
        add("ggml.add_bos_token", GgufValue::of(addsBos));
        add("ggml.add_eos_token", GgufValue::of(around.size() > (addsBos ? 1u : 0u) && around.back() == eos));
    }

    void chatTemplates() {
        if (const fs::path path = m_folder / "chat_template.jinja"; fs::exists(path)) {
            add("chat_template", GgufValue::of(readFile(path)));
            return;
        }
        const auto value = m_tokenizerConfig.find("chat_template");
        if (value == m_tokenizerConfig.end()) return;
        if (value->is_string()) return add("chat_template", GgufValue::of(value->get<std::string>()));
        if (!value->is_array()) return;
        std::vector<std::string> names;
        for (const Json& entry : *value) {
            const std::string name = tokenText(entry, "name"), text = tokenText(entry, "template");
            if (name.empty() || text.empty()) continue;
            add(name == "default" ? "chat_template" : "chat_template." + name, GgufValue::of(text));
            if (name != "default") names.push_back(name);
        }
        if (!names.empty()) add("chat_templates", GgufValue::ofTexts(names));
    }

    const fs::path& m_folder;
    const Json& m_config;
    const Json m_tokenizerConfig, m_specialMap;
    const std::int64_t m_size;
    TokenizerFile m_file;
    std::string m_subject;
    bool m_bpe = false, m_byteLevel = false, m_addSpace = true;
    std::vector<std::string> m_tokens;
    std::vector<std::int32_t> m_kinds;
    std::vector<float> m_scores;
    std::unordered_map<std::string, std::int64_t> m_ids;
    std::unordered_map<std::string, std::int64_t> m_defaultIds;
    GgufVocabulary m_result;
};

}  // namespace

GgufVocabulary readGgufVocabulary(const fs::path& folder, std::int64_t vocabSize, const Json& config) { return Builder(folder, vocabSize, config).run(); }

}  // namespace resect
