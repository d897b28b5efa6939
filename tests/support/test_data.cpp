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

TempFolder::TempFolder() {
    static std::atomic<int> counter = 0;
    m_path = fs::temp_directory_path() / ("resect-test-" + std::to_string(getpid()) + "-" + std::to_string(counter++));
    fs::remove_all(m_path);
    fs::create_directories(m_path);
}

TempFolder::~TempFolder() {
    std::error_code ignored;
    fs::remove_all(m_path, ignored);
}

}  // namespace resect::test
