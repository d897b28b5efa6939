#include "core/data/jinja_library.h"
#include "core/data/jinja_text.h"
#include "core/data/unicode.h"

#include <algorithm>
#include <map>

namespace resect::jinja {
namespace {

Value pairs(const Mapping& mapping, Work& work) {
    List items;
    for (const auto& [key, value] : mapping.entries) items.push_back(makeList({key, value}, work, true));
    return makeList(std::move(items), work);
}

using ValueMethod = Value (*)(const Value&, const Arguments&, Work&);

const std::map<std::string_view, ValueMethod>& dictMethods() {
    static const std::map<std::string_view, ValueMethod> methods = {
        {"items", [](const Value& dict, const Arguments&, Work& work) { return pairs(*dict.mapping(), work); }},
        {"keys", [](const Value& dict, const Arguments&, Work& work) { return makeList(itemsOf(dict, work), work); }},
        {"values",
         [](const Value& dict, const Arguments&, Work& work) {
             List values;
             for (const auto& entry : dict.mapping()->entries) values.push_back(entry.second);
             return makeList(std::move(values), work);
         }},
        {"copy", [](const Value& dict, const Arguments&, Work&) { return dict; }},
        {"get",
         [](const Value& dict, const Arguments& arguments, Work& work) {
             const Value *key = arguments.find(0, "key"), *fallback = arguments.find(1, "default");
             if (!key) work.fail("get() expects a key");
             const Value* found = findKey(*dict.mapping(), *key, work);
             return found ? *found : fallback ? *fallback : Value();
         }},
    };
    return methods;
}

const std::map<std::string_view, ValueMethod>& listMethods() {
    static const std::map<std::string_view, ValueMethod> methods = {
        {"copy", [](const Value& list, const Arguments&, Work&) { return list; }},
        {"count",
         [](const Value& list, const Arguments& arguments, Work& work) -> Value {
             const Value* wanted = arguments.find(0, "value");
             if (!wanted) work.fail("count() expects a value");
             const List& items = list.sequence()->items;
             return static_cast<std::int64_t>(
                 std::count_if(items.begin(), items.end(), [&](const Value& item) { return equal(item, *wanted, work); }));
         }},
        {"index",
         [](const Value& list, const Arguments& arguments, Work& work) -> Value {
             const Value* wanted = arguments.find(0, "value");
             const List& items = list.sequence()->items;
             for (std::size_t i = 0; wanted && i < items.size(); ++i)
                 if (equal(items[i], *wanted, work)) return static_cast<std::int64_t>(i);
             work.fail("index(): the value is not in the list");
         }},
    };
    return methods;
}

/// A function that holds `value`.
Value bound(const std::string& name, const Value& value, std::function<Value(const Arguments&, Work&)> call) {
    return Value::Data(std::make_shared<const Function>(Function{name, std::move(call), depthOf(value) + 1}));
}

Value undefined(std::string what) { return Value::Data(Undefined{std::move(what)}); }

/// Nullptr when there is no such field.
const Value* findField(const Value& value, const std::string& name, Work& work) {
    if (const auto* mapping = value.mapping()) return findKey(*mapping, Value(name), work);
    if (const auto* members = value.nameSpace())
        for (const auto& [key, held] : members->members)
            if (key == name) return &held;
    return nullptr;
}

/// The item at a position, negative ones from the end; nullopt when there is none.
std::optional<Value> itemAt(const Value& value, std::int64_t index, Work& work) {
    const std::int64_t length = lengthOf(value, work);
    if (index < 0) index += length;
    if (index < 0 || index >= length) return std::nullopt;
    if (const auto* sequence = value.sequence()) return sequence->items[static_cast<std::size_t>(index)];
    work.handle(value.text()->size());
    std::size_t pos = 0, begin = 0;
    for (std::int64_t i = 0; i <= index; ++i) {
        begin = pos;
        nextCodePoint(*value.text(), pos);
    }
    return Value(value.text()->substr(begin, pos - begin));
}

void requireDefined(const Value& value, Work& work) {
    if (const auto* missing = value.get<Undefined>()) work.fail(missing->what + " is not defined");
}

}  // namespace

Value methodOf(const Value& value, const std::string& name) {
    const auto from = [&](const std::map<std::string_view, ValueMethod>& methods,
                          std::initializer_list<std::string_view> changing) {
        if (const auto found = methods.find(name); found != methods.end())
            return bound(name, value, [value, method = found->second](const Arguments& arguments, Work& work) {
                return method(value, arguments, work);
            });
        if (std::find(changing.begin(), changing.end(), name) != changing.end())
            return bound(name, value, [name](const Arguments&, Work& work) -> Value {
                work.fail(name + "() would change a value, which a template may not do");
            });
        return undefined("the field '" + name + "'");
    };
    if (value.mapping()) return from(dictMethods(), {"clear", "pop", "popitem", "setdefault", "update"});
    if (value.sequence())
        return from(listMethods(), {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"});
    if (value.text()) {
        if (const TextMethod method = findTextMethod(name))
            return bound(name, value, [value, method](const Arguments& arguments, Work& work) {
                work.handle(value.text()->size());
                return method(*value.text(), arguments, work);
            });
    }
    return undefined(std::string("the field '") + name + "' of a " + value.typeName());
}

Value attributeOf(const Value& value, const std::string& name, Work& work) {
    requireDefined(value, work);
    Value method = methodOf(value, name);
    if (!method.isUndefined()) return method;
    const Value* field = findField(value, name, work);
    return field ? *field : method;
}

Value itemOf(const Value& value, const Value& key, Work& work) {
    requireDefined(value, work);
    if (const auto* mapping = value.mapping()) {
        if (const Value* found = findKey(*mapping, key, work)) return *found;
    } else if (const auto index = key.integer(); index && (value.sequence() || value.text())) {
        if (auto item = itemAt(value, *index, work)) return std::move(*item);
        return undefined("the item " + std::to_string(*index));
    }
    if (const auto* name = key.text()) {
        if (const Value* field = value.nameSpace() ? findField(value, *name, work) : nullptr) return *field;
        return methodOf(value, *name);
    }
    return undefined("the item " + toPythonRepr(key, work));
}

Value sliceOf(const Value& value, const Value& from, const Value& to, const Value& step, Work& work) {
    requireDefined(value, work);
    if (!value.sequence() && !value.text()) work.fail(std::string("a ") + value.typeName() + " cannot be sliced");
    const auto part = [&](const Value& given) -> std::optional<std::int64_t> {
        if (given.isNone()) return std::nullopt;
        if (!given.integer()) work.fail(std::string("a slice is given by whole numbers, found a ") + given.typeName());
        return given.integer();
    };
    const std::int64_t length = lengthOf(value, work),
                       by = std::clamp<std::int64_t>(part(step).value_or(1), -length - 1, length + 1);
    if (part(step) == 0) work.fail("the step of a slice is 0");
    const auto bound = [&](std::optional<std::int64_t> given, std::int64_t absent) {
        if (!given) return absent;
        const std::int64_t at = *given < 0 ? std::max<std::int64_t>(*given + length, by < 0 ? -1 : 0) : *given;
        return std::min(at, by < 0 ? length - 1 : length);
    };
    const std::int64_t first = bound(part(from), by < 0 ? length - 1 : 0), last = bound(part(to), by < 0 ? -1 : length);
    work.step(1 + static_cast<std::uint64_t>(length) / 16);
    if (const auto* sequence = value.sequence()) {
        List items;
        for (std::int64_t i = first; by < 0 ? i > last : i < last; i += by)
            items.push_back(sequence->items[static_cast<std::size_t>(i)]);
        return makeList(std::move(items), work, sequence->tuple);
    }
    work.handle(value.text()->size());
    if (by == 1) {
        std::size_t begin = 0;
        for (std::int64_t i = 0; i < std::min(first, last); ++i) nextCodePoint(*value.text(), begin);
        std::size_t end = begin;
        for (std::int64_t i = first; i < last; ++i) nextCodePoint(*value.text(), end);
        return madeText(value.text()->substr(begin, end - begin), work);
    }
    work.keep(16 * value.text()->size());
    const auto characters = codePoints(*value.text());
    std::string text;
    for (std::int64_t i = first; by < 0 ? i > last : i < last; i += by) text += characters[static_cast<std::size_t>(i)];
    return madeText(std::move(text), work);
}

}  // namespace resect::jinja
