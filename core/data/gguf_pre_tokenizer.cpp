#include "core/data/gguf_vocabulary.h"

#include <algorithm>
#include <array>

namespace resect {

namespace {

// Patterns as the tokenizer.json files of these models write them.
#define RESECT_WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define RESECT_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define RESECT_CASED_1 "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
#define RESECT_CASED_2 "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
#define RESECT_SHORT "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
#define RESECT_CASED_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
constexpr std::array kRows{
    GgufPreTokenizer{"gpt-2", ""},
    GgufPreTokenizer{"llama-bpe", RESECT_WORDS "\\p{N}{1,3}" RESECT_REST, false, false, true},
    GgufPreTokenizer{"qwen2", RESECT_WORDS "\\p{N}" RESECT_REST, false, true},
    GgufPreTokenizer{"starcoder", "", true},
    GgufPreTokenizer{"tekken", RESECT_CASED_1 "|" RESECT_CASED_2 "|\\p{N}" RESECT_CASED_REST, false, false, true},
    GgufPreTokenizer{"gpt-4o", RESECT_CASED_1 RESECT_SHORT "|" RESECT_CASED_2 RESECT_SHORT "|\\p{N}{1,3}" RESECT_CASED_REST},
};
#undef RESECT_WORDS
#undef RESECT_REST
#undef RESECT_CASED_1
#undef RESECT_CASED_2
#undef RESECT_SHORT
#undef RESECT_CASED_REST

/// The steps of a pre_tokenizer, Sequences opened.
void listSteps(const Json& step, std::vector<const Json*>& steps) {
    if (!step.is_object()) return;
    const auto inner = step.find("pretokenizers");
    if (inner == step.end() || !inner->is_array()) {
        steps.push_back(&step);
        return;
    }
    for (const Json& each : *inner) listSteps(each, steps);
}

bool flag(const Json& step, const char* field, bool fallback) {
    const auto value = step.find(field);
    return value != step.end() && value->is_boolean() ? value->get<bool>() : fallback;
}

std::string text(const Json& step, const char* field) {
    const auto value = step.find(field);
    return value != step.end() && value->is_string() ? value->get<std::string>() : std::string();
}

}  // namespace

const GgufPreTokenizer* findPreTokenizer(const Json& preTokenizer) noexcept {
    try {
        std::vector<const Json*> steps;
        listSteps(preTokenizer, steps);
        std::string regex;
        bool digits = false, byteLevel = false, builtIn = false, other = false;
        for (const Json* step : steps) {
            const std::string type = text(*step, "type");
            if (type == "ByteLevel") {
                byteLevel = true;
                builtIn = flag(*step, "use_regex", true);
                other = other || flag(*step, "add_prefix_space", false);
            } else if (type == "Split" && regex.empty() && text(*step, "behavior") == "Isolated" && !flag(*step, "invert", false)) {
                const auto pattern = step->find("pattern");
                regex = pattern == step->end() ? std::string() : text(*pattern, "Regex");
                other = other || regex.empty();
            } else if (type == "Digits" && flag(*step, "individual_digits", false)) {
                digits = true;
            } else {
                other = true;
            }
        }
        if (other || !byteLevel || builtIn != regex.empty()) return nullptr;
        const auto* row = std::find_if(kRows.begin(), kRows.end(), [&](const GgufPreTokenizer& candidate) { return candidate.regex == regex && candidate.digits == digits; });
        return row == kRows.end() ? nullptr : row;
    } catch (...) {
        return nullptr;
    }
}

const GgufPreTokenizer* findPreTokenizer(std::string_view id) noexcept {
    const auto* row = std::find_if(kRows.begin(), kRows.end(), [&](const GgufPreTokenizer& candidate) { return candidate.id == id; });
    return row == kRows.end() ? nullptr : row;
}

}  // namespace resect
