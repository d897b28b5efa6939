#include "core/protocol/json.h"
#include "tests/support/process.h"
#include "tests/support/test_data.h"
#include "tests/support/tiny_checkpoint.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace resect::test {
namespace {

/// A folder that holds nothing but a chat template.
class ChatCommand : public testing::Test {
protected:
    ChatCommand() {
        write("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}{{ extra }}{% if add_generation_prompt %}GO{% endif %}\n{% if messages and messages[0].content is none %}{{ raise_exception('empty') }}{% endif %}"})");
    }
    void write(const std::string& name, const std::string& content) { std::ofstream(m_folder / name) << content; }
    std::string file(const std::string& name) const { return (m_folder / name).string(); }
    /// The texts that the rows become.
    std::vector<std::string> texts(const std::string& rows, std::vector<std::string> more = {}) {
        write("rows.jsonl", rows);
        std::vector<std::string> arguments{"chat", m_folder.path().string(), "--input", file("rows.jsonl")};
        arguments.insert(arguments.end(), more.begin(), more.end());
        const auto result = runCli(arguments);
        EXPECT_EQ(result.exitCode, 0) << result.err;
        std::vector<std::string> out;
        std::istringstream lines(result.out);
        for (std::string line; std::getline(lines, line);) out.push_back(parseJson(line, "stdout")["text"]);
        return out;
    }
    /// Standard error of a run that has to end with 3.
    std::string refusal(const std::string& rows) {
        write("rows.jsonl", rows);
        const auto result = runCli({"chat", m_folder.path().string(), "--input", file("rows.jsonl")});
        EXPECT_EQ(result.exitCode, 3) << result.out;
        return result.err;
    }
    TempFolder m_folder;
};

TEST_F(ChatCommand, RendersRowsThroughTheTemplate) {
    const std::string rows = R"({"messages": [{"role": "user", "content": "é"}], "extra": 5})" "\n\n" R"({"messages": [{"role": "user", "content": "b"}], "add_generation_prompt": true})" "\n";
    EXPECT_EQ(texts(rows), (std::vector<std::string>{"<s>user=é;5", "<s>user=b;GO"}));
    EXPECT_EQ(texts(rows, {"--add-generation-prompt"})[0], "<s>user=é;5GO");
    write("other.jinja", "{{ bos_token }}other");
    EXPECT_EQ(texts(rows, {"--template-file", file("other.jinja")})[0], "<s>other");
    write("chat_template.jinja", "wins");
    EXPECT_EQ(texts(rows)[1], "wins");
}

TEST_F(ChatCommand, ReadsStandardInput) {
    const auto result = runCli({"chat", m_folder.path().string()}, R"({"messages": []})" "\n");
    EXPECT_EQ(result.exitCode, 0) << result.err;
    EXPECT_EQ(result.out, "{\"text\":\"<s>\"}\n");
}

TEST_F(ChatCommand, ErrorsNameRowAndField) {
    const std::string good = R"({"messages": [{"role": "user", "content": "a"}]})" "\n";
    const std::pair<std::string, const char*> cases[] = {{"{\"text\": 1}\n", "rows.jsonl: line 2: messages: is missing"},
                                                         {"{\"messages\": 5}\n", "line 2: messages: expected an array"},
                                                         {"{\"messages\": [5]}\n", "line 2: messages[0]: expected an object"},
                                                         {"{\"messages\": [{\"content\": \"x\"}]}\n", "line 2: messages[0]: role"},
                                                         {"[1]\n", "line 2: expected a JSON object"},
                                                         {"{oops\n", "line 2"},
                                                         {"{\"messages\": [{\"role\": \"user\", \"content\": null}]}\n", "tokenizer_config.json: chat_template: line 2: empty"}};
    for (const auto& [row, expected] : cases) {
        const std::string message = refusal(good + row);
        EXPECT_NE(message.find(expected), std::string::npos) << message;
    }
}

