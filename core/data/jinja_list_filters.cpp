#include "core/data/jinja_library.h"
#include "core/data/jinja_text.h"

#include "core/base/numbers.h"

#include <algorithm>
#include <map>

// Filters that go through the items of a value.

namespace resect::jinja {
namespace {

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
        const auto later = [&](const auto& a, const auto& b) {
            return reverse ? less(b.first, a.first, work) : less(a.first, b.first, work);
        };
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
    return sorted(std::move(items), &index, flagArgument(arguments, 0, "case_sensitive", false),
                  flagArgument(arguments, 2, "reverse", false), work);
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
        if (!best || (extreme == Extreme::Least ? less(key, best->first, work) : less(best->first, key, work)))
            best = {std::move(key), item};
    }
    return best ? best->second : Value(Value::Data(Undefined{"an item of an empty list"}));
}

Value sum(const Value& value, const Arguments& arguments, Work& work) {
    const Value *attribute = arguments.find(0, "attribute"), *start = arguments.find(1, "start");
    Value total = start ? *start : Value(0);
    for (const Value& item : itemsOf(value, work))
        total = applyBinary("+", total, attribute && !attribute->isNone() ? fieldOf(item, *attribute, work) : item, work);
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
    if (arguments.values.size() > before + 1)
        rest.values.assign(arguments.values.begin() + static_cast<std::ptrdiff_t>(before) + 1, arguments.values.end());
    List out;
    for (const Value& item : itemsOf(value, work)) {
        const Value tested = of == Of::Field ? fieldOf(item, arguments.values[0], work) : item;
        const bool passes = test.empty() ? truth(tested) : applyTest(test, tested, rest, work);
        if (passes == (keep == Keep::Passing)) out.push_back(item);
    }
    return makeList(std::move(out), work);
}

const std::map<std::string_view, Filter>& listFilters() {
    static const std::map<std::string_view, Filter> all = {
        {"dictsort", dictsort},
        {"first", firstOf},
        {"join", join},
        {"last", lastOf},
        {"map", mapFilter},
        {"max", extremeOf<Extreme::Greatest>},
        {"min", extremeOf<Extreme::Least>},
        {"reject", selectFilter<Keep::Failing, Of::Item>},
        {"rejectattr", selectFilter<Keep::Failing, Of::Field>},
        {"reverse", reversed},
        {"select", selectFilter<Keep::Passing, Of::Item>},
        {"selectattr", selectFilter<Keep::Passing, Of::Field>},
        {"sort", sortFilter},
        {"sum", sum},
        {"unique", unique},
    };
    return all;
}

}  // namespace

Filter findListFilter(std::string_view name) {
    const auto found = listFilters().find(name);
    return found == listFilters().end() ? nullptr : found->second;
}

}  // namespace resect::jinja
