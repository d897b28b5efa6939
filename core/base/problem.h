#pragma once
#include <string>
#include <vector>

namespace resect {

enum class Severity { Note, Warning, Error };

/// One finding about user input. Checks return all of them instead of throwing the first.
struct Problem {
    Severity severity = Severity::Error;
    std::string subject;  ///< where: "block 3 attention", "config.json: hidden_size", "line 17"
    std::string message;  ///< what was expected and what was found, in plain words
    std::string advice;   ///< what the user can do; may be empty
};

/// True when one of them is an Error.
bool hasErrors(const std::vector<Problem>& problems) noexcept;
const char* name(Severity severity) noexcept;  ///< "note", "warning", "error"

}  // namespace resect
