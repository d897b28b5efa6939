#include "core/data/jinja_text.h"

#include "core/data/jinja_lexer.h"
#include "core/data/unicode.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace resect::jinja {
namespace {

icu::UnicodeString wide(std::string_view text) {
    return icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())));
}
std::string narrow(const icu::UnicodeString& text) {
    std::string out;
    return text.toUTF8String(out);
}

char32_t at(std::string_view character) noexcept {
    std::size_t pos = 0;
    return nextCodePoint(character, pos);
}

bool isPrintable(char32_t c) noexcept {
    if (c == ' ') return true;
    return (U_GET_GC_MASK(static_cast<UChar32>(c)) & (U_GC_C_MASK | U_GC_Z_MASK)) == 0;
}

std::string hexEscape(char32_t c) {
    static constexpr char kDigits[] = "0123456789abcdef";
    const int digits = c < 0x100 ? 2 : c < 0x10000 ? 4 : 8;
    std::string out = digits == 2 ? "\\x" : digits == 4 ? "\\u" : "\\U";
    for (int i = digits - 1; i >= 0; --i) out += kDigits[c >> (4 * i) & 15];
    return out;
}

bool isLineEnd(char32_t c) noexcept {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

}  // namespace

std::int64_t countCodePoints(std::string_view text) noexcept {
    return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::vector<std::string_view> codePoints(std::string_view text) {
    std::vector<std::string_view> out;
    for (std::size_t pos = 0; pos < text.size();) {
        const std::size_t begin = pos;
        nextCodePoint(text, pos);
        out.push_back(text.substr(begin, pos - begin));
    }
    return out;
}

std::string upperText(std::string_view text) { return narrow(wide(text).toUpper(icu::Locale::getRoot())); }
std::string lowerText(std::string_view text) { return narrow(wide(text).toLower(icu::Locale::getRoot())); }

std::string capitalizeText(std::string_view text) {
    if (text.empty()) return "";
    std::size_t first = 0;
    const char32_t title = static_cast<char32_t>(u_totitle(static_cast<UChar32>(nextCodePoint(text, first))));
    std::string out;
    appendUtf8(out, title);
    return out + lowerText(text.substr(first));
}

std::string titleText(std::string_view text) {
    std::string out, word;
    const auto flush = [&] {
        if (word.empty()) return;
        std::size_t first = 0;
        nextCodePoint(word, first);
        out += upperText(std::string_view(word).substr(0, first)) + lowerText(std::string_view(word).substr(first));
        word.clear();
    };
    for (const std::string_view character : codePoints(text)) {
        if (isSpace(at(character)) || character.find_first_of("-({[<") == 0) {
            flush();
            out += character;
        } else {
            word += character;
        }
    }
    flush();
    return out;
}

std::string quotedText(std::string_view text) {
    const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
    std::string out(1, quote);
    for (const std::string_view character : codePoints(text)) {
        const char32_t c = at(character);
        if (c == '\n')
            out += "\\n";
        else if (c == '\r')
            out += "\\r";
        else if (c == '\t')
            out += "\\t";
        else if (c == '\\' || c == static_cast<char32_t>(quote))
            (out += '\\') += character;
        else if (isPrintable(c))
            out += character;
        else
            out += hexEscape(c);
    }
    return out += quote;
}

std::string floatText(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
    char buffer[64];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
    std::string_view shortest(buffer, static_cast<std::size_t>(end - buffer));
    std::string out;
    if (shortest.front() == '-') {
        out = "-";
        shortest.remove_prefix(1);
    }
    const auto e = shortest.find('e');
    std::string digits(shortest.substr(0, 1));
    if (e > 1) digits += shortest.substr(2, e - 2);
    int exponent = 0;
    const std::string_view power = shortest.substr(shortest[e + 1] == '+' ? e + 2 : e + 1);
    std::from_chars(power.data(), power.data() + power.size(), exponent);
    if (exponent < -4 || exponent >= 16) {
        out += digits.substr(0, 1);
        if (digits.size() > 1) out += "." + digits.substr(1);
        const std::string size = std::to_string(std::abs(exponent));
        return out + (exponent < 0 ? "e-" : "e+") + (size.size() < 2 ? "0" : "") + size;
    }
    if (exponent < 0) return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
    const auto whole = static_cast<std::size_t>(exponent) + 1;
    if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
    return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string_view stripText(std::string_view text, const std::string* characters, Ends ends) noexcept {
    const auto stripped = [&](std::string_view character) {
        return characters ? characters->find(character) != std::string::npos : isSpace(at(character));
    };
    while (ends != Ends::Right && !text.empty()) {
        std::size_t next = 0;
        nextCodePoint(text, next);
        if (!stripped(text.substr(0, next))) break;
        text.remove_prefix(next);
    }
    while (ends != Ends::Left && !text.empty()) {
        std::size_t begin = text.size() - 1;
        while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
        if (!stripped(text.substr(begin))) break;
        text.remove_suffix(text.size() - begin);
    }
    return text;
}

std::vector<std::string> splitText(std::string_view text, const std::string* separator, std::int64_t limit) {
    std::vector<std::string> out;
    if (separator) {
        for (;;) {
            const auto cut = limit >= 0 && static_cast<std::int64_t>(out.size()) >= limit ? text.npos : text.find(*separator);
            out.emplace_back(text.substr(0, cut));
            if (cut == text.npos) return out;
            text.remove_prefix(cut + separator->size());
        }
    }
    for (text = trimLeft(text); !text.empty(); text = trimLeft(text)) {
        if (limit >= 0 && static_cast<std::int64_t>(out.size()) >= limit) {
            out.emplace_back(trimRight(text));
            return out;
        }
        std::size_t end = 0;
        for (std::size_t next = 0; end < text.size(); end = next)
            if (isSpace(nextCodePoint(text, next))) break;
        out.emplace_back(text.substr(0, end));
        text.remove_prefix(end);
    }
    return out;
}

std::vector<std::string> splitTextFromRight(std::string_view text, const std::string* separator, std::int64_t limit) {
    if (limit < 0) return splitText(text, separator, limit);
    std::vector<std::string> out;
    if (separator) {
        while (static_cast<std::int64_t>(out.size()) < limit) {
            const auto cut = text.rfind(*separator);
            if (cut == text.npos) break;
            out.emplace_back(text.substr(cut + separator->size()));
            text = text.substr(0, cut);
        }
        out.emplace_back(text);
    } else {
        for (text = trimRight(text); !text.empty(); text = trimRight(text)) {
            if (static_cast<std::int64_t>(out.size()) >= limit) {
                out.emplace_back(trimLeft(text));
                break;
            }
            std::size_t begin = text.size();
            while (begin > 0) {
                std::size_t previous = begin - 1;
                while (previous > 0 && (static_cast<unsigned char>(text[previous]) & 0xC0) == 0x80) --previous;
                if (isSpace(at(text.substr(previous)))) break;
                begin = previous;
            }
            out.emplace_back(text.substr(begin));
            text = text.substr(0, begin);
        }
    }
    std::reverse(out.begin(), out.end());
    return out;
}

std::vector<std::string> splitLines(std::string_view text, bool keepEnds) {
    std::vector<std::string> out;
    std::size_t begin = 0;
    for (std::size_t pos = 0; pos < text.size();) {
        const std::size_t end = pos;
        const char32_t c = nextCodePoint(text, pos);
        if (!isLineEnd(c)) continue;
        if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
        out.emplace_back(text.substr(begin, (keepEnds ? pos : end) - begin));
        begin = pos;
    }
    if (begin < text.size()) out.emplace_back(text.substr(begin));
    return out;
}

std::string replaceText(std::string_view text, std::string_view from, std::string_view to, std::int64_t limit) {
    std::string out;
    std::int64_t done = 0;
    const auto more = [&] { return limit < 0 || done < limit; };
    if (from.empty()) {
        for (const std::string_view character : codePoints(text)) {
            if (more()) ++done, out += to;
            out += character;
        }
        return more() ? out += to : out;
    }
    while (more()) {
        const auto found = text.find(from);
        if (found == text.npos) break;
        out += text.substr(0, found);
        out += to;
        text.remove_prefix(found + from.size());
        ++done;
    }
    return out += text;
}

}  // namespace resect::jinja
