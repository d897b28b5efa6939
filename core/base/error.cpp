#include "core/base/error.h"

#include "core/base/problem.h"

#include <algorithm>

namespace resect {

Error::Error(ErrorCode code, std::string subject, std::string message)
    : m_code(code), m_subject(std::move(subject)), m_message(std::move(message)) {
    m_what = m_subject.empty() ? m_message : m_subject + ": " + m_message;
}

std::string_view name(ErrorCode code) noexcept {
    switch (code) {
    case ErrorCode::Usage: return "Usage";
    case ErrorCode::BadInput: return "BadInput";
    case ErrorCode::NotFound: return "NotFound";
    case ErrorCode::Corrupt: return "Corrupt";
    case ErrorCode::Unsupported: return "Unsupported";
    case ErrorCode::Mismatch: return "Mismatch";
    case ErrorCode::OutOfMemory: return "OutOfMemory";
    case ErrorCode::DiskFull: return "DiskFull";
    case ErrorCode::NoPermission: return "NoPermission";
    case ErrorCode::Stopped: return "Stopped";
    case ErrorCode::Internal: return "Internal";
    }
    return "Internal";
}

int exitCode(ErrorCode code) noexcept {
    switch (code) {
    case ErrorCode::Usage: return 2;
    case ErrorCode::BadInput:
    case ErrorCode::NotFound:
    case ErrorCode::Corrupt:
    case ErrorCode::Unsupported:
    case ErrorCode::Mismatch: return 3;
    case ErrorCode::OutOfMemory:
    case ErrorCode::DiskFull:
    case ErrorCode::NoPermission: return 4;
    case ErrorCode::Stopped: return 5;
    case ErrorCode::Internal: return 1;
    }
    return 1;
}

bool hasErrors(const std::vector<Problem>& problems) noexcept {
    return std::any_of(problems.begin(), problems.end(), [](const Problem& p) { return p.severity == Severity::Error; });
}

const char* name(Severity severity) noexcept {
    switch (severity) {
    case Severity::Note: return "note";
    case Severity::Warning: return "warning";
    case Severity::Error: return "error";
    }
    return "error";
}

}  // namespace resect
