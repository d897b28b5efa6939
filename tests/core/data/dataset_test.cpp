#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/dataset.h"
#include "tests/core/data/byte_tokenizer.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace resect {
namespace {

using test::ByteTokenizer;
using test::sharedData;
using test::TempFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<std::int64_t>;

constexpr std::int64_t kBos = ByteTokenizer::kBos, kEos = ByteTokenizer::kEos, kNone = kIgnoredTarget;

class DatasetFile : public testing::Test {
protected:
    Dataset load(const std::string& name, const std::string& content, const DataOptions& options,
                 std::int64_t vocabSize = 258) {
        writeFileAtomically(m_folder / name, content);
        return loadDataset(m_folder / name, &m_tokenizer, vocabSize, options);
    }
    Error errorOf(const std::string& name, const std::string& content, const DataOptions& options = {},
                  std::int64_t vocabSize = 258) {
        try {
            load(name, content, options, vocabSize);
        } catch (const Error& error) {
            return error;
        }
        return Error(ErrorCode::Internal, "", "nothing was thrown");
    }
    TempFolder m_folder;
    ByteTokenizer m_tokenizer;
};

DataOptions rows(RowLayout layout, int length) {
    DataOptions options;
    options.layout = layout;
    options.rowLength = length;
    return options;
}

TEST(PerplexityRows, HaveTheRecordedCounts) {
    RESECT_NEED_SHARED_DATA("models/stories260K-hf");
    const auto tokenizer = Tokenizer::load(sharedData("models/stories260K-hf"));
    for (const auto& [length, count] : {std::pair{256, 237}, std::pair{512, 118}}) {
        DataOptions options = rows(RowLayout::Chunks, length);
        options.maxBytes = 120000;
        const Dataset data = loadDataset(sharedData("text/tinystories-sample.txt"), tokenizer.get(), 512, options);
        EXPECT_EQ(data.tokensInText, 60675);
        ASSERT_EQ(data.rows.size(), static_cast<std::size_t>(count));
        for (const TokenRow& row : data.rows) {
            ASSERT_EQ(row.ids.size(), static_cast<std::size_t>(length));
            EXPECT_EQ(row.ids.front(), 1);
            EXPECT_EQ(row.targets.back(), kIgnoredTarget);
        }
        EXPECT_EQ(data.targets, count * (length - 1));
    }
}

TEST_F(DatasetFile, ChunksReplaceTheFirstTokenAndDropTheTail) {
    const Dataset data = load("a.txt", "abcdefgh", rows(RowLayout::Chunks, 4));
    ASSERT_EQ(data.rows.size(), 2u);  // BOS a b c | d e f g | h
    EXPECT_THAT(data.rows[0].ids, ElementsAre(kBos, 'a', 'b', 'c'));
    EXPECT_THAT(data.rows[0].targets, ElementsAre('a', 'b', 'c', kNone));
    EXPECT_THAT(data.rows[1].ids, ElementsAre(kBos, 'e', 'f', 'g'));
    EXPECT_EQ(data.tokensInText, 8);
    EXPECT_EQ(data.description, "a.txt: 2 rows of 4 tokens, 8 tokens");
}

TEST_F(DatasetFile, DropsABrokenLastCharacterOnlyWhenTheFileIsCut) {
    DataOptions options = rows(RowLayout::Chunks, 3);
    options.maxBytes = 4;
    const Dataset data = load("a.txt", "abc\xC3\xA9xyz", options);
    EXPECT_EQ(data.tokensInText, 3);
    EXPECT_THAT(errorOf("a.txt", "abc\xC3").message(), HasSubstr("byte 3"));
}

TEST_F(DatasetFile, MaxRowsGivesTheFirstRowsOfTheWhole) {
    std::string text;
    for (std::uint64_t i = 0; i < 100000; ++i) text += static_cast<char>('a' + i * i % 23);
    DataOptions options = rows(RowLayout::Chunks, 7);
    const Dataset all = load("a.txt", text, options);
    options.maxRows = 5;
    const Dataset some = load("a.txt", text, options);
    ASSERT_EQ(some.rows.size(), 5u);
    for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(some.rows[i].ids, all.rows[i].ids);
    EXPECT_NE(some.fingerprint, all.fingerprint);
}

TEST_F(DatasetFile, FingerprintFollowsTheRows) {
    const auto options = rows(RowLayout::Chunks, 4);
    const Dataset a = load("a.txt", "abcdefgh", options);
    EXPECT_EQ(a.fingerprint, load("b.txt", "abcdefghi", options).fingerprint);  // the tail is no part of a row
    EXPECT_NE(a.fingerprint, load("b.txt", "abcdefxh", options).fingerprint);
    EXPECT_EQ(a.fingerprint.substr(0, 7), "sha256:");
    EXPECT_EQ(a.fingerprint.size(), 71u);
}

TEST_F(DatasetFile, PacksWholeExamplesAndSeparatesThem) {
    const Dataset data =
        load("a.jsonl", "{\"text\": \"ab\"}\n\n{\"text\": \"c\"}\n{\"text\": \"def\"}\n", rows(RowLayout::Packed, 8));
    ASSERT_EQ(data.rows.size(), 2u);
    EXPECT_THAT(data.rows[0].ids, ElementsAre(kBos, 'a', 'b', kEos, kBos, 'c', kEos));
    EXPECT_THAT(data.rows[0].documents, ElementsAre(0, 0, 0, 0, 1, 1, 1));
    EXPECT_THAT(data.rows[0].targets, ElementsAre('a', 'b', kEos, kNone, 'c', kEos, kNone));
    EXPECT_THAT(data.rows[1].ids, ElementsAre(kBos, 'd', 'e', 'f', kEos));
    EXPECT_EQ(data.tokens, 12);
    EXPECT_EQ(data.targets, 9);
}

TEST_F(DatasetFile, PaddedRowsHoldOneExampleAndContinueLongTexts) {
    const Dataset data = load("a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"cdefgh\"}\n", rows(RowLayout::Padded, 5));
    ASSERT_EQ(data.rows.size(), 3u);
    EXPECT_THAT(data.rows[1].ids, ElementsAre(kBos, 'c', 'd', 'e', 'f'));
    EXPECT_THAT(data.rows[2].ids, ElementsAre('g', 'h', kEos));
}

TEST_F(DatasetFile, SeparatorLinesInPlainTextBeginNewDocuments) {
    const Dataset data = load("a.txt", "ab\n<|endoftext|>\ncd", rows(RowLayout::Padded, 9));
    ASSERT_EQ(data.rows.size(), 2u);
    EXPECT_THAT(data.rows[0].ids, ElementsAre(kBos, 'a', 'b', '\n', kEos));
    EXPECT_THAT(data.rows[1].ids, ElementsAre(kBos, 'c', 'd', kEos));
}

std::string targetText(const TokenRow& row) {
    std::string out;
    for (const std::int64_t id : row.targets) {
        if (id == kEos)
            out += '$';
        else if (id != kNone)
            out += static_cast<char>(id);
    }
    return out;
}

std::string textOf(const TokenRow& row) {
    std::string out;
    for (const std::int64_t id : row.ids) {
        if (id == kEos)
            out += '$';
        else if (id != kBos)
            out += static_cast<char>(id);
    }
    return out;
}

TEST_F(DatasetFile, InstructionRowsTakeTheAlpacaFormAndLossOnTheAnswer) {
    const std::string json =
        R"([{"instruction": "Add.", "input": "1 2", "output": "3"}, {"instruction": "Hi", "input": "", "output": "Ho"}])";
    auto options = rows(RowLayout::Padded, 400);
    const Dataset data = load("a.json", json, options);
    ASSERT_EQ(data.rows.size(), 2u);
    EXPECT_EQ(textOf(data.rows[0]),
              "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
              "response that "
              "appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n3$");
    EXPECT_EQ(targetText(data.rows[0]), "3$");
    EXPECT_EQ(targetText(data.rows[1]), "Ho$");
    options.answersOnly = false;
    EXPECT_EQ(targetText(load("a.json", json, options).rows[1]), textOf(data.rows[1]));
}

TEST_F(DatasetFile, MessagesTakeARoleTaggedFormAndLossOnTheAssistant) {
    const std::string line =
        R"({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": [{"type": "text", "text": "Q"}]},)"
        R"( {"role": "assistant", "content": "A"}, {"role": "user", "content": "R"}, {"role": "assistant", "content": "B"}]})";
    const Dataset data = load("a.jsonl", line, rows(RowLayout::Padded, 99));
    EXPECT_EQ(textOf(data.rows[0]), "system: S\n\nuser: Q\n\nassistant: A$\n\nuser: R\n\nassistant: B$");
    EXPECT_EQ(targetText(data.rows[0]), " A$ B$");
}

