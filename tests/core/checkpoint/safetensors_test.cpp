#include "core/base/error.h"
#include "core/checkpoint/safetensors_file.h"
#include "tests/support/tiny_checkpoint.h"

#include <fstream>
#include <functional>
#include <gmock/gmock.h>

namespace resect {
namespace {

using testing::HasSubstr;
using test::TempFolder;
using test::writeRawSafetensors;

/// Opens a file with this header and as many data bytes, expects it to be refused and returns the reason.
std::string refusal(std::string_view header, std::size_t dataBytes, ErrorCode code = ErrorCode::Corrupt, std::int64_t headerLength = -1) {
    TempFolder folder;
    writeRawSafetensors(folder / "x.safetensors", header, std::string(dataBytes, '\1'), headerLength);
    try {
        SafetensorsFile::open(folder / "x.safetensors");
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), code) << error.what();
        EXPECT_THAT(error.what(), HasSubstr("x.safetensors"));
        return error.what();
    }
    ADD_FAILURE() << "opened: " << header;
    return {};
}

TEST(Safetensors, ReadsTensorsMetadataAndScalars) {
    TempFolder folder;
    writeRawSafetensors(folder / "x.safetensors",
                        R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
                        R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"empty":{"dtype":"I64","shape":[0,7],"data_offsets":[16,16]}}   )",
                        std::string(16, 'x'));
    const auto file = SafetensorsFile::open(folder / "x.safetensors");
    ASSERT_EQ(file.tensors().size(), 3u);
    EXPECT_EQ(file.tensors()[0].name, "a");
    EXPECT_EQ(file.tensors()[0].numel(), 1);
    EXPECT_EQ(file.tensors()[1].shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(file.find("b")->dtype, DType::BF16);
    EXPECT_EQ(file.bytes("b").size(), 12u);
    EXPECT_EQ(file.find("empty")->numel(), 0);
    EXPECT_EQ(file.metadata().at("format"), "pt");
    EXPECT_EQ(file.find("c"), nullptr);
    EXPECT_THROW(file.bytes("c"), Error);
    file.release(*file.find("b"));
    EXPECT_EQ(static_cast<char>(file.bytes("b")[11]), 'x') << "released bytes can be read again";
}

TEST(Safetensors, KnowsEveryDtypeByNameAndSize) {
    const std::vector<std::pair<const char*, std::size_t>> known = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4},
                                                                     {"I16", 2}, {"I8", 1}, {"U8", 1}, {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
    for (const auto& [text, size] : known) {
        const auto dtype = dtypeFromName(text);
        ASSERT_TRUE(dtype) << text;
        EXPECT_EQ(name(*dtype), text);
        EXPECT_EQ(sizeOf(*dtype), size);
    }
    EXPECT_FALSE(dtypeFromName("f32"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}})", 8, ErrorCode::Unsupported), HasSubstr("a: unknown dtype \"C64\""));
}

TEST(Safetensors, RefusesAHeaderLongerThanTheFile) {
    EXPECT_THAT(refusal("{}", 0, ErrorCode::Corrupt, 3), HasSubstr("3 bytes long, but the file has only 2"));
    EXPECT_THAT(refusal("{}", 0, ErrorCode::Corrupt, std::numeric_limits<std::int64_t>::max()), HasSubstr("bytes long, but the file has only 2"));
}

TEST(Safetensors, RefusesAHeaderOver100MB) {
    TempFolder folder;
    writeRawSafetensors(folder / "x.safetensors", "{", "", 100'000'001);
    std::filesystem::resize_file(folder / "x.safetensors", 100'000'100);
    try {
        SafetensorsFile::open(folder / "x.safetensors");
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("100000001 bytes long; the format allows 100000000"));
    }
}

