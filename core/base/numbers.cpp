#include "core/base/numbers.h"

#include <array>
#include <charconv>
#include <cmath>

namespace resect {

namespace {

template <class... Format>
std::string print(double value, Format... format) {
    std::array<char, 400> buffer;  // the longest fixed double has 309 digits before the point
    const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format...);
    return error == std::errc{} ? std::string(buffer.data(), end) : std::string("?");
}

std::string_view trimmed(std::string_view text) noexcept {
    constexpr std::string_view kSpace = " \t\r\n\f\v";
    const auto first = text.find_first_not_of(kSpace);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

template <class T>
std::optional<T> parse(std::string_view text) noexcept {
    text = trimmed(text);
    if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);  // from_chars knows no plus sign
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

/// Three digits and the unit: 8.03, 13.8, 512. `units` of powers of 1000; the first is the bare number.
template <std::size_t N>
std::string scaled(double value, const std::array<std::string_view, N>& units) {
    if (!std::isfinite(value)) return toText(value);
    double rest = std::abs(value);
    std::size_t unit = 0;
    while (unit + 1 < N && rest >= (unit == 0 ? 1000 : 999.5)) {  // 999.5 kB would print as "1000 kB"
        rest /= 1000;
        ++unit;
    }
    const bool whole = unit == 0 && rest == std::floor(rest);
    const int digits = whole || rest >= 99.95 ? 0 : rest >= 9.995 ? 1 : 2;
    std::string text = (value < 0 ? "-" : "") + print(rest, std::chars_format::fixed, digits);
    if (!units[unit].empty()) text.append(" ").append(units[unit]);
    return text;
}

}  // namespace

std::string toText(double value) {
    if (std::isnan(value)) return "nan";
    return print(value);
}

std::string toText(std::int64_t value) { return std::to_string(value); }

std::string toText(double value, int digits) {
    if (std::isnan(value)) return "nan";
    return print(value, std::chars_format::general, digits);
}

std::optional<double> parseDouble(std::string_view text) noexcept { return parse<double>(text); }
std::optional<std::int64_t> parseInt(std::string_view text) noexcept { return parse<std::int64_t>(text); }

std::string formatBytes(std::uint64_t bytes) {
    return scaled(static_cast<double>(bytes), std::array<std::string_view, 7>{"B", "kB", "MB", "GB", "TB", "PB", "EB"});
}

std::string formatCount(double count) { return scaled(count, std::array<std::string_view, 5>{"", "k", "M", "B", "T"}); }

std::string formatDuration(double seconds) {
    if (!std::isfinite(seconds)) return "unknown";
    if (seconds < 0) return "-" + formatDuration(-seconds);
    if (seconds > 0 && seconds < 0.0995) return print(seconds * 1000, std::chars_format::fixed, 0) + " ms";
    if (seconds < 9.95) return print(seconds, std::chars_format::fixed, 1) + " s";
    if (seconds > 1e12) return print(seconds / 86400, std::chars_format::scientific, 2) + " d";
    const auto whole = static_cast<std::int64_t>(std::llround(seconds));
    if (whole < 60) return toText(whole) + " s";
    if (whole < 3600) return toText(whole / 60) + " min " + toText(whole % 60) + " s";
    const std::int64_t minutes = (whole + 30) / 60;
    if (minutes < 24 * 60) return toText(minutes / 60) + " h " + toText(minutes % 60) + " min";
    const std::int64_t hours = (minutes + 30) / 60;
    return toText(hours / 24) + " d " + toText(hours % 24) + " h";
}

std::string formatThousands(std::int64_t value) {
    std::string digits = toText(value);
    const std::size_t first = value < 0 ? 1 : 0;
    for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > static_cast<std::ptrdiff_t>(first); at -= 3)
        digits.insert(static_cast<std::size_t>(at), ",");
    return digits;
}

}  // namespace resect
