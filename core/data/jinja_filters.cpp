#include "core/data/jinja_library.h"
#include "core/data/jinja_text.h"

#include "core/base/numbers.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace resect::jinja {
namespace {

using Filter = Value (*)(const Value&, const Arguments&, Work&);

std::string textOf(const Value& value, Work& work) {
    work.handle(value.text() ? value.text()->size() : 0);
    return toPythonText(value, work);
}

/// The field that `attribute=` names: "a.b.0" goes step by step.
Value fieldOf(Value value, const Value& path, Work& work) {
    if (path.integer()) return itemOf(value, path, work);
    const std::string dot = ".";
    for (const std::string& step : splitText(textOf(path, work), &dot, -1)) {
        const auto index = parseInt(step);
        value = index ? itemOf(value, Value(*index), work) : itemOf(value, Value(step), work);
    }
    return value;
}

/// What sort, min, max and unique compare: the field or the value itself, texts in lower case unless `case_sensitive`.
Value sortKey(const Value& value, const Value* attribute, bool caseSensitive, Work& work) {
    Value key = attribute && !attribute->isNone() ? fieldOf(value, *attribute, work) : value;
    return !caseSensitive && key.text() ? madeText(lowerText(*key.text()), work) : key;
}

Value sorted(List items, const Value* attribute, bool caseSensitive, bool reverse, Work& work) {
    std::vector<std::pair<Value, Value>> keyed;
    for (Value& item : items) keyed.emplace_back(sortKey(item, attribute, caseSensitive, work), std::move(item));
    // Insertion into a sorted list by halves: a comparison may throw, and the order need not be a strict one (NaN).
    std::vector<std::pair<Value, Value>> out;
    for (auto& entry : keyed) {
        const auto later = [&](const auto& a, const auto& b) { return reverse ? less(b.first, a.first, work) : less(a.first, b.first, work); };
        work.step(1 + out.size() / 16);
        out.insert(std::upper_bound(out.begin(), out.end(), entry, later), entry);
    }
    List result;
    for (auto& entry : out) result.push_back(std::move(entry.second));
    return makeList(std::move(result), work);
}

Value sortFilter(const Value& value, const Arguments& arguments, Work& work) {
    requireArguments("sort", arguments, {"reverse", "case_sensitive", "attribute"}, work);
    return sorted(itemsOf(value, work), arguments.find(2, "attribute"), flagArgument(arguments, 1, "case_sensitive", false),
                  flagArgument(arguments, 0, "reverse", false), work);
}

Value dictsort(const Value& value, const Arguments& arguments, Work& work) {
    if (!value.mapping()) work.fail(std::string("dictsort expects a dict, found a ") + value.typeName());
    const Value index(textArgument(arguments, 1, "by", "key", work) == "value" ? 1 : 0);
    List items;
    for (const auto& [key, held] : value.mapping()->entries) items.push_back(makeList({key, held}, work, true));
    return sorted(std::move(items), &index, flagArgument(arguments, 0, "case_sensitive", false), flagArgument(arguments, 2, "reverse", false), work);
}

Value unique(const Value& value, const Arguments& arguments, Work& work) {
    List keys, out;
    for (const Value& item : itemsOf(value, work)) {
        Value key = sortKey(item, arguments.find(1, "attribute"), flagArgument(arguments, 0, "case_sensitive", false), work);
        if (std::any_of(keys.begin(), keys.end(), [&](const Value& seen) { return equal(seen, key, work); })) continue;
        keys.push_back(std::move(key));
        out.push_back(item);
    }
    return makeList(std::move(out), work);
}

enum class Extreme { Least, Greatest };
template <Extreme extreme>
Value extremeOf(const Value& value, const Arguments& arguments, Work& work) {
    std::optional<std::pair<Value, Value>> best;
    for (const Value& item : itemsOf(value, work)) {
        Value key = sortKey(item, arguments.find(1, "attribute"), flagArgument(arguments, 0, "case_sensitive", false), work);
        if (!best || (extreme == Extreme::Least ? less(key, best->first, work) : less(best->first, key, work))) best = {std::move(key), item};
    }
    return best ? best->second : Value(Value::Data(Undefined{"an item of an empty list"}));
}

Value sum(const Value& value, const Arguments& arguments, Work& work) {
    const Value *attribute = arguments.find(0, "attribute"), *start = arguments.find(1, "start");
    Value total = start ? *start : Value(0);
    for (const Value& item : itemsOf(value, work)) total = applyBinary("+", total, attribute && !attribute->isNone() ? fieldOf(item, *attribute, work) : item, work);
    return total;
}

Value join(const Value& value, const Arguments& arguments, Work& work) {
    requireArguments("join", arguments, {"d", "attribute"}, work);
    const std::string between = textArgument(arguments, 0, "d", "", work);
    const Value* attribute = arguments.find(1, "attribute");
    std::string out;
    bool first = true;
    for (const Value& item : itemsOf(value, work)) {
        if (!std::exchange(first, false)) out += between;
        out += toPythonText(attribute ? fieldOf(item, *attribute, work) : item, work);
        work.keep(between.size());
    }
    return Value(std::move(out));
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
        style.indent = width ? std::string(static_cast<std::size_t>(std::max<std::int64_t>(*width, 0)), ' ') : textOf(*indent, work);
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
    const std::int64_t spaces = width && width->text() ? 0 : std::clamp<std::int64_t>(wholeArgument(arguments, 0, "width", 4, work), 0, 1000);
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
    const double rounded = method == "ceil" ? std::ceil(scaled) : method == "floor" ? std::floor(scaled) : std::nearbyint(scaled);
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

Value firstOf(const Value& value, const Arguments&, Work& work) {
    const List items = itemsOf(value, work);
    return items.empty() ? Value(Value::Data(Undefined{"the first item of an empty list"})) : items.front();
}
Value lastOf(const Value& value, const Arguments&, Work& work) {
    const List items = itemsOf(value, work);
    return items.empty() ? Value(Value::Data(Undefined{"the last item of an empty list"})) : items.back();
}

Value reversed(const Value& value, const Arguments&, Work& work) {
    if (value.text()) return sliceOf(value, Value(), Value(), Value(-1), work);
    List items = itemsOf(value, work);
    std::reverse(items.begin(), items.end());
    return makeList(std::move(items), work);
}

Value mapFilter(const Value& value, const Arguments& arguments, Work& work) {
    List out;
    if (arguments.values.empty()) {
        const Value *attribute = arguments.find(0, "attribute"), *fallback = arguments.find(99, "default");
        if (!attribute) work.fail("map expects the name of a filter or attribute=");
        for (const Value& item : itemsOf(value, work)) {
            Value field = fieldOf(item, *attribute, work);
            out.push_back(field.isUndefined() && fallback ? *fallback : std::move(field));
        }
    } else {
        const std::string filter = textOf(arguments.values[0], work);
        const Arguments rest{{arguments.values.begin() + 1, arguments.values.end()}, arguments.named};
        for (const Value& item : itemsOf(value, work)) out.push_back(applyFilter(filter, item, rest, work));
    }
    return makeList(std::move(out), work);
}

enum class Keep { Passing, Failing };
enum class Of { Item, Field };
template <Keep keep, Of of>
Value selectFilter(const Value& value, const Arguments& arguments, Work& work) {
    const std::size_t before = of == Of::Field ? 1 : 0;
    if (arguments.values.size() < before) work.fail("selectattr and rejectattr expect the name of a field");
    const std::string test = arguments.values.size() > before ? textOf(arguments.values[before], work) : "";
    Arguments rest;
    if (arguments.values.size() > before + 1) rest.values.assign(arguments.values.begin() + static_cast<std::ptrdiff_t>(before) + 1, arguments.values.end());
    List out;
    for (const Value& item : itemsOf(value, work)) {
        const Value tested = of == Of::Field ? fieldOf(item, arguments.values[0], work) : item;
        const bool passes = test.empty() ? truth(tested) : applyTest(test, tested, rest, work);
        if (passes == (keep == Keep::Passing)) out.push_back(item);
    }
    return makeList(std::move(out), work);
}

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '&') out += "&amp;";
        else if (c == '<') out += "&lt;";
        else if (c == '>') out += "&gt;";
        else if (c == '"') out += "&#34;";
        else if (c == '\'') out += "&#39;";
        else out += c;
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
        {"attr", [](const Value& value, const Arguments& arguments, Work& work) { return attributeOf(value, textArgument(arguments, 0, "name", "", work), work); }},
        {"capitalize", changed<capitalizeText>},
        {"count", [](const Value& value, const Arguments&, Work& work) -> Value { return lengthOf(value, work); }},
        {"d", defaultTo},
        {"default", defaultTo},
        {"dictsort", dictsort},
        {"e", changed<escaped>},
        {"escape", changed<escaped>},
        {"first", firstOf},
        {"float", toReal},
        {"indent", indent},
        {"int", toWhole},
        {"items",
         [](const Value& value, const Arguments& arguments, Work& work) {
             if (value.isUndefined()) return makeList({}, work);
             if (!value.mapping()) work.fail(std::string("items expects a dict, found a ") + value.typeName());
             return methodOf(value, "items").function()->call(arguments, work);
         }},
        {"join", join},
        {"last", lastOf},
        {"length", [](const Value& value, const Arguments&, Work& work) -> Value { return lengthOf(value, work); }},
        {"list", [](const Value& value, const Arguments&, Work& work) { return makeList(itemsOf(value, work), work); }},
        {"lower", changed<lowerText>},
        {"map", mapFilter},
        {"max", extremeOf<Extreme::Greatest>},
        {"min", extremeOf<Extreme::Least>},
        {"reject", selectFilter<Keep::Failing, Of::Item>},
        {"rejectattr", selectFilter<Keep::Failing, Of::Field>},
        {"replace", [](const Value& value, const Arguments& arguments, Work& work) { return throughMethod("replace", value, arguments, work); }},
        {"reverse", reversed},
        {"round", roundFilter},
        {"safe", [](const Value& value, const Arguments&, Work&) { return value; }},
        {"select", selectFilter<Keep::Passing, Of::Item>},
        {"selectattr", selectFilter<Keep::Passing, Of::Field>},
        {"sort", sortFilter},
        {"string", [](const Value& value, const Arguments&, Work& work) { return Value(textOf(value, work)); }},
        {"sum", sum},
        {"title", changed<titleText>},
        {"tojson", toJson},
        {"trim", [](const Value& value, const Arguments& arguments, Work& work) { return throughMethod("strip", value, arguments, work); }},
        {"unique", unique},
        {"upper", changed<upperText>},
        {"wordcount", [](const Value& value, const Arguments&, Work& work) -> Value { return static_cast<std::int64_t>(splitText(textOf(value, work), nullptr, -1).size()); }},
    };
    return all;
}

}  // namespace

Value applyFilter(const std::string& name, const Value& value, const Arguments& arguments, Work& work) {
    work.step();
    const auto found = filters().find(name);
    if (found == filters().end()) work.fail("there is no filter '" + name + "'");
    return found->second(value, arguments, work);
}

}  // namespace resect::jinja
