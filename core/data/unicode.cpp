#include "core/data/unicode.h"

#include "core/base/error.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/regex.h>
#include <unicode/uchar.h>

namespace resect {
namespace {

/// Length of the well-formed character at the start of `text`, 0 when it is ill-formed; `bad` is then the length of its maximal
/// ill-formed part.
std::size_t characterLength(std::string_view text, std::size_t& bad) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(0);
    bad = 1;
    if (first < 0x80) return 1;
    std::size_t length = 0;
    unsigned char low = 0x80, high = 0xBF;
    if (first >= 0xC2 && first <= 0xDF)
        length = 2;
    else if (first >= 0xE0 && first <= 0xEF)
        length = 3;
    else if (first >= 0xF0 && first <= 0xF4)
        length = 4;
    else
        return 0;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
    for (std::size_t i = 1; i < length; ++i) {
        if (i >= text.size() || byte(i) < low || byte(i) > high) {
            bad = i;
            return 0;
        }
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

/// `\s` and `\S` of ICU leave out U+000B and U+0085, which the expressions in tokenizer files include.
std::string withUnicodeWhiteSpace(const std::string& expression) {
    std::string out;
    for (std::size_t i = 0; i < expression.size(); ++i) {
        if (expression[i] != '\\' || i + 1 == expression.size()) {
            out += expression[i];
            continue;
        }
        const char escaped = expression[++i];
        if (escaped == 's')
            out += "\\p{White_Space}";
        else if (escaped == 'S')
            out += "\\P{White_Space}";
        else
            (out += '\\') += escaped;
    }
    return out;
}

const icu::Normalizer2& normalizer(NormalForm form) {
    UErrorCode status = U_ZERO_ERROR;
    const icu::Normalizer2* found = nullptr;
    switch (form) {
    case NormalForm::Nfc:
        found = icu::Normalizer2::getNFCInstance(status);
        break;
    case NormalForm::Nfd:
        found = icu::Normalizer2::getNFDInstance(status);
        break;
    case NormalForm::Nfkc:
        found = icu::Normalizer2::getNFKCInstance(status);
        break;
    case NormalForm::Nfkd:
        found = icu::Normalizer2::getNFKDInstance(status);
        break;
    }
    if (U_FAILURE(status) || !found)
        throw Error(ErrorCode::Internal, "ICU", std::string("no normalizer: ") + u_errorName(status));
    return *found;
}

}  // namespace

std::optional<std::size_t> findInvalidUtf8(std::string_view text) noexcept {
    std::size_t pos = 0, bad = 0;
    while (pos < text.size()) {
        const std::size_t length = characterLength(text.substr(pos), bad);
        if (length == 0) return pos;
        pos += length;
    }
    return std::nullopt;
}

std::string replaceInvalidUtf8(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    std::size_t pos = 0, bad = 0;
    while (pos < text.size()) {
        const std::size_t length = characterLength(text.substr(pos), bad);
        if (length == 0)
            out += "\xEF\xBF\xBD";
        else
            out += text.substr(pos, length);
        pos += length ? length : bad;
    }
    return out;
}

std::size_t wholeCharacters(std::string_view text) noexcept {
    for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
        const unsigned char c = static_cast<unsigned char>(text[text.size() - back]);
        if ((c & 0xC0) == 0x80) continue;
        const std::size_t needed = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
        return needed > back ? text.size() - back : text.size();
    }
    return text.size();
}

char32_t nextCodePoint(std::string_view text, std::size_t& pos) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
    const char32_t first = byte(pos);
    if (first < 0x80) return pos += 1, first;
    if (first < 0xE0) return pos += 2, (first & 0x1F) << 6 | (byte(pos - 1) & 0x3F);
    if (first < 0xF0) return pos += 3, (first & 0x0F) << 12 | (byte(pos - 2) & 0x3F) << 6 | (byte(pos - 1) & 0x3F);
    pos += 4;
    return (first & 0x07) << 18 | (byte(pos - 3) & 0x3F) << 12 | (byte(pos - 2) & 0x3F) << 6 | (byte(pos - 1) & 0x3F);
}

