#include "core/data/byte_level.h"

#include "core/data/unicode.h"

namespace resect {
namespace {

struct ByteTables {
    std::array<char32_t, 256> character{};
    std::array<int, 512> byte{};

    ByteTables() {
        byte.fill(-1);
        char32_t next = 256;
        for (int b = 0; b < 256; ++b) {
            const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
            character[b] = printable ? static_cast<char32_t>(b) : next++;
            byte[character[b]] = b;
        }
    }
};

const ByteTables& tables() {
    static const ByteTables instance;
    return instance;
}

int hexDigit(char c) noexcept {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

}  // namespace

char32_t byteToCharacter(unsigned char byte) noexcept { return tables().character[byte]; }

std::optional<unsigned char> characterToByte(char32_t c) noexcept {
    if (c >= tables().byte.size() || tables().byte[c] < 0) return std::nullopt;
    return static_cast<unsigned char>(tables().byte[c]);
}

void appendAsByteCharacters(std::string& out, std::string_view bytes) {
    const ByteTables& table = tables();
    for (const char c : bytes) appendUtf8(out, table.character[static_cast<unsigned char>(c)]);
}

std::optional<std::string> fromByteCharacters(std::string_view token) {
    std::string bytes;
    bytes.reserve(token.size());
    for (std::size_t pos = 0; pos < token.size();) {
        const auto byte = characterToByte(nextCodePoint(token, pos));
        if (!byte) return std::nullopt;
        bytes += static_cast<char>(*byte);
    }
    return bytes;
}

std::optional<unsigned char> byteFallbackToken(std::string_view token) noexcept {
    if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
    const int high = hexDigit(token[3]), low = hexDigit(token[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<unsigned char>(high * 16 + low);
}

std::string byteFallbackName(unsigned char byte) {
    static constexpr char kDigits[] = "0123456789ABCDEF";
    return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + '>';
}

}  // namespace resect
