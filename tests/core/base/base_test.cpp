#include "core/base/files.h"
#include "core/base/job.h"
#include "core/base/log.h"
#include "core/base/numbers.h"
#include "core/base/problem.h"
#include "tests/support/test_data.h"

#include <clocale>
#include <cmath>
#include <fstream>
#include <gtest/gtest.h>
#include <limits>
#include <sys/stat.h>
#include <unistd.h>

namespace resect {
namespace {

namespace fs = std::filesystem;
using test::TempFolder;

ErrorCode codeOf(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.code();
    }
    ADD_FAILURE() << "expected an Error";
    return ErrorCode::Internal;
}

TEST(Error, SaysWhereAndWhat) {
    const Error error(ErrorCode::Corrupt, "model.safetensors: model.norm.weight", "expected 8 bytes, found 4");
    EXPECT_STREQ(error.what(), "model.safetensors: model.norm.weight: expected 8 bytes, found 4");
    EXPECT_STREQ(Error(ErrorCode::Usage, "", "no command").what(), "no command");
    EXPECT_EQ(name(ErrorCode::NoPermission), "NoPermission");
}

TEST(Error, ExitCodesTellInputFromResources) {
    EXPECT_EQ(exitCode(ErrorCode::Usage), 2);
    for (ErrorCode code : {ErrorCode::BadInput, ErrorCode::NotFound, ErrorCode::Corrupt, ErrorCode::Unsupported, ErrorCode::Mismatch})
        EXPECT_EQ(exitCode(code), 3);
    for (ErrorCode code : {ErrorCode::OutOfMemory, ErrorCode::DiskFull, ErrorCode::NoPermission}) EXPECT_EQ(exitCode(code), 4);
    EXPECT_EQ(exitCode(ErrorCode::Stopped), 5);
    EXPECT_EQ(exitCode(ErrorCode::Internal), 1);
}

TEST(Problem, OnlyErrorsCountAsErrors) {
    EXPECT_FALSE(hasErrors({{Severity::Note, "", "", ""}, {Severity::Warning, "", "", ""}}));
    EXPECT_TRUE(hasErrors({{Severity::Note, "", "", ""}, {Severity::Error, "", "", ""}}));
}

TEST(Log, ReachesTheSinkAndIsDroppedWithoutOne) {
    std::string seen;
    setLogSink([&](LogLevel, std::string_view message) { seen = message; });
    log(LogLevel::Info, "hello");
    setLogSink({});
    log(LogLevel::Info, "nobody listens");
    EXPECT_EQ(seen, "hello");
}

TEST(JobContext, DefaultNeverStopsAndReportsNowhere) {
    const JobContext job;
    EXPECT_FALSE(job.stopped());
    job.progress({1, 2, "steps", ""});
    std::stop_source source;
    double done = 0;
    const JobContext listening(source.get_token(), [&](const Progress& p) { done = p.done; });
    listening.progress({3, 4, "steps", ""});
    EXPECT_EQ(done, 3);
    source.request_stop();
    EXPECT_TRUE(listening.stopped());
}

TEST(Numbers, TextReadsBackExactly) {
    for (double value : {0.0, 0.1, 1.0 / 3, -2.5e-300, 1e22, 12345678.0, std::numeric_limits<double>::max()})
        EXPECT_EQ(parseDouble(toText(value)), value);
    EXPECT_EQ(toText(0.1), "0.1");
    EXPECT_EQ(toText(std::nan("")), "nan");
    EXPECT_EQ(toText(-std::numeric_limits<double>::infinity()), "-inf");
    EXPECT_EQ(toText(0.012345, 3), "0.0123");
    EXPECT_EQ(toText(1.234e-7, 3), "1.23e-07");
    EXPECT_EQ(toText(7u), "7");
}

TEST(Numbers, LocaleChangesNothing) {
    const std::string before = std::setlocale(LC_ALL, nullptr);
    if (!std::setlocale(LC_ALL, "de_DE.UTF-8")) std::setlocale(LC_ALL, "C.UTF-8");
    EXPECT_EQ(toText(1.5), "1.5");
    EXPECT_EQ(parseDouble("1.5"), 1.5);
    std::setlocale(LC_ALL, before.c_str());
}

TEST(Numbers, ParsingTakesTheWholeTextOrNothing) {
    EXPECT_EQ(parseInt(" 42 "), 42);
    EXPECT_EQ(parseInt("+7"), 7);
    EXPECT_EQ(parseInt("-7"), -7);
    for (const char* bad : {"", " ", "4x", "4 2", "+-4", "1.5", "99999999999999999999", "0x10"}) EXPECT_FALSE(parseInt(bad)) << bad;
    EXPECT_EQ(parseDouble("1e-3"), 0.001);
    for (const char* bad : {"", "1,5", "1.5.", "e", "one"}) EXPECT_FALSE(parseDouble(bad)) << bad;
}

TEST(Numbers, SizesAndTimesReadWell) {
    EXPECT_EQ(formatBytes(0), "0 B");
    EXPECT_EQ(formatBytes(512), "512 B");
    EXPECT_EQ(formatBytes(999'600), "1.00 MB");
    EXPECT_EQ(formatBytes(13'800'000'000), "13.8 GB");
    EXPECT_EQ(formatCount(8'030'261'248.), "8.03 B");
    EXPECT_EQ(formatCount(1'234'567), "1.23 M");
    EXPECT_EQ(formatCount(512), "512");
    EXPECT_EQ(formatDuration(0.42), "0.4 s");
    EXPECT_EQ(formatDuration(0.0204), "20 ms");
    EXPECT_EQ(formatDuration(192), "3 min 12 s");
    EXPECT_EQ(formatDuration(7500), "2 h 5 min");
    EXPECT_EQ(formatThousands(1234567), "1,234,567");
    EXPECT_EQ(formatThousands(-123), "-123");
    EXPECT_EQ(formatThousands(-1234), "-1,234");
    EXPECT_EQ(formatThousands(0), "0");
}

TEST(Files, ReadBackWhatWasWritten) {
    TempFolder folder;
    const std::string content("a\0b\n", 4);
    writeFileAtomically(folder / "x", content);
    writeFileAtomically(folder / "x", content + "more");
    EXPECT_EQ(readFile(folder / "x"), content + "more");
    EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator{}), 1) << "no temporary file stays";
    EXPECT_EQ(codeOf([&] { readFile(folder / "x", 3); }), ErrorCode::BadInput);
    EXPECT_EQ(codeOf([&] { readFile(folder / "none"); }), ErrorCode::NotFound);
    EXPECT_EQ(codeOf([&] { readFile(folder.path()); }), ErrorCode::BadInput);
}

TEST(Files, AFileWithoutAKnownSizeIsReadToItsEnd) { EXPECT_FALSE(readFile("/proc/self/status").empty()); }

TEST(Files, WritingThroughALinkChangesTheFile) {
    TempFolder folder;
    writeFileAtomically(folder / "real", "old");
    fs::create_symlink(folder / "real", folder / "link");
    writeFileAtomically(folder / "link", "new");
    EXPECT_TRUE(fs::is_symlink(folder / "link"));
    EXPECT_EQ(readFile(folder / "real"), "new");
}

TEST(Files, AReadOnlyFolderIsNoPermission) {
    TempFolder folder;
    ::chmod(folder.path().c_str(), 0555);
    {
        const test::OrdinaryUser user;
        EXPECT_EQ(codeOf([&] { writeFileAtomically(folder / "x", "y"); }), ErrorCode::NoPermission);
        EXPECT_EQ(codeOf([&] { StagedFolder staged(folder / "x"); }), ErrorCode::NoPermission);
    }
    EXPECT_TRUE(fs::is_empty(folder.path()));
    ::chmod(folder.path().c_str(), 0755);
}

TEST(Files, AnUnreadableFileIsNoPermission) {
    TempFolder folder;
    writeFileAtomically(folder / "x", "secret");
    ::chmod((folder / "x").c_str(), 0000);
    const test::OrdinaryUser user;
    EXPECT_EQ(codeOf([&] { readFile(folder / "x"); }), ErrorCode::NoPermission);
}

TEST(Files, SystemErrorsGetTheRightCode) {
    EXPECT_EQ(systemError(ENOSPC, "x", "cannot write").code(), ErrorCode::DiskFull);
    EXPECT_EQ(systemError(EROFS, "x", "cannot write").code(), ErrorCode::NoPermission);
    EXPECT_EQ(systemError(EACCES, "x", "cannot write").code(), ErrorCode::NoPermission);
}

TEST(Files, FreeSpaceIsAskedAtTheNearestParent) {
    TempFolder folder;
    EXPECT_GT(freeSpace(folder / "not/there/yet"), 0u);
    requireFreeSpace(folder / "a", 1);
    EXPECT_EQ(codeOf([&] { requireFreeSpace(folder / "a", std::uint64_t{1} << 62); }), ErrorCode::DiskFull);
}

TEST(StagedFolder, GetsItsNameOnCommitOnly) {
    TempFolder folder;
    {
        StagedFolder staged(folder / "out/");
        writeFileAtomically(staged.path() / "f", "1");
        EXPECT_FALSE(fs::exists(folder / "out"));
        staged.commit();
    }
    EXPECT_EQ(readFile(folder / "out/f"), "1");
    EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

TEST(StagedFolder, LeavesNothingWithoutCommit) {
    TempFolder folder;
    { StagedFolder staged(folder / "out"); }
    EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(StagedFolder, RefusesAFullTargetAndCleansLeftOvers) {
    TempFolder folder;
    fs::create_directories(folder / "out.partial/old");
    fs::create_directories(folder / "out");
    {
        StagedFolder staged(folder / "out");
        EXPECT_TRUE(fs::is_empty(staged.path()));
        EXPECT_EQ(codeOf([&] { StagedFolder second(folder / "out"); }), ErrorCode::BadInput) << "two writers";
        writeFileAtomically(staged.path() / "f", "1");
        staged.commit();
    }
    EXPECT_EQ(codeOf([&] { StagedFolder staged(folder / "out"); }), ErrorCode::BadInput);
    EXPECT_EQ(readFile(folder / "out/f"), "1");
}

}  // namespace
}  // namespace resect
