#include "core/data/jinja_value.h"

#include "core/data/jinja_lexer.h"
#include "core/data/jinja_text.h"
#include "core/data/unicode.h"

#include <algorithm>

namespace resect::jinja {
namespace {

constexpr std::uint64_t kMaxSteps = 20'000'000;
constexpr std::uint64_t kMaxBytes = 256u << 20;
constexpr int kMaxDepth = 250;

void requireDepth(int depth, Work& work) {
    if (depth > kMaxDepth) work.fail("a value is nested more than " + std::to_string(kMaxDepth) + " deep");
}

}  // namespace

void Work::step(std::uint64_t count) {
    if ((m_steps += count) > kMaxSteps) fail("the template runs too long; it was stopped after 20 million steps");
}

void Work::keep(std::uint64_t bytes) {
    if ((m_bytes += bytes) > kMaxBytes) fail("the template makes more than 256 MB of text and values");
}

void Work::fail(const std::string& message) const { jinja::fail(line, message); }

std::optional<std::int64_t> Value::integer() const noexcept {
    if (const auto* whole = get<std::int64_t>()) return *whole;
    if (const auto* flag = get<bool>()) return *flag ? 1 : 0;
    return std::nullopt;
}

std::optional<double> Value::number() const noexcept {
    if (const auto* real = get<double>()) return *real;
    if (const auto whole = integer()) return static_cast<double>(*whole);
    return std::nullopt;
}

const char* Value::typeName() const noexcept {
    static constexpr const char* kNames[] = {"Undefined", "NoneType", "bool", "int",       "float",
                                             "str",       "list",     "dict", "Namespace", "function"};
    if (const auto* held = sequence(); held && held->tuple) return "tuple";
    return kNames[m_data.index()];
}

const Value* Arguments::find(std::size_t index, std::string_view name) const {
    if (index < values.size()) return &values[index];
    for (const auto& [key, value] : named)
        if (key == name) return &value;
    return nullptr;
}

Value makeList(List items, Work& work, bool tuple) {
    work.keep(sizeof(Value) * items.size() + 64);
    auto sequence = std::make_shared<Sequence>();
    for (const Value& item : items) sequence->depth = std::max(sequence->depth, depthOf(item) + 1);
    requireDepth(sequence->depth, work);
    sequence->items = std::move(items);
    sequence->tuple = tuple;
    return Value::Data(std::shared_ptr<const Sequence>(std::move(sequence)));
}

Value makeDict(Entries entries, Work& work) {
    work.keep(2 * sizeof(Value) * entries.size() + 64);
    auto mapping = std::make_shared<Mapping>();
    for (const auto& [key, value] : entries) mapping->depth = std::max(mapping->depth, depthOf(value) + 1);
    requireDepth(mapping->depth, work);
    mapping->entries = std::move(entries);
    return Value::Data(std::shared_ptr<const Mapping>(std::move(mapping)));
}

int depthOf(const Value& value) noexcept {
    if (const auto* sequence = value.sequence()) return sequence->depth;
    if (const auto* mapping = value.mapping()) return mapping->depth;
    if (const auto* function = value.function()) return function->depth;
    return 0;
}

Value fromJson(const Json& json, Work& work) {
    work.step();
    if (json.is_null()) return Value();
    if (json.is_boolean()) return Value(json.get<bool>());
    if (json.is_number_unsigned() && json.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
        return Value(json.get<double>());
    if (json.is_number_integer()) return Value(json.get<std::int64_t>());
    if (json.is_number()) return Value(json.get<double>());
    if (json.is_string()) {
        const auto& text = json.get_ref<const std::string&>();
        work.keep(text.size());
        return Value(findInvalidUtf8(text) ? replaceInvalidUtf8(text) : text);
    }
    if (json.is_array()) {
        List items;
        for (const Json& item : json) items.push_back(fromJson(item, work));
        return makeList(std::move(items), work);
    }
    Entries entries;
    for (const auto& [key, value] : json.items()) entries.emplace_back(Value(key), fromJson(value, work));
    return makeDict(std::move(entries), work);
}

bool truth(const Value& value) noexcept {
    if (value.isUndefined() || value.isNone()) return false;
    if (const auto number = value.number()) return *number != 0;
    if (const auto* text = value.text()) return !text->empty();
    if (const auto* sequence = value.sequence()) return !sequence->items.empty();
    if (const auto* mapping = value.mapping()) return !mapping->entries.empty();
    return true;
}

bool equal(const Value& a, const Value& b, Work& work) {
    work.step();
    if (a.integer() && b.integer()) return a.integer() == b.integer();
    if (a.number() && b.number()) return a.number() == b.number();
    if (a.text() && b.text()) {
        work.handle(std::min(a.text()->size(), b.text()->size()));
        return *a.text() == *b.text();
    }
    if (a.sequence() && b.sequence()) {
        const auto &left = *a.sequence(), &right = *b.sequence();
        return left.tuple == right.tuple &&
               std::equal(left.items.begin(), left.items.end(), right.items.begin(), right.items.end(),
                          [&](const Value& x, const Value& y) { return equal(x, y, work); });
    }
    if (a.mapping() && b.mapping()) {
        const auto &left = a.mapping()->entries, &right = b.mapping()->entries;
        return left.size() == right.size() && std::all_of(left.begin(), left.end(), [&](const auto& entry) {
                   const Value* other = findKey(*b.mapping(), entry.first, work);
                   return other && equal(entry.second, *other, work);
               });
    }
    if (a.nameSpace() || a.function()) return a.nameSpace() == b.nameSpace() && a.function() == b.function();
    return (a.isNone() && b.isNone()) || (a.isUndefined() && b.isUndefined());
}

bool less(const Value& a, const Value& b, Work& work) {
    work.step();
    if (a.integer() && b.integer()) return *a.integer() < *b.integer();
    if (a.number() && b.number()) return *a.number() < *b.number();
    if (a.text() && b.text()) {  // the order of UTF-8 bytes is that of code points
        work.handle(std::min(a.text()->size(), b.text()->size()));
        return *a.text() < *b.text();
    }
    if (a.sequence() && b.sequence() && a.sequence()->tuple == b.sequence()->tuple) {
        const auto &left = a.sequence()->items, &right = b.sequence()->items;
        for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i)
            if (!equal(left[i], right[i], work)) return less(left[i], right[i], work);
        return left.size() < right.size();
    }
    for (const Value* side : {&a, &b})
        if (const auto* missing = side->get<Undefined>()) work.fail(missing->what + " is not defined");
    work.fail(std::string("a ") + a.typeName() + " and a " + b.typeName() + " cannot be ordered");
}

const Value* findKey(const Mapping& mapping, const Value& key, Work& work) {
    if (const auto* wanted = key.text()) {
        work.step(1 + mapping.entries.size() / 16);
        for (const auto& [name, value] : mapping.entries)
            if (const auto* text = name.text(); text && *text == *wanted) return &value;
        return nullptr;
    }
    for (const auto& [name, value] : mapping.entries)
        if (equal(name, key, work)) return &value;
    return nullptr;
}

List itemsOf(const Value& value, Work& work) {
    if (value.isUndefined()) return {};
    if (const auto* sequence = value.sequence()) {
        work.step(1 + sequence->items.size() / 16);
        return sequence->items;
    }
    List items;
    if (const auto* mapping = value.mapping()) {
        for (const auto& entry : mapping->entries) items.push_back(entry.first);
    } else if (const auto* text = value.text()) {
        work.keep(text->size() * 128);
        for (const std::string_view character : codePoints(*text)) items.emplace_back(character);
    } else {
        work.fail(std::string("a value of type ") + value.typeName() + " cannot be walked through");
    }
    work.step(1 + items.size() / 4);
    return items;
}

}  // namespace resect::jinja
