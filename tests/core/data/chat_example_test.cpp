#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/chat_example.h"
#include "core/data/dataset.h"
#include "tests/core/data/byte_tokenizer.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace resect {
namespace {

using test::ByteTokenizer;
using test::ownData;
using test::sharedData;
using test::TempFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using Texts = std::vector<std::string>;

Json conversation(std::initializer_list<std::pair<const char*, const char*>> messages) {
    Json list = Json::array();
    for (const auto& [role, content] : messages) list.push_back({{"role", role}, {"content", content}});
    return Json{{"messages", list}};
}

const Json kTwoTurns =
    conversation({{"user", "Q1?"}, {"assistant", "Answer one."}, {"user", "Q2?"}, {"assistant", "Answer\n two"}});

/// The texts whose tokens are to be predicted, in order.
Texts answers(const Example& example, const Tokenizer& tokenizer) {
    Texts out;
    bool open = false;
    std::vector<std::int64_t> ids;
    const auto close = [&] {
        if (open) out.push_back(tokenizer.decode(ids));
        ids.clear();
        open = false;
    };
    for (std::size_t i = 0; i < example.ids.size(); ++i) {
        if (!example.loss[i]) {
            close();
            continue;
        }
        open = true;
        ids.push_back(example.ids[i]);
    }
    close();
    return out;
}

Texts answersOf(const std::string& source, const Json& row, Json tokens = Json::object()) {
    const ByteTokenizer tokenizer;
    const ChatTemplate chat(source, "t", std::move(tokens));
    Example example = readExample(row, &chat);
    tokenizeExample(example, &tokenizer, true);
    EXPECT_EQ(tokenizer.decode(example.ids), chat.render(row).text);
    return answers(example, tokenizer);
}

std::string reasonOf(const std::string& source, const Json& row) {
    try {
        answersOf(source, row);
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::BadInput);
        return error.message();
    }
    return "nothing was thrown";
}

TEST(ChatAnswers, AreWhatGenerationBlocksWrite) {
    EXPECT_THAT(answersOf("{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content "
                          "}}</s>{% endgeneration %}\n{% else %}{{ m.content }}{% endif %}{% endfor %}",
                          kTwoTurns),
                ElementsAre("Answer one.</s>", "Answer\n two</s>"));
}

TEST(ChatAnswers, AreFoundWithoutGenerationBlocks) {
    const Json file = readJsonFile(ownData("chat") / "chat_template_cases.json");
    const Json tokens{{"bos_token", "<s>"}, {"eos_token", "</s>"}};
    const auto own = [&](const char* name) { return file["inline_templates"][name].get<std::string>(); };
    EXPECT_THAT(answersOf(own("chatml"), kTwoTurns, tokens), ElementsAre("Answer one.<|im_end|>", "Answer\n two<|im_end|>"));
    EXPECT_THAT(answersOf(own("llama2"), kTwoTurns, tokens), ElementsAre(" Answer one. </s>", " Answer\n two </s>"));
    EXPECT_THAT(answersOf(own("mistral-v1"), kTwoTurns, tokens), ElementsAre("Answer one.</s>", "Answer\n two</s>"));
}

TEST(ChatAnswers, AreFoundInTheTemplatesOfModels) {
    RESECT_NEED_SHARED_DATA("chat/chat_template_cases.json");
    const Json tokens{{"bos_token", "<s>"}, {"eos_token", "</s>"}};
    const auto model = [&](const char* name) { return readFile(sharedData("chat") / name); };
    EXPECT_THAT(answersOf(model("Qwen-Qwen2.5-7B-Instruct.jinja"), kTwoTurns, tokens),
                ElementsAre("Answer one.<|im_end|>", "Answer\n two<|im_end|>"));
    // Closes the whole conversation with EOS, which the last answer then learns.
    EXPECT_THAT(answersOf(model("microsoft-Phi-3.5-mini-instruct.jinja"), kTwoTurns, {{"eos_token", "<|endoftext|>"}}),
                ElementsAre("Answer one.<|end|>", "Answer\n two<|end|>\n<|endoftext|>"));
    // Its generation prompt holds a "<think>" that given answers do not begin with.
    EXPECT_THAT(answersOf(model("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja"), kTwoTurns, tokens),
                ElementsAre("Answer one.<｜end▁of▁sentence｜>", "Answer\n two<｜end▁of▁sentence｜>"));
    EXPECT_THAT(answersOf(model("mistralai-Mistral-Nemo-Instruct-2407.jinja"), kTwoTurns, tokens),
                ElementsAre("Answer one.</s>", "Answer\n two</s>"));
}

