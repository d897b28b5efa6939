#include "tests/support/test_data.h"

#include <atomic>
#include <cstdlib>
#include <unistd.h>

namespace resect::test {

namespace fs = std::filesystem;

fs::path ownData(const std::string& relative) { return fs::path(RESECT_SOURCE_DIR) / "tests/data" / relative; }

fs::path sharedData(const std::string& relative) {
    const char* folder = std::getenv("RESECT_TEST_DATA");
    return fs::path(folder && *folder ? folder : RESECT_DEFAULT_TEST_DATA) / relative;
}

fs::path cliProgram() { return fs::path(RESECT_BINARY_DIR) / "bin/resect-cli"; }

namespace {

/// Memory where there is plenty of it: writing and syncing thousands of small files is most of what some tests do. TMPDIR wins.
fs::path scratchRoot() {
    constexpr std::uintmax_t kEnough = 1u << 30;
    std::error_code error;
    const char* chosen = std::getenv("TMPDIR");
    const fs::path memory = "/dev/shm";
    if ((!chosen || !*chosen) && fs::is_directory(memory, error) && ::access(memory.c_str(), W_OK) == 0) {
        const fs::space_info space = fs::space(memory, error);
        if (!error && space.available >= kEnough) return memory;
    }
    return fs::temp_directory_path();
}

}  // namespace

TempFolder::TempFolder() {
    static std::atomic<int> counter = 0;
    m_path = scratchRoot() / ("resect-test-" + std::to_string(getpid()) + "-" + std::to_string(counter++));
    fs::remove_all(m_path);
    fs::create_directories(m_path);
}

TempFolder::~TempFolder() {
    std::error_code ignored;
    fs::remove_all(m_path, ignored);
}

OrdinaryUser::OrdinaryUser() {
    constexpr uid_t kNobody = 65534;
    m_changed = geteuid() == 0 && seteuid(kNobody) == 0;
}

OrdinaryUser::~OrdinaryUser() {
    if (m_changed && seteuid(0) != 0) std::abort();  // every later test would run with the wrong rights
}

}  // namespace resect::test
