#include "core/protocol/parameter.h"

#include "core/base/error.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

namespace resect {

namespace {

constexpr double kNoBound = 1e299;

/// Either the converted value or what was expected instead.
struct Converted {
    Json value;
    std::string expected;
};

Converted expected(std::string what) { return {Json(), std::move(what)}; }

std::string rangeText(const ParameterInfo& info, const std::string& noun) {
    const bool low = info.minimum > -kNoBound, high = info.maximum < kNoBound;
    if (low && high) return noun + " from " + toText(info.minimum) + " to " + toText(info.maximum);
    if (low) return noun + " of at least " + toText(info.minimum);
    if (high) return noun + " of at most " + toText(info.maximum);
    return noun;
}

bool inRange(const ParameterInfo& info, double value) {
    return std::isfinite(value) && value >= info.minimum && value <= info.maximum;
}

std::optional<std::int64_t> asInteger(const Json& given) {
    if (given.is_number_unsigned() && given.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
    if (given.is_number_integer()) return given.get<std::int64_t>();
    if (given.is_string()) return parseInt(given.get<std::string>());
    if (given.is_number_float()) {
        const double value = given.get<double>();
        if (std::floor(value) == value && std::abs(value) < 9e15) return static_cast<std::int64_t>(value);
    }
    return std::nullopt;
}

std::optional<double> asReal(const Json& given) {
    if (given.is_number()) return given.get<double>();
    if (given.is_string()) return parseDouble(given.get<std::string>());
    return std::nullopt;
}

std::optional<bool> asBoolean(const Json& given) {
    if (given.is_boolean()) return given.get<bool>();
    if (!given.is_string()) return std::nullopt;
    const auto text = given.get<std::string>();
    for (const char* yes : {"true", "yes", "on", "1"}) if (text == yes) return true;
    for (const char* no : {"false", "no", "off", "0"}) if (text == no) return false;
    return std::nullopt;
}

/// "1,4-7" or a JSON array; nullopt when a part is no integer or a range descends.
std::optional<std::vector<std::int64_t>> asIntegers(const Json& given) {
    std::vector<std::int64_t> values;
    if (given.is_number()) {
        const auto one = asInteger(given);
        return one ? std::optional(std::vector{*one}) : std::nullopt;
    }
    if (given.is_array()) {
        for (const Json& entry : given) {
            const auto one = entry.is_number() ? asInteger(entry) : std::nullopt;
            if (!one) return std::nullopt;
            values.push_back(*one);
        }
        return values;
    }
    if (!given.is_string()) return std::nullopt;
    const auto text = given.get<std::string>();
    if (text.find_first_not_of(' ') == std::string::npos) return values;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        const std::string part = text.substr(begin, end - begin);
        const std::size_t first = part.find_first_not_of(' ');
        const std::size_t dash = first == std::string::npos ? first : part.find('-', first + 1);
        const auto low = parseInt(part.substr(0, dash));
        const auto high = dash == std::string::npos ? low : parseInt(part.substr(dash + 1));
        if (!low || !high || *high < *low || *high - *low > 1'000'000) return std::nullopt;
        for (std::int64_t i = *low; i <= *high; ++i) values.push_back(i);
        begin = end + 1;
    }
    return values;
}

Converted convertNumber(const ParameterInfo& info, const Json& given) {
    if (info.type == ParameterType::Integer) {
        const auto value = asInteger(given);
        if (!value || !inRange(info, static_cast<double>(*value))) return expected(rangeText(info, "a whole number"));
        return {*value, {}};
    }
    const auto value = asReal(given);
    if (!value || !inRange(info, *value)) return expected(rangeText(info, "a number"));
    return {*value, {}};
}

Converted convertList(const ParameterInfo& info, const Json& given) {
    const auto values = asIntegers(given);
    const auto fits = [&](std::int64_t v) { return inRange(info, static_cast<double>(v)) && std::abs(v) <= INT32_MAX; };
    if (!values || !std::all_of(values->begin(), values->end(), fits))
        return expected(rangeText(info, "a list like 1,4-7 of whole numbers, each"));
    return {*values, {}};
}

Converted convertChoice(const ParameterInfo& info, const Json& given) {
    if (given.is_string() && std::find(info.choices.begin(), info.choices.end(), given.get<std::string>()) != info.choices.end())
        return {given, {}};
    std::string all;
    for (const auto& choice : info.choices) all += (all.empty() ? "" : ", ") + choice;
    return expected("one of " + all);
}

Converted convert(const ParameterInfo& info, const Json& given) {
    switch (info.type) {
        case ParameterType::Integer:
        case ParameterType::Real: return convertNumber(info, given);
        case ParameterType::IntegerList: return convertList(info, given);
        case ParameterType::Choice: return convertChoice(info, given);
        case ParameterType::Boolean: {
            const auto value = asBoolean(given);
            return value ? Converted{*value, {}} : expected("true or false");
        }
        case ParameterType::Text:
        case ParameterType::File: return given.is_string() ? Converted{given, {}} : expected("text");
    }
    return expected("a known type");
}

std::string shown(const Json& value) {
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 80) text.replace(77, std::string::npos, "...");
    return text;
}

std::string knownNames(const std::vector<ParameterInfo>& declared) {
    std::string all;
    for (const auto& info : declared) all += (all.empty() ? "" : ", ") + info.name;
    return all.empty() ? "there are no parameters" : "there are " + all;
}

/// Converts what it can into `values` (may be null) and returns every problem.
std::vector<Problem> take(const std::vector<ParameterInfo>& declared, const Json& given, Json* values) {
    std::vector<Problem> problems;
    if (!given.is_object() && !given.is_null())
        return {{Severity::Error, "parameters", "expected an object of names and values, found " + shown(given), ""}};
    for (const auto& [name, value] : given.items()) {
        const bool known = std::any_of(declared.begin(), declared.end(), [&n = name](const auto& info) { return info.name == n; });
        if (!known) problems.push_back({Severity::Error, name, "unknown parameter; " + knownNames(declared), ""});
    }
    for (const auto& info : declared) {
        const auto it = given.is_object() ? given.find(info.name) : given.end();
        const bool set = given.is_object() && it != given.end() && !it->is_null();
        Converted converted = set ? convert(info, *it) : Converted{info.defaultValue, {}};
        if (!converted.expected.empty())
            problems.push_back({Severity::Error, info.name, "expected " + converted.expected + ", found " + shown(*it), info.help});
        else if (values)
            (*values)[info.name] = std::move(converted.value);
    }
    return problems;
}

}  // namespace

