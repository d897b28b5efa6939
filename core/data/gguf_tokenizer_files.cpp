#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/data/gguf_vocabulary.h"
#include "core/data/sentencepiece_proto.h"

#include <unordered_map>

namespace resect {

namespace fs = std::filesystem;

namespace {

using Kind = SentencePieceProto::Kind;

class FileWriter {
public:
    FileWriter(const GgufFile& file, const fs::path& folder) : m_file(file), m_folder(folder) {}

    std::vector<Problem> run() {
        const std::string model = m_file.text("tokenizer.ggml.model", "none");
        if (model == "none" || model == "no_vocab") {
            note("the file has no tokenizer: the checkpoint can be used with token ids only");
            return std::move(m_notes);
        }
        if (model != "llama" && model != "gpt2") {
            note("a tokenizer of kind \"" + model + "\" is not written; put the model's own tokenizer files into the folder");
            return std::move(m_notes);
        }
        readTokens();
        model == "llama" ? sentencePiece() : byteLevel();
        writeJsonFile(m_folder / "tokenizer_config.json", tokenizerConfig(model == "llama"));
        return std::move(m_notes);
    }

private:
    void note(std::string message) { m_notes.push_back({Severity::Warning, "tokenizer", std::move(message), ""}); }
    static std::string key(const char* name) { return std::string("tokenizer.ggml.") + name; }

    const GgufArray& array(const char* name, GgufValueType type, std::size_t count) const {
        const GgufValue* value = m_file.find(key(name));
        const bool good = value && value->type() == GgufValueType::Array && value->array().type == type && (count == 0 || value->array().size() == count);
        if (!good)
            throw Error(ErrorCode::BadInput, m_file.subject(key(name)), "expected an array of " + std::string(resect::name(type)) + (count ? ", " + toText(count) + " long" : "") +
                                                                            ", found " + (value ? value->shown() : "no such key"));
        return value->array();
    }

    void readTokens() {
        const std::vector<std::string>& tokens = array("tokens", GgufValueType::String, 0).strings;
        const bool typed = m_file.find(key("token_type")) != nullptr;
        const GgufArray* kinds = typed ? &array("token_type", GgufValueType::I32, tokens.size()) : nullptr;
        for (std::size_t i = 0; i < tokens.size(); ++i) m_pieces.push_back({tokens[i], 0, kinds ? static_cast<int>(kinds->number(i)) : int{Kind::Normal}});
        // What only fills the embedding up is no token.
        while (!m_pieces.empty() && m_pieces.back().kind == Kind::Unused && m_pieces.back().text.starts_with("[PAD")) m_pieces.pop_back();
    }

    std::int64_t id(const char* name) const {
        const std::int64_t value = m_file.integer(key(name), -1);
        return value < static_cast<std::int64_t>(m_pieces.size()) ? value : -1;
    }
    const std::string& text(std::int64_t id) const { return m_pieces[static_cast<std::size_t>(id)].text; }

    void sentencePiece() {
        SentencePieceProto model;
        const GgufArray& scores = array("scores", GgufValueType::F32, array("tokens", GgufValueType::String, 0).size());
        for (std::size_t i = 0; i < m_pieces.size(); ++i) m_pieces[i].score = static_cast<float>(scores.number(i));
        model.modelType = SentencePieceProto::Bpe;
        model.unkId = static_cast<int>(id("unknown_token_id"));
        model.bosId = static_cast<int>(id("bos_token_id"));
        model.eosId = static_cast<int>(id("eos_token_id"));
        model.padId = static_cast<int>(id("padding_token_id"));
        model.addDummyPrefix = m_file.flag(key("add_space_prefix"), true);
        model.removeExtraSpaces = false;
        model.pieces = m_pieces;
        if (model.unkId < 0) {  // the format needs one
            for (std::size_t i = 0; i < m_pieces.size() && model.unkId < 0; ++i)
                if (m_pieces[i].kind == Kind::Unknown) model.unkId = static_cast<int>(i);
            if (model.unkId < 0) throw Error(ErrorCode::BadInput, m_file.subject(key("unknown_token_id")), "expected the id of the unknown token, found none");
        }
        for (std::size_t i = 0; i < model.pieces.size(); ++i) {
            const bool unknown = static_cast<int>(i) == model.unkId;
            if (unknown) model.pieces[i].kind = Kind::Unknown;
            else if (model.pieces[i].kind == Kind::Unknown) model.pieces[i].kind = Kind::Control;
        }
        writeFileAtomically(m_folder / "tokenizer.model", model.serialized());
    }

