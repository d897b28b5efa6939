#pragma once
#include "core/base/problem.h"
#include "core/protocol/json.h"
#include "core/protocol/messages.h"

#include <string>
#include <string_view>
#include <vector>

namespace resect {

enum class ParameterType { Integer, Real, Boolean, Choice, Text, IntegerList, File };
std::string_view name(ParameterType type) noexcept;  ///< "integer", "real", "boolean", "choice", "text", "integer_list", "file"

/// One declared parameter: form, CLI option and validation all come from it.
struct ParameterInfo {
    std::string name;        ///< "lora_rank": the spelling of --set
    std::string title;       ///< "Rank"
    std::string help;        ///< one plain sentence
    ParameterType type = ParameterType::Real;
    std::string unit;        ///< "tokens", "steps", "" ...
    Json defaultValue;       ///< of the declared type
    double minimum = -1e300, maximum = 1e300;  ///< inclusive, for numbers; list entries too. +-1e300 = no bound
    std::vector<std::string> choices;          ///< for Choice
    bool advanced = false;   ///< folded away in forms
};

/// Every unknown name, wrong type and value out of range of `given` ({name: value}), each as an Error whose subject is the name.
std::vector<Problem> checkParameters(const std::vector<ParameterInfo>& declared, const Json& given);

/// Checked values, complete: every declared parameter has one.
class Parameters {
public:
    /// Takes `given` ({name: value}), fills in defaults. Text is converted to the declared type, as --set passes it: "8", "1e-4",
    /// "true"/"false"/"yes"/"no"/"on"/"off", lists "1,4-7" (ascending ranges). A null value means the default.
    /// Throws Usage listing every problem of checkParameters.
    Parameters(const std::vector<ParameterInfo>& declared, const Json& given);
    /// The accessors throw Internal when the name was not declared with that type: our own mistake.
    std::int64_t integer(std::string_view name) const;
    double real(std::string_view name) const;
    bool boolean(std::string_view name) const;
    std::string text(std::string_view name) const;          ///< text, choice and file
    std::vector<int> integers(std::string_view name) const;
    const Json& json() const noexcept { return m_values; }  ///< {name: value}, in order of declaration

private:
    const Json& value(std::string_view name) const;
    Json m_values;
};

/// The wire form; a missing bound is null.
protocol::ParameterMessage toMessage(const ParameterInfo& parameter);
Json toJson(const ParameterInfo& parameter);

}  // namespace resect
