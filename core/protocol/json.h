#pragma once
#include <nlohmann/json.hpp>

#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

namespace resect {

/// Keeps the order of keys, so that a rewritten config.json differs only where it was changed.
using Json = nlohmann::ordered_json;

/// Strict: UTF-8, no duplicate keys in one object, nothing after the document, depth at most 200.
/// Throws BadInput; `subject` (a file name) goes into the error together with line and column.
Json parseJson(std::string_view text, const std::string& subject);
Json readJsonFile(const std::filesystem::path& path);
/// Two-space indent, trailing newline, written atomically. Non-finite numbers become null.
void writeJsonFile(const std::filesystem::path& path, const Json& json);

/// Typed access with errors that name the field: throws BadInput "subject: field: expected ..., found ...".
std::int64_t intField(const Json& object, std::string_view field, const std::string& subject);
double numberField(const Json& object, std::string_view field, const std::string& subject);
std::string stringField(const Json& object, std::string_view field, const std::string& subject);
/// The default when the field is absent or null; still throws when it has another type.
std::int64_t intField(const Json& object, std::string_view field, const std::string& subject, std::int64_t fallback);
double numberField(const Json& object, std::string_view field, const std::string& subject, double fallback);
bool boolField(const Json& object, std::string_view field, const std::string& subject, bool fallback);
std::string stringField(const Json& object, std::string_view field, const std::string& subject, std::string fallback);

/// Throws BadInput with the field as its subject.
[[noreturn]] void throwWrongField(const char* field, const char* reason);

/// Reads `object[field]` into `out`; throws BadInput naming the field when it has another type; an absent or null field keeps the default, except that null makes a double NaN (how non-finite numbers travel).
template <class T> void readField(const Json& object, const char* field, T& out) {
    const auto it = object.find(field);
    if (it == object.end()) return;
    try {
        if constexpr (std::is_same_v<T, double>) {
            out = it->is_null() ? std::numeric_limits<double>::quiet_NaN() : it->template get<double>();
        } else if (std::is_same_v<T, Json> || !it->is_null()) {
            out = it->template get<T>();
        }
    } catch (const Json::exception& error) {
        throwWrongField(field, error.what());
    }
}

}  // namespace resect

#define RESECT_JSON_TO(field) resect_json[#field] = resect_value.field;
#define RESECT_JSON_FROM(field) ::resect::readField(resect_json, #field, resect_value.field);
/// Declares to_json and from_json for a struct; RESECT_JSON_FIELDS in one source file defines them. (Defined inline they would be compiled
/// again in every file that sees the struct, which costs seconds each.)
#define RESECT_JSON_DECLARE(Type)                                       \
    void to_json(::resect::Json& resect_json, const Type& resect_value); \
    void from_json(const ::resect::Json& resect_json, Type& resect_value);
/// Defines both from the list of the fields. Reading tolerates absent and unknown fields.
#define RESECT_JSON_FIELDS(Type, ...)                                       \
    void to_json(::resect::Json& resect_json, const Type& resect_value) {   \
        NLOHMANN_JSON_EXPAND(NLOHMANN_JSON_PASTE(RESECT_JSON_TO, __VA_ARGS__)) \
    }                                                                       \
    void from_json(const ::resect::Json& resect_json, Type& resect_value) { \
        NLOHMANN_JSON_EXPAND(NLOHMANN_JSON_PASTE(RESECT_JSON_FROM, __VA_ARGS__)) \
    }