TEST(ChatAnswers, OfRealTokenizersSpellTheAssistantsTexts) {
    RESECT_NEED_SHARED_DATA("tokenizers/qwen2/tokenizer.json");
    const auto tokenizer = Tokenizer::load(sharedData("tokenizers/qwen2"));
    const auto chat = ChatTemplate::find(sharedData("tokenizers/qwen2"));
    ASSERT_NE(chat, nullptr);
    Example example = readExample(kTwoTurns, chat.get());
    tokenizeExample(example, tokenizer.get(), true);
    EXPECT_THAT(answers(example, *tokenizer), ElementsAre("Answer one.<|im_end|>", "Answer\n two<|im_end|>"));
    EXPECT_EQ(std::count(example.ids.begin(), example.ids.end(), *tokenizer->idOf("<|im_end|>")), 4);
    Example all = readExample(kTwoTurns, chat.get());
    tokenizeExample(all, tokenizer.get(), false);
    EXPECT_EQ(std::count(all.loss.begin(), all.loss.end(), true), static_cast<std::ptrdiff_t>(all.ids.size()) - 1);
}

TEST(ChatAnswers, ThatCannotBeToldApartAreRefusedWithTheReason) {
    // Earlier turns look different once later ones follow.
    EXPECT_THAT(reasonOf("{% for m in messages %}{{ loop.revindex }}{{ m.role }}:{{ m.content }}\n{% endfor %}", kTwoTurns),
                HasSubstr("add {% generation %} to the template"));
    EXPECT_THAT(reasonOf("{% for m in messages %}{{ m.content }}{% endfor %}", conversation({{"assistant", "a"}})),
                HasSubstr("begins with the assistant"));
    EXPECT_THAT(reasonOf("{% if messages | length < 4 %}{{ raise_exception('too short') }}{% endif %}x", kTwoTurns),
                HasSubstr("up to message 1"));
    EXPECT_THAT(reasonOf("{{ raise_exception('never') }}", kTwoTurns), HasSubstr("line 1: never"));
    EXPECT_THAT(reasonOf("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", kTwoTurns),
                HasSubstr("writes no answer"));
}

TEST(ChatRows, PassToolsAndOtherFieldsToTheTemplate) {
    Json row = conversation({{"user", "q"}, {"assistant", "a"}});
    row["tools"] = "[{\"name\": \"f\"}]";
    row["chat_template_kwargs"] = {{"style", "short"}};
    const ChatTemplate chat(
        "{{ tools[0].name }}{{ style }}{{ documents is none }}{% for m in messages %}<{{ m.content }}>{% endfor %}", "t");
    const Example example = readExample(row, &chat);
    std::string text;
    for (const TextPart& part : example.parts) text += part.text;
    EXPECT_EQ(text, "fshortTrue<q><a>");
}

TEST(ChatRows, OfShareGptBecomeMessages) {
    const Json row{{"conversations",
                    {{{"from", "system"}, {"value", "s"}},
                     {{"from", "human"}, {"value", "q"}},
                     {{"from", "gpt"}, {"value", "a"}},
                     {{"role", "user"}, {"content", {{{"type", "text"}, {"text", "z"}}}}}}}};
    const Json messages = messagesOf(row);
    EXPECT_EQ(
        messages.dump(),
        R"([{"role":"system","content":"s"},{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"user","content":"z"}])");
    Json bad = row;
    bad["conversations"][1]["from"] = "alien";
    try {
        messagesOf(bad);
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.message(), HasSubstr("message 2: 'from' is 'alien'"));
    }
}

