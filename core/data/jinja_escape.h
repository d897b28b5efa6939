#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace resect::jinja {

/// Reads the escape whose letter is at `pos` of `source` as Python does and appends what it stands for to `text`; returns the
/// position of its last character. Throws BadInput with the subject "line N".
std::size_t readEscape(std::string_view source, std::size_t pos, std::string& text, int line);

}  // namespace resect::jinja
