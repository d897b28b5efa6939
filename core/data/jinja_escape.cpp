#include "core/data/jinja_escape.h"

#include "core/data/jinja_lexer.h"
#include "core/data/unicode.h"

namespace resect::jinja {
namespace {

int hexValue(char c) noexcept {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

}  // namespace

std::size_t readEscape(std::string_view source, std::size_t pos, std::string& text, int line) {
    static constexpr std::string_view kLetters = "ntrabfv\\'\"", kMeanings = "\n\t\r\a\b\f\v\\'\"";
    const char c = source[pos];
    if (const auto known = kLetters.find(c); known != kLetters.npos) {
        text += kMeanings[known];
    } else if (c == 'x' || c == 'u' || c == 'U') {
        const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        char32_t code = 0;
        for (std::size_t i = 1; i <= digits; ++i) {
            const int value = pos + i < source.size() ? hexValue(source[pos + i]) : -1;
            if (value < 0) fail(line, "an escape needs " + std::to_string(digits) + " hexadecimal digits behind its letter");
            code = code * 16 + static_cast<char32_t>(value);
        }
        if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) fail(line, "an escape names no character");
        appendUtf8(text, code);
        pos += digits;
    } else if (c >= '0' && c <= '7') {
        char32_t code = 0;
        std::size_t count = 0;
        for (; count < 3 && pos + count < source.size() && source[pos + count] >= '0' && source[pos + count] <= '7'; ++count)
            code = code * 8 + static_cast<char32_t>(source[pos + count] - '0');
        appendUtf8(text, code);
        pos += count - 1;
    } else if (c != '\n') {  // a line feed behind a backslash vanishes; other letters keep the backslash
        (text += '\\') += c;
    }
    return pos;
}

}  // namespace resect::jinja
