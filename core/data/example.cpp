#include "core/data/example.h"

#include "core/base/error.h"
#include "core/data/chat_example.h"
#include "core/data/dataset.h"
#include "core/data/jinja_lexer.h"

#include <algorithm>
#include <cctype>

namespace resect {
namespace {

[[noreturn]] void reject(const std::string& reason) { throw Error(ErrorCode::BadInput, "row", reason); }

const std::string& textField(const Json& row, const char* field) {
    const auto found = row.find(field);
    if (found == row.end()) reject(std::string("'") + field + "' is missing");
    if (!found->is_string()) reject(std::string("'") + field + "' is no text");
    return found->get_ref<const std::string&>();
}

const std::string& filledField(const Json& row, const char* field) {
    const std::string& text = textField(row, field);
    if (text.empty()) reject(std::string("'") + field + "' is empty");
    return text;
}

Example promptAndAnswer(std::string prompt, std::string answer) {
    Example example;
    example.parts = {{std::move(prompt), false}, {std::move(answer), true}};
    example.instruction = true;
    return example;
}

Example readTokenised(const Json& row) {
    Example example;
    const Json& ids = row["input_ids"];
    if (!ids.is_array() || ids.empty()) reject("'input_ids' is no filled array");
    for (const Json& id : ids) {
        if (!id.is_number_integer()) reject("'input_ids' holds something else than integers");
        example.ids.push_back(id.get<std::int64_t>());
    }
    example.loss.assign(example.ids.size(), true);
    const auto labels = row.find("labels");
    if (labels == row.end() || labels->is_null()) return example;
    if (!labels->is_array() || labels->size() != example.ids.size()) reject("'labels' is no array as long as 'input_ids'");
    for (std::size_t i = 0; i < example.ids.size(); ++i) {
        const Json& label = (*labels)[i];
        if (!label.is_number_integer() || (label != kIgnoredTarget && label != example.ids[i]))
            reject("'labels' holds neither -100 nor the id at position " + std::to_string(i));
        example.loss[i] = label != kIgnoredTarget;
    }
    example.instruction = true;
    return example;
}

std::string joinedBySpace(const std::string& prompt, const std::string& answer) {
    const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
    return (!prompt.empty() && space(prompt.back())) || space(answer.front()) ? answer : " " + answer;
}

Example readAlpaca(const Json& row) {
    const std::string input = row.contains("input") && !row["input"].is_null() ? textField(row, "input") : "";
    return promptAndAnswer(alpacaPrompt(filledField(row, "instruction"), input), filledField(row, "output"));
}

Example readQuestion(const Json& row) {
    return promptAndAnswer("Question: " + filledField(row, "question") + "\nAnswer:", " " + filledField(row, "answer"));
}

template <int field>
Example readPrompt(const Json& row) {
    static constexpr const char* kAnswers[] = {"completion", "response", "answer"};
    const std::string& prompt = filledField(row, "prompt");
    return promptAndAnswer(prompt, joinedBySpace(prompt, filledField(row, kAnswers[field])));
}

Example readText(const Json& row) {
    Example example;
    example.parts = {{filledField(row, "text"), true}};
    return example;
}

struct RowFormat {
    const char* name;
    std::vector<const char*> fields;  ///< all are needed
    Example (*read)(const Json&);     ///< null for messages, which a chat template renders
};

/// A row that fits several takes the first: data sets often carry a plain `text` beside what it was made from.
const std::vector<RowFormat>& formats() {
    static const std::vector<RowFormat> all = {{"tokenised rows", {"input_ids"}, readTokenised},
                                               {"rows of messages", {"messages"}, nullptr},
                                               {"ShareGPT conversations", {"conversations"}, nullptr},
                                               {"Alpaca rows", {"instruction", "output"}, readAlpaca},
                                               {"questions with answers", {"question", "answer"}, readQuestion},
                                               {"prompts with completions", {"prompt", "completion"}, readPrompt<0>},
                                               {"prompts with responses", {"prompt", "response"}, readPrompt<1>},
                                               {"prompts with answers", {"prompt", "answer"}, readPrompt<2>},
                                               {"texts", {"text"}, readText}};
    return all;
}

/// The first format whose fields are all there, else the first that has one of them (reading it says what is missing).
const RowFormat* findFormat(const Json& row) {
    const auto has = [&](const char* field) { return row.contains(field); };
    for (const RowFormat& format : formats())
        if (std::all_of(format.fields.begin(), format.fields.end(), has)) return &format;
    for (const RowFormat& format : formats())
        if (std::any_of(format.fields.begin(), format.fields.end(), has)) return &format;
    return nullptr;
}

}  // namespace

std::string alpacaPrompt(std::string_view instruction, std::string_view input) {
    std::string out = "Below is an instruction that describes a task";
    out += input.empty() ? ". " : ", paired with an input that provides further context. ";
    out += "Write a response that appropriately completes the request.\n\n### Instruction:\n";
    out += instruction;
    if (!input.empty()) (out += "\n\n### Input:\n") += input;
    return out += "\n\n### Response:\n";
}

std::string expectedFormats() {
    std::string out;
    for (const RowFormat& format : formats()) {
        out += out.empty() ? "" : "; ";
        for (std::size_t i = 0; i < format.fields.size(); ++i) out += (i > 0 ? " with " : "") + std::string(format.fields[i]);
    }
    return out;
}

bool holdsMessages(const Json& row) {
    const RowFormat* format = row.is_object() ? findFormat(row) : nullptr;
    return format && format->read == nullptr;
}

Example readExample(const Json& row, const ChatTemplate* chat) {
    if (!row.is_object()) reject("is no JSON object");
    const RowFormat* format = findFormat(row);
    if (!format) reject("has none of the fields that are understood: " + expectedFormats());
    Example example;
    if (format->read) {
        example = format->read(row);
    } else {
        const Json messages = messagesOf(row);
        example = chat ? templatedChat(row, messages, *chat) : plainChat(messages);
    }
    example.format = format->name;
    return example;
}

namespace {

/// The tokens of an answer must spell it. White space at its edges may belong to a neighbour's token, and a tokenizer's
/// normalisation counts on both sides.
void requireSpelling(std::span<const std::int64_t> ids, const std::string& answer, const Tokenizer& tokenizer) {
    const auto trimmed = [](const std::string& text) { return std::string(jinja::trimLeft(jinja::trimRight(text))); };
    const std::string found = trimmed(tokenizer.decode(ids)),
                      expected = trimmed(tokenizer.decode(tokenizer.encode(answer, SpecialTokens::Omit)));
    if (found == expected) return;
    constexpr std::size_t kShown = 60;
    reject("the tokens of an answer spell '" + found.substr(0, wholeCharacters(found.substr(0, kShown))) + "', not '" +
           expected.substr(0, wholeCharacters(expected.substr(0, kShown))) +
           "': the tokenizer joins the answer with what stands around it");
}

}  // namespace

void tokenizeExample(Example& example, const Tokenizer* tokenizer, bool answersOnly) {
    if (example.parts.empty()) {
        if (!answersOnly) example.loss.assign(example.ids.size(), true);
        return;
    }
    if (!tokenizer) reject("is text, but the checkpoint has no tokenizer");
    const auto eos = tokenizer->eosId();
    // Tokens of each part are found by encoding ever longer beginnings: a token belongs to the first part that fixes it.
    std::string text;
    std::vector<std::int64_t> previous;
    std::vector<std::size_t> ends;
    for (const TextPart& part : example.parts) {
        text += part.text;
        std::vector<std::int64_t> ids = tokenizer->encode(text, example.complete ? SpecialTokens::Omit : SpecialTokens::Add);
        if (!example.complete && eos && ids.size() > 1 && ids.back() == *eos) ids.pop_back();
        const std::size_t shared = static_cast<std::size_t>(
            std::mismatch(previous.begin(), previous.end(), ids.begin(), ids.end()).first - previous.begin());
        if (!ends.empty()) ends.back() = shared;
        ends.push_back(ids.size());
        previous = std::move(ids);
    }
    std::size_t from = 0;
    for (std::size_t i = 0; i < example.parts.size(); ++i) {
        const bool counts = example.parts[i].answer || !answersOnly;
        const std::size_t end = std::max(ends[i], from);
        if (example.complete && example.parts[i].answer)
            requireSpelling(std::span(previous).subspan(from, end - from), example.parts[i].text, *tokenizer);
        for (; from < end; ++from) {
            example.ids.push_back(previous[from]);
            example.loss.push_back(counts);
        }
        const bool last = i + 1 == example.parts.size();
        if (eos && !example.complete && (last || (example.parts[i].answer && example.instruction))) {
            example.ids.push_back(*eos);
            example.loss.push_back(counts);
        }
    }
    if (!example.loss.empty()) example.loss.front() = false;  // nothing stands before it
}

}  // namespace resect