TEST_F(DatasetFile, PromptsAndQuestionsAreInstructionsToo) {
    const Dataset data =
        load("a.jsonl", "{\"prompt\": \"2 plus 2 is\", \"answer\": \"4\"}\n{\"question\": \"Why?\", \"answer\": \"So.\"}\n",
             rows(RowLayout::Padded, 99));
    EXPECT_EQ(textOf(data.rows[0]), "2 plus 2 is 4$");
    EXPECT_EQ(targetText(data.rows[0]), " 4$");
    EXPECT_EQ(textOf(data.rows[1]), "Question: Why?\nAnswer: So.$");
    EXPECT_EQ(targetText(data.rows[1]), " So.$");
}

TEST_F(DatasetFile, TokenisedRowsNeedNoTokenizer) {
    writeFileAtomically(
        m_folder / "a.jsonl",
        "{\"input_ids\": [5, 6, 7]}\n{\"input_ids\": [1, 2, 3, 4], \"labels\": [-100, -100, 3, 4]}\n{\"text\": \"a\"}\n");
    const Dataset data = loadDataset(m_folder / "a.jsonl", nullptr, 8, rows(RowLayout::Padded, 16));
    ASSERT_EQ(data.rows.size(), 2u);
    EXPECT_THAT(data.rows[0].targets, ElementsAre(6, 7, kNone));
    EXPECT_THAT(data.rows[1].targets, ElementsAre(kNone, 3, 4, kNone));
    ASSERT_EQ(data.problems.size(), 1u);
    EXPECT_EQ(data.problems[0].subject, "line 3");
    EXPECT_THAT(data.problems[0].message, HasSubstr("no tokenizer"));
}

