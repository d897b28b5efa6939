#pragma once
#include "core/base/problem.h"
#include "core/protocol/json.h"

#include <map>
#include <string>
#include <vector>

namespace resect {

enum class ParameterType { Integer, Real, Boolean, Choice, Text, IntegerList, File };

/// One declared parameter: form, CLI option and validation all come from it.
struct ParameterInfo {
    std::string name;        ///< "lora_rank": the spelling of --set
    std::string title;       ///< "Rank"
    std::string help;        ///< one plain sentence
    ParameterType type = ParameterType::Real;
    std::string unit;        ///< "tokens", "steps", "" ...
    Json defaultValue;
    double minimum = -1e300, maximum = 1e300;  ///< for numbers; list entries too
    std::vector<std::string> choices;          ///< for Choice
    bool advanced = false;   ///< folded away in forms
};

/// Checked values, complete: every declared parameter has one.
class Parameters {
public:
    /// Takes `given` ({name: value}; text values are converted to the declared type), fills in defaults.
    /// Throws Usage listing every unknown name, wrong type, value out of range.
    Parameters(const std::vector<ParameterInfo>& declared, const Json& given);
    std::int64_t integer(std::string_view name) const;
    double real(std::string_view name) const;
    bool boolean(std::string_view name) const;
    std::string text(std::string_view name) const;
    std::vector<int> integers(std::string_view name) const;
    const Json& json() const noexcept { return m_values; }

private:
    Json m_values;
};

Json toJson(const ParameterInfo& parameter);

}  // namespace resect
