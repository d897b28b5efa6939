#include "core/worker/failure.h"

#include <c10/util/Exception.h>

#include <filesystem>
#include <new>
#include <string>
#include <system_error>

namespace resect {

namespace {

ErrorCode codeOf(const std::error_code& code) {
    if (code == std::errc::no_space_on_device) return ErrorCode::DiskFull;
    if (code == std::errc::permission_denied || code == std::errc::read_only_file_system || code == std::errc::operation_not_permitted)
        return ErrorCode::NoPermission;
    if (code == std::errc::no_such_file_or_directory) return ErrorCode::NotFound;
    if (code == std::errc::not_enough_memory) return ErrorCode::OutOfMemory;
    return ErrorCode::Internal;
}

bool saysOutOfMemory(const std::string& text) {
    return text.find("out of memory") != std::string::npos || text.find("can't allocate memory") != std::string::npos ||
           text.find("DefaultCPUAllocator: not enough memory") != std::string::npos;
}

}  // namespace

Error currentFailure() {
    try {
        throw;
    } catch (const Error& error) {
        return error;
    } catch (const c10::Error& error) {
        const std::string text = error.what_without_backtrace();
        return Error(saysOutOfMemory(text) ? ErrorCode::OutOfMemory : ErrorCode::Internal, "LibTorch", text);
    } catch (const std::bad_alloc&) {
        return Error(ErrorCode::OutOfMemory, "memory", "an allocation failed: there is not enough memory for this");
    } catch (const std::filesystem::filesystem_error& error) {
        return Error(codeOf(error.code()), error.path1().string(), error.code().message());
    } catch (const std::system_error& error) {
        return Error(codeOf(error.code()), "system", error.what());
    } catch (const std::exception& error) {
        const std::string text = error.what();
        return Error(saysOutOfMemory(text) ? ErrorCode::OutOfMemory : ErrorCode::Internal, "internal error", text);
    } catch (...) {
        return Error(ErrorCode::Internal, "internal error", "an unknown exception");
    }
}

}  // namespace resect