TEST_F(ChatCommand, FoldersWithoutTemplateAndUnknownNamesAreRefused) {
    const TempFolder empty;
    const auto none = runCli({"chat", empty.path().string()}, "");
    EXPECT_EQ(none.exitCode, 3);
    EXPECT_NE(none.err.find("has no chat template"), std::string::npos) << none.err;
    EXPECT_EQ(runCli({"chat", m_folder.path().string(), "--template", "rag"}, "").exitCode, 3);
    EXPECT_EQ(runCli({"chat", file("nowhere")}, "").exitCode, 3);
    EXPECT_EQ(runCli({"chat"}, "").exitCode, 2);
    EXPECT_NE(runCli({"chat", "--help"}).out.find("Example"), std::string::npos);
}

TEST(GenerateCommand, PutsThePromptIntoTheChatTemplate) {
    RESECT_NEED_SHARED_DATA("models/stories260K-hf/model.safetensors");
    const TempFolder folder;
    std::filesystem::copy(sharedData("models/stories260K-hf"), folder.path(), std::filesystem::copy_options::recursive);
    std::ofstream(folder / "chat_template.jinja") << "{{ bos_token }}{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}there was{% endif %}";
    const auto chat = runCli({"generate", folder.path().string(), "--chat", "--system", "Once upon a time,", "--prompt", "in a house,", "--max-new-tokens", "5", "--json"});
    ASSERT_EQ(chat.exitCode, 0) << chat.err;
    EXPECT_EQ(parseJson(chat.out, "stdout")["prompt"], "<s>Once upon a time, in a house, there was");
    EXPECT_EQ(runCli({"generate", sharedData("models/stories260K-hf").string(), "--chat", "--prompt", "x"}).exitCode, 3);
    EXPECT_EQ(runCli({"generate", folder.path().string(), "--system", "x", "--prompt", "x"}).exitCode, 2);
}

TEST(EvalCommand, PacksConversationsAndTellsWhatItTook) {
    RESECT_NEED_SHARED_DATA("models/stories260K-hf/model.safetensors");
    const TempFolder folder;
    std::ofstream(folder / "rows.jsonl") << R"({"messages": [{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": "Once upon a time."}]})" "\n" R"({"text": 5})" "\n" R"({"question": "Who?", "answer": "Lily."})" "\n";
    const auto result = runCli({"eval", sharedData("models/stories260K-hf").string(), "--data", (folder / "rows.jsonl").string(), "--json"});
    ASSERT_EQ(result.exitCode, 0) << result.err;
    const Json json = parseJson(result.out, "stdout");
    EXPECT_EQ(json["rowsTaken"], (Json{{"rows of messages", 1}, {"questions with answers", 1}}));
    EXPECT_EQ(json["rowsRejected"], 1);
    EXPECT_EQ(json["rowsTotal"], 1);  // both in one packed row
    EXPECT_NE(json["data"].get<std::string>().find("no chat template"), std::string::npos);
}

TEST(EvalCommand, ResumesTasksAndCountsShots) {
    RESECT_NEED_SHARED_DATA("tasks/piqa-valid.jsonl");
    const TempFolder folder;
    std::vector<std::string> arguments{"eval", sharedData("models/stories260K-hf").string(), "--task", sharedData("tasks/piqa-valid.jsonl").string(), "--max-tasks", "4", "--shots", "1", "--results", (folder / "r.jsonl").string(), "--json"};
    const auto first = runCli(arguments);
    ASSERT_EQ(first.exitCode, 0) << first.err;
    const Json again = parseJson(runCli(arguments).out, "stdout");
    EXPECT_EQ(again["tasksResumed"], 4);
    EXPECT_EQ(again["accuracy"], parseJson(first.out, "stdout")["accuracy"]);
    arguments[7] = "0";
    const auto other = runCli(arguments);
    EXPECT_EQ(other.exitCode, 3);
    EXPECT_NE(other.err.find("r.jsonl: tasks"), std::string::npos) << other.err;
}

}  // namespace
}  // namespace resect::test
