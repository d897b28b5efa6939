#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// Python's text functions for well-formed UTF-8. Positions and lengths count code points.

namespace resect::jinja {

std::int64_t countCodePoints(std::string_view text) noexcept;
std::vector<std::string_view> codePoints(std::string_view text);
std::string upperText(std::string_view text);  ///< with context and one-to-many mappings, as str.upper()
std::string lowerText(std::string_view text);
std::string capitalizeText(std::string_view text);  ///< first character upper, the rest lower
std::string titleText(std::string_view text);   ///< Jinja's filter: words begin behind white space, "-", "(", "{", "[" and "<"
std::string quotedText(std::string_view text);  ///< repr(): quotation marks and escapes
std::string floatText(double value);            ///< repr() of a float

enum class Ends { Both, Left, Right };
/// Without `characters`, white space is stripped.
std::string_view stripText(std::string_view text, const std::string* characters, Ends ends) noexcept;
/// At white space, or at `separator` (not empty); at most `limit` cuts when it is not negative.
std::vector<std::string> splitText(std::string_view text, const std::string* separator, std::int64_t limit);
std::vector<std::string> splitTextFromRight(std::string_view text, const std::string* separator, std::int64_t limit);
std::vector<std::string> splitLines(std::string_view text, bool keepEnds);
/// `limit` negative: all. An empty `from` stands before every character and at the end.
std::string replaceText(std::string_view text, std::string_view from, std::string_view to, std::int64_t limit);

}  // namespace resect::jinja
