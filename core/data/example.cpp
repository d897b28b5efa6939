#include "core/data/example.h"

#include "core/base/error.h"
#include "core/data/dataset.h"

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

/// A content is a text or a list of {"type": "text", "text": ...}.
std::string contentOf(const Json& message) {
    const auto content = message.find("content");
    if (content == message.end()) reject("a message lacks 'content'");
    if (content->is_string()) return content->get<std::string>();
    if (!content->is_array()) reject("a message's 'content' is no text");
    std::string out;
    for (const Json& part : *content) {
        if (!part.is_object() || part.value("type", Json()) != "text") reject("a message holds something else than text");
        out += textField(part, "text");
    }
    return out;
}

Example readMessages(const Json& row) {
    const Json& messages = row["messages"];
    if (!messages.is_array() || messages.empty()) reject("'messages' is no filled array");
    Example example;
    example.instruction = true;
    bool answered = false;
    for (const Json& message : messages) {
        if (!message.is_object()) reject("a message is no object");
        const std::string& role = filledField(message, "role");
        const bool answer = role == "assistant";
        example.parts.push_back({(example.parts.empty() ? "" : "\n\n") + role + ":", false});
        example.parts.push_back({" " + contentOf(message), answer});
        answered = answered || answer;
    }
    if (!answered) reject("'messages' holds nothing said by the assistant");
    return example;
}

std::string joinedBySpace(const std::string& prompt, const std::string& answer) {
    const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
    return (!prompt.empty() && space(prompt.back())) || space(answer.front()) ? answer : " " + answer;
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

Example readExample(const Json& row) {
    if (!row.is_object()) reject("is no JSON object");
    const auto has = [&](const char* field) { return row.contains(field); };
    if (has("input_ids")) return readTokenised(row);
    if (has("text")) {
        Example example;
        example.parts = {{filledField(row, "text"), true}};
        return example;
    }
    if (has("messages")) return readMessages(row);
    if (has("instruction")) {
        const std::string input = has("input") && !row["input"].is_null() ? textField(row, "input") : "";
        return promptAndAnswer(alpacaPrompt(filledField(row, "instruction"), input), filledField(row, "output"));
    }
    if (has("question"))
        return promptAndAnswer("Question: " + filledField(row, "question") + "\nAnswer:", " " + filledField(row, "answer"));
    if (has("prompt")) {
        const std::string& prompt = filledField(row, "prompt");
        const std::string& answer = filledField(row, has("completion") ? "completion"
                                                     : has("response") ? "response"
                                                                       : "answer");
        return promptAndAnswer(prompt, joinedBySpace(prompt, answer));
    }
    reject("has none of text, input_ids, messages, instruction, question, prompt");
}

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
        std::vector<std::int64_t> ids = tokenizer->encode(text);
        if (eos && ids.size() > 1 && ids.back() == *eos) ids.pop_back();
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
        for (; from < end; ++from) {
            example.ids.push_back(previous[from]);
            example.loss.push_back(counts);
        }
        const bool last = i + 1 == example.parts.size();
        if (eos && (last || (example.parts[i].answer && example.instruction))) {
            example.ids.push_back(*eos);
            example.loss.push_back(counts);
        }
    }
    if (!example.loss.empty()) example.loss.front() = false;  // nothing stands before it
}

}  // namespace resect
