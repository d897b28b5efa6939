#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace resect {

/// The byte alphabet of GPT-2: every byte has one printable character; 33-126, 161-172 and 174-255 keep their own, the others
/// take U+0100 upwards in order.
char32_t byteToCharacter(unsigned char byte) noexcept;
std::optional<unsigned char> characterToByte(char32_t c) noexcept;
void appendAsByteCharacters(std::string& out, std::string_view bytes);
/// The bytes that a token stands for; nullopt when it holds a character outside the alphabet. `token` must be well-formed
/// UTF-8.
std::optional<std::string> fromByteCharacters(std::string_view token);

/// 0x0A for "<0x0A>", nullopt for anything else.
std::optional<unsigned char> byteFallbackToken(std::string_view token) noexcept;
std::string byteFallbackName(unsigned char byte);

}  // namespace resect