    void byteLevel() {
        const std::string id = m_file.text(key("pre"), "default");
        const GgufPreTokenizer* pre = findPreTokenizer(std::string_view(id));
        if (!pre) {
            note("the pre-tokenizer \"" + id + "\" is not known here; the one of GPT-2 is written, with which token ids may differ");
            pre = findPreTokenizer(std::string_view("gpt-2"));
        }
        Json json{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", addedTokens()}};
        json["normalizer"] = pre->nfc ? Json{{"type", "NFC"}} : Json();
        json["pre_tokenizer"] = preTokenizer(*pre);
        json["post_processor"] = postProcessor();
        json["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
        Json model{{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"continuing_subword_prefix", nullptr}, {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false}, {"byte_fallback", false}, {"ignore_merges", pre->ignoreMerges}, {"vocab", Json::object()}};
        auto& vocabulary = static_cast<Json::object_t::Container&>(model["vocab"].get_ref<Json::object_t&>());
        for (std::size_t i = 0; i < m_pieces.size(); ++i)
            if (m_pieces[i].kind == Kind::Normal) vocabulary.emplace_back(m_pieces[i].text, static_cast<std::int64_t>(i));
        model["merges"] = array("merges", GgufValueType::String, 0).strings;
        json["model"] = std::move(model);
        writeJsonFile(m_folder / "tokenizer.json", json);
    }

    static Json preTokenizer(const GgufPreTokenizer& pre) {
        const bool builtIn = pre.regex.empty();
        const Json bytes{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", builtIn}};
        Json steps = Json::array();
        if (pre.digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
        if (!builtIn) steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", pre.regex}}}, {"behavior", "Isolated"}, {"invert", false}});
        steps.push_back(bytes);
        return steps.size() == 1 ? bytes : Json{{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
    }

    /// Puts BOS in front and EOS behind as the flags say.
    Json postProcessor() const {
        const std::int64_t bos = m_file.flag(key("add_bos_token"), false) ? id("bos_token_id") : -1, eos = m_file.flag(key("add_eos_token"), false) ? id("eos_token_id") : -1;
        if (bos < 0 && eos < 0) return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
        Json single = Json::array(), tokens = Json::object();
        const auto put = [&](std::int64_t token) {
            if (token < 0) return;
            single.push_back({{"SpecialToken", {{"id", text(token)}, {"type_id", 0}}}});
            tokens[text(token)] = {{"id", text(token)}, {"ids", {token}}, {"tokens", {text(token)}}};
        };
        put(bos);
        single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
        put(eos);
        Json pair = single;
        pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
        return {{"type", "TemplateProcessing"}, {"single", std::move(single)}, {"pair", std::move(pair)}, {"special_tokens", std::move(tokens)}};
    }

    static bool isAdded(int kind) { return kind == Kind::Control || kind == Kind::UserDefined || kind == Kind::Unknown; }
    static Json addedToken(const SentencePieceProto::Piece& piece) {
        return {{"content", piece.text}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", piece.kind != Kind::UserDefined}};
    }
    Json addedTokens() const {
        Json list = Json::array();
        for (std::size_t i = 0; i < m_pieces.size(); ++i) {
            if (!isAdded(m_pieces[i].kind)) continue;
            Json entry{{"id", i}};
            entry.update(addedToken(m_pieces[i]));
            list.push_back(std::move(entry));
        }
        return list;
    }

    Json tokenizerConfig(bool sentencePiece) const {
        Json config;
        config["add_bos_token"] = m_file.flag(key("add_bos_token"), sentencePiece);
        config["add_eos_token"] = m_file.flag(key("add_eos_token"), false);
        config["added_tokens_decoder"] = Json::object();
        for (std::size_t i = 0; i < m_pieces.size(); ++i)
            if (isAdded(m_pieces[i].kind)) config["added_tokens_decoder"][toText(i)] = addedToken(m_pieces[i]);
        const auto special = [&](const char* field, const char* name) {
            const std::int64_t token = id(name);
            config[field] = token >= 0 ? Json(text(token)) : Json();
        };
        special("bos_token", "bos_token_id");
        special("eos_token", "eos_token_id");
        special("unk_token", "unknown_token_id");
        special("pad_token", "padding_token_id");
        if (m_file.find("tokenizer.chat_template")) config["chat_template"] = m_file.text("tokenizer.chat_template");
        config["clean_up_tokenization_spaces"] = false;
        config["tokenizer_class"] = sentencePiece ? "LlamaTokenizer" : "PreTrainedTokenizerFast";
        return config;
    }

    const GgufFile& m_file;
    const fs::path& m_folder;
    std::vector<SentencePieceProto::Piece> m_pieces;
    std::vector<Problem> m_notes;
};

}  // namespace

std::vector<Problem> writeTokenizerFiles(const GgufFile& file, const fs::path& folder) { return FileWriter(file, folder).run(); }

}  // namespace resect
