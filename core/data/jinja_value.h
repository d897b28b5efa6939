#pragma once
#include "core/protocol/json.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace resect::jinja {

/// What one rendering may use up, and the line that it has reached. A template comes from a stranger's file, so loops and texts
/// that grow without end must become errors.
class Work {
public:
    int line = 0;
    /// One step is a node walked or about 64 bytes handled. Throws BadInput after 20 million.
    void step(std::uint64_t count = 1);
    void handle(std::uint64_t bytes) { step(1 + bytes / 64); }
    /// For values and text that are kept: throws BadInput after 256 MB altogether.
    void keep(std::uint64_t bytes);
    [[noreturn]] void fail(const std::string& message) const;

private:
    std::uint64_t m_steps = 0, m_bytes = 0;
};

class Value;
using List = std::vector<Value>;
using Entries = std::vector<std::pair<Value, Value>>;

/// What a name that is not set, or a field that is not there, gives: empty text, false, but no attributes.
struct Undefined {
    std::string what;  ///< "'tools'", "the field 'x'"
};
struct None {};
struct Sequence {
    List items;
    bool tuple = false;
    int depth = 1;
};
struct Mapping {
    Entries entries;  ///< in the order they were written
    int depth = 1;
};
/// The one thing that a template can change.
struct Namespace {
    std::vector<std::pair<std::string, Value>> members;
};

struct Arguments;
struct Function {
    std::string name;
    std::function<Value(const Arguments&, Work&)> call;
    int depth = 0;  ///< of the value that it holds
};

/// A value of the template language with Python's behaviour. Copies share what they hold; nothing but a Namespace ever changes.
class Value {
public:
    using Data = std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const std::string>,
                              std::shared_ptr<const Sequence>, std::shared_ptr<const Mapping>, std::shared_ptr<Namespace>,
                              std::shared_ptr<const Function>>;
    Value() : m_data(None{}) {}
    Value(Data data) : m_data(std::move(data)) {}
    Value(bool value) : m_data(value) {}
    Value(std::int64_t value) : m_data(value) {}
    Value(int value) : m_data(static_cast<std::int64_t>(value)) {}
    Value(double value) : m_data(value) {}
    Value(std::string text) : m_data(std::make_shared<const std::string>(std::move(text))) {}
    Value(std::string_view text) : Value(std::string(text)) {}
    Value(const char* text) : Value(std::string(text)) {}

    template <class T>
    const T* get() const noexcept {
        return std::get_if<T>(&m_data);
    }
    const std::string* text() const noexcept { return shared<std::shared_ptr<const std::string>>(); }
    const Sequence* sequence() const noexcept { return shared<std::shared_ptr<const Sequence>>(); }
    const Mapping* mapping() const noexcept { return shared<std::shared_ptr<const Mapping>>(); }
    const Function* function() const noexcept { return shared<std::shared_ptr<const Function>>(); }
    Namespace* nameSpace() const noexcept {
        const auto* held = get<std::shared_ptr<Namespace>>();
        return held ? held->get() : nullptr;
    }
    bool isUndefined() const noexcept { return get<Undefined>() != nullptr; }
    bool isNone() const noexcept { return get<None>() != nullptr; }
    bool isNumber() const noexcept { return get<bool>() || get<std::int64_t>() || get<double>(); }
    /// A whole number; True is 1.
    std::optional<std::int64_t> integer() const noexcept;
    std::optional<double> number() const noexcept;
    const char* typeName() const noexcept;  ///< as Python calls it

private:
    template <class Pointer>
    auto shared() const noexcept -> decltype(std::declval<const Pointer&>().get()) {
        const auto* held = get<Pointer>();
        return held ? held->get() : nullptr;
    }
    Data m_data;
};

struct Arguments {
    List values;
    std::vector<std::pair<std::string, Value>> named;

    /// By position or name; null when it is not given.
    const Value* find(std::size_t index, std::string_view name) const;
};

Value fromJson(const Json& json, Work& work);
/// Both refuse values nested more than 250 deep, because freeing them recurses.
Value makeList(List items, Work& work, bool tuple = false);
Value makeDict(Entries entries, Work& work);

int depthOf(const Value& value) noexcept;  ///< 0 for what holds no other value

bool truth(const Value& value) noexcept;
bool equal(const Value& a, const Value& b, Work& work);
bool less(const Value& a, const Value& b, Work& work);  ///< fails for types that Python does not order
const Value* findKey(const Mapping& mapping, const Value& key, Work& work);

std::string toPythonText(const Value& value, Work& work);  ///< str()
std::string toPythonRepr(const Value& value, Work& work);  ///< repr()

struct JsonStyle {
    std::optional<std::string> indent;
    std::string itemSeparator = ", ", keySeparator = ": ";
    bool sortKeys = false, asciiOnly = false;
};
/// As Python's json.dumps(ensure_ascii=False); fails for what JSON cannot hold.
std::string toJsonText(const Value& value, const JsonStyle& style, Work& work);

/// What a loop walks: items of a list, keys of a dict, characters of a text; fails for anything else.
List itemsOf(const Value& value, Work& work);

}  // namespace resect::jinja