TEST_F(DatasetFile, CutsLongInstructionsAndSaysSo) {
    const Dataset data =
        load("a.jsonl", "{\"prompt\": \"ab\", \"answer\": \"cdefghijkl\"}\n{\"prompt\": \"abcdefghij\", \"answer\": \"k\"}\n",
             rows(RowLayout::Padded, 6));
    ASSERT_EQ(data.rows.size(), 1u);
    EXPECT_EQ(data.rows[0].ids.size(), 6u);
    ASSERT_EQ(data.problems.size(), 2u);
    EXPECT_THAT(data.problems[0].message, HasSubstr("where the row ends"));
    EXPECT_THAT(data.problems[1].message, HasSubstr("cut to 6"));
}

TEST_F(DatasetFile, ListsRejectedLinesWithNumberAndReason) {
    const Dataset data =
        load("a.jsonl",
             "{\"text\": \"good\"}\n{\"text\": 5}\n{broken\n{\"foo\": 1}\n{\"text\": \"\"}\n[1]\n{\"instruction\": \"x\"}\n"
             "{\"messages\": []}\n{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n{\"input_ids\": [1, \"2\"]}\n"
             "{\"input_ids\": [1, 2], \"labels\": [1]}\n{\"input_ids\": [1, 2], \"labels\": [1, 3]}\n{\"input_ids\": [1]}\n",
             rows(RowLayout::Padded, 16));
    ASSERT_EQ(data.rows.size(), 1u);
    ASSERT_EQ(data.problems.size(), 12u);
    const std::pair<const char*, const char*> expected[] = {
        {"line 2", "'text' is no text"}, {"line 3", "is not JSON"},
        {"line 4", "has none of"},       {"line 5", "'text' is empty"},
        {"line 6", "no JSON object"},    {"line 7", "'output' is missing"},
        {"line 8", "no filled array"},   {"line 9", "nothing said by the assistant"},
        {"line 10", "integers"},         {"line 11", "as long as"},
        {"line 12", "at position 1"},    {"line 13", "nothing to predict"}};
    for (std::size_t i = 0; i < 12; ++i) {
        EXPECT_EQ(data.problems[i].subject, expected[i].first);
        EXPECT_THAT(data.problems[i].message, HasSubstr(expected[i].second));
    }
}

