#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "tests/support/tiny_checkpoint.h"

#include <csignal>
#include <cstring>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <unistd.h>

namespace resect {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::HasSubstr;

TensorSource source(std::string name, std::size_t bytes, char fill) {
    return {std::move(name), DType::U8, {static_cast<std::int64_t>(bytes)}, [bytes, fill](const auto& sink) {
                const std::string content(bytes, fill);
                sink(std::as_bytes(std::span(content)));
            }};
}

std::vector<std::string> filesIn(const fs::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

TEST(Sha256, MatchesKnownDigests) {
    EXPECT_EQ(sha256Hex(std::string_view("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256Hex(std::string_view("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    TempFolder folder;
    writeText(folder / "x", std::string(10'000'000, 'a'));
    EXPECT_EQ(sha256File(folder / "x"), sha256Hex(std::string(10'000'000, 'a')));
    EXPECT_THROW(sha256File(folder / "none"), Error);
}

TEST(Writer, WritesWhatOpensAgainAndHashesIt) {
    TempFolder folder;
    const std::vector<TensorSource> tensors = {source("b", 3, 'x'), source("a", 20'000'000, 'y'), source("empty", 0, 'z')};
    const auto shard = writeSafetensors(folder / "x.safetensors", tensors, {{"format", "pt"}});
    EXPECT_EQ(shard.fileName, "x.safetensors");
    EXPECT_EQ(shard.bytes, fs::file_size(folder / "x.safetensors"));
    EXPECT_EQ(shard.sha256, sha256File(folder / "x.safetensors"));
    const auto file = SafetensorsFile::open(folder / "x.safetensors");
    EXPECT_EQ(file.metadata().at("format"), "pt");
    EXPECT_EQ((file.headerText().size() + 8) % 8, 0u);
    EXPECT_EQ(file.tensors()[0].name, "b") << "in the given order";
    EXPECT_EQ(sha256Hex(file.bytes("a")), sha256Hex(std::string(20'000'000, 'y')));
    EXPECT_EQ(filesIn(folder.path()), std::vector<std::string>{"x.safetensors"});
}

TEST(Writer, PiecesOfAnySizeAddUp) {
    TempFolder folder;
    std::string content;
    for (int i = 0; i < 30'000'000; ++i) content += static_cast<char>(i * 2654435761u >> 13);
    TensorSource tensor{"a", DType::U8, {static_cast<std::int64_t>(content.size())}, [&](const auto& sink) {
                            std::size_t at = 0, step = 1;
                            while (at < content.size()) {  // from single bytes to many megabytes and back
                                const std::size_t n = std::min(step, content.size() - at);
                                std::string transient = content.substr(at, n);
                                sink(std::as_bytes(std::span(transient)));
                                std::fill(transient.begin(), transient.end(), '?');
                                at += n;
                                step = step > 9'000'000 ? 1 : step * 3;
                            }
                        }};
    const auto shard = writeSafetensors(folder / "x.safetensors", {tensor}, {});
    const auto file = SafetensorsFile::open(folder / "x.safetensors");
    EXPECT_EQ(std::memcmp(file.bytes("a").data(), content.data(), content.size()), 0);
    EXPECT_EQ(shard.sha256, sha256File(folder / "x.safetensors"));
}

TEST(Writer, SplitsIntoShardsWithAnIndex) {
    const auto tiny = tinyLlama();
    const auto original = tiny.open();
    TempFolder folder;
    std::vector<TensorSource> tensors;
    for (const TensorInfo& tensor : original.tensors()) tensors.push_back(copyOf(original, tensor));
    WriteOptions options;
    options.shardBytes = 30'000;
    fs::copy_file(tiny.path() / "config.json", folder / "config.json");
    double done = 0, total = 0;
    const auto shards = writeShards(folder.path(), tensors, options, JobContext({}, [&](const Progress& p) { done = p.done, total = p.total; }));
    EXPECT_EQ(done, static_cast<double>(original.totalBytes()));
    EXPECT_EQ(total, done);
    const auto copy = Checkpoint::open(folder.path());
    EXPECT_EQ(copy.shards().size(), shards.size());
    EXPECT_TRUE(copy.problems().empty()) << "index and total_size agree with the shards";
    EXPECT_EQ(copy.fingerprint(), original.fingerprint());
    for (std::size_t i = 0; i < shards.size(); ++i) {
        std::uint64_t bytes = 0;
        for (const TensorInfo& tensor : copy.shards()[i].tensors()) bytes += tensor.bytes();
        EXPECT_LE(bytes, 30'000u);
        EXPECT_EQ(shards[i].sha256, sha256File(folder / shards[i].fileName));
    }
    EXPECT_EQ(shards[0].fileName, "model-00001-of-0000" + std::to_string(shards.size()) + ".safetensors");
}

TEST(Writer, ATensorLargerThanAShardGetsItsOwn) {
    TempFolder folder;
    WriteOptions options;
    options.shardBytes = 10;
    const auto shards = writeShards(folder.path(), {source("a", 4, 'a'), source("b", 40, 'b'), source("c", 6, 'c'), source("d", 4, 'd')}, options, {});
    EXPECT_EQ(shards.size(), 3u);
}

TEST(Writer, SameInputSameBytes) {
    const auto tiny = tinyLlama();
    EXPECT_EQ(sha256File(tiny.path() / "model.safetensors"), sha256File(tinyLlama().path() / "model.safetensors"));
    EXPECT_NE(sha256File(tiny.path() / "model.safetensors"), sha256File(tinyLlama({.seed = 2}).path() / "model.safetensors"));
}

TEST(Writer, StoppingRemovesEverythingWritten) {
    TempFolder folder;
    std::stop_source stop;
    WriteOptions options;
    options.shardBytes = 100;
    TensorSource last = source("c", 100, 'c');
    last.produce = [&](const auto& sink) {
        stop.request_stop();
        const std::string content(100, 'c');
        sink(std::as_bytes(std::span(content)));
    };
    try {
        writeShards(folder.path(), {source("a", 100, 'a'), source("b", 100, 'b'), last}, options, JobContext(stop.get_token(), {}));
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Stopped);
    }
    EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Writer, AFailingSourceRemovesEverythingWritten) {
    TempFolder folder;
    for (const std::size_t produced : {std::size_t{99}, std::size_t{101}, std::size_t{20'000'000}}) {
        TensorSource wrong = source("b", produced, 'b');
        wrong.shape = {100};
        WriteOptions options;
        options.shardBytes = 100;
        EXPECT_THROW(writeShards(folder.path(), {source("a", 100, 'a'), wrong}, options, {}), Error);
        EXPECT_TRUE(fs::is_empty(folder.path()));
    }
    EXPECT_THROW(writeShards(folder.path(), {source("a", 1, 'a'), source("a", 1, 'a')}, {}, {}), Error) << "a name twice";
    EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Writer, TooLittleSpaceIsRefusedBeforeWriting) {
    TempFolder folder;
    bool asked = false;
    TensorSource huge{"a", DType::U8, {std::int64_t{1} << 60}, [&](const auto&) { asked = true; }};
    try {
        writeShards(folder.path(), {huge}, {}, {});
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::DiskFull);
        EXPECT_THAT(error.what(), HasSubstr("are free there"));
    }
    EXPECT_FALSE(asked);
}

TEST(Writer, ADiskThatFillsUpIsDiskFullAndLeavesNothing) {
    TempFolder folder;
    // A limit on the size of files meets the writer in write(), as a full disk does.
    struct rlimit before {};
    getrlimit(RLIMIT_FSIZE, &before);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = before;
    limit.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_FSIZE, &limit);
    ErrorCode code = ErrorCode::Internal;
    try {
        writeSafetensors(folder / "x.safetensors", {source("a", 30'000'000, 'a')}, {});
    } catch (const Error& error) {
        code = error.code();
    }
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_EQ(code, ErrorCode::DiskFull);
    EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Writer, AReadOnlyTargetIsNoPermission) {
    TempFolder folder;
    fs::permissions(folder.path(), fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read | fs::perms::others_exec);
    try {
        const OrdinaryUser user;
        writeSafetensors(folder / "x.safetensors", {source("a", 3, 'a')}, {});
        ADD_FAILURE();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::NoPermission);
    }
    EXPECT_TRUE(fs::is_empty(folder.path()));
    fs::permissions(folder.path(), fs::perms::owner_all);
}

}  // namespace
}  // namespace resect
