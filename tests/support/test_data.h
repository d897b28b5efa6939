#pragma once
#include <filesystem>
#include <string>

namespace resect::test {

/// tests/data in the source tree.
std::filesystem::path ownData(const std::string& relative);
/// Real checkpoints, tokenizers and texts: RESECT_TEST_DATA, else shared/data beside the source tree. May not exist.
std::filesystem::path sharedData(const std::string& relative);
/// The built resect-cli.
std::filesystem::path cliProgram();

/// A fresh folder under the system's temporary folder, removed at the end of the scope.
class TempFolder {
public:
    TempFolder();
    ~TempFolder();
    TempFolder(const TempFolder&) = delete;
    TempFolder& operator=(const TempFolder&) = delete;
    const std::filesystem::path& path() const noexcept { return m_path; }
    std::filesystem::path operator/(const std::string& name) const { return m_path / name; }

private:
    std::filesystem::path m_path;
};

/// While it lives, this process may do no more than an ordinary user: root writes even where permissions forbid it.
class OrdinaryUser {
public:
    OrdinaryUser();
    ~OrdinaryUser();
    OrdinaryUser(const OrdinaryUser&) = delete;
    OrdinaryUser& operator=(const OrdinaryUser&) = delete;

private:
    bool m_changed = false;
};

}  // namespace resect::test

/// Skips the test by name when this part of the shared test data is missing.
#define RESECT_NEED_SHARED_DATA(relative)                                                                       \
    do {                                                                                                        \
        if (!std::filesystem::exists(::resect::test::sharedData(relative)))                                     \
            GTEST_SKIP() << "needs test data: " << ::resect::test::sharedData(relative).string();               \
    } while (false)
