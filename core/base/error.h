#pragma once
#include <exception>
#include <string>
#include <string_view>

namespace resect {

enum class ErrorCode {
    Usage,        ///< the command line or a parameter is wrong
    BadInput,     ///< a file, field or line holds something else than expected
    NotFound,     ///< a file, tensor or component does not exist
    Corrupt,      ///< a file contradicts itself (truncated, overlapping ranges, ...)
    Unsupported,  ///< well formed, but Resect does not know how (unknown family, ...)
    Mismatch,     ///< two inputs do not belong together (plan and checkpoint, adapter and base)
    OutOfMemory,
    DiskFull,
    NoPermission,
    Stopped,   ///< ended on request with the finished part kept
    Internal,  ///< our own mistake
};

/// The one exception type of the engine. what() is "subject: message"; the message says what was expected and what was found.
class Error : public std::exception {
public:
    /// `subject` says where: a file, and in it the tensor, field or line ("model.safetensors: model.norm.weight").
    Error(ErrorCode code, std::string subject, std::string message);
    ErrorCode code() const noexcept { return m_code; }
    const std::string& subject() const noexcept { return m_subject; }
    const std::string& message() const noexcept { return m_message; }
    const char* what() const noexcept override { return m_what.c_str(); }

private:
    ErrorCode m_code;
    std::string m_subject, m_message, m_what;
};

/// "BadInput" and so on, the spelling used on the wire.
std::string_view name(ErrorCode code) noexcept;
/// 2 usage, 3 bad input, 4 resources, 5 stopped and kept, 1 our own fault.
int exitCode(ErrorCode code) noexcept;

}  // namespace resect
