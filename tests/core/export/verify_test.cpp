#include "core/base/files.h"
#include "core/export/carried_files.h"
#include "core/export/manifest.h"
#include "tests/core/export/exported.h"

#include <fstream>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A sound export to spoil.
struct Sound : ExportCase {
    Sound() : ExportCase(tinyLlama()) {
        writeText(tiny.path() / "tokenizer.json", R"({"model": {"vocab": {"a": 0, "b": 60}}})");
        run({dropBlocks({1})});
    }
    std::string found() const { return listed(verifyFolder(target(), {})); }
    /// The manifest after a file was changed on purpose, so that only the other checks can see it.
    void rewriteManifest() const { writeManifest(target(), {}, {}); }
    void flip(const std::string& file, std::streamoff offset) const {
        std::fstream stream(target() / file, std::ios::in | std::ios::out | std::ios::binary);
        stream.seekg(offset, offset < 0 ? std::ios::end : std::ios::beg);
        const int byte = stream.peek();
        stream.seekp(offset, offset < 0 ? std::ios::end : std::ios::beg);
        stream.put(static_cast<char>(byte ^ 0x10));
    }
};

TEST(VerifyFolder, CatchesAFlippedByte) {
    const Sound sound;
    EXPECT_EQ(sound.found(), "");
    sound.flip("model.safetensors", -100);
    EXPECT_THAT(sound.found(), HasSubstr("error model.safetensors: Its content is not what was written"));
}

TEST(VerifyFolder, CatchesMissingShortAndForeignFiles) {
    const Sound sound;
    fs::remove(sound.target() / "tokenizer.json");
    writeText(sound.target() / "notes.txt", "mine");
    writeText(sound.target() / "resect-plan.json", "{}");
    const std::string found = sound.found();
    EXPECT_THAT(found, HasSubstr("error tokenizer.json: The file is missing"));
    EXPECT_THAT(found, HasSubstr("warning notes.txt: The file is not part"));
    EXPECT_THAT(found, HasSubstr("error resect-plan.json: Expected"));
    fs::copy_file(sound.target() / "model.safetensors", sound.target() / "extra.safetensors");
    EXPECT_THAT(sound.found(), HasSubstr("error extra.safetensors"));
}

TEST(VerifyFolder, CatchesAConfigurationThatDoesNotFitTheTensors) {
    const Sound sound;
    Json config = readJsonFile(sound.target() / "config.json");
    config["intermediate_size"] = 44;
    writeJsonFile(sound.target() / "config.json", config);
    sound.rewriteManifest();
    EXPECT_THAT(sound.found(), HasSubstr("error"));
    EXPECT_THAT(sound.found(), HasSubstr("mlp"));
}

TEST(VerifyFolder, CatchesValuesThatAreNotFinite) {
    TinyCheckpoint tiny = tinyLlama();
    tiny.tensor("model.layers.0.mlp.up_proj.weight").at(1, 2) = std::numeric_limits<double>::quiet_NaN();
    tiny.save();
    const ExportCase c(tiny);
    c.run({dropBlocks({1})});
    EXPECT_THAT(listed(verifyFolder(c.target(), {})), HasSubstr("model.layers.0.mlp.up_proj.weight"));
}

TEST(VerifyFolder, CatchesATokenizerThatIsLargerThanTheVocabulary) {
    const Sound sound;
    for (const char* tokenizer :
         {R"({"model": {"vocab": {"a": 0, "b": 61}}})", R"({"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 61}]})"}) {
        writeText(sound.target() / "tokenizer.json", tokenizer);
        sound.rewriteManifest();
        EXPECT_THAT(sound.found(), HasSubstr("error tokenizer.json: It holds token id 61, but vocab_size is 61"));
    }
    writeText(sound.target() / "tokenizer.json", "{");
    sound.rewriteManifest();
    EXPECT_THAT(sound.found(), HasSubstr("tokenizer.json"));
}

TEST(VerifyFolder, SaysSoWhenThereIsNoManifestOrABadOne) {
    const Sound sound;
    for (const char* bad : {"{", "[]", R"({"resect_manifest": 2, "files": []})", R"({"resect_manifest": 1})",
                            R"({"resect_manifest": 1, "files": [{"name": "../x", "bytes": 1, "sha256": ""}]})",
                            R"({"resect_manifest": 1, "files": [{"name": "/etc/passwd", "bytes": 1, "sha256": ""}]})",
                            R"({"resect_manifest": 1, "files": [{"name": "a"}]})"}) {
        writeText(sound.target() / "manifest.json", bad);
        EXPECT_THAT(sound.found(), HasSubstr("manifest.json")) << bad;
    }
    fs::remove(sound.target() / "manifest.json");
    EXPECT_THAT(sound.found(), HasSubstr("no manifest"));
    EXPECT_EQ(errorOf([&] { verifyFolder(sound.target("none"), {}); }).code(), ErrorCode::NotFound);
}

TEST(VerifyFolder, AStoppedCheckSaysSo) {
    const Sound sound;
    std::stop_source stop;
    stop.request_stop();
    EXPECT_THAT(listed(verifyFolder(sound.target(), JobContext(stop.get_token(), {}))), HasSubstr("note"));
}

TEST(LargestTokenId, CountsThePiecesOfASentencePieceModel) {
    RESECT_NEED_SHARED_DATA("models/llama-stories-12l/tokenizer.model");
    const TempFolder folder;
    fs::copy_file(sharedData("models/llama-stories-12l/tokenizer.model"), folder / "tokenizer.model");
    EXPECT_EQ(largestTokenId(folder.path()).largestId, 511);
    fs::copy_file(sharedData("models/llama-stories-12l/tokenizer.json"), folder / "tokenizer.json");
    EXPECT_EQ(largestTokenId(folder.path()).largestId, 511);
    const TempFolder bad;
    writeText(bad / "tokenizer.model", "\x0a\xff\x01");
    EXPECT_THROW(largestTokenId(bad.path()), Error);
    EXPECT_EQ(largestTokenId(sharedData("golden/llama-gqa")).largestId, -1);
}

}  // namespace
}  // namespace resect::test