TEST_F(DatasetFile, RefusesFilesWithoutUsableRows) {
    EXPECT_EQ(errorOf("a.txt", "").code(), ErrorCode::BadInput);
    EXPECT_THAT(errorOf("a.txt", "").message(), HasSubstr("is empty"));
    EXPECT_THAT(errorOf("a.txt", "abc").message(), HasSubstr("holds 3 tokens, fewer than one row of 256"));
    EXPECT_THAT(
        errorOf("a.jsonl", "{\"foo\": 1}\n").message(),
        HasSubstr("no usable row; line 1 has none of the fields that are understood: input_ids; messages; conversations; "));
    EXPECT_THAT(errorOf("a.json", "{\"text\": \"x\"}").message(), HasSubstr("expected an array"));
    EXPECT_THAT(errorOf("a.json", "[]").message(), HasSubstr("no usable row"));
    EXPECT_EQ(errorOf("a.csv", "x").code(), ErrorCode::Unsupported);
    EXPECT_EQ(errorOf("a.txt", "abc", rows(RowLayout::Chunks, 1)).code(), ErrorCode::Usage);
    EXPECT_THROW(loadDataset(m_folder / "absent.txt", &m_tokenizer, 258, {}), Error);
}

TEST_F(DatasetFile, NamesTheLineOfATokenPastTheVocabulary) {
    const Error error = errorOf("a.jsonl", "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1, 9]}\n", rows(RowLayout::Padded, 8), 9);
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_THAT(error.subject(), HasSubstr("line 2"));
    EXPECT_THAT(error.message(), HasSubstr("token id 9"));
    EXPECT_THAT(errorOf("a.jsonl", "{\"input_ids\": [1, -1]}\n", rows(RowLayout::Padded, 8), 9).message(),
                HasSubstr("token id -1"));
}

