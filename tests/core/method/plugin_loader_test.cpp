#include "core/method/method.h"
#include "tests/support/test_data.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace resect {
namespace {

namespace fs = std::filesystem;

const PluginStatus* rowOf(const std::vector<PluginStatus>& rows, const std::string& stem) {
    for (const auto& row : rows)
        if (fs::path(row.file).stem() == stem) return &row;
    return nullptr;
}

TEST(PluginLoader, TurnsEveryBrokenLibraryIntoARowWithItsReason) {
    MethodRegistry registry;
    const auto rows = loadPlugins(registry, {fs::path(RESECT_BINARY_DIR) / "tests/broken_plugins"});
    ASSERT_EQ(rows.size(), 5u);
    const auto expectReason = [&](const std::string& stem, const std::string& part) {
        const auto* row = rowOf(rows, stem);
        ASSERT_NE(row, nullptr) << stem;
        EXPECT_NE(row->error.find(part), std::string::npos) << stem << ": " << row->error;
        EXPECT_TRUE(row->methods.empty());
    };
    expectReason("wrong_abi", "plugin interface 999, this program has " + std::to_string(kPluginAbi));
    expectReason("no_registration", "resectRegister");
    expectReason("not_a_plugin", "resectPluginAbi");
    expectReason("throwing", "no table for this machine");
    expectReason("unresolved", "resectFunctionThatNobodyDefines");
    EXPECT_TRUE(registry.methods().empty());
}

TEST(PluginLoader, ReportsAFileThatIsNoLibrary) {
    const test::TempFolder folder;
    std::ofstream(folder / "text.so") << "just text";
    std::ofstream(folder / "readme.txt") << "not looked at";
    MethodRegistry registry;
    const auto rows = loadPlugins(registry, {folder.path(), folder / "missing"});
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_NE(rows[0].error.find("cannot be loaded"), std::string::npos);
}

TEST(PluginLoader, ReportsFilesAndFoldersThatMayNotBeRead) {
    const test::TempFolder folder;
    fs::create_directory(folder / "closed");
    fs::copy_file(fs::path(RESECT_BINARY_DIR) / "tests/broken_plugins/not_a_plugin.so", folder / "closed.so");
    fs::permissions(folder / "closed.so", fs::perms::none);
    fs::permissions(folder / "closed", fs::perms::none);
    std::vector<PluginStatus> rows;
    {
        fs::permissions(folder.path(), fs::perms::all);
        const test::OrdinaryUser user;
        MethodRegistry registry;
        rows = loadPlugins(registry, {folder.path(), folder / "closed", folder / "closed.so"});
    }
    fs::permissions(folder / "closed", fs::perms::owner_all);
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_NE(rows[0].error.find("Permission denied"), std::string::npos) << rows[0].error;
    EXPECT_NE(rows[1].error.find("the folder cannot be read: Permission denied"), std::string::npos) << rows[1].error;
    EXPECT_NE(rows[2].error.find("the folder cannot be read"), std::string::npos) << "a file where a folder should be";
}

TEST(PluginLoader, ReadsEachFileOnceHoweverItIsReached) {
    const test::TempFolder folder;
    std::ofstream(folder / "a.so") << "x";
    fs::create_symlink(folder / "a.so", folder / "b.so");
    MethodRegistry registry;
    EXPECT_EQ(loadPlugins(registry, {folder.path(), folder.path()}).size(), 1u);
}

TEST(PluginLoader, SearchesBesideTheProgramAndInTheVariable) {
    ::setenv("RESECT_PLUGIN_PATH", "/one:/two words::/three", 1);
    const auto folders = pluginFolders();
    ::unsetenv("RESECT_PLUGIN_PATH");
    ASSERT_GE(folders.size(), 5u);
    EXPECT_EQ(folders[0], fs::path(RESECT_BINARY_DIR) / "lib/resect/plugins");
    EXPECT_EQ(folders[2], "/one");
    EXPECT_EQ(folders[3], "/two words");
    EXPECT_EQ(folders[4], "/three");
}

}  // namespace
}  // namespace resect
