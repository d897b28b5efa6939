#pragma once
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace resect {

/// Shortest text that reads back as the same number, whatever the locale. Not finite: "nan", "inf", "-inf".
std::string toText(double value);
std::string toText(std::int64_t value);
template <std::integral T> requires(!std::same_as<T, bool>) std::string toText(T value) { return toText(static_cast<std::int64_t>(value)); }
/// With `digits` significant digits, for people: 0.0123, 1.23e-07.
std::string toText(double value, int digits);
/// The whole text must be the number (spaces around it allowed), otherwise nullopt.
std::optional<double> parseDouble(std::string_view text) noexcept;
std::optional<std::int64_t> parseInt(std::string_view text) noexcept;

std::string formatBytes(std::uint64_t bytes);        ///< "512 B", "13.8 GB" (powers of 1000, three digits)
std::string formatCount(double count);               ///< "8.03 B", "1.23 M", "512" (powers of 1000)
std::string formatDuration(double seconds);          ///< "0.4 s", "3 min 12 s", "2 h 5 min"
std::string formatThousands(std::int64_t value);     ///< "1,234,567"

}  // namespace resect
