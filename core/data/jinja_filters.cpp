#include "core/data/jinja_library.h"
#include "core/data/jinja_text.h"

#include "core/base/numbers.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace resect::jinja {
namespace {

std::string textOf(const Value& value, Work& work) {
    work.handle(value.text() ? value.text()->size() : 0);
    return toPythonText(value, work);
}

Value toJson(const Value& value, const Arguments& arguments, Work& work) {
    requireArguments("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}, work);
    JsonStyle style;
    // transformers calls the first argument ensure_ascii, Jinja2 itself calls it indent: a number can only mean the latter.
    const Value* first = arguments.values.empty() ? nullptr : &arguments.values[0];
    const Value* indent = first && first->get<std::int64_t>() ? first : arguments.find(1, "indent");
    if (indent && !indent->isNone()) {
        const auto width = indent->integer();
        if (width && *width > 100) work.fail("tojson: an indent of " + std::to_string(*width) + " is too large");
        style.indent =
            width ? std::string(static_cast<std::size_t>(std::max<std::int64_t>(*width, 0)), ' ') : textOf(*indent, work);
        style.itemSeparator = ",";
    }
    const Value* ascii = arguments.find(0, "ensure_ascii");
    style.asciiOnly = ascii && ascii->get<bool>() && truth(*ascii);
    style.sortKeys = flagArgument(arguments, 3, "sort_keys", false);
    if (const Value* separators = arguments.find(2, "separators"); separators && separators->sequence()) {
        if (separators->sequence()->items.size() != 2) work.fail("tojson: 'separators' expects two texts");
        style.itemSeparator = textOf(separators->sequence()->items[0], work);
        style.keySeparator = textOf(separators->sequence()->items[1], work);
    }
    return Value(toJsonText(value, style, work));
}

Value indent(const Value& value, const Arguments& arguments, Work& work) {
    requireArguments("indent", arguments, {"width", "first", "blank"}, work);
    const Value* width = arguments.find(0, "width");
    const std::int64_t spaces =
        width && width->text() ? 0 : std::clamp<std::int64_t>(wholeArgument(arguments, 0, "width", 4, work), 0, 1000);
    const std::string by = width && width->text() ? *width->text() : std::string(static_cast<std::size_t>(spaces), ' ');
    const bool blank = flagArgument(arguments, 2, "blank", false);
    std::string out = flagArgument(arguments, 1, "first", false) ? by : "";
    bool first = true;
    for (const std::string& line : splitLines(textOf(value, work) + "\n", false)) {
        if (!first) (out += '\n') += !line.empty() || blank ? by : "";
        first = false;
        out += line;
        work.keep(by.size() + line.size());
    }
    return Value(std::move(out));
}

Value toWhole(const Value& value, const Arguments& arguments, Work& work) {
    const Value* given = arguments.find(0, "default");
    const Value fallback = given ? *given : Value(0);
    if (value.isUndefined()) work.fail(value.get<Undefined>()->what + " is not defined, but 'int' is applied to it");
    if (const auto whole = value.integer()) return *whole;
    std::optional<double> number = value.number();
    if (const auto* text = value.text()) {
        if (const auto whole = parseInt(stripText(*text, nullptr, Ends::Both))) return *whole;
        number = parseDouble(stripText(*text, nullptr, Ends::Both));
    }
    if (!number || !(std::abs(*number) < 9e18)) return fallback;
    return static_cast<std::int64_t>(*number);
}

Value toReal(const Value& value, const Arguments& arguments, Work& work) {
    if (value.isUndefined()) work.fail(value.get<Undefined>()->what + " is not defined, but 'float' is applied to it");
    if (const auto number = value.number()) return *number;
    if (value.text())
        if (const auto number = parseDouble(stripText(*value.text(), nullptr, Ends::Both))) return *number;
    const Value* given = arguments.find(0, "default");
    return given ? *given : Value(0.0);
}

Value roundFilter(const Value& value, const Arguments& arguments, Work& work) {
    if (!value.number()) work.fail(std::string("round expects a number, found a ") + value.typeName());
    const std::string method = textArgument(arguments, 1, "method", "common", work);
    const double scale = std::pow(10.0, static_cast<double>(wholeArgument(arguments, 0, "precision", 0, work)));
    const double scaled = *value.number() * scale;
    const double rounded = method == "ceil"    ? std::ceil(scaled)
                           : method == "floor" ? std::floor(scaled)
                                               : std::nearbyint(scaled);
    return rounded / scale;
}

Value absolute(const Value& value, const Arguments&, Work& work) {
    if (const auto whole = value.integer()) return *whole < 0 ? applyBinary("-", Value(0), Value(*whole), work) : Value(*whole);
    if (!value.number()) work.fail(std::string("abs expects a number, found a ") + value.typeName());
    return std::abs(*value.number());
}

Value defaultTo(const Value& value, const Arguments& arguments, Work& work) {
    requireArguments("default", arguments, {"default_value", "boolean"}, work);
    const Value* fallback = arguments.find(0, "default_value");
    const bool absent = value.isUndefined() || (flagArgument(arguments, 1, "boolean", false) && !truth(value));
    return !absent ? value : fallback ? *fallback : Value("");
}

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '&')
            out += "&amp;";
        else if (c == '<')
            out += "&lt;";
        else if (c == '>')
            out += "&gt;";
        else if (c == '"')
            out += "&#34;";
        else if (c == '\'')
            out += "&#39;";
        else
            out += c;
    }
    return out;
}