std::string_view name(ParameterType type) noexcept {
    static constexpr std::array<std::string_view, 7> kNames{"integer", "real", "boolean", "choice", "text", "integer_list", "file"};
    return kNames[static_cast<std::size_t>(type)];
}

std::vector<Problem> checkParameters(const std::vector<ParameterInfo>& declared, const Json& given) { return take(declared, given, nullptr); }

Parameters::Parameters(const std::vector<ParameterInfo>& declared, const Json& given) : m_values(Json::object()) {
    const auto problems = take(declared, given, &m_values);
    if (problems.empty()) return;
    std::string message;
    for (const auto& problem : problems) message += (message.empty() ? "" : "; ") + problem.subject + ": " + problem.message;
    throw Error(ErrorCode::Usage, "parameters", message);
}

const Json& Parameters::value(std::string_view name) const {
    const auto it = m_values.find(std::string(name));
    if (it == m_values.end()) throw Error(ErrorCode::Internal, std::string(name), "this parameter was not declared");
    return *it;
}

namespace {
[[noreturn]] void wrongType(std::string_view name, const Json& value) {
    throw Error(ErrorCode::Internal, std::string(name), "this parameter was declared with another type than it is read with; it is " + shown(value));
}
}  // namespace

std::int64_t Parameters::integer(std::string_view name) const {
    const Json& json = value(name);
    if (!json.is_number_integer()) wrongType(name, json);
    return json.get<std::int64_t>();
}

double Parameters::real(std::string_view name) const {
    const Json& json = value(name);
    if (!json.is_number()) wrongType(name, json);
    return json.get<double>();
}

bool Parameters::boolean(std::string_view name) const {
    const Json& json = value(name);
    if (!json.is_boolean()) wrongType(name, json);
    return json.get<bool>();
}

std::string Parameters::text(std::string_view name) const {
    const Json& json = value(name);
    if (!json.is_string()) wrongType(name, json);
    return json.get<std::string>();
}

std::vector<int> Parameters::integers(std::string_view name) const {
    const Json& json = value(name);
    if (!json.is_array()) wrongType(name, json);
    return json.get<std::vector<int>>();
}

protocol::ParameterMessage toMessage(const ParameterInfo& parameter) {
    protocol::ParameterMessage message;
    message.name = parameter.name;
    message.title = parameter.title;
    message.help = parameter.help;
    message.type = name(parameter.type);
    message.unit = parameter.unit;
    message.defaultValue = parameter.defaultValue;
    if (parameter.minimum > -kNoBound) message.minimum = parameter.minimum;
    if (parameter.maximum < kNoBound) message.maximum = parameter.maximum;
    message.choices = parameter.choices;
    message.advanced = parameter.advanced;
    return message;
}

Json toJson(const ParameterInfo& parameter) { return toMessage(parameter); }

}  // namespace resect