class ChatFile : public testing::Test {
protected:
    ChatFile() {
        writeFileAtomically(m_folder / "chat_template.jinja",
                            "{{ bos_token }}{% for m in messages %}[{{ m.role[0] }}]{{ m.content }};{% endfor %}{% if "
                            "add_generation_prompt %}[a]{% endif %}");
        writeFileAtomically(m_folder / "tokenizer_config.json", R"({"bos_token": "<b>"})");
    }
    Dataset load(const std::string& lines, RowLayout layout, int length) {
        writeFileAtomically(m_folder / "rows.jsonl", lines);
        DataOptions options;
        options.layout = layout;
        options.rowLength = length;
        options.chatTemplateFolder = m_folder.path();
        return loadDataset(m_folder / "rows.jsonl", &m_tokenizer, 258, options);
    }
    TempFolder m_folder;
    ByteTokenizer m_tokenizer;
};

std::string row(const std::string& question, const std::string& answer) {
    return conversation({{"user", question.c_str()}, {"assistant", answer.c_str()}}).dump() + "\n";
}

TEST_F(ChatFile, UsesTheTemplateOfTheCheckpointAndSaysSo) {
    const Dataset data = load(row("q", "yes") + "{\"text\": \"plain\"}\n", RowLayout::Padded, 64);
    ASSERT_EQ(data.rows.size(), 2u);
    EXPECT_EQ(m_tokenizer.decode(data.rows[0].ids), "<b>[u]q;[a]yes;");  // no further BOS or EOS
    std::vector<std::int64_t> targets;
    for (const std::int64_t target : data.rows[0].targets)
        if (target != kIgnoredTarget) targets.push_back(target);
    EXPECT_EQ(m_tokenizer.decode(targets), "yes;");
    EXPECT_EQ(data.rows[1].ids.back(), ByteTokenizer::kEos);
    EXPECT_THAT(data.description,
                HasSubstr("rows of messages: 1, texts: 1; messages by the chat template of chat_template.jinja"));
}

TEST_F(ChatFile, ABrokenTemplateIsAnErrorOfTheFileAndNotOfTheRow) {
    writeFileAtomically(m_folder / "chat_template.jinja", "{% for %}");
    EXPECT_EQ(load("{\"text\": \"plain\"}\n", RowLayout::Padded, 64).rows.size(), 1u);  // it is not needed here
    try {
        load(row("q", "a") + "{\"text\": \"plain\"}\n", RowLayout::Padded, 64);
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.subject(), HasSubstr("chat_template.jinja: line 1"));
    }
}

TEST_F(ChatFile, PackingSplitsNoConversation) {
    std::string lines;
    for (int i = 1; i < 30; ++i)
        lines += row(std::string(static_cast<std::size_t>(i * 5 % 17), 'q'),
                     std::string(static_cast<std::size_t>(1 + i * 7 % 23), 'a'));
    const Dataset separate = load(lines, RowLayout::Padded, 64), packed = load(lines, RowLayout::Packed, 64);
    ASSERT_LT(packed.rows.size(), separate.rows.size());
    std::size_t next = 0;
    for (const TokenRow& packedRow : packed.rows)
        for (std::size_t from = 0; from < packedRow.ids.size();) {
            std::size_t to = from;
            while (to < packedRow.ids.size() && packedRow.documents[to] == packedRow.documents[from]) ++to;
            const auto part = [&](const std::vector<std::int64_t>& values) {
                return std::vector<std::int64_t>(values.begin() + static_cast<std::ptrdiff_t>(from),
                                                 values.begin() + static_cast<std::ptrdiff_t>(to));
            };
            ASSERT_LT(next, separate.rows.size());
            EXPECT_EQ(part(packedRow.ids), separate.rows[next].ids);
            EXPECT_EQ(part(packedRow.targets), separate.rows[next].targets);
            ++next;
            from = to;
        }
    EXPECT_EQ(next, separate.rows.size());
}

}  // namespace
}  // namespace resect