TEST_F(DatasetFile, NamesTheByteThatIsNotUtf8) {
    EXPECT_THAT(errorOf("a.txt", "ab\xFF"
                                 "cd")
                    .message(),
                HasSubstr("byte 2"));
    EXPECT_THAT(errorOf("a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"\xC3(\"}\n").message(), HasSubstr("byte 25"));
    EXPECT_THAT(errorOf("a.json", "[\"\xED\xA0\x80\"]").message(), HasSubstr("byte 2"));
}

TEST_F(DatasetFile, RefusesEarlyWhatWouldNotFitIntoMemory) {
    DataOptions options = rows(RowLayout::Chunks, 8);
    options.maxMemory = 1000;
    const std::string text(5000, 'x');
    EXPECT_EQ(errorOf("a.txt", text, options).code(), ErrorCode::OutOfMemory);
    options = rows(RowLayout::Padded, 64);
    options.maxMemory = 4000;
    std::string lines;
    for (int i = 0; i < 50; ++i) lines += "{\"text\": \"abcdefghijklmnopqrstuvwxyz\"}\n";
    EXPECT_EQ(errorOf("a.jsonl", lines, options).code(), ErrorCode::OutOfMemory);
    EXPECT_EQ(errorOf("a.jsonl", text, options).code(), ErrorCode::OutOfMemory);  // one endless line
    EXPECT_EQ(errorOf("a.json", text, options).code(), ErrorCode::OutOfMemory);
}

TEST_F(DatasetFile, AutoPacksConversationsAndCutsRunningText) {
    const auto options = rows(RowLayout::Auto, 8);
    EXPECT_EQ(load("a.txt", "abcdefghijkl", options).layout, RowLayout::Chunks);
    EXPECT_EQ(load("a.jsonl", "{\"text\": \"abcdefghijkl\"}\n", options).layout, RowLayout::Chunks);
    const Dataset packed =
        load("a.jsonl", "{broken\n{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"prompt\": \"c\", \"answer\": \"d\"}\n", options);
    EXPECT_EQ(packed.layout, RowLayout::Packed);
    EXPECT_EQ(packed.fingerprint,
              load("a.jsonl", "{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"prompt\": \"c\", \"answer\": \"d\"}\n",
                   rows(RowLayout::Packed, 8))
                  .fingerprint);
}

TEST_F(DatasetFile, TellsWhatTheRowsWere) {
    std::string lines = "{\"text\": \"one\"}\n{\"instruction\": \"a\", \"output\": \"b\", \"text\": \"not this\"}\n";
    lines += "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"a\"}]}\n";
    lines += "{\"prompt\": \"p\", \"completion\": \"c\"}\n{\"prompt\": \"p\", \"response\": \"c\"}\n{\"question\": \"q\", "
             "\"text\": \"t\"}\n";
    for (int i = 0; i < 8; ++i) lines += "{\"foo\": 1}\n";
    lines += "{\"text\": \"\"}\n";
    const Dataset data = load("a.jsonl", lines, rows(RowLayout::Padded, 400));
    ASSERT_EQ(data.rows.size(), 6u);
    EXPECT_EQ(data.description, "a.jsonl: 6 rows of at most 400 tokens, " + std::to_string(data.tokens) +
                                    " tokens; texts: 2, Alpaca rows: 1, ShareGPT conversations: 1, prompts with completions: "
                                    "1, prompts with responses: 1, "
                                    "rejected: 9; messages as 'role: content', because the checkpoint has no chat template");
    EXPECT_EQ(data.rejectedRows, 9);
    ASSERT_EQ(data.problems.size(), 7u);
    EXPECT_EQ(data.problems[0].subject, "line 7");
    EXPECT_EQ(data.problems[4].subject, "line 11");
    EXPECT_EQ(data.problems[5].subject, "line 15");
    EXPECT_EQ(data.problems[6].subject, "a.jsonl");
    EXPECT_THAT(data.problems[6].message, HasSubstr("3 further rows: has none of"));
    EXPECT_EQ(textOf(data.rows[2]), "user: q\n\nassistant: a$");
}

TEST_F(DatasetFile, StopsWhenAsked) {
    std::stop_source stop;
    stop.request_stop();
    writeFileAtomically(m_folder / "a.jsonl", "{\"text\": \"abc\"}\n");
    EXPECT_THROW(loadDataset(m_folder / "a.jsonl", &m_tokenizer, 258, {}, JobContext(stop.get_token(), nullptr)), Error);
}

TEST(RealInstructionData, LoadsWithoutRejectedRows) {
    RESECT_NEED_SHARED_DATA("instruct");
    const auto tokenizer = Tokenizer::load(sharedData("models/stories260K-hf"));
    DataOptions options = rows(RowLayout::Packed, 512);
    options.maxRows = 40;
    for (const char* file : {"instruct/alpaca-sample.json", "instruct/gsm8k-test.jsonl"}) {
        const Dataset data = loadDataset(sharedData(file), tokenizer.get(), 512, options);
        EXPECT_EQ(data.rows.size(), 40u);
        EXPECT_GT(data.targets, 1000);
        EXPECT_LT(data.targets, data.tokens);
    }
}

}  // namespace
}  // namespace resect
