#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/task.h"
#include "core/protocol/json.h"
#include "tests/core/data/byte_tokenizer.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace resect {
namespace {

using test::sharedData;
using testing::ElementsAre;
using testing::HasSubstr;

TaskFile load(const std::string& content) {
    test::TempFolder folder;
    writeFileAtomically(folder / "tasks.jsonl", content);
    return loadTasks(folder / "tasks.jsonl");
}

TEST(Tasks, TakeTheContextsOfTheHarness) {
    const TaskFile file = load(R"({"id": "a", "question": "Why?", "choices": ["x", "\u00e9t\u00e9"], "answer": 1}
{"goal": "Sit", "choices": ["a", "b"], "answer": 0}
{"context": "A man", "choices": ["runs.", "is"], "answer": 0}
{"sentence": "Ann saw Bea so _ waved.", "choices": ["Ann", "Bea"], "answer": 1}
{"question": "is it?", "answer": true}
{"prompt": "1 plus 1 is", "answer": "2"}
)");
    ASSERT_EQ(file.choices.size(), 5u);
    EXPECT_EQ(file.choices[0].id, "a");
    EXPECT_EQ(file.choices[0].options[1].context, "Question: Why?\nAnswer:");
    EXPECT_EQ(file.choices[0].options[1].continuation, " \u00e9t\u00e9");
    EXPECT_EQ(file.choices[0].options[1].characters, 3);
    EXPECT_EQ(file.choices[0].answer, 1);
    EXPECT_EQ(file.choices[1].id, "tasks-1");
    EXPECT_EQ(file.choices[1].options[0].context, "Question: Sit\nAnswer:");
    EXPECT_EQ(file.choices[2].options[0].context, "A man");
    EXPECT_EQ(file.choices[3].options[1].context, "Ann saw Bea so Bea");
    EXPECT_EQ(file.choices[3].options[1].continuation, " waved.");
    EXPECT_EQ(file.choices[4].options[file.choices[4].answer].continuation, " yes");
    ASSERT_EQ(file.exact.size(), 1u);
    EXPECT_EQ(file.exact[0].prompt, "1 plus 1 is");
    EXPECT_EQ(file.exact[0].answer, "2");
}

TEST(Tasks, ListRejectedLines) {
    const TaskFile file =
        load("{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"question\": \"q\", \"choices\": [\"x\"], \"answer\": 0}\n"
             "{\"question\": \"q\", \"choices\": [\"x\", \"y\"], \"answer\": 2}\n{\"sentence\": \"none\", \"choices\": [\"x\", "
             "\"y\"], \"answer\": 0}\n{oops\n{}\n");
    ASSERT_EQ(file.problems.size(), 5u);
    EXPECT_EQ(file.problems[0].subject, "line 2");
    EXPECT_THAT(file.problems[0].message, HasSubstr("fewer than two"));
    EXPECT_THAT(file.problems[1].message, HasSubstr("there are 2 choices"));
    EXPECT_THAT(file.problems[2].message, HasSubstr("exactly one blank"));
    EXPECT_THAT(file.problems[4].message, HasSubstr("neither choices"));
    EXPECT_THROW(load(""), Error);
    EXPECT_THROW(load("{}\n"), Error);
    EXPECT_THROW(load("\xFF\n"), Error);
}

TEST(Tasks, AskAsEachTaskOfTheHarnessDoes) {
    test::TempFolder folder;
    const std::string row = "{\"question\": \"Why?\", \"choices\": [\"x\", \"y\"], \"answer\": 1}\n";
    const auto context = [&](const char* name, QuestionForm form = QuestionForm::Auto) {
        writeFileAtomically(folder / name, row);
        TaskOptions options;
        options.form = form;
        return loadTasks(folder / name, options).choices[0].options[0].context;
    };
    EXPECT_EQ(context("arc-easy-test.jsonl"), "Question: Why?\nAnswer:");
    EXPECT_EQ(context("openbookqa-test.jsonl"), "Why?");
    EXPECT_EQ(context("social-iqa-test.jsonl"), "Q: Why?\nA:");
    EXPECT_EQ(context("openbookqa-test.jsonl", QuestionForm::Question), "Question: Why?\nAnswer:");
    EXPECT_EQ(load("{\"question\": \"is it\", \"passage\": \"It is.\", \"answer\": true}\n").choices[0].options[0].context,
              "It is.\nQuestion: is it?\nAnswer:");
}

TEST(Tasks, ReadHellaSwagInSixLines) {
    test::TempFolder folder;
    writeFileAtomically(folder / "h.txt", "A man\n2\nruns.\nsits.\nfl\u00e9es.\nis\nA dog\n0\na\nb\nc\nd\n");
    const TaskFile file = loadTasks(folder / "h.txt");
    ASSERT_EQ(file.choices.size(), 2u);
    EXPECT_EQ(file.choices[0].answer, 2);
    EXPECT_EQ(file.choices[0].options[2].context, "A man");
    EXPECT_EQ(file.choices[0].options[2].continuation, " fl\u00e9es.");
    EXPECT_EQ(file.choices[0].options[2].characters, 6);
    EXPECT_EQ(file.choices[0].options[2].bytes, 7);
    writeFileAtomically(folder / "h.txt", "A man\n2\n");
    EXPECT_THROW(loadTasks(folder / "h.txt"), Error);
    writeFileAtomically(folder / "h.txt", "A\n4\na\nb\nc\nd\n");
    try {
        loadTasks(folder / "h.txt");
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.subject(), HasSubstr("line 2"));
    }
}

