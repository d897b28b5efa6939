#include "core/data/jinja_library.h"
#include "core/data/jinja_text.h"
#include "core/data/unicode.h"

#include <algorithm>
#include <map>

namespace resect::jinja {
namespace {

std::int64_t occurrences(std::string_view text, std::string_view part) noexcept {
    if (part.empty()) return countCodePoints(text) + 1;
    std::int64_t count = 0;
    for (auto found = text.find(part); found != text.npos; found = text.find(part, found + part.size())) ++count;
    return count;
}

Value textList(std::vector<std::string> texts, Work& work) {
    List items;
    for (std::string& text : texts) items.push_back(madeText(std::move(text), work));
    return makeList(std::move(items), work);
}

template <Ends ends>
Value strip(const std::string& text, const Arguments& arguments, Work& work) {
    const Value* characters = arguments.find(0, "chars");
    return madeText(std::string(stripText(text, characters ? characters->text() : nullptr, ends)), work);
}

enum class From { Left, Right };
template <From from>
Value split(const std::string& text, const Arguments& arguments, Work& work) {
    const Value* given = arguments.find(0, "sep");
    const std::string* separator = given ? given->text() : nullptr;
    if (separator && separator->empty()) work.fail("split(): the separator is empty");
    const std::int64_t limit = wholeArgument(arguments, 1, "maxsplit", -1, work);
    const std::int64_t cuts =
        separator ? occurrences(text, *separator)
                  : std::count_if(text.begin(), text.end(), [](char c) { return c == ' ' || c == '\n' || c == '\t'; });
    work.keep(32 * static_cast<std::uint64_t>(cuts + 1));
    return textList(from == From::Left ? splitText(text, separator, limit) : splitTextFromRight(text, separator, limit), work);
}

template <From from>
Value edge(const std::string& text, const Arguments& arguments, Work& work) {
    const Value* wanted = arguments.find(0, "prefix");
    const auto matches = [&](const Value& part) {
        if (!part.text()) work.fail("startswith() and endswith() expect a text or a tuple of texts");
        return from == From::Left ? text.starts_with(*part.text()) : text.ends_with(*part.text());
    };
    if (!wanted) work.fail("startswith() and endswith() expect a text or a tuple of texts");
    if (const auto* several = wanted->sequence(); several && several->tuple)
        return std::any_of(several->items.begin(), several->items.end(), matches);
    return matches(*wanted);
}

template <From from>
Value removeEdge(const std::string& text, const Arguments& arguments, Work& work) {
    const std::string part = textArgument(arguments, 0, "prefix", "", work);
    const bool there = from == From::Left ? text.starts_with(part) : text.ends_with(part);
    if (!there) return Value(text);
    return madeText(from == From::Left ? text.substr(part.size()) : text.substr(0, text.size() - part.size()), work);
}

Value replace(const std::string& text, const Arguments& arguments, Work& work) {
    const std::string from = textArgument(arguments, 0, "old", "", work), to = textArgument(arguments, 1, "new", "", work);
    const auto places = static_cast<std::uint64_t>(occurrences(text, from));
    if (to.size() > 0 && places > (1u << 30) / to.size()) work.fail("replace() would make a text of more than 1 GB");
    work.keep(text.size() + places * to.size());
    return Value(replaceText(text, from, to, wholeArgument(arguments, 2, "count", -1, work)));
}

/// Position of a part in code points, -1 when it is not there.
template <From from>
std::int64_t position(const std::string& text, const Arguments& arguments, Work& work) {
    const std::string part = textArgument(arguments, 0, "sub", "", work);
    const auto found = from == From::Left ? text.find(part) : text.rfind(part);
    return found == text.npos ? -1 : countCodePoints(std::string_view(text).substr(0, found));
}

Value countParts(const std::string& text, const Arguments& arguments, Work& work) {
    const std::string part = textArgument(arguments, 0, "sub", "", work);
    return occurrences(text, part);
}

Value joinItems(const std::string& text, const Arguments& arguments, Work& work) {
    const Value* items = arguments.find(0, "iterable");
    if (!items) work.fail("join() expects a list");
    std::string out;
    bool first = true;
    for (const Value& item : itemsOf(*items, work)) {
        if (!item.text()) work.fail(std::string("join() expects texts, found a ") + item.typeName());
        work.keep(item.text()->size() + text.size());
        if (!std::exchange(first, false)) out += text;
        out += *item.text();
    }
    return Value(std::move(out));
}

template <class Test>
Value everyCharacter(const std::string& text, Test test) {
    for (std::size_t pos = 0; pos < text.size();)
        if (!test(nextCodePoint(text, pos))) return false;
    return !text.empty();
}
bool isDigit(char32_t c) { return c >= '0' && c <= '9'; }

const std::map<std::string_view, TextMethod>& textMethods() {
    static const std::map<std::string_view, TextMethod> methods = {
        {"strip", strip<Ends::Both>},
        {"lstrip", strip<Ends::Left>},
        {"rstrip", strip<Ends::Right>},
        {"split", split<From::Left>},
        {"rsplit", split<From::Right>},
        {"startswith", edge<From::Left>},
        {"endswith", edge<From::Right>},
        {"removeprefix", removeEdge<From::Left>},
        {"removesuffix", removeEdge<From::Right>},
        {"replace", replace},
        {"count", countParts},
        {"join", joinItems},
        {"find",
         [](const std::string& text, const Arguments& arguments, Work& work) -> Value {
             return position<From::Left>(text, arguments, work);
         }},
        {"rfind",
         [](const std::string& text, const Arguments& arguments, Work& work) -> Value {
             return position<From::Right>(text, arguments, work);
         }},
        {"index",
         [](const std::string& text, const Arguments& arguments, Work& work) -> Value {
             const std::int64_t found = position<From::Left>(text, arguments, work);
             if (found < 0) work.fail("index(): the part is not in the text");
             return found;
         }},
        {"splitlines",
         [](const std::string& text, const Arguments& arguments, Work& work) {
             return textList(splitLines(text, flagArgument(arguments, 0, "keepends", false)), work);
         }},
        {"upper", [](const std::string& text, const Arguments&, Work& work) { return madeText(upperText(text), work); }},
        {"lower", [](const std::string& text, const Arguments&, Work& work) { return madeText(lowerText(text), work); }},
        {"title", [](const std::string& text, const Arguments&, Work& work) { return madeText(titleText(text), work); }},
        {"capitalize",
         [](const std::string& text, const Arguments&, Work& work) { return madeText(capitalizeText(text), work); }},
        {"isdigit", [](const std::string& text, const Arguments&, Work&) { return everyCharacter(text, isDigit); }},
        {"isnumeric", [](const std::string& text, const Arguments&, Work&) { return everyCharacter(text, isNumeric); }},
        {"isspace", [](const std::string& text, const Arguments&, Work&) { return everyCharacter(text, isWhiteSpace); }},
        {"isalpha",
         [](const std::string& text, const Arguments&, Work&) {
             return everyCharacter(text, [](char32_t c) { return isWordCharacter(c) && !isNumeric(c) && c != '_'; });
         }},
        {"isalnum", [](const std::string& text, const Arguments&,
                       Work&) { return everyCharacter(text, [](char32_t c) { return isWordCharacter(c) && c != '_'; }); }},
        {"isupper",
         [](const std::string& text, const Arguments&, Work&) -> Value {
             return upperText(text) == text && lowerText(text) != text;
         }},
        {"islower",
         [](const std::string& text, const Arguments&, Work&) -> Value {
             return lowerText(text) == text && upperText(text) != text;
         }},
    };
    return methods;
}

}  // namespace

TextMethod findTextMethod(std::string_view name) {
    const auto found = textMethods().find(name);
    return found == textMethods().end() ? nullptr : found->second;
}

}  // namespace resect::jinja
