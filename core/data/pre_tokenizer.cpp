#include "core/base/error.h"
#include "core/data/byte_level.h"
#include "core/data/text_steps.h"

#include <functional>

namespace resect {
namespace {

/// What becomes of the matches of a splitting pattern.
enum class SplitBehavior { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };

SplitBehavior readBehavior(const std::string& text, const std::string& subject) {
    if (text == "Removed") return SplitBehavior::Removed;
    if (text == "Isolated") return SplitBehavior::Isolated;
    if (text == "MergedWithPrevious") return SplitBehavior::MergedWithPrevious;
    if (text == "MergedWithNext") return SplitBehavior::MergedWithNext;
    if (text == "Contiguous") return SplitBehavior::Contiguous;
    throw Error(ErrorCode::Unsupported, subject + ".behavior", "'" + text + "' is not supported");
}

struct Part {
    ByteRange range;
    bool match;
};

/// Cuts `range` of a text at `matches` (relative to its begin) into parts that cover it.
std::vector<Part> coveringParts(ByteRange range, const std::vector<ByteRange>& matches, bool invert) {
    std::vector<Part> parts;
    std::size_t from = range.begin;
    for (const ByteRange& match : matches) {
        if (range.begin + match.begin > from) parts.push_back({{from, range.begin + match.begin}, invert});
        parts.push_back({{range.begin + match.begin, range.begin + match.end}, !invert});
        from = range.begin + match.end;
    }
    if (from < range.end) parts.push_back({{from, range.end}, invert});
    return parts;
}

void appendSplit(const std::vector<Part>& parts, SplitBehavior behavior, std::vector<ByteRange>& out) {
    const std::size_t first = out.size();
    bool previousMatched = false;
    switch (behavior) {
    case SplitBehavior::Removed:
        for (const Part& part : parts)
            if (!part.match) out.push_back(part.range);
        return;
    case SplitBehavior::Isolated:
        for (const Part& part : parts) out.push_back(part.range);
        return;
    case SplitBehavior::Contiguous:
        for (const Part& part : parts) {
            if (out.size() > first && part.match == previousMatched)
                out.back().end = part.range.end;
            else
                out.push_back(part.range);
            previousMatched = part.match;
        }
        return;
    case SplitBehavior::MergedWithPrevious:
        for (const Part& part : parts) {
            if (part.match && !previousMatched && out.size() > first)
                out.back().end = part.range.end;
            else
                out.push_back(part.range);
            previousMatched = part.match;
        }
        return;
    case SplitBehavior::MergedWithNext:
        for (const Part& part : parts) {
            if (!part.match && previousMatched && out.size() > first)
                out.back().end = part.range.end;
            else
                out.push_back(part.range);
            previousMatched = part.match;
        }
        return;
    }
}

void splitWords(Words& words, const std::function<std::vector<ByteRange>(std::string_view)>& matches, SplitBehavior behavior,
                bool invert) {
    std::vector<ByteRange> ranges;
    for (const ByteRange& range : words.ranges) {
        const std::string_view text = std::string_view(words.text).substr(range.begin, range.end - range.begin);
        appendSplit(coveringParts(range, matches(text), invert), behavior, ranges);
    }
    if (!ranges.empty() && !words.ranges.empty() && ranges.front().begin != words.ranges.front().begin) words.atStart = false;
    words.ranges = std::move(ranges);
}

/// Every character of a class is a match of its own.
struct SplitByClass final : PreTokenizer {
    SplitByClass(bool (*isMember)(char32_t) noexcept, SplitBehavior behavior) : m_isMember(isMember), m_behavior(behavior) {}
    void apply(Words& words) const override {
        const auto matches = [this](std::string_view text) {
            std::vector<ByteRange> found;
            for (std::size_t pos = 0; pos < text.size();) {
                const std::size_t at = pos;
                if (m_isMember(nextCodePoint(text, pos))) found.push_back({at, pos});
            }
            return found;
        };
        splitWords(words, matches, m_behavior, false);
    }
    bool (*m_isMember)(char32_t) noexcept;
    SplitBehavior m_behavior;
};

struct SplitByPattern final : PreTokenizer {
    SplitByPattern(TextPattern pattern, SplitBehavior behavior, bool invert)
        : m_pattern(std::move(pattern)), m_behavior(behavior), m_invert(invert) {}
    void apply(Words& words) const override {
        splitWords(
            words, [this](std::string_view text) { return m_pattern.matches(text); }, m_behavior, m_invert);
    }
    TextPattern m_pattern;
    SplitBehavior m_behavior;
    bool m_invert;
};

/// Rewrites every word; `change` appends the new form of a word to the new text.
void rewriteWords(Words& words, const std::function<void(std::string_view, bool first, std::string&)>& change) {
    Words changed;
    changed.atStart = words.atStart;
    changed.text.reserve(words.text.size() + words.text.size() / 2);
    changed.ranges.reserve(words.ranges.size());
    bool first = true;
    for (const ByteRange& range : words.ranges) {
        const std::size_t begin = changed.text.size();
        change(std::string_view(words.text).substr(range.begin, range.end - range.begin), first, changed.text);
        changed.ranges.push_back({begin, changed.text.size()});
        first = false;
    }
    words = std::move(changed);
}

struct ByteLevel final : PreTokenizer {
    ByteLevel(bool addPrefixSpace, bool useRegex) : m_addPrefixSpace(addPrefixSpace) {
        // The word pattern of GPT-2 (Radford et al. 2019).
        if (useRegex) {
            m_pattern = std::make_unique<SplitByPattern>(
                TextPattern::regex(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
                                   "ByteLevel"),
                SplitBehavior::Isolated, false);
        }
    }
    void apply(Words& words) const override {
        if (m_addPrefixSpace) {
            rewriteWords(words, [](std::string_view word, bool, std::string& out) {
                if (!word.starts_with(' ')) out += ' ';
                out += word;
            });
        }
        if (m_pattern) m_pattern->apply(words);
        rewriteWords(words, [](std::string_view word, bool, std::string& out) { appendAsByteCharacters(out, word); });
    }
    bool m_addPrefixSpace;
    std::unique_ptr<SplitByPattern> m_pattern;
};

enum class PrependScheme { Always, First, Never };

struct Metaspace final : PreTokenizer {
    void apply(Words& words) const override {
        const bool atStart = words.atStart;
        rewriteWords(words, [&](std::string_view word, bool first, std::string& out) {
            const bool marked = word.starts_with(replacement) || word.starts_with(' ');
            if (!marked && (scheme == PrependScheme::Always || (scheme == PrependScheme::First && first && atStart)))
                out += replacement;
            for (const char c : word) {
                if (c == ' ')
                    out += replacement;
                else
                    out += c;
            }
        });
        if (!split) return;
        const TextPattern pattern = TextPattern::literal(replacement);
        splitWords(
            words, [&](std::string_view text) { return pattern.matches(text); }, SplitBehavior::MergedWithNext, false);
    }
    std::string replacement;
    PrependScheme scheme = PrependScheme::Always;
    bool split = true;
};

struct PreTokenizerSequence final : PreTokenizer {
    void apply(Words& words) const override {
        for (const auto& step : steps) step->apply(words);
    }
    std::vector<std::unique_ptr<PreTokenizer>> steps;
};

std::unique_ptr<PreTokenizer> readMetaspace(const Json& json, const std::string& subject) {
    requireKnownFields(json, {"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"}, subject);
    auto metaspace = std::make_unique<Metaspace>();
    metaspace->replacement = stringField(json, "replacement", subject, "\xE2\x96\x81");
    metaspace->split = boolField(json, "split", subject, true);
    const std::string scheme = stringField(json, "prepend_scheme", subject, "");
    if (scheme == "always")
        metaspace->scheme = PrependScheme::Always;
    else if (scheme == "first")
        metaspace->scheme = PrependScheme::First;
    else if (scheme == "never")
        metaspace->scheme = PrependScheme::Never;
    else if (scheme.empty())
        metaspace->scheme = boolField(json, "add_prefix_space", subject, true) ? PrependScheme::Always : PrependScheme::Never;
    else
        throw Error(ErrorCode::Unsupported, subject + ".prepend_scheme", "'" + scheme + "' is not supported");
    return metaspace;
}

}  // namespace

std::unique_ptr<PreTokenizer> readPreTokenizer(const Json& json, const std::string& subject) {
    if (json.is_null()) return nullptr;
    if (!json.is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object or null");
    const std::string type = stringField(json, "type", subject);
    if (type == "Sequence") {
        requireKnownFields(json, {"type", "pretokenizers"}, subject);
        auto sequence = std::make_unique<PreTokenizerSequence>();
        std::size_t index = 0;
        for (const Json& step : stepsOf(json, "pretokenizers", subject)) {
            auto read = readPreTokenizer(step, subject + ".pretokenizers[" + std::to_string(index++) + "]");
            if (read) sequence->steps.push_back(std::move(read));
        }
        return sequence;
    }
    if (type == "ByteLevel") {
        requireKnownFields(json, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, subject);
        return std::make_unique<ByteLevel>(boolField(json, "add_prefix_space", subject, true),
                                           boolField(json, "use_regex", subject, true));
    }
    if (type == "Split") {
        requireKnownFields(json, {"type", "pattern", "behavior", "invert"}, subject);
        return std::make_unique<SplitByPattern>(readPattern(json, subject),
                                                readBehavior(stringField(json, "behavior", subject), subject),
                                                boolField(json, "invert", subject, false));
    }
    if (type == "Digits") {
        requireKnownFields(json, {"type", "individual_digits"}, subject);
        return std::make_unique<SplitByClass>(isNumeric, boolField(json, "individual_digits", subject, false)
                                                             ? SplitBehavior::Isolated
                                                             : SplitBehavior::Contiguous);
    }
    if (type == "Metaspace") return readMetaspace(json, subject);
    if (type == "Whitespace") {
        requireKnownFields(json, {"type"}, subject);
        return std::make_unique<SplitByPattern>(TextPattern::regex(R"(\w+|[^\w\s]+)", subject), SplitBehavior::Removed, true);
    }
    if (type == "WhitespaceSplit") {
        requireKnownFields(json, {"type"}, subject);
        return std::make_unique<SplitByClass>(isWhiteSpace, SplitBehavior::Removed);
    }
    if (type == "Punctuation") {
        requireKnownFields(json, {"type", "behavior"}, subject);
        return std::make_unique<SplitByClass>(isPunctuation,
                                              readBehavior(stringField(json, "behavior", subject, "Isolated"), subject));
    }
    throw Error(ErrorCode::Unsupported, subject, "the pre-tokenizer '" + type + "' is not supported");
}

}  // namespace resect
