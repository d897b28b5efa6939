#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "tests/support/tiny_checkpoint.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <gmock/gmock.h>

namespace resect {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::HasSubstr;

std::string errorOf(ErrorCode code, const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), code) << error.what();
        return error.what();
    }
    ADD_FAILURE() << "expected an Error";
    return {};
}

bool hasProblem(const std::vector<Problem>& problems, Severity severity, const std::string& text) {
    return std::any_of(problems.begin(), problems.end(), [&](const Problem& p) {
        return p.severity == severity && (p.subject + ": " + p.message).find(text) != std::string::npos;
    });
}

TinyCheckpoint shardedLlama() { return tinyLlama({.shardBytes = 40'000}); }

std::vector<std::string> tensorNames(const Checkpoint& checkpoint) {
    std::vector<std::string> names;
    for (const TensorInfo& tensor : checkpoint.tensors()) names.push_back(tensor.name);
    return names;
}

TEST(NaturalLess, CountsDigitsAsNumbers) {
    EXPECT_TRUE(naturalLess("layers.2.x", "layers.10.x"));
    EXPECT_FALSE(naturalLess("layers.10.x", "layers.2.x"));
    EXPECT_TRUE(naturalLess("a", "a1"));
    EXPECT_TRUE(naturalLess("a1", "b"));
    EXPECT_TRUE(naturalLess("a01", "a1"));
    EXPECT_FALSE(naturalLess("a1", "a01"));
    EXPECT_FALSE(naturalLess("a1", "a1"));
    EXPECT_TRUE(naturalLess("x9999999999999999999999", "x10000000000000000000000"));
}

TEST(Checkpoint, OpensTheSameByFolderConfigFileAndIndex) {
    const auto single = tinyLlama();
    const auto expected = tensorNames(single.open());
    EXPECT_EQ(expected.size(), 3u + 3 * 9);
    for (const char* name : {"config.json", "model.safetensors", ""}) {
        const auto checkpoint = Checkpoint::open(single.path() / name);
        EXPECT_EQ(tensorNames(checkpoint), expected) << name;
        EXPECT_EQ(checkpoint.config().at("hidden_size"), 48) << name;
        EXPECT_EQ(checkpoint.folder(), single.path()) << name;
        EXPECT_TRUE(checkpoint.problems().empty());
    }
    const auto sharded = shardedLlama();
    const std::size_t numShards = sharded.open().shards().size();
    EXPECT_GT(numShards, 2u);
    for (const fs::path& name : {fs::path("config.json"), fs::path("model.safetensors.index.json"), sharded.open().shards()[1].path().filename()}) {
        const auto checkpoint = Checkpoint::open(sharded.path() / name);
        EXPECT_EQ(tensorNames(checkpoint), expected) << name;
        EXPECT_EQ(checkpoint.shards().size(), numShards) << name;
    }
}

TEST(Checkpoint, FindsTensorsAndTheirBytesInEveryShard) {
    const auto tiny = shardedLlama();
    const auto checkpoint = tiny.open();
    std::int64_t parameters = 0;
    for (const auto& [name, tensor] : tiny.tensors) {
        EXPECT_EQ(valuesOf(checkpoint, name), tensor.values) << name;
        parameters += static_cast<std::int64_t>(tensor.values.size());
    }
    EXPECT_EQ(checkpoint.totalParameters(), parameters);
    EXPECT_EQ(checkpoint.totalBytes(), 4u * static_cast<std::uint64_t>(parameters));
    EXPECT_EQ(checkpoint.find("model.layers.3.mlp.up_proj.weight"), nullptr);
    const auto& tensors = checkpoint.tensors();
    EXPECT_TRUE(std::is_sorted(tensors.begin(), tensors.end(), [](auto& a, auto& b) { return naturalLess(a.name, b.name); }));
}

TEST(Checkpoint, OpensWithoutAConfig) {
    const auto tiny = tinyLlama();
    fs::remove(tiny.path() / "config.json");
    EXPECT_TRUE(tiny.open().config().is_null());
}

TEST(Checkpoint, SaysWhatItCannotOpen) {
    TempFolder folder;
    EXPECT_THAT(errorOf(ErrorCode::NotFound, [&] { Checkpoint::open(folder / "none"); }), HasSubstr("does not exist"));
    EXPECT_THAT(errorOf(ErrorCode::NotFound, [&] { Checkpoint::open(folder.path()); }), HasSubstr("expected a .safetensors file"));
    writeText(folder / "pytorch_model.bin", "x");
    EXPECT_THAT(errorOf(ErrorCode::NotFound, [&] { Checkpoint::open(folder.path()); }), HasSubstr("pytorch_model.bin"));
    EXPECT_THAT(errorOf(ErrorCode::BadInput, [&] { Checkpoint::open(folder / "pytorch_model.bin"); }), HasSubstr("expected a folder, config.json"));
}

TEST(Checkpoint, AMissingShardIsNamed) {
    const auto tiny = shardedLlama();
    const auto shard = tiny.open().shards()[1].path();
    fs::remove(shard);
    const std::string error = errorOf(ErrorCode::NotFound, [&] { tiny.open(); });
    EXPECT_THAT(error, HasSubstr(shard.filename().string()));
    EXPECT_THAT(error, HasSubstr("model.safetensors.index.json"));
}

TEST(Checkpoint, ATruncatedShardIsNamed) {
    const auto tiny = shardedLlama();
    const auto shard = tiny.open().shards()[1].path();
    fs::resize_file(shard, fs::file_size(shard) - 10);
    const std::string error = errorOf(ErrorCode::Corrupt, [&] { tiny.open(); });
    EXPECT_THAT(error, HasSubstr(shard.filename().string()));
    EXPECT_THAT(error, HasSubstr("truncated: 10 of"));
}

TEST(Checkpoint, ABrokenConfigIsRefusedWithItsPlace) {
    const auto tiny = tinyLlama();
    writeText(tiny.path() / "config.json", "{\"a\": 1,\n\"a\": 2}");
    EXPECT_THAT(errorOf(ErrorCode::BadInput, [&] { tiny.open(); }), HasSubstr("config.json: line 2"));
}

TEST(Checkpoint, ABrokenIndexIsRefused) {
    const auto tiny = shardedLlama();
    const fs::path index = tiny.path() / "model.safetensors.index.json";
    const auto refusal = [&](const char* text) {
        writeText(index, text);
        return errorOf(ErrorCode::BadInput, [&] { tiny.open(); });
    };
    EXPECT_THAT(refusal("[]"), HasSubstr("weight_map"));
    EXPECT_THAT(refusal("{}"), HasSubstr("weight_map"));
    EXPECT_THAT(refusal(R"({"weight_map": {}})"), HasSubstr("names no tensor"));
    EXPECT_THAT(refusal(R"({"weight_map": {"a": 3}})"), HasSubstr("a: expected the name of a file"));
    EXPECT_THAT(refusal(R"({"weight_map": {"a": "../x.safetensors"}})"), HasSubstr("in the same folder"));
    EXPECT_THAT(refusal(R"({"weight_map": {"a": "x", "a": "y"}})"), HasSubstr("appears twice"));
}

TEST(Checkpoint, DisagreementOfIndexAndShardsIsReported) {
    const auto tiny = shardedLlama();
    const fs::path path = tiny.path() / "model.safetensors.index.json";
    Json index = readJsonFile(path);
    const std::string last = index["weight_map"]["model.norm.weight"];
    const std::string first = tiny.open().shards()[0].path().filename().string();
    index["weight_map"]["invented.weight"] = last;
    index["weight_map"].erase("model.norm.weight");
    index["weight_map"]["model.layers.2.mlp.up_proj.weight"] = first;
    index["metadata"]["total_size"] = 5;
    writeJsonFile(path, index);
    fs::copy_file(tiny.path() / first, tiny.path() / "old-shard.safetensors");
    const auto checkpoint = tiny.open();
    const auto& problems = checkpoint.problems();
    EXPECT_TRUE(hasProblem(problems, Severity::Error, "invented.weight: model.safetensors.index.json places it in " + last));
    EXPECT_TRUE(hasProblem(problems, Severity::Warning, "model.norm.weight: is in " + last));
    EXPECT_TRUE(hasProblem(problems, Severity::Warning, "model.layers.2.mlp.up_proj.weight"));
    EXPECT_TRUE(hasProblem(problems, Severity::Note, "total_size 5"));
    EXPECT_TRUE(hasProblem(problems, Severity::Note, "old-shard.safetensors"));
    EXPECT_EQ(problems.size(), 5u);
}

TEST(Checkpoint, ATensorInTwoShardsIsAnError) {
    TempFolder folder;
    const char* header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
    writeRawSafetensors(folder / "one.safetensors", header, "1");
    writeRawSafetensors(folder / "two.safetensors", header, "2");
    const auto checkpoint = Checkpoint::open(folder.path());
    EXPECT_EQ(checkpoint.tensors().size(), 1u);
    EXPECT_TRUE(hasProblem(checkpoint.problems(), Severity::Error, "a: is in two shards"));
}

TEST(Checkpoint, FingerprintSeesContentAndIgnoresShardsAndFormatting) {
    auto tiny = tinyLlama();
    const std::string original = tiny.open().fingerprint();
    EXPECT_THAT(original, testing::StartsWith("sha256:"));
    EXPECT_EQ(original.size(), 7u + 64);
    EXPECT_EQ(shardedLlama().open().fingerprint(), original);
    writeText(tiny.path() / "config.json", tiny.config.dump(7) + "\n");
    EXPECT_EQ(tiny.open().fingerprint(), original);
    tiny.tensor("model.norm.weight").values[7] += 1;
    tiny.save();
    const std::string changed = tiny.open().fingerprint();
    EXPECT_NE(changed, original);
    tiny.config["rope_theta"] = 20000;
    tiny.save();
    EXPECT_NE(tiny.open().fingerprint(), changed);
}

TEST(Checkpoint, RealCheckpointsOpenWithoutProblems) {
    RESECT_NEED_SHARED_DATA("models");
    int opened = 0;
    for (const auto& entry : fs::directory_iterator(sharedData("models"))) {
        if (!fs::exists(entry.path() / "model.safetensors")) continue;
        const auto checkpoint = Checkpoint::open(entry.path());
        EXPECT_FALSE(hasErrors(checkpoint.problems())) << entry.path();
        EXPECT_FALSE(checkpoint.tensors().empty());
        ++opened;
    }
    EXPECT_GT(opened, 3);
}

TEST(Checkpoint, GoldenCheckpointsOpen) {
    for (const auto& entry : fs::directory_iterator(ownData("golden"))) {
        if (!entry.is_directory()) continue;
        const auto checkpoint = Checkpoint::open(entry.path());
        EXPECT_FALSE(hasErrors(checkpoint.problems())) << entry.path();
        EXPECT_EQ(checkpoint.shards().size(), entry.path().filename() == "llama-bf16-sharded" ? 2u : 1u);
    }
}

}  // namespace
}  // namespace resect
