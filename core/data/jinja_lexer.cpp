#include "core/data/jinja_lexer.h"

#include "core/base/error.h"
#include "core/data/jinja_escape.h"
#include "core/data/unicode.h"

#include <algorithm>
#include <array>

namespace resect::jinja {
namespace {

bool isDigit(char c) noexcept { return c >= '0' && c <= '9'; }
bool isNameStart(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

class Lexer {
public:
    explicit Lexer(std::string source) : m_source(std::move(source)) {}

    std::vector<Token> run() {
        while (m_pos < m_source.size()) readText();
        add(TokenKind::End, "");
        return std::move(m_tokens);
    }

private:
    bool at(std::string_view text) const { return std::string_view(m_source).substr(m_pos).starts_with(text); }
    char peek(std::size_t ahead = 0) const { return m_pos + ahead < m_source.size() ? m_source[m_pos + ahead] : '\0'; }
    void add(TokenKind kind, std::string text) { m_tokens.push_back({kind, std::move(text), m_line}); }

    void advance(std::size_t to) {
        m_line += static_cast<int>(std::count(m_source.begin() + static_cast<std::ptrdiff_t>(m_pos),
                                              m_source.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
        if (to > m_pos) m_lineStart = m_source[to - 1] == '\n';
        m_pos = to;
    }

    /// Text up to the next tag, and the tag.
    void readText() {
        const bool lineStart = m_lineStart;
        std::size_t tag = m_pos;
        for (;; ++tag) {
            tag = m_source.find('{', tag);
            if (tag == std::string::npos || tag + 1 >= m_source.size()) {
                addText(std::string_view(m_source).substr(m_pos));
                advance(m_source.size());
                return;
            }
            if (const char next = m_source[tag + 1]; next == '{' || next == '%' || next == '#') break;
        }
        const char kind = m_source[tag + 1];
        std::string_view text = std::string_view(m_source).substr(m_pos, tag - m_pos);
        const char sign = tag + 2 < m_source.size() ? m_source[tag + 2] : '\0';
        if (sign == '-') {
            text = trimRight(text);
        } else if (sign != '+' && kind != '{') {  // lstrip_blocks
            const auto feed = text.rfind('\n');
            const std::size_t begin = feed == text.npos ? 0 : feed + 1;
            if ((begin > 0 || lineStart) && trimLeft(text.substr(begin)).empty()) text = text.substr(0, begin);
        }
        addText(text);
        advance(tag + 2);
        if (sign == '-' || (sign == '+' && kind != '{')) advance(m_pos + 1);
        if (kind == '#')
            skipComment();
        else if (kind == '{')
            readTag(TokenKind::OutputBegin);
        else if (!readRaw())
            readTag(TokenKind::BlockBegin);
    }

    void addText(std::string_view text) {
        if (!text.empty()) add(TokenKind::Text, std::string(text));
    }

    void skipSpace() {
        const std::string_view rest = std::string_view(m_source).substr(m_pos);
        advance(m_source.size() - trimLeft(rest).size());
    }

    /// Behind "-%}" all white space goes, behind "%}" one line feed, behind "+%}" nothing.
    void afterTag(char sign) {
        if (sign == '-')
            skipSpace();
        else if (sign != '+' && peek() == '\n')
            advance(m_pos + 1);
    }

    void skipComment() {
        const auto end = m_source.find("#}", m_pos);
        if (end == std::string::npos) fail(m_line, "the comment is not closed with '#}'");
        const char sign = end > m_pos ? m_source[end - 1] : '\0';
        advance(end + 2);
        afterTag(sign);
    }

    /// Position behind "{%- name -%}" at `pos`, npos when there is no such tag; `sign` is what stands before the "%}".
    std::size_t bareTag(std::size_t pos, std::string_view name, char& sign) const {
        const auto space = [&] {
            while (pos < m_source.size() && (m_source[pos] == ' ' || m_source[pos] == '\t' || m_source[pos] == '\n')) ++pos;
        };
        space();
        if (m_source.compare(pos, name.size(), name) != 0) return std::string::npos;
        pos += name.size();
        space();
        sign = pos < m_source.size() ? m_source[pos] : '\0';
        if (sign == '-' || sign == '+') ++pos;
        return m_source.compare(pos, 2, "%}") == 0 ? pos + 2 : std::string::npos;
    }

    bool readRaw() {
        char sign = '\0';
        const std::size_t begin = bareTag(m_pos, "raw", sign);
        if (begin == std::string::npos) return false;
        const int line = m_line;
        advance(begin);
        if (sign == '-') skipSpace();
        for (std::size_t open = m_source.find("{%", m_pos); open != std::string::npos; open = m_source.find("{%", open + 2)) {
            const char before = open + 2 < m_source.size() ? m_source[open + 2] : '\0';
            const std::size_t inner = open + 2 + (before == '-' || before == '+' ? 1 : 0);
            const std::size_t end = bareTag(inner, "endraw", sign);
            if (end == std::string::npos) continue;
            std::string_view text = std::string_view(m_source).substr(m_pos, open - m_pos);
            if (before == '-') {
                text = trimRight(text);
            } else if (before != '+') {
                const auto feed = text.rfind('\n');
                if (feed != text.npos && trimLeft(text.substr(feed + 1)).empty()) text = text.substr(0, feed + 1);
            }
            addText(text);
            advance(end);
            afterTag(sign);
            return true;
        }
        fail(line, "the block 'raw' is not closed with 'endraw'");
    }

    void readTag(TokenKind begin) {
        const bool output = begin == TokenKind::OutputBegin;
        const std::string_view close = output ? "}}" : "%}";
        const int line = m_line;
        add(begin, "");
        std::string open;  // brackets: while one is open, "}}" ends no tag
        for (;;) {
            if (m_pos >= m_source.size()) fail(line, std::string("the tag is not closed with '") + std::string(close) + "'");
            const char c = peek();
            if (open.empty()) {
                const bool sign = c == '-' || (c == '+' && !output);
                if (std::string_view(m_source).substr(m_pos + (sign ? 1 : 0)).starts_with(close)) {
                    add(output ? TokenKind::OutputEnd : TokenKind::BlockEnd, "");
                    advance(m_pos + (sign ? 3 : 2));
                    if (!output)
                        afterTag(sign ? c : '\0');
                    else if (sign)
                        skipSpace();
                    return;
                }
            }
            std::size_t next = m_pos;
            if (isSpace(nextCodePoint(m_source, next)))
                advance(next);
            else if (isNameStart(c))
                readName();
            else if (isDigit(c))
                readNumber();
            else if (c == '\'' || c == '"')
                readString();
            else
                readOperator(open);
        }
    }

    void readName() {
        std::size_t end = m_pos;
        while (end < m_source.size() && (isNameStart(m_source[end]) || isDigit(m_source[end]))) ++end;
        add(TokenKind::Name, m_source.substr(m_pos, end - m_pos));
        advance(end);
    }

    void readNumber() {
        std::string digits;
        std::size_t end = m_pos;
        const auto take = [&] {
            for (; end < m_source.size() && (isDigit(m_source[end]) || m_source[end] == '_'); ++end)
                if (m_source[end] != '_') digits += m_source[end];
        };
        take();
        bool whole = true;
        if (end + 1 < m_source.size() && m_source[end] == '.' && isDigit(m_source[end + 1])) {
            digits += m_source[end++];
            take();
            whole = false;
        }
        if (end < m_source.size() && (m_source[end] == 'e' || m_source[end] == 'E')) {
            const std::size_t sign =
                end + 1 < m_source.size() && (m_source[end + 1] == '+' || m_source[end + 1] == '-') ? 1 : 0;
            if (end + 1 + sign < m_source.size() && isDigit(m_source[end + 1 + sign])) {
                digits += m_source.substr(end, 1 + sign);
                end += 1 + sign;
                take();
                whole = false;
            }
        }
        add(whole ? TokenKind::Integer : TokenKind::Float, digits);
        advance(end);
    }

    void readString() {
        const char quote = peek();
        const int line = m_line;
        std::string text;
        std::size_t pos = m_pos + 1;
        for (;; ++pos) {
            if (pos >= m_source.size()) fail(line, "the text is not closed with its quotation mark");
            if (m_source[pos] == quote) break;
            if (m_source[pos] != '\\' || pos + 1 >= m_source.size())
                text += m_source[pos];
            else
                pos = readEscape(m_source, pos + 1, text, line);
        }
        m_tokens.push_back({TokenKind::String, std::move(text), line});
        advance(pos + 1);
    }

    void readOperator(std::string& open) {
        static constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                                        "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                        ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
        const auto* found = std::find_if(kOperators.begin(), kOperators.end(), [&](std::string_view op) { return at(op); });
        if (found == kOperators.end()) fail(m_line, "unexpected character '" + firstCharacter() + "'");
        const char c = found->front();
        if (c == '(' || c == '[' || c == '{') open += c;
        if (c == ')' || c == ']' || c == '}') {
            const char wanted = c == ')' ? '(' : c == ']' ? '[' : '{';
            if (open.empty() || open.back() != wanted) fail(m_line, std::string("unexpected '") + c + "'");
            open.pop_back();
        }
        add(TokenKind::Operator, std::string(*found));
        advance(m_pos + found->size());
    }

    std::string firstCharacter() const {
        std::size_t end = m_pos + 1;
        while (end < m_source.size() && (static_cast<unsigned char>(m_source[end]) & 0xC0) == 0x80) ++end;
        return m_source.substr(m_pos, end - m_pos);
    }

    std::string m_source;
    std::vector<Token> m_tokens;
    std::size_t m_pos = 0;
    int m_line = 1;
    bool m_lineStart = true;
};

}  // namespace

void fail(int line, const std::string& message) { throw Error(ErrorCode::BadInput, "line " + std::to_string(line), message); }

bool isSpace(char32_t c) noexcept { return (c >= 0x1C && c <= 0x1F) || isWhiteSpace(c); }

std::string_view trimLeft(std::string_view text) noexcept {
    std::size_t pos = 0;
    while (pos < text.size()) {
        std::size_t next = pos;
        if (!isSpace(nextCodePoint(text, next))) break;
        pos = next;
    }
    return text.substr(pos);
}

std::string_view trimRight(std::string_view text) noexcept {
    while (!text.empty()) {
        std::size_t begin = text.size() - 1;
        while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
        std::size_t pos = begin;
        if (!isSpace(nextCodePoint(text, pos))) break;
        text.remove_suffix(text.size() - begin);
    }
    return text;
}

std::vector<Token> tokenize(std::string_view source) {
    if (findInvalidUtf8(source)) fail(1, "the template is not UTF-8");
    std::string unified;
    unified.reserve(source.size());
    for (std::size_t i = 0; i < source.size(); ++i) {
        if (source[i] != '\r')
            unified += source[i];
        else if (i + 1 >= source.size() || source[i + 1] != '\n')
            unified += '\n';
    }
    if (unified.ends_with('\n')) unified.pop_back();
    return Lexer(std::move(unified)).run();
}

}  // namespace resect::jinja