void appendUtf8(std::string& out, char32_t c) {
    const auto put = [&](char32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xC0 | c >> 6);
        put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        put(0xE0 | c >> 12);
        put(0x80 | (c >> 6 & 0x3F));
        put(0x80 | (c & 0x3F));
    } else {
        put(0xF0 | c >> 18);
        put(0x80 | (c >> 12 & 0x3F));
        put(0x80 | (c >> 6 & 0x3F));
        put(0x80 | (c & 0x3F));
    }
}

bool isWhiteSpace(char32_t c) noexcept { return u_isUWhiteSpace(static_cast<UChar32>(c)); }

bool isNumeric(char32_t c) noexcept { return U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_N_MASK; }

bool isPunctuation(char32_t c) noexcept {
    if (c < 0x80) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    return U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_P_MASK;
}

bool isWordCharacter(char32_t c) noexcept {
    const auto code = static_cast<UChar32>(c);
    return u_hasBinaryProperty(code, UCHAR_ALPHABETIC) || (U_GET_GC_MASK(code) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK));
}

std::string normalizeUnicode(const std::string& text, NormalForm form) {
    UErrorCode status = U_ZERO_ERROR;
    std::string out;
    icu::StringByteSink<std::string> sink(&out, static_cast<int32_t>(text.size()));
    normalizer(form).normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink, nullptr, status);
    if (U_FAILURE(status))
        throw Error(ErrorCode::BadInput, "text", std::string("cannot be normalised: ") + u_errorName(status));
    return out;
}

std::string lowerCase(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t pos = 0; pos < text.size();) {
        const char32_t c = nextCodePoint(text, pos);
        if (c == 0x130)
            out += "i\xCC\x87";  // the only character whose lower case has two code points
        else
            appendUtf8(out, static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
    }
    return out;
}

struct TextPattern::Regex {
    std::unique_ptr<icu::RegexPattern> compiled;
};

TextPattern TextPattern::literal(std::string text) {
    TextPattern pattern;
    pattern.m_literal = std::move(text);
    return pattern;
}

TextPattern TextPattern::regex(const std::string& expression, const std::string& subject) {
    UErrorCode status = U_ZERO_ERROR;
    UParseError where;
    auto regex = std::make_shared<Regex>();
    regex->compiled.reset(
        icu::RegexPattern::compile(icu::UnicodeString::fromUTF8(withUnicodeWhiteSpace(expression)), 0, where, status));
    if (U_FAILURE(status)) {
        throw Error(ErrorCode::Unsupported, subject,
                    "the regular expression '" + expression + "' is not understood (" + u_errorName(status) + ")");
    }
    TextPattern pattern;
    pattern.m_regex = std::move(regex);
    return pattern;
}

std::vector<ByteRange> TextPattern::matches(std::string_view text) const {
    std::vector<ByteRange> found;
    if (!m_regex) {
        if (m_literal.empty()) return found;
        for (auto at = text.find(m_literal); at != text.npos; at = text.find(m_literal, at + m_literal.size())) {
            found.push_back({at, at + m_literal.size()});
        }
        return found;
    }
    const icu::UnicodeString wide =
        icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
    UErrorCode status = U_ZERO_ERROR;
    const std::unique_ptr<icu::RegexMatcher> matcher(m_regex->compiled->matcher(wide, status));
    if (matcher) matcher->setStackLimit(256 << 20, status);
    // Matches come in order, so that one walk turns UTF-16 positions into bytes.
    std::size_t bytes = 0;
    int32_t units = 0;
    const auto bytesAt = [&](int32_t target) {
        while (units < target) {
            const auto first = static_cast<unsigned char>(text[bytes]);
            bytes += first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
            units += first < 0xF0 ? 1 : 2;
        }
        return bytes;
    };
    while (U_SUCCESS(status) && matcher->find(status)) {
        const int32_t start = matcher->start(status), end = matcher->end(status);
        if (start == end) continue;
        const std::size_t begin = bytesAt(start);
        found.push_back({begin, bytesAt(end)});
    }
    if (U_FAILURE(status))
        throw Error(ErrorCode::BadInput, "text", std::string("cannot be split into words: ") + u_errorName(status));
    return found;
}

}  // namespace resect