TEST(Tasks, PutSolvedExamplesInFront) {
    test::TempFolder folder;
    writeFileAtomically(folder / "a.jsonl", "{\"question\": \"p\", \"choices\": [\"x\", \"y\"], \"answer\": 1}\n{\"sentence\": "
                                            "\"Ann saw Bea so _ waved.\", \"choices\": [\"Ann\", \"Bea\"], \"answer\": 1}\n"
                                            "{\"question\": \"n\", \"answer\": \"So 1+1=2.\\n#### 2\"}\n");
    TaskOptions options;
    options.shots = 2;
    const TaskFile file = loadTasks(folder / "a.jsonl", options);
    EXPECT_EQ(file.choices[0].options[0].context,
              "Ann saw Bea so Bea waved.\n\nQuestion: n\nAnswer: So 1+1=2.\n#### 2\n\nQuestion: p\nAnswer:");
    EXPECT_EQ(file.choices[1].options[0].context,
              "Question: p\nAnswer: y\n\nQuestion: n\nAnswer: So 1+1=2.\n#### 2\n\nAnn saw Bea so Ann");
    EXPECT_EQ(file.exact[0].prompt, "Question: p\nAnswer: y\n\nAnn saw Bea so Bea waved.\n\nQuestion: n\nAnswer:");
    EXPECT_NE(file.fingerprint, loadTasks(folder / "a.jsonl").fingerprint);
    options.shots = 3;
    EXPECT_THROW(loadTasks(folder / "a.jsonl", options), Error);
    writeFileAtomically(folder / "b.jsonl", "{\"prompt\": \"1 and 1 is\", \"answer\": \"2\"}\n");
    options.shots = 1;
    options.shotsFile = folder / "b.jsonl";
    EXPECT_EQ(loadTasks(folder / "a.jsonl", options).choices[0].options[0].context, "1 and 1 is 2\n\nQuestion: p\nAnswer:");
}

TEST(Gsm8kAnswers, AreExtractedAsTheHarnessDoes) {
    const auto strict = [](const char* text) { return extractedAnswer(text, Extraction::Strict); };
    const auto flexible = [](const char* text) { return extractedAnswer(text, Extraction::Flexible); };
    EXPECT_EQ(strict("so 3.\n#### 1,234"), "1,234");
    EXPECT_EQ(strict("#### -5 or #### 6"), "-5");
    EXPECT_EQ(strict("####5"), "[invalid]");
    EXPECT_EQ(strict("#### x #### 7"), "7");
    EXPECT_EQ(strict("the answer is 5"), "[invalid]");
    EXPECT_EQ(flexible("first 12, then $1,300."), "$1,300.");
    EXPECT_EQ(flexible("it is 5"), "5");
    EXPECT_EQ(flexible("it is -5 apples"), "-5");
    EXPECT_EQ(flexible("6 ..."), "...");  // as the harness's expression has it
    EXPECT_EQ(flexible("none"), "[invalid]");
    EXPECT_TRUE(isSameAnswer("1,300.", "1300"));
    EXPECT_TRUE(isSameAnswer("$18", "18"));
    EXPECT_TRUE(isSameAnswer("18", "text\n#### 18"));
    EXPECT_FALSE(isSameAnswer("18", "181"));
    EXPECT_FALSE(isSameAnswer("[invalid]", "18"));
}

TEST(Gsm8kAnswers, OfTheWholeTestFileAreFound) {
    RESECT_NEED_SHARED_DATA("instruct/gsm8k-test.jsonl");
    const TaskFile file = loadTasks(sharedData("instruct/gsm8k-test.jsonl"));
    EXPECT_EQ(file.exact.size(), 1319u);
    EXPECT_TRUE(file.problems.empty());
    EXPECT_EQ(file.exact[0].answer, "18");
    EXPECT_TRUE(file.exact[0].prompt.starts_with("Question: Janet"));
    for (const ExactTask& task : file.exact)
        EXPECT_TRUE(isSameAnswer(extractedAnswer(task.target, Extraction::Flexible), task.answer)) << task.id;
}

