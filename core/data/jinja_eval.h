#pragma once
#include "core/data/jinja_syntax.h"
#include "core/data/jinja_value.h"
#include "core/data/unicode.h"

#include <ctime>
#include <string>
#include <vector>

namespace resect::jinja {

struct Rendered {
    std::string text;
    std::vector<ByteRange> generated;  ///< what {% generation %} blocks wrote, in order
};

/// Renders a parsed template with the fields of `context` as its variables. `now` is what strftime_now() tells.
/// Throws BadInput with the subject "line N": what the template raises, operations on values that do not support them, and
/// templates that run or grow without end (20 million steps, 256 MB, macros that call themselves too deep).
Rendered render(const Body& body, const Json& context, std::time_t now);

}  // namespace resect::jinja
