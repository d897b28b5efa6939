#pragma once
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// Byte offset of the first byte that is not well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms), nullopt when there
/// is none.
std::optional<std::size_t> findInvalidUtf8(std::string_view text) noexcept;
/// Each maximal ill-formed part becomes one U+FFFD, as the Unicode Standard (section 3.9) recommends.
std::string replaceInvalidUtf8(std::string_view text);
/// Length of the well-formed prefix left when a last, unfinished character is dropped; only the last three bytes are looked at.
std::size_t wholeCharacters(std::string_view text) noexcept;
/// The code point at `pos`, which moves behind it. `text` must be well-formed and `pos` at a character.
char32_t nextCodePoint(std::string_view text, std::size_t& pos) noexcept;
void appendUtf8(std::string& out, char32_t codePoint);

bool isWhiteSpace(char32_t c) noexcept;   ///< Unicode White_Space
bool isNumeric(char32_t c) noexcept;      ///< categories Nd, Nl, No
bool isPunctuation(char32_t c) noexcept;  ///< ASCII punctuation and categories P*
bool isWordCharacter(char32_t c) noexcept;

enum class NormalForm { Nfc, Nfd, Nfkc, Nfkd };
std::string normalizeUnicode(const std::string& text, NormalForm form);
/// Character by character, without context (a final sigma stays an ordinary one).
std::string lowerCase(std::string_view text);

struct ByteRange {
    std::size_t begin = 0, end = 0;
    bool operator==(const ByteRange&) const = default;
};

/// What a tokenizer.json searches for: a literal string or a regular expression. Immutable, safe to use from several threads.
class TextPattern {
public:
    static TextPattern literal(std::string text);
    /// `\s` means Unicode White_Space and `\d`, `\w`, `\p{...}` are Unicode classes, as in the expressions that tokenizer files
    /// carry. Throws Unsupported (with `subject`) when the expression cannot be compiled.
    static TextPattern regex(const std::string& expression, const std::string& subject);
    /// Matches from left to right, not overlapping; empty ones are left out. `text` must be well-formed UTF-8.
    /// Throws BadInput when matching needs more than 256 MB.
    std::vector<ByteRange> matches(std::string_view text) const;

private:
    struct Regex;
    std::string m_literal;
    std::shared_ptr<const Regex> m_regex;
};

}  // namespace resect
