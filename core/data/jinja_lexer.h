#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace resect::jinja {

enum class TokenKind { Text, OutputBegin, OutputEnd, BlockBegin, BlockEnd, Name, String, Integer, Float, Operator, End };

struct Token {
    TokenKind kind = TokenKind::End;
    std::string text;  ///< strings without quotes and with escapes resolved
    int line = 0;      ///< 1-based
};

/// Cuts a template into tokens as Jinja2 does under the settings of transformers' apply_chat_template: trim_blocks and
/// lstrip_blocks on, one line feed at the end of the template dropped, comments dropped, {% raw %} kept as text.
/// Throws BadInput with the subject "line N".
std::vector<Token> tokenize(std::string_view source);

/// Throws BadInput with the subject "line N".
[[noreturn]] void fail(int line, const std::string& message);

/// What Python's str.strip() takes away.
bool isSpace(char32_t c) noexcept;
std::string_view trimLeft(std::string_view text) noexcept;
std::string_view trimRight(std::string_view text) noexcept;

}  // namespace resect::jinja