template <auto change>
Value changed(const Value& value, const Arguments&, Work& work) {
    return madeText(change(textOf(value, work)), work);
}

/// `value | upper` and the like, through the method of the same name.
Value throughMethod(const std::string& name, const Value& value, const Arguments& arguments, Work& work) {
    return methodOf(Value(textOf(value, work)), name).function()->call(arguments, work);
}

const std::map<std::string_view, Filter>& filters() {
    static const std::map<std::string_view, Filter> all = {
        {"abs", absolute},
        {"attr", [](const Value& value, const Arguments& arguments,
                    Work& work) { return attributeOf(value, textArgument(arguments, 0, "name", "", work), work); }},
        {"capitalize", changed<capitalizeText>},
        {"count", [](const Value& value, const Arguments&, Work& work) -> Value { return lengthOf(value, work); }},
        {"d", defaultTo},
        {"default", defaultTo},
        {"e", changed<escaped>},
        {"escape", changed<escaped>},
        {"float", toReal},
        {"indent", indent},
        {"int", toWhole},
        {"items",
         [](const Value& value, const Arguments& arguments, Work& work) {
             if (value.isUndefined()) return makeList({}, work);
             if (!value.mapping()) work.fail(std::string("items expects a dict, found a ") + value.typeName());
             return methodOf(value, "items").function()->call(arguments, work);
         }},
        {"length", [](const Value& value, const Arguments&, Work& work) -> Value { return lengthOf(value, work); }},
        {"list", [](const Value& value, const Arguments&, Work& work) { return makeList(itemsOf(value, work), work); }},
        {"lower", changed<lowerText>},
        {"replace", [](const Value& value, const Arguments& arguments,
                       Work& work) { return throughMethod("replace", value, arguments, work); }},
        {"round", roundFilter},
        {"safe", [](const Value& value, const Arguments&, Work&) { return value; }},
        {"string", [](const Value& value, const Arguments&, Work& work) { return Value(textOf(value, work)); }},
        {"title", changed<titleText>},
        {"tojson", toJson},
        {"trim", [](const Value& value, const Arguments& arguments,
                    Work& work) { return throughMethod("strip", value, arguments, work); }},
        {"upper", changed<upperText>},
        {"wordcount",
         [](const Value& value, const Arguments&, Work& work) -> Value {
             return static_cast<std::int64_t>(splitText(textOf(value, work), nullptr, -1).size());
         }},
    };
    return all;
}

}  // namespace

Value applyFilter(const std::string& name, const Value& value, const Arguments& arguments, Work& work) {
    work.step();
    const auto found = filters().find(name);
    const Filter filter = found != filters().end() ? found->second : findListFilter(name);
    if (!filter) work.fail("there is no filter '" + name + "'");
    return filter(value, arguments, work);
}

}  // namespace resect::jinja
