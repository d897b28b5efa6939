#include "core/data/tokenizer_file.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"

namespace resect {
namespace {

/// Builds the document, but diverts model.vocab and model.merges: an ordered JSON object of 128,000 keys would take minutes.
class TokenizerSax final : public nlohmann::json_sax<Json> {
public:
    TokenizerSax(TokenizerFile& file, std::string subject) : m_file(file), m_subject(std::move(subject)) {}

    bool null() override { return value(nullptr); }
    bool boolean(bool v) override { return value(v); }
    bool number_integer(number_integer_t v) override { return number(v); }
    bool number_unsigned(number_unsigned_t v) override { return number(v); }
    bool number_float(number_float_t v, const string_t&) override { return value(v); }
    bool binary(binary_t&) override { return value(nullptr); }

    bool string(string_t& v) override {
        if (m_mode == Mode::Merges) return mergeLine(v);
        if (m_mode == Mode::MergePair) {
            m_pair.push_back(std::move(v));
            return true;
        }
        return value(std::move(v));
    }
    bool key(string_t& name) override {
        if (m_mode != Mode::Vocabulary && m_stack.back()->contains(name))
            throw error("the key '" + name + "' stands there twice");
        m_key = std::move(name);
        return true;
    }
    bool start_object(std::size_t) override {
        if (m_mode != Mode::Document) throw wrongEntry("an object");
        if (atModelField("vocab"))
            m_mode = Mode::Vocabulary;
        else
            open(Json::object());
        return true;
    }
    bool end_object() override {
        if (m_mode == Mode::Vocabulary) {
            m_mode = Mode::Document;
            return true;
        }
        if (m_stack.back() == m_model) m_model = nullptr;
        m_stack.pop_back();
        return true;
    }
    bool start_array(std::size_t) override {
        if (m_mode == Mode::Merges) {
            m_mode = Mode::MergePair;
            m_pair.clear();
        } else if (m_mode != Mode::Document) {
            throw wrongEntry("an array");
        } else if (atModelField("merges")) {
            m_mode = Mode::Merges;
        } else {
            open(Json::array());
        }
        return true;
    }
    bool end_array() override {
        if (m_mode == Mode::MergePair) {
            if (m_pair.size() != 2) throw wrongEntry("an array of " + std::to_string(m_pair.size()));
            m_file.merges.emplace_back(std::move(m_pair[0]), std::move(m_pair[1]));
            m_mode = Mode::Merges;
        } else if (m_mode == Mode::Merges) {
            m_mode = Mode::Document;
        } else {
            m_stack.pop_back();
        }
        return true;
    }
    bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& ex) override {
        std::string what = ex.what();
        if (const auto close = what.find("] "); close != what.npos) what.erase(0, close + 2);
        throw error("is not JSON: " + what);
    }

private:
    enum class Mode { Document, Vocabulary, Merges, MergePair };

    Error error(const std::string& message) const { return Error(ErrorCode::BadInput, m_subject, message); }
    Error wrongEntry(const std::string& found) const {
        if (m_mode == Mode::Vocabulary)
            return Error(ErrorCode::BadInput, m_subject + ": model.vocab",
                         "token '" + m_key + "' has " + found + " where an id belongs");
        return Error(ErrorCode::BadInput, m_subject + ": model.merges[" + std::to_string(m_file.merges.size()) + "]",
                     "expected \"left right\" or [\"left\", \"right\"], found " + found);
    }
    bool atModelField(const char* field) const {
        return m_model && m_stack.size() == 2 && m_stack[1] == m_model && m_key == field;
    }

