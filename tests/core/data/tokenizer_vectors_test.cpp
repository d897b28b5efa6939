// Real tokenizers against recorded results; where the vectors come from is noted in the shared data's README.
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/tokenizer.h"
#include "core/protocol/json.h"
#include "tests/support/test_data.h"

#include <gtest/gtest.h>

namespace resect {
namespace {

using test::sharedData;
using Ids = std::vector<std::int64_t>;

struct Vectors {
    const char* file;   ///< tokenizer.json or tokenizer.model
    const char* cases;  ///< name of the recorded cases
};
void PrintTo(const Vectors& value, std::ostream* out) { *out << value.cases; }

std::unique_ptr<Tokenizer> open(const std::string& relative) {
    const auto file = sharedData(relative);
    return file.extension() == ".model" ? Tokenizer::fromSentencePiece(file) : Tokenizer::fromTokenizerJson(file);
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
    std::vector<std::string> parts;
    std::size_t from = 0;
    for (auto at = text.find(separator); at != text.npos; at = text.find(separator, from)) {
        parts.push_back(text.substr(from, at - from));
        from = at + separator.size();
    }
    parts.push_back(text.substr(from));
    return parts;
}

Ids readIds(const std::string& line) {
    Ids ids;
    for (const std::string& word : split(line, " ")) {
        if (!word.empty()) ids.push_back(std::stoll(word));
    }
    return ids;
}

class LlamaCppVectors : public testing::TestWithParam<Vectors> {};
class HuggingFaceVectors : public testing::TestWithParam<Vectors> {};

TEST_P(LlamaCppVectors, Encode) {
    RESECT_NEED_SHARED_DATA(GetParam().file);
    const auto tokenizer = open(GetParam().file);
    const std::string base = std::string("tokenizers/vectors/ggml-vocab-") + GetParam().cases + ".gguf";
    const auto texts = split(readFile(sharedData(base + ".inp")), "\n__ggml_vocab_test__\n");
    const auto lines = split(readFile(sharedData(base + ".out")), "\n");
    ASSERT_GE(texts.size(), 40u);
    for (std::size_t i = 0; i < texts.size(); ++i) {
        EXPECT_EQ(tokenizer->encode(texts[i], SpecialTokens::Omit), readIds(lines.at(i))) << "case " << i << ": " << texts[i];
    }
}

TEST_P(HuggingFaceVectors, EncodeAndDecode) {
    RESECT_NEED_SHARED_DATA(GetParam().file);
    const auto tokenizer = open(GetParam().file);
    const Json vectors = readJsonFile(sharedData(std::string("tokenizers/vectors/extended/") + GetParam().cases + ".json"));
    ASSERT_GE(vectors.at("cases").size(), 100u);
    for (const Json& item : vectors.at("cases")) {
        const auto text = item.at("text").get<std::string>();
        EXPECT_EQ(tokenizer->encode(text, SpecialTokens::Omit), item.at("ids").get<Ids>()) << text;
        EXPECT_EQ(tokenizer->encode(text, SpecialTokens::Add), item.at("ids_with_special").get<Ids>()) << text;
        EXPECT_EQ(tokenizer->decode(item.at("ids").get<Ids>()), item.at("decoded").get<std::string>()) << text;
    }
}

std::string nameOf(const testing::TestParamInfo<Vectors>& info) {
    const std::string file = info.param.file;
    std::string name;
    for (const char c : file.substr(file.find('/') + 1)) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
    return name;
}

INSTANTIATE_TEST_SUITE_P(Real, LlamaCppVectors,
                         testing::Values(Vectors{"tokenizers/gpt2/tokenizer.json", "gpt-2"},
                                         Vectors{"tokenizers/llama2/tokenizer.json", "llama-spm"},
                                         Vectors{"tokenizers/llama2/tokenizer.model", "llama-spm"},
                                         Vectors{"tokenizers/llama3/tokenizer.json", "llama-bpe"},
                                         Vectors{"tokenizers/qwen2/tokenizer.json", "qwen2"}),
                         nameOf);
INSTANTIATE_TEST_SUITE_P(Real, HuggingFaceVectors,
                         testing::Values(Vectors{"tokenizers/gpt2/tokenizer.json", "gpt2"},
                                         Vectors{"tokenizers/llama2/tokenizer.json", "llama2"},
                                         Vectors{"tokenizers/llama2/tokenizer.model", "llama2"},
                                         Vectors{"tokenizers/llama3/tokenizer.json", "llama3"},
                                         Vectors{"tokenizers/qwen2/tokenizer.json", "qwen2"},
                                         Vectors{"models/stories260K-hf/tokenizer.json", "stories260K-hf"},
                                         Vectors{"models/stories260K-hf/tokenizer.model", "stories260K-hf"}),
                         nameOf);

TEST(RealTokenizers, KnowTheirSpecialTokens) {
    RESECT_NEED_SHARED_DATA("tokenizers");
    const auto llama2 = Tokenizer::load(sharedData("tokenizers/llama2"));
    EXPECT_EQ(llama2->vocabSize(), 32000);
    EXPECT_EQ(llama2->bosId(), 1);
    EXPECT_EQ(llama2->eosId(), 2);
    const auto llama3 = Tokenizer::load(sharedData("tokenizers/llama3"));
    EXPECT_EQ(llama3->vocabSize(), 128256);
    EXPECT_EQ(llama3->bosId(), 128000);
    const auto qwen2 = Tokenizer::load(sharedData("tokenizers/qwen2"));
    EXPECT_EQ(qwen2->bosId(), std::nullopt);
    EXPECT_EQ(qwen2->eosId(), qwen2->idOf("<|im_end|>"));
}

TEST(RealTokenizers, ShowPiecesWithoutMarkers) {
    RESECT_NEED_SHARED_DATA("tokenizers");
    const auto llama2 = Tokenizer::load(sharedData("tokenizers/llama2"));
    EXPECT_EQ(llama2->piece(*llama2->idOf("\xE2\x96\x81the")), " the");
    EXPECT_EQ(llama2->piece(*llama2->idOf("<0x0A>")), "\n");
    EXPECT_EQ(llama2->piece(*llama2->idOf("<0xE4>")), "<0xE4>");
    EXPECT_EQ(llama2->piece(1), "<s>");
    const auto gpt2 = Tokenizer::load(sharedData("tokenizers/gpt2"));
    EXPECT_EQ(gpt2->piece(*gpt2->idOf("\xC4\xA0the")), " the");
    EXPECT_EQ(gpt2->piece(*gpt2->idOf("\xC3\xA3\xC4\xA3")),
              "<0xE3><0x81>");  // the first two of three bytes of a Hiragana letter
    EXPECT_EQ(gpt2->piece(50256), "<|endoftext|>");
}

TEST(RealTokenizers, RefuseTheRankFileOfLlama3) {
    RESECT_NEED_SHARED_DATA("tokenizers/llama3/tokenizer.model");
    try {
        Tokenizer::fromSentencePiece(sharedData("tokenizers/llama3/tokenizer.model"));
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Unsupported);
        EXPECT_NE(error.message().find("tiktoken"), std::string::npos);
    }
}

}  // namespace
}  // namespace resect
