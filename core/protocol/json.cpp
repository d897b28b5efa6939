#include "core/protocol/json.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <unordered_set>
#include <vector>

namespace resect {

namespace {

constexpr std::size_t kMaxDepth = 200;

/// Walks the text and tells how far the parser has read, which its events do not.
struct CountingIterator {
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;
    const char* at = nullptr;
    const char** reached = nullptr;
    reference operator*() const { return *at; }
    CountingIterator& operator++() {
        *reached = ++at;
        return *this;
    }
    CountingIterator operator++(int) {
        const CountingIterator before = *this;
        ++*this;
        return before;
    }
    bool operator==(const CountingIterator& other) const { return at == other.at; }
};

/// Line and column (1-based, in bytes) of a position.
std::string place(std::string_view text, std::size_t position) {
    position = std::min(position, text.size());
    const std::string_view before = text.substr(0, position);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const auto lineStart = before.rfind('\n');
    const std::size_t column = lineStart == std::string_view::npos ? position + 1 : position - lineStart;
    return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

/// Builds the document and refuses what JSON parsers usually let pass: repeated keys and bottomless nesting.
class StrictBuilder {
public:
    using number_integer_t = Json::number_integer_t;
    using number_unsigned_t = Json::number_unsigned_t;
    using number_float_t = Json::number_float_t;
    using string_t = Json::string_t;
    using binary_t = Json::binary_t;

    StrictBuilder(std::string_view text, const std::string& subject, const char* const& reached)
        : m_text(text), m_subject(subject), m_reached(reached) {}

    bool null() { return add(nullptr); }
    bool boolean(bool value) { return add(value); }
    bool number_integer(number_integer_t value) { return add(value); }
    bool number_unsigned(number_unsigned_t value) { return add(value); }
    bool number_float(number_float_t value, const string_t&) { return add(value); }
    bool string(string_t& value) { return add(std::move(value)); }
    bool binary(binary_t&) { return false; }
    bool start_object(std::size_t) { return open(Json::object()); }
    bool start_array(std::size_t) { return open(Json::array()); }
    bool end_object() { return close(); }
    bool end_array() { return close(); }
    bool key(string_t& value) {
        checkNewKey(value);
        m_key = std::move(value);
        return true;
    }
    bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) {
        std::string why = error.what();
        if (const auto column = why.find("column "); column != std::string::npos) {  // keep the reason, the place is ours
            if (const auto colon = why.find(": ", column); colon != std::string::npos) why.erase(0, colon + 2);
        } else if (const auto bracket = why.find("] "); bracket != std::string::npos) {
            why.erase(0, bracket + 2);
        }
        fail(position > 0 ? position - 1 : 0, "not valid JSON: " + why);
    }
    Json take() { return std::move(m_root); }

private:
    struct Level {
        Json* value;
        std::unordered_set<std::size_t> keyHashes;  ///< filled once an object is large: its own look-up is linear
    };

    [[noreturn]] void fail(std::size_t position, const std::string& message) const {
        throw Error(ErrorCode::BadInput, m_subject, place(m_text, position) + ": " + message);
    }
    std::size_t position() const { return static_cast<std::size_t>(m_reached - m_text.data()); }

    void checkNewKey(const std::string& key) {
        constexpr std::size_t kLarge = 16;
        Level& level = m_stack.back();
        const auto& members = level.value->get_ref<const Json::object_t&>();
        const auto known = [&] {
            return std::any_of(members.begin(), members.end(), [&](const auto& member) { return member.first == key; });
        };
        bool repeated = false;
        if (members.size() < kLarge) {
            repeated = known();
        } else {
            const std::hash<std::string> hash;
            if (level.keyHashes.empty())
                for (const auto& member : members) level.keyHashes.insert(hash(member.first));
            repeated = !level.keyHashes.insert(hash(key)).second && known();
        }
        if (repeated) fail(position() - 1, "the key \"" + key + "\" appears twice in one object");
    }

    Json* insert(Json&& value) {
        if (m_stack.empty()) {
            m_root = std::move(value);
            return &m_root;
        }
        Json& parent = *m_stack.back().value;
        if (parent.is_array()) {
            auto& items = parent.get_ref<Json::array_t&>();
            items.push_back(std::move(value));
            return &items.back();
        }
        auto& members = parent.get_ref<Json::object_t&>();
        // Past the map's own insertion, which searches linearly: the key is known to be new.
        static_cast<Json::object_t::Container&>(members).emplace_back(std::move(m_key), std::move(value));
        return &members.back().second;
    }
    template <class T>
    bool add(T&& value) {
        insert(Json(std::forward<T>(value)));
        return true;
    }
    bool open(Json&& value) {
        if (m_stack.size() >= kMaxDepth) fail(position() - 1, "nested deeper than " + std::to_string(kMaxDepth) + " levels");
        m_stack.push_back({insert(std::move(value)), {}});
        return true;
    }
    bool close() {
        m_stack.pop_back();
        return true;
    }

    std::string_view m_text;
    const std::string& m_subject;
    const char* const& m_reached;
    Json m_root;
    std::vector<Level> m_stack;
    std::string m_key;
};

std::string describe(const Json& value) {
    switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::object: return "an object";
    case Json::value_t::array: return "a list";
    case Json::value_t::boolean:
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
    case Json::value_t::number_float: return value.dump();
    case Json::value_t::string: {
        const auto& text = value.get_ref<const std::string&>();
        return text.size() <= 60 ? "the text " + value.dump(-1, ' ', false, Json::error_handler_t::replace) : "a text";
    }
    default: return "something else";
    }
}

/// Null when absent or null.
const Json* findField(const Json& object, std::string_view field, const std::string& subject) {
    if (!object.is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object, found " + describe(object));
    const auto it = object.find(std::string(field));
    return it == object.end() || it->is_null() ? nullptr : &*it;
}

[[noreturn]] void wrongType(std::string_view field, const std::string& subject, const char* expected, const Json* found) {
    throw Error(ErrorCode::BadInput, subject + ": " + std::string(field),
                std::string("expected ") + expected + ", found " + (found ? describe(*found) : "nothing"));
}

std::int64_t toInt(const Json* value, std::string_view field, const std::string& subject) {
    const bool fits = value && value->is_number_integer() &&
                      !(value->is_number_unsigned() && value->get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max());
    if (!fits) wrongType(field, subject, "an integer", value);
    return value->get<std::int64_t>();
}

double toNumber(const Json* value, std::string_view field, const std::string& subject) {
    if (!value || !value->is_number()) wrongType(field, subject, "a number", value);
    return value->get<double>();
}

std::string toString(const Json* value, std::string_view field, const std::string& subject) {
    if (!value || !value->is_string()) wrongType(field, subject, "a text", value);
    return value->get<std::string>();
}

}  // namespace

Json parseJson(std::string_view text, const std::string& subject) {
    // The parser takes a zero byte for the end of its input and would not see what follows.
    if (const auto zero = text.find('\0'); zero != std::string_view::npos)
        throw Error(ErrorCode::BadInput, subject, place(text, zero) + ": not valid JSON: a zero byte");
    const char* reached = text.data();
    StrictBuilder builder(text, subject, reached);
    const CountingIterator first{text.data(), &reached}, last{text.data() + text.size(), &reached};
    if (!Json::sax_parse(first, last, &builder, Json::input_format_t::json, /*strict=*/true))
        throw Error(ErrorCode::BadInput, subject, "not valid JSON");
    return builder.take();
}

Json readJsonFile(const std::filesystem::path& path) { return parseJson(readFile(path), path.string()); }

void writeJsonFile(const std::filesystem::path& path, const Json& json) {
    writeFileAtomically(path, json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n");
}

std::int64_t intField(const Json& object, std::string_view field, const std::string& subject) {
    return toInt(findField(object, field, subject), field, subject);
}
double numberField(const Json& object, std::string_view field, const std::string& subject) {
    return toNumber(findField(object, field, subject), field, subject);
}
std::string stringField(const Json& object, std::string_view field, const std::string& subject) {
    return toString(findField(object, field, subject), field, subject);
}
std::int64_t intField(const Json& object, std::string_view field, const std::string& subject, std::int64_t fallback) {
    const Json* value = findField(object, field, subject);
    return value ? toInt(value, field, subject) : fallback;
}
double numberField(const Json& object, std::string_view field, const std::string& subject, double fallback) {
    const Json* value = findField(object, field, subject);
    return value ? toNumber(value, field, subject) : fallback;
}
bool boolField(const Json& object, std::string_view field, const std::string& subject, bool fallback) {
    const Json* value = findField(object, field, subject);
    if (!value) return fallback;
    if (!value->is_boolean()) wrongType(field, subject, "true or false", value);
    return value->get<bool>();
}
std::string stringField(const Json& object, std::string_view field, const std::string& subject, std::string fallback) {
    const Json* value = findField(object, field, subject);
    return value ? toString(value, field, subject) : fallback;
}

void throwWrongField(const char* field, const char* reason) {
    std::string why = reason;
    if (const auto bracket = why.find("] "); bracket != std::string::npos) why.erase(0, bracket + 2);
    throw Error(ErrorCode::BadInput, field, why);
}

}  // namespace resect
