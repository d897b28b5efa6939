#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace resect {

/// Throws BadInput for an id outside [0, vocabSize).
void requireTokenId(std::int64_t id, std::int64_t vocabSize);
/// Well-formed characters as they are, every other byte as "<0xE4>".
std::string showBytes(std::string_view bytes);
/// A token of a SentencePiece vocabulary for people: its space marker as a space, a byte token as the ASCII character it stands
/// for.
std::string showSentencePiece(std::string_view token);

}  // namespace resect