    template <class T>
    bool number(T v) {
        if (m_mode != Mode::Vocabulary) return value(v);
        m_file.vocabulary.emplace_back(std::move(m_key), v > static_cast<T>(INT32_MAX) ? -1 : static_cast<std::int64_t>(v));
        return true;
    }
    bool mergeLine(const std::string& line) {
        const auto space = line.find(' ');
        if (space == line.npos || space == 0 || space + 1 == line.size() || line.find(' ', space + 1) != line.npos)
            throw wrongEntry("\"" + line + "\"");
        m_file.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
        return true;
    }
    template <class T>
    bool value(T&& v) {
        if (m_mode != Mode::Document) throw wrongEntry("something else");
        place(Json(std::forward<T>(v)));
        return true;
    }
    Json* place(Json v) {
        if (m_stack.empty()) return &(m_file.json = std::move(v));
        Json& parent = *m_stack.back();
        if (!parent.is_array()) return &(parent[m_key] = std::move(v));
        parent.push_back(std::move(v));
        return &parent.back();
    }
    void open(Json container) {
        if (m_stack.size() >= 200) throw error("is nested deeper than 200 levels");
        const bool isModel = m_stack.size() == 1 && m_key == "model" && m_stack[0]->is_object();
        m_stack.push_back(place(std::move(container)));
        if (isModel) m_model = m_stack.back();
    }

    TokenizerFile& m_file;
    std::string m_subject;
    std::vector<Json*> m_stack;
    Json* m_model = nullptr;
    std::string m_key;
    std::vector<std::string> m_pair;
    Mode m_mode = Mode::Document;
};

/// A special token is written as its text or as an object that holds it as `content`.
std::optional<std::string> tokenText(const Json& object, const char* field) {
    const auto found = object.find(field);
    if (found == object.end()) return std::nullopt;
    if (found->is_string()) return found->get<std::string>();
    if (found->is_object() && found->contains("content") && (*found)["content"].is_string())
        return (*found)["content"].get<std::string>();
    return std::nullopt;
}

void readTokenNames(const Json& json, SpecialTokenNames& names) {
    if (!json.is_object() || (!json.contains("bos_token") && !json.contains("eos_token"))) return;
    names.found = true;
    names.bos = tokenText(json, "bos_token");
    names.eos = tokenText(json, "eos_token");
}

}  // namespace

TokenizerFile readTokenizerFile(const std::filesystem::path& path) {
    const std::string text = readFile(path);
    TokenizerFile file;
    TokenizerSax sax(file, path.string());
    Json::sax_parse(text, &sax);
    if (!file.json.is_object()) throw Error(ErrorCode::BadInput, path.string(), "expected a JSON object");
    return file;
}

AddedToken readAddedToken(const Json& json, std::int64_t id, const std::string& subject) {
    if (!json.is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object");
    AddedToken token;
    token.id = id >= 0 ? id : intField(json, "id", subject);
    token.content = stringField(json, "content", subject);
    token.singleWord = boolField(json, "single_word", subject, false);
    token.stripLeft = boolField(json, "lstrip", subject, false);
    token.stripRight = boolField(json, "rstrip", subject, false);
    token.special = boolField(json, "special", subject, false);
    token.normalized = boolField(json, "normalized", subject, !token.special);
    if (token.id < 0 || token.id > (1 << 26))
        throw Error(ErrorCode::BadInput, subject + ".id", std::to_string(token.id) + " is no token id");
    return token;
}

SpecialTokenNames readSpecialTokenNames(const std::filesystem::path& folder) {
    SpecialTokenNames names;
    const auto config = folder / "tokenizer_config.json";
    if (std::filesystem::exists(config)) {
        const Json json = readJsonFile(config);
        readTokenNames(json, names);
        if (json.is_object()) {
            const auto flag = [&](const char* field) {
                return json.contains(field) && json[field].is_boolean() ? std::optional<bool>(json[field].get<bool>())
                                                                        : std::nullopt;
            };
            names.addBos = flag("add_bos_token");
            names.addEos = flag("add_eos_token");
            if (const auto added = json.find("added_tokens_decoder"); added != json.end() && added->is_object()) {
                for (const auto& [id, token] : added->items()) {
                    const std::string subject = config.string() + ": added_tokens_decoder." + id;
                    const auto number = parseInt(id);
                    if (!number) throw Error(ErrorCode::BadInput, subject, "the key is no token id");
                    names.addedTokens.push_back(readAddedToken(token, *number, subject));
                }
            }
        }
    }
    if (names.found) return names;
    if (const auto map = folder / "special_tokens_map.json"; std::filesystem::exists(map))
        readTokenNames(readJsonFile(map), names);
    return names;
}

}  // namespace resect