TEST(Safetensors, RefusesWhatIsNoSafetensorsFile) {
    TempFolder folder;
    const auto open = [&](std::string_view content) -> std::string {
        test::writeText(folder / "x.safetensors", content);
        try {
            SafetensorsFile::open(folder / "x.safetensors");
        } catch (const Error& error) {
            return error.what();
        }
        return "opened";
    };
    EXPECT_THAT(open(""), HasSubstr("found only 0 bytes"));
    EXPECT_THAT(open("1234567"), HasSubstr("found only 7 bytes"));
    EXPECT_THAT(open("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), HasSubstr("Git LFS pointer"));
    EXPECT_THAT(open(std::string("\0\0\0\0\0\0\0\0", 8)), HasSubstr("begins with {"));
    EXPECT_THAT(open(std::string("\2\0\0\0\0\0\0\0[]", 10)), HasSubstr("begins with {"));
    EXPECT_THROW(SafetensorsFile::open(folder / "none.safetensors"), Error);
    EXPECT_THROW(SafetensorsFile::open(folder.path()), Error);
}

TEST(Safetensors, RefusesABrokenHeaderText) {
    EXPECT_THAT(refusal(R"({"a":)", 0), HasSubstr("header: line 1, column 6"));
    EXPECT_THAT(refusal("{}garbage", 0), HasSubstr("line 1, column 3"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2),
                HasSubstr("\"a\" appears twice"));
    EXPECT_THAT(refusal("{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1), HasSubstr("UTF-8"));
    EXPECT_THAT(refusal(R"({"a":7})", 0), HasSubstr("a: expected an object"));
    EXPECT_THAT(refusal(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("no dtype"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1), HasSubstr("no shape"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1]}})", 1), HasSubstr("no data_offsets"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("text as dtype"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1), HasSubstr("list as shape"));
}

TEST(Safetensors, RefusesBrokenMetadata) {
    EXPECT_THAT(refusal(R"({"__metadata__":[]})", 0), HasSubstr("__metadata__: expected an object"));
    EXPECT_THAT(refusal(R"({"__metadata__":{"step":3}})", 0), HasSubstr("expected a text for \"step\", found 3"));
}

TEST(Safetensors, RefusesNegativeAndFractionalNumbers) {
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1), HasSubstr(">= 0 in shape, found -1"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1), HasSubstr("found 1.5"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}})", 1), HasSubstr("in shape"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})", 1), HasSubstr("in data_offsets, found -1"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1.0]}})", 1), HasSubstr("in data_offsets"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1), HasSubstr("two numbers"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}})", 2), HasSubstr("end before they begin"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}})", 2), HasSubstr("out of range"));
}

TEST(Safetensors, RefusesARangeOfAnotherSizeThanTheShape) {
    EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,20]}})", 20), HasSubstr("takes 24 bytes, but data_offsets hold 20"));
}

TEST(Safetensors, RefusesAShapeThatOverflows) {
    for (const char* shape : {"[4294967296,4294967296]", "[9223372036854775807]", "[3037000500,3037000500,2]", "[4611686018427387904,4,0]"})
        EXPECT_THAT(refusal(std::string(R"({"a":{"dtype":"F32","shape":)") + shape + R"(,"data_offsets":[0,0]}})", 0), HasSubstr("overflows 64 bits"));
}

TEST(Safetensors, RefusesOverlapsAndHoles) {
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})", 7),
                HasSubstr("b: bytes 3 to 7 overlap those of \"a\""));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}})", 9),
                HasSubstr("b: bytes 5 to 9 leave a hole of 1 bytes after \"a\""));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}})", 5), HasSubstr("after the header"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 6), HasSubstr("2 bytes after the last tensor"));
    EXPECT_THAT(refusal("{}", 1), HasSubstr("1 bytes after the last tensor"));
}

TEST(Safetensors, ATruncatedFileNamesWhatIsLost) {
    const char* header = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]},)"
                         R"("c":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}})";
    EXPECT_THAT(refusal(header, 7), HasSubstr("truncated: 5 of 12 data bytes are missing; unreadable: b, c"));
}

}  // namespace
}  // namespace resect
