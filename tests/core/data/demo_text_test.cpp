#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/bpe_trainer.h"
#include "core/data/dataset.h"
#include "core/data/demo_text.h"
#include "core/data/demo_world.h"
#include "core/protocol/json.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace resect {
namespace {

using test::TempFolder;

DemoTextOptions small() {
    DemoTextOptions options;
    options.trainBytes = 400'000;
    options.heldOutBytes = 40'000;
    options.questions = 90;
    return options;
}

TEST(DemoText, IsTheSameForTheSameSeed) {
    DemoTextOptions options = small();
    const DemoText first = makeDemoText(options), again = makeDemoText(options);
    EXPECT_EQ(first.train, again.train);
    EXPECT_EQ(first.heldOut, again.heldOut);
    options.seed = 2;
    EXPECT_NE(first.train, makeDemoText(options).train);
    EXPECT_GE(first.train.size(), options.trainBytes);
    EXPECT_LT(first.train.size(), options.trainBytes + 2000);
    EXPECT_EQ(first.questions.size(), 90u);
}

TEST(DemoText, DrawsTheSameNumbersEverywhere) {
    DemoRandom random(1);  // the first outputs of SplitMix64 for seed 1
    EXPECT_EQ(random.next(), 0x910A2DEC89025CC1ull);
    EXPECT_EQ(random.next(), 0xBEEB8DA1658EEC67ull);
}

TEST(DemoText, TrainingTextHoldsNothingThatIsAsked) {
    DemoTextOptions options = small();
    options.trainBytes = 1'500'000;
    options.questions = 600;
    const DemoText text = makeDemoText(options);
    std::set<std::string> ids;
    for (const ExactTask& question : text.questions) {
        EXPECT_TRUE(ids.insert(question.id).second);
        const bool begins = text.train.starts_with(question.prompt);
        const bool inside = text.train.find(" " + question.prompt) != std::string::npos ||
                            text.train.find("\n" + question.prompt) != std::string::npos;
        EXPECT_FALSE(begins || inside) << question.prompt;
    }
}

TEST(DemoText, EveryFactOccursInTrainingInAnotherForm) {
    const DemoText text = makeDemoText(small());
    const DemoWorld world = DemoWorld::make(small().seed);
    std::size_t known = 0;
    for (const DemoFact& fact : world.facts) {
        bool found = false;
        for (std::size_t i = 0; i < fact.beginnings.size(); ++i) {
            found = found ||
                    (i != fact.heldOut && text.train.find(fact.beginnings[i] + " " + fact.value + ".") != std::string::npos);
        }
        known += found;
    }
    EXPECT_EQ(known, world.facts.size());
}

TEST(DemoText, SumsAreRight) {
    const DemoText text = makeDemoText(small());
    int checked = 0;
    for (const ExactTask& question : text.questions) {
        if (!question.id.starts_with("sum")) continue;
        const auto space = question.prompt.find(' ');
        const int a = std::stoi(question.prompt), b = std::stoi(question.prompt.substr(question.prompt.find(' ', space + 1)));
        EXPECT_EQ(std::stoi(question.answer), question.prompt.find("plus") != std::string::npos ? a + b : a - b)
            << question.prompt;
        ++checked;
    }
    EXPECT_EQ(checked, 30);
}

TEST(DemoText, WritesAFolderThatTheReadersAccept) {
    const TempFolder folder;
    writeDemoText(folder / "text", small());
    const TaskFile tasks = loadTasks(folder / "text/questions.jsonl");
    EXPECT_EQ(tasks.exact.size(), 90u);
    EXPECT_TRUE(tasks.problems.empty());
    const std::string train = readFile(folder / "text/train.txt");
    writeTokenizer(folder / "text", trainBpe(train, 512), 256);
    const auto tokenizer = Tokenizer::load(folder / "text");
    const Dataset data = loadDataset(folder / "text/heldout.txt", tokenizer.get(), tokenizer->vocabSize(), {});
    EXPECT_GT(data.rows.size(), 20u);
    EXPECT_EQ(data.rows.front().ids.front(), *tokenizer->bosId());
    EXPECT_THROW(writeDemoText(folder / "text", small()), Error);
    DemoTextOptions empty;
    empty.trainBytes = 0;
    EXPECT_THROW(writeDemoText(folder / "other", empty), Error);
}

TEST(BpeTrainer, MergesTheMostFrequentPairAndBreaksTiesByText) {
    const Json json = Json::parse(trainBpe("hug hug hug pug pug bun hugs", 266));
    // "ug" stands in six words, then "hug" (4), then " hug" (3); of the pairs that stand there twice, " pug" goes by " p" and
    // "pug".
    EXPECT_EQ(json.at("model").at("merges")[0], "u g");
    EXPECT_EQ(json.at("model").at("merges")[1], "h ug");
    EXPECT_EQ(json.at("model").at("merges")[2], "\u0120 hug");
    EXPECT_EQ(json.at("model").at("vocab").at("ug"), 259);
    EXPECT_EQ(json.at("model").at("vocab").at("<s>"), 0);
}

TEST(BpeTrainer, StopsWhenNoPairOccursTwice) {
    const Json json = Json::parse(trainBpe("abcdefg", 1000));
    EXPECT_EQ(json.at("model").at("merges").size(), 0u);
    EXPECT_EQ(json.at("model").at("vocab").size(), 259u);
}

TEST(BpeTrainer, MakesATokenizerThatGivesTheTextBack) {
    const TempFolder folder;
    const DemoText text = makeDemoText(small());
    writeTokenizer(folder.path(), trainBpe(text.train, 640), 256);
    const auto tokenizer = Tokenizer::load(folder.path());
    EXPECT_EQ(tokenizer->vocabSize(), 640);
    EXPECT_EQ(tokenizer->bosId(), 0);
    EXPECT_EQ(tokenizer->eosId(), 1);
    const std::string odd = text.heldOut + " \u00e9\u4e2d\U0001F642\t\r\n  end";
    const auto ids = tokenizer->encode(odd, SpecialTokens::Omit);
    EXPECT_EQ(tokenizer->decode(ids), odd);
    EXPECT_LT(ids.size() * 2, odd.size());
    const auto sum = tokenizer->encode("12 plus 7 is 19.", SpecialTokens::Omit);
    std::vector<std::string> pieces;
    for (const auto id : sum) pieces.push_back(tokenizer->piece(id));
    EXPECT_THAT(pieces, testing::ElementsAre("1", "2", " plus", " ", "7", " is", " ", "1", "9", "."));
}

TEST(BpeTrainer, IsDeterministicAndRefusesNonsense) {
    EXPECT_EQ(trainBpe("the cat sat on the mat", 270), trainBpe("the cat sat on the mat", 270));
    EXPECT_THROW(trainBpe("abc", 100), Error);
    EXPECT_THROW(trainBpe("abc", 100000), Error);
    EXPECT_THROW(trainBpe("", 300), Error);
    EXPECT_THROW(trainBpe("a\xFF", 300), Error);
}

}  // namespace
}  // namespace resect
