#include "core/base/error.h"
#include "core/checkpoint/gguf_writer.h"
#include "core/data/gguf_vocabulary.h"
#include "core/data/sentencepiece_proto.h"
#include "core/data/tokenizer.h"
#include "core/base/files.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

const GgufValue* find(const GgufMetadata& entries, const std::string& key) {
    const auto entry = std::find_if(entries.begin(), entries.end(), [&](const GgufEntry& candidate) { return candidate.key == key; });
    return entry == entries.end() ? nullptr : &entry->value;
}
const GgufValue& value(const GgufVocabulary& vocabulary, const std::string& key) {
    static const GgufValue none = GgufValue::of(std::string("absent"));
    const GgufValue* found = find(vocabulary.entries, "tokenizer." + key);
    EXPECT_NE(found, nullptr) << key;
    return found ? *found : none;
}

/// A folder with some of the files of another one.
fs::path copied(const TempFolder& folder, const fs::path& from, const std::vector<std::string>& files) {
    for (const auto& file : files) fs::copy_file(from / file, folder / file, fs::copy_options::overwrite_existing);
    return folder.path();
}

GgufFile written(const TempFolder& folder, const GgufVocabulary& vocabulary) {
    writeGguf(folder / "vocabulary.gguf", vocabulary.entries, {}, {});
    return GgufFile::open(folder / "vocabulary.gguf");
}

TEST(GgufVocabulary, SentencePieceEqualsLlamaCppsConverter) {
    RESECT_NEED_SHARED_DATA("tokenizers/llama2");
    RESECT_NEED_SHARED_DATA("gguf");
    const GgufFile reference = GgufFile::open(sharedData("gguf/ggml-vocab-llama-spm.gguf"));
    TempFolder folder;  // the reference was made without the tokenizer_config.json, which makes <unk> a control token
    const GgufVocabulary found = readGgufVocabulary(copied(folder, sharedData("tokenizers/llama2"), {"tokenizer.model"}), 32000, Json::object());
    int compared = 0;
    for (const GgufEntry& entry : reference.metadata()) {
        if (!entry.key.starts_with("tokenizer.")) continue;
        EXPECT_EQ(value(found, entry.key.substr(10)), entry.value) << entry.key;
        ++compared;
    }
    EXPECT_EQ(compared, static_cast<int>(found.entries.size()));
    EXPECT_THAT(found.notes, IsEmpty());
}

TEST(GgufVocabulary, ScoresFromMergesRankPiecesAsTheModelDoes) {
    RESECT_NEED_SHARED_DATA("tokenizers/llama2");
    TempFolder folder;
    const GgufVocabulary fromJson = readGgufVocabulary(copied(folder, sharedData("tokenizers/llama2"), {"tokenizer.json", "tokenizer_config.json"}), 32000, Json::object());
    const GgufVocabulary fromModel = readGgufVocabulary(sharedData("tokenizers/llama2"), 32000, Json::object());
    EXPECT_EQ(value(fromJson, "ggml.tokens"), value(fromModel, "ggml.tokens"));
    EXPECT_EQ(value(fromJson, "ggml.token_type"), value(fromModel, "ggml.token_type"));
    EXPECT_EQ(value(fromJson, "ggml.model").text(), "llama");
    // Whatever can be merged comes in the same order.
    const GgufArray &a = value(fromJson, "ggml.scores").array(), &b = value(fromModel, "ggml.scores").array();
    double before = 1e9, reference = 1e9;
    for (std::size_t i = 259; i < 29871 - 0; ++i) {
        ASSERT_EQ(a.number(i) < before, b.number(i) < reference) << i;
        before = a.number(i);
        reference = b.number(i);
    }
}

