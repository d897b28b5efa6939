#include "core/base/error.h"
#include "core/data/text_steps.h"

#include <algorithm>

namespace resect {
namespace {

struct UnicodeForm final : Normalizer {
    explicit UnicodeForm(NormalForm form) : m_form(form) {}
    void apply(std::string& text) const override { text = normalizeUnicode(text, m_form); }
    NormalForm m_form;
};

struct Prepend final : Normalizer {
    explicit Prepend(std::string prefix) : m_prefix(std::move(prefix)) {}
    void apply(std::string& text) const override {
        if (!text.empty()) text.insert(0, m_prefix);
    }
    std::string m_prefix;
};

struct Lowercase final : Normalizer {
    void apply(std::string& text) const override { text = lowerCase(text); }
};

struct StripSpace final : Normalizer {
    StripSpace(bool left, bool right) : m_left(left), m_right(right) {}
    void apply(std::string& text) const override {
        std::size_t begin = text.size(), end = 0;
        for (std::size_t pos = 0; pos < text.size();) {
            const std::size_t at = pos;
            if (isWhiteSpace(nextCodePoint(text, pos))) continue;
            begin = std::min(begin, at);
            end = pos;
        }
        if (!m_left) begin = 0;
        if (!m_right) end = text.size();
        text = begin < end ? text.substr(begin, end - begin) : std::string();
    }
    bool m_left, m_right;
};

struct Replace final : Normalizer {
    Replace(TextPattern pattern, std::string content) : m_pattern(std::move(pattern)), m_content(std::move(content)) {}
    void apply(std::string& text) const override {
        const auto matches = m_pattern.matches(text);
        if (matches.empty()) return;
        std::string out;
        out.reserve(text.size() + matches.size() * m_content.size());
        std::size_t from = 0;
        for (const ByteRange& match : matches) {
            out.append(text, from, match.begin - from).append(m_content);
            from = match.end;
        }
        text = out.append(text, from);
    }
    TextPattern m_pattern;
    std::string m_content;
};

struct NormalizerSequence final : Normalizer {
    void apply(std::string& text) const override {
        for (const auto& step : steps) step->apply(text);
    }
    std::vector<std::unique_ptr<Normalizer>> steps;
};

bool withoutEffect(const Json& value) {
    return value.is_null() || value == false || (value.is_string() && value.get_ref<const std::string&>().empty()) ||
           (value.is_number() && value == 0) || (value.is_structured() && value.empty());
}

}  // namespace

void requireKnownFields(const Json& part, std::initializer_list<std::string_view> known, const std::string& subject) {
    for (const auto& [key, value] : part.items()) {
        if (std::find(known.begin(), known.end(), key) != known.end() || withoutEffect(value)) continue;
        throw Error(ErrorCode::Unsupported, subject + (subject.ends_with(' ') ? "" : ".") + key,
                    "this field is not known, so that its effect would be missing");
    }
}

TextPattern readPattern(const Json& step, const std::string& subject) {
    const auto pattern = step.find("pattern");
    if (pattern != step.end() && pattern->is_object() && pattern->size() == 1) {
        if (pattern->contains("String")) return TextPattern::literal(stringField(*pattern, "String", subject + ".pattern"));
        if (pattern->contains("Regex"))
            return TextPattern::regex(stringField(*pattern, "Regex", subject + ".pattern"), subject + ".pattern");
    }
    throw Error(ErrorCode::BadInput, subject + ".pattern", "expected an object with 'String' or 'Regex'");
}

const Json& stepsOf(const Json& object, const char* field, const std::string& subject) {
    const auto found = object.find(field);
    if (found == object.end() || !found->is_array())
        throw Error(ErrorCode::BadInput, subject + "." + field, "expected an array");
    return *found;
}

std::unique_ptr<Normalizer> readNormalizer(const Json& json, const std::string& subject) {
    if (json.is_null()) return nullptr;
    if (!json.is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object or null");
    const std::string type = stringField(json, "type", subject);
    static const std::pair<const char*, NormalForm> kForms[] = {
        {"NFC", NormalForm::Nfc}, {"NFD", NormalForm::Nfd}, {"NFKC", NormalForm::Nfkc}, {"NFKD", NormalForm::Nfkd}};
    for (const auto& [name, form] : kForms) {
        if (type != name) continue;
        requireKnownFields(json, {"type"}, subject);
        return std::make_unique<UnicodeForm>(form);
    }
    if (type == "Sequence") {
        requireKnownFields(json, {"type", "normalizers"}, subject);
        auto sequence = std::make_unique<NormalizerSequence>();
        std::size_t index = 0;
        for (const Json& step : stepsOf(json, "normalizers", subject)) {
            auto read = readNormalizer(step, subject + ".normalizers[" + std::to_string(index++) + "]");
            if (read) sequence->steps.push_back(std::move(read));
        }
        return sequence;
    }
    if (type == "Prepend") {
        requireKnownFields(json, {"type", "prepend"}, subject);
        return std::make_unique<Prepend>(stringField(json, "prepend", subject));
    }
    if (type == "Replace") {
        requireKnownFields(json, {"type", "pattern", "content"}, subject);
        return std::make_unique<Replace>(readPattern(json, subject), stringField(json, "content", subject));
    }
    if (type == "Lowercase") {
        requireKnownFields(json, {"type"}, subject);
        return std::make_unique<Lowercase>();
    }
    if (type == "Strip") {
        requireKnownFields(json, {"type", "strip_left", "strip_right"}, subject);
        return std::make_unique<StripSpace>(boolField(json, "strip_left", subject, true),
                                            boolField(json, "strip_right", subject, true));
    }
    throw Error(ErrorCode::Unsupported, subject, "the normalizer '" + type + "' is not supported");
}

}  // namespace resect