TEST(RealTasks, InSixLinesAreThoseOfTheRows) {
    RESECT_NEED_SHARED_DATA("tasks/hellaswag-val-400.txt");
    const TaskFile lines = loadTasks(sharedData("tasks/hellaswag-val-400.txt")),
                   rows = loadTasks(sharedData("tasks/hellaswag-val-2000.jsonl"), 400);
    ASSERT_EQ(lines.choices.size(), 400u);
    EXPECT_EQ(lines.fingerprint, rows.fingerprint);
}

TEST(ExactAnswers, EndWhereTheAnswerEnds) {
    EXPECT_TRUE(isExactAnswer(" 2. So", "2"));
    EXPECT_TRUE(isExactAnswer("2", "2"));
    EXPECT_TRUE(isExactAnswer("\nTarn", " Tarn"));
    EXPECT_TRUE(isExactAnswer("2\xE4", "2"));
    EXPECT_FALSE(isExactAnswer(" 20.", "2"));
    EXPECT_FALSE(isExactAnswer(" Tarna", "Tarn"));
    EXPECT_FALSE(isExactAnswer(" 2\u00e9", "2"));
    EXPECT_FALSE(isExactAnswer("", "2"));
    EXPECT_FALSE(isExactAnswer("x", ""));
}

TEST(ScoredTokens, AreThoseBehindTheContext) {
    const test::ByteTokenizer tokenizer;
    const ScoredTokens plain = scoredTokens(tokenizer, "ab ", "c", ContextStart::Plain);
    EXPECT_THAT(plain.ids, ElementsAre('a', 'b', ' ', 'c'));
    EXPECT_EQ(plain.contextTokens, 2u);
    const ScoredTokens bos = scoredTokens(tokenizer, "ab", " c", ContextStart::Bos);
    EXPECT_THAT(bos.ids, ElementsAre(256, 'a', 'b', ' ', 'c'));
    EXPECT_EQ(bos.contextTokens, 3u);
    const ScoredTokens empty = scoredTokens(tokenizer, "", "xy", ContextStart::Plain);
    EXPECT_THAT(empty.ids, ElementsAre(256, 'x', 'y'));
    EXPECT_THROW(scoredTokens(tokenizer, "ab", "", ContextStart::Plain), Error);
}

TEST(ScoredTokens, KeepTheEndWhenTooLong) {
    const test::ByteTokenizer tokenizer;
    const ScoredTokens cut = scoredTokens(tokenizer, "abcd", "ef", ContextStart::Plain, 3);
    EXPECT_THAT(cut.ids, ElementsAre('c', 'd', 'e', 'f'));
    EXPECT_EQ(cut.contextTokens, 2u);
    const ScoredTokens shorter = scoredTokens(tokenizer, "ab", "cdefg", ContextStart::Plain, 3);
    EXPECT_THAT(shorter.ids, ElementsAre('d', 'e', 'f', 'g'));
    EXPECT_EQ(shorter.contextTokens, 1u);
}

TEST(RealTasks, LoadWholeAndGiveTheRecordedTokenCounts) {
    RESECT_NEED_SHARED_DATA("golden/stories260K/numbers.json");
    const auto tokenizer = Tokenizer::load(sharedData("models/stories260K-hf"));
    const Json numbers = readJsonFile(sharedData("golden/stories260K/numbers.json"));
    for (const auto& [name, recorded] : numbers.at("multiple_choice").items()) {
        const TaskFile file = loadTasks(sharedData("tasks/" + name + ".jsonl"), 40);
        ASSERT_EQ(file.choices.size(), recorded.at("items").size());
        for (std::size_t i = 0; i < file.choices.size(); ++i) {
            const Json& item = recorded.at("items")[i];
            EXPECT_EQ(file.choices[i].id, item.at("id"));
            EXPECT_EQ(file.choices[i].answer, item.at("answer"));
            for (std::size_t c = 0; c < file.choices[i].options.size(); ++c) {
                const ChoiceOption& option = file.choices[i].options[c];
                const ScoredTokens scored = scoredTokens(*tokenizer, option.context, option.continuation, ContextStart::Plain);
                EXPECT_EQ(scored.ids.size() - scored.contextTokens, item.at("tokens")[c].get<std::size_t>())
                    << item.at("id") << " choice " << c;
            }
        }
    }
    const std::pair<const char*, std::size_t> sizes[] = {
        {"arc-challenge-test", 1172}, {"arc-easy-test", 2376}, {"boolq-no-passage-valid", 3270}, {"hellaswag-val-2000", 2000},
        {"openbookqa-test", 500},     {"piqa-valid", 1838},    {"social-iqa-test", 1954},        {"winogrande-valid", 1267}};
    for (const auto& [name, count] : sizes) {
        const TaskFile file = loadTasks(sharedData(std::string("tasks/") + name + ".jsonl"));
        EXPECT_EQ(file.choices.size(), count) << name;
        EXPECT_TRUE(file.problems.empty()) << name << ": " << file.problems.front().subject << " "
                                           << file.problems.front().message;
    }
}

}  // namespace
}  // namespace resect