TEST(GgufVocabulary, PreTokenizersAreFoundByTheirPattern) {
    for (const auto& [name, pre, size] : {std::tuple{"gpt2", "gpt-2", 50257}, {"llama3", "llama-bpe", 128256}, {"qwen2", "qwen2", 151936}}) {
        const std::string folder = std::string("tokenizers/") + name;
        RESECT_NEED_SHARED_DATA(folder);
        const GgufVocabulary found = readGgufVocabulary(sharedData(folder), size, Json::object());
        EXPECT_EQ(value(found, "ggml.model").text(), "gpt2");
        EXPECT_EQ(value(found, "ggml.pre").text(), pre);
        EXPECT_EQ(value(found, "ggml.tokens").array().size(), static_cast<std::size_t>(size));
        for (const Problem& note : found.notes) EXPECT_EQ(note.severity, Severity::Note) << note.message;
    }
    const Json unknown{{"type", "Sequence"}, {"pretokenizers", {{{"type", "Split"}, {"pattern", {{"Regex", "\\w+"}}}, {"behavior", "Isolated"}, {"invert", false}},
                                                               {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    EXPECT_EQ(findPreTokenizer(unknown), nullptr);
    EXPECT_EQ(findPreTokenizer(Json{{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}}), nullptr);
    EXPECT_EQ(findPreTokenizer(Json()), nullptr);
}

TEST(GgufVocabulary, ByteLevelTokensMergesAndSpecialIds) {
    RESECT_NEED_SHARED_DATA("tokenizers/qwen2");
    const GgufVocabulary found = readGgufVocabulary(sharedData("tokenizers/qwen2"), 151936, Json{{"bos_token_id", 151643}});
    const GgufArray& kinds = value(found, "ggml.token_type").array();
    EXPECT_EQ(kinds.number(0), 1);
    EXPECT_EQ(kinds.number(151644), 3) << "<|im_start|>";
    EXPECT_EQ(kinds.number(151935), 5) << "fills the embedding up";
    EXPECT_EQ(value(found, "ggml.tokens").array().strings[151935], "[PAD151935]");
    EXPECT_EQ(value(found, "ggml.merges").array().strings[0], "\xC4\xA0 \xC4\xA0");
    EXPECT_EQ(value(found, "ggml.eos_token_id").number(), 151645);
    EXPECT_EQ(value(found, "ggml.bos_token_id").number(), 151643) << "from config.json";
    EXPECT_EQ(value(found, "ggml.add_bos_token").bits(), 0u);
    EXPECT_THAT(value(found, "chat_template").text(), HasSubstr("im_start"));
    ASSERT_FALSE(found.notes.empty());
    EXPECT_THAT(found.notes.front().message, HasSubstr("unused tokens"));
    RESECT_NEED_SHARED_DATA("tokenizers/llama3");
    EXPECT_EQ(value(readGgufVocabulary(sharedData("tokenizers/llama3"), 128256, Json::object()), "ggml.add_bos_token").bits(), 1u);
}

TEST(GgufVocabulary, AnEmbeddingThatIsTooSmallIsAnError) {
    RESECT_NEED_SHARED_DATA("models/stories260K-hf");
    try {
        readGgufVocabulary(sharedData("models/stories260K-hf"), 500, Json::object());
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::BadInput);
        EXPECT_THAT(error.message(), HasSubstr("500 rows"));
    }
}

TEST(GgufVocabulary, WithoutTokenizerTheFileSaysSo) {
    TempFolder folder;
    const GgufVocabulary found = readGgufVocabulary(folder.path(), 61, Json::object());
    EXPECT_EQ(value(found, "ggml.model").text(), "none");
    EXPECT_EQ(found.kind, "none");
    ASSERT_EQ(found.notes.size(), 1u);
    EXPECT_THAT(writeTokenizerFiles(written(folder, found), folder.path()).front().message, HasSubstr("no tokenizer"));
}

TEST(GgufVocabulary, TokenizerFilesComeBackWithTheSameIds) {
    const std::vector<std::string> texts{"Once upon a time, there was a little girl.", "  two  spaces\n\nand\ttabs ", "Grüße, 世界! \xF0\x9F\x98\x80 12345 don't", ""};
    for (const auto& [name, size] : {std::pair{"tokenizers/llama2", 32000}, {"tokenizers/gpt2", 50257}, {"tokenizers/llama3", 128256}, {"tokenizers/qwen2", 151700},
                                     {"models/stories260K-hf", 512}}) {
        RESECT_NEED_SHARED_DATA(name);
        TempFolder folder;
        const GgufVocabulary vocabulary = readGgufVocabulary(sharedData(name), size, Json::object());
        const GgufFile file = written(folder, vocabulary);
        fs::create_directory(folder / "out");
        EXPECT_THAT(writeTokenizerFiles(file, folder / "out"), IsEmpty()) << name;
        const auto before = Tokenizer::load(sharedData(name)), after = Tokenizer::load(folder / "out");
        for (const std::string& text : texts) EXPECT_EQ(after->encode(text), before->encode(text)) << name << ": " << text;
        EXPECT_EQ(after->bosId(), before->bosId()) << name;
        EXPECT_EQ(after->eosId(), before->eosId()) << name;
        // And once more into a GGUF: nothing is lost or added.
        const GgufVocabulary again = readGgufVocabulary(folder / "out", size, Json::object());
        for (const GgufEntry& entry : vocabulary.entries) EXPECT_EQ(value(again, entry.key.substr(10)), entry.value) << name << " " << entry.key;
    }
}

TEST(SentencePieceProto, RefusesWhatIsNoMessage) {
    EXPECT_THROW(SentencePieceProto::parse("", "x"), Error);
    EXPECT_THROW(SentencePieceProto::parse("\xff\xff\xff", "x"), Error);
    EXPECT_THROW(SentencePieceProto::parse(std::string("\x0a\x7f", 2) + "a", "x"), Error);
}

}  // namespace
}  // namespace resect::test
