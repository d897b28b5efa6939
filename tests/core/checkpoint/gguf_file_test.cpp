#include "core/base/error.h"
#include "core/checkpoint/gguf_file.h"
#include "core/checkpoint/gguf_writer.h"
#include "tests/core/checkpoint/gguf_bytes.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>

#include <array>
#include <fstream>
#include <limits>
#include <random>
#include <stop_token>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();

class GgufFileTest : public testing::Test {
protected:
    fs::path write(const std::string& bytes) const {
        writeText(m_folder / "model.gguf", bytes);
        return m_folder / "model.gguf";
    }
    /// The error of opening these bytes; it always names the file.
    Error refusal(const std::string& bytes) const {
        try {
            GgufFile::open(write(bytes));
        } catch (const Error& error) {
            EXPECT_THAT(error.subject(), HasSubstr("model.gguf"));
            return error;
        }
        ADD_FAILURE() << "it was opened";
        return Error(ErrorCode::Internal, "", "");
    }
    TempFolder m_folder;
};

/// One F32 tensor of 8 numbers.
GgufBytes one(std::uint64_t offset = 0, std::uint32_t type = 0) { return GgufBytes(1, 0).tensor("t", {8}, type, offset); }

TEST_F(GgufFileTest, ReadsMetadataOfEveryTypeAndTensors) {
    GgufBytes file(2, 9);
    file.text("a.u8").u32(0).raw<std::uint8_t>(200);
    file.text("a.i16").u32(3).raw<std::int16_t>(-300);
    file.text("a.i64").u32(11).raw<std::int64_t>(-5'000'000'000);
    file.text("a.f32").u32(6).raw(0.1f);
    file.text("a.f64").u32(12).raw(0.1);
    file.text("a.bool").u32(7).raw<std::uint8_t>(1);
    file.text("a.text").u32(8).text("Grüße");
    file.text("a.list").u32(9).u32(8).u64(2).text("x").text("");
    file.text("a.nested").u32(9).u32(9).u64(2).u32(4).u64(1).u32(7).u32(5).u64(2).raw<std::int32_t>(-1).raw<std::int32_t>(2);
    file.tensor("second", {4, 3, 2}, 1, 64).tensor("first", {8}, 0, 0);
    const GgufFile gguf = GgufFile::open(write(file.data(64 + 48)));
    EXPECT_EQ(gguf.version(), 3);
    EXPECT_EQ(gguf.integer("a.u8"), 200);
    EXPECT_EQ(gguf.integer("a.i16"), -300);
    EXPECT_EQ(gguf.integer("a.i64"), -5'000'000'000);
    EXPECT_EQ(gguf.number("a.f32"), double{0.1f});
    EXPECT_EQ(gguf.number("a.f64"), 0.1);
    EXPECT_TRUE(gguf.flag("a.bool", false));
    EXPECT_EQ(gguf.text("a.text"), "Grüße");
    EXPECT_EQ(gguf.find("a.list")->array().strings, (std::vector<std::string>{"x", ""}));
    ASSERT_EQ(gguf.find("a.nested")->array().arrays.size(), 2u);
    EXPECT_EQ(gguf.find("a.nested")->array().arrays[1].number(0), -1);
    ASSERT_EQ(gguf.tensors().size(), 2u);
    EXPECT_EQ(gguf.tensors()[0].name, "first");
    const GgufTensor& second = gguf.tensors()[1];
    EXPECT_EQ(second.shape, (std::vector<std::int64_t>{2, 3, 4}));
    EXPECT_EQ(std::to_integer<int>(gguf.bytes(second)[1]), (65 * 7) & 0xff);
    EXPECT_THAT(gguf.find("a.list")->shown(), HasSubstr("\"x\""));
    EXPECT_TRUE(looksLikeGguf(gguf.path()));
}

TEST_F(GgufFileTest, TypedAccessNamesTheKey) {
    GgufBytes file(0, 2);
    file.entry("n", 7).text("list").u32(9).u32(4).u64(3).u32(1).u32(2).u32(3);
    const GgufFile gguf = GgufFile::open(write(file.data(0)));
    EXPECT_EQ(gguf.integers("n", 3), (std::vector<std::int64_t>{7, 7, 7}));
    EXPECT_EQ(gguf.integers("list", 3), (std::vector<std::int64_t>{1, 2, 3}));
    const auto message = [&](auto action) {
        try {
            action();
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    EXPECT_THAT(message([&] { gguf.integers("list", 4); }), HasSubstr("list"));
    EXPECT_THAT(message([&] { gguf.text("n"); }), HasSubstr("n: expected a text, found 7"));
    EXPECT_THAT(message([&] { gguf.integer("missing"); }), HasSubstr("missing"));
}

TEST_F(GgufFileTest, ReadsVersion2) { EXPECT_EQ(GgufFile::open(write(GgufBytes(0, 0, 2).data(0))).version(), 2); }

TEST_F(GgufFileTest, OtherFilesAndVersions) {
    EXPECT_EQ(refusal("").code(), ErrorCode::Corrupt);
    EXPECT_THAT(refusal("GG").message(), HasSubstr("begins with the letters GGUF"));
    EXPECT_THAT(refusal(GgufBytes(0, 0, 3, "GGML").bytes()).message(), HasSubstr("begins with the letters GGUF"));
    EXPECT_EQ(refusal(GgufBytes(0, 0, 1).bytes()).code(), ErrorCode::Unsupported);
    EXPECT_THAT(refusal(GgufBytes(0, 0, 0x03000000).bytes()).message(), HasSubstr("big-endian"));
    EXPECT_THROW(GgufFile::open(m_folder / "nowhere.gguf"), Error);
    EXPECT_THROW(GgufFile::open(m_folder.path()), Error);
}

TEST_F(GgufFileTest, AbsurdCounts) {
    EXPECT_THAT(refusal(GgufBytes(kHuge, 0).bytes()).message(), HasSubstr("tensors"));
    EXPECT_THAT(refusal(GgufBytes(0, kHuge).bytes()).message(), HasSubstr("metadata entries"));
    EXPECT_THAT(refusal(GgufBytes(3, 0).tensor("t", {8}, 0, 0).data(32)).message(), HasSubstr("tensors"));
    EXPECT_THAT(refusal(GgufBytes(0, 1).text("k").u32(9).u32(8).u64(kHuge).data(64)).subject(), HasSubstr("k"));
    EXPECT_THAT(refusal(GgufBytes(0, 1).text("k").u32(9).u32(0).u64(kHuge).data(64)).message(), HasSubstr("does not fit"));
    EXPECT_THAT(refusal(GgufBytes(0, 1).text("k").u32(9).u32(9).u64(1 << 30).data(64)).message(), HasSubstr("does not fit"));
}

TEST_F(GgufFileTest, TextsPastTheEnd) {
    EXPECT_THAT(refusal(GgufBytes(0, 1).u64(1000).data(64)).subject(), HasSubstr("metadata entry 0"));
    EXPECT_THAT(refusal(GgufBytes(0, 1).text("k").u32(8).u64(kHuge).data(64)).subject(), HasSubstr(": k"));
    EXPECT_THAT(refusal(GgufBytes(1, 0).u64(kHuge - 3).data(64)).subject(), HasSubstr("tensor 0"));
}

TEST_F(GgufFileTest, BadMetadata) {
    EXPECT_THAT(refusal(GgufBytes(0, 1).text("k").u32(13).u32(0).data(64)).message(), HasSubstr("unknown value type 13"));
    EXPECT_THAT(refusal(GgufBytes(0, 1).text("k").u32(9).u32(77).u64(0).data(64)).message(), HasSubstr("unknown value type 77"));
    EXPECT_THAT(refusal(GgufBytes(0, 2).entry("k", 1).entry("k", 1).data(0)).message(), HasSubstr("twice"));
    EXPECT_THAT(refusal(GgufBytes(0, 1).entry("", 1).data(0)).message(), HasSubstr("empty key"));
    EXPECT_THAT(refusal(GgufBytes(0, 1).text("k").u32(7).raw<std::uint8_t>(2).data(64)).message(), HasSubstr("expected 0 or 1"));
    GgufBytes deep(0, 1);
    deep.text("k").u32(9);
    for (int i = 0; i < 9; ++i) deep.u32(9).u64(1);
    EXPECT_THAT(refusal(deep.data(64)).message(), HasSubstr("nested deeper"));
    EXPECT_THAT(refusal(GgufBytes(0, 1).entry("general.alignment", 0).data(0)).subject(), HasSubstr("general.alignment"));
    EXPECT_THAT(refusal(GgufBytes(0, 1).entry("general.alignment", 12).data(0)).message(), HasSubstr("multiple of 8"));
}

TEST_F(GgufFileTest, BadTensors) {
    EXPECT_EQ(refusal(one(0, 4).data(32)).code(), ErrorCode::Unsupported);
    EXPECT_THAT(refusal(one(0, 4).data(32)).subject(), HasSubstr(": t"));
    EXPECT_THAT(refusal(one(8).data(64)).message(), HasSubstr("multiple of the alignment"));
    EXPECT_THAT(refusal(one(64).data(64)).message(), HasSubstr("reaches past"));
    EXPECT_THAT(refusal(one(kHuge - 31).data(64)).message(), HasSubstr("reaches past"));
    EXPECT_THAT(refusal(one().data(31)).message(), HasSubstr("reaches past"));
    EXPECT_THAT(refusal(GgufBytes(2, 0).tensor("a", {16}, 0, 0).tensor("b", {8}, 0, 32).data(128)).message(), HasSubstr("overlaps \"a\""));
    EXPECT_THAT(refusal(GgufBytes(2, 0).tensor("a", {8}, 0, 0).tensor("a", {8}, 0, 32).data(64)).message(), HasSubstr("twice"));
    EXPECT_THAT(refusal(GgufBytes(1, 0).tensor("", {8}, 0, 0).data(64)).message(), HasSubstr("empty name"));
    EXPECT_THAT(refusal(GgufBytes(1, 0).tensor("t", {1, 1, 1, 1, 1}, 0, 0).data(64)).message(), HasSubstr("at most 4 dimensions"));
    EXPECT_THAT(refusal(GgufBytes(1, 0).tensor("t", {0}, 0, 0).data(64)).message(), HasSubstr("no tensor can have"));
    EXPECT_THAT(refusal(GgufBytes(1, 0).tensor("t", {1ull << 40, 1ull << 40}, 0, 0).data(64)).message(), HasSubstr("no tensor can have"));
    EXPECT_THAT(refusal(GgufBytes(1, 0).tensor("t", {1ull << 62}, 0, 0).data(64)).message(), HasSubstr("overflows"));
    EXPECT_THAT(refusal(GgufBytes(1, 0).tensor("t", {33}, 8, 0).data(64)).message(), HasSubstr("multiples of 32"));
}

TEST_F(GgufFileTest, EveryTruncationAndManyDamagesAreRefusedOrReadWithoutCrashing) {
    GgufBytes file(2, 3);
    file.entry("a", 1).text("b").u32(8).text("text").text("c").u32(9).u32(8).u64(2).text("x").text("yz");
    file.tensor("s", {8}, 0, 0).tensor("t", {32, 2}, 8, 32);
    const std::string good = file.data(32 + 68);
    ASSERT_EQ(GgufFile::open(write(good)).tensors().size(), 2u);
    for (std::size_t length = 1; length < good.size(); ++length) EXPECT_THROW(GgufFile::open(write(good.substr(0, length))), Error) << length;
    std::mt19937 random(3);
    for (int round = 0; round < 2000; ++round) {
        std::string damaged = good;
        for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
        try {
            GgufFile::open(write(damaged));
        } catch (const Error&) {
        }
    }
}

constexpr std::array<float, 2> kTwo{};

GgufTensorSource source(std::string name, std::vector<std::int64_t> shape, std::vector<float> values) {
    return {std::move(name), GgufType::F32, std::move(shape), [values](const auto& sink) { sink(std::as_bytes(std::span(values))); }};
}

TEST_F(GgufFileTest, WhatIsWrittenReadsBackEqual) {
    GgufArray nested;
    nested.type = GgufValueType::Array;
    nested.arrays = {GgufValue::ofU32({1, 2}).array(), GgufValue::ofTexts({"a", ""}).array()};
    const GgufMetadata metadata{{"a", GgufValue::of(std::uint32_t{5})}, {"b", GgufValue::of(std::string("x\ny"))}, {"c", GgufValue::of(true)}, {"d", GgufValue::of(0.1f)},
                                {"e", GgufValue::ofNumber(GgufValueType::F64, 0.1)}, {"f", GgufValue::ofInteger(GgufValueType::I8, static_cast<std::uint64_t>(-3))},
                                {"g", GgufValue::of(nested)}, {"h", GgufValue::ofF32({1.5f, -2})}, {"i", GgufValue::ofTexts({})}};
    const std::vector<GgufTensorSource> tensors{source("t", {1, 3}, {1, 2, 3}), source("u", {2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8})};
    const fs::path path = m_folder / "out.gguf";
    const WrittenShard written = writeGguf(path, metadata, tensors, {});
    EXPECT_EQ(written.bytes, fs::file_size(path));
    EXPECT_EQ(written.bytes, ggufFileBytes(metadata, tensors));
    EXPECT_EQ(written.sha256, sha256File(path));
    const GgufFile file = GgufFile::open(path);
    EXPECT_EQ(file.metadata(), metadata);
    ASSERT_EQ(file.tensors().size(), 2u);
    EXPECT_EQ(file.findTensor("u")->shape, (std::vector<std::int64_t>{2, 2, 2}));
    float third;
    std::memcpy(&third, file.bytes(*file.findTensor("t")).data() + 8, 4);
    EXPECT_EQ(third, 3);
}

TEST_F(GgufFileTest, StoppingAndFailingLeaveNothing) {
    std::stop_source stop;
    const std::vector<GgufTensorSource> tensors{{"t", GgufType::F32, {2}, [&](const auto& sink) {
                                                     stop.request_stop();
                                                     sink(std::as_bytes(std::span(kTwo)));
                                                 }}};
    const fs::path path = m_folder / "out.gguf";
    EXPECT_THROW(writeGguf(path, {}, tensors, JobContext(stop.get_token(), {})), Error);
    const std::vector<GgufTensorSource> shortOnes{{"t", GgufType::F32, {3}, [](const auto& sink) { sink(std::as_bytes(std::span(kTwo))); }}};
    EXPECT_THROW(writeGguf(path, {}, shortOnes, {}), Error);
    EXPECT_THROW(writeGguf(path, {}, {source("t", {1}, {1}), source("t", {1}, {1})}, {}), Error);
    EXPECT_THROW(writeGguf(path, {{"k", {}}, {"k", {}}}, {}, {}), Error);
    EXPECT_TRUE(fs::is_empty(m_folder.path()));
}

TEST_F(GgufFileTest, ReadsFilesOfLlamaCpp) {
    RESECT_NEED_SHARED_DATA("gguf");
    const GgufFile vocabulary = GgufFile::open(sharedData("gguf/ggml-vocab-llama-spm.gguf"));
    EXPECT_TRUE(vocabulary.tensors().empty());
    EXPECT_EQ(vocabulary.integer("llama.vocab_size"), 32000);
    ASSERT_EQ(vocabulary.find("tokenizer.ggml.tokens")->array().strings.size(), 32000u);
    EXPECT_EQ(vocabulary.find("tokenizer.ggml.tokens")->array().strings[29879], "s");
    EXPECT_EQ(vocabulary.find("tokenizer.ggml.scores")->array().number(31999), -31740);
    const GgufFile model = GgufFile::open(sharedData("gguf/llama-2-tiny-random.gguf"));
    EXPECT_EQ(model.tensors().size(), 12u);
    EXPECT_EQ(model.text("general.name"), "LLaMA v2");
    EXPECT_EQ(model.findTensor("blk.0.ffn_down.weight")->shape, (std::vector<std::int64_t>{8, 32}));
    EXPECT_EQ(model.findTensor("output.weight")->type, GgufType::F16);
}

}  // namespace
}  // namespace resect::test
