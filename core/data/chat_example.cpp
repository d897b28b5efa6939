#include "core/data/chat_example.h"

#include "core/base/error.h"
#include "core/data/jinja_lexer.h"

#include <algorithm>
#include <map>

namespace resect {
namespace {

[[noreturn]] void reject(const std::string& reason) { throw Error(ErrorCode::BadInput, "row", reason); }

std::string position(std::size_t index) { return "message " + std::to_string(index + 1); }

const std::string& textField(const Json& object, const char* field, const std::string& where) {
    const auto found = object.find(field);
    if (found == object.end()) reject(where + " lacks '" + field + "'");
    if (!found->is_string()) reject(where + ": '" + field + "' is no text");
    return found->get_ref<const std::string&>();
}

/// A content is a text, or a list of {"type": "text", "text": ...}, or null beside tool calls.
Json contentOf(const Json& message, const std::string& where) {
    const auto content = message.find("content");
    const bool calls = message.contains("tool_calls") && message["tool_calls"].is_array() && !message["tool_calls"].empty();
    if (content == message.end()) {
        if (calls) return nullptr;
        reject(where + " lacks 'content'");
    }
    if (content->is_string() || (content->is_null() && calls)) return *content;
    if (!content->is_array()) reject(where + ": 'content' is no text");
    std::string out;
    for (const Json& part : *content) {
        if (!part.is_object() || part.value("type", Json()) != "text") reject(where + " holds something else than text");
        out += textField(part, "text", where);
    }
    return out;
}

Json fromShareGpt(const Json& turn, const std::string& where) {
    static const std::map<std::string, std::string, std::less<>> kRoles = {{"human", "user"},
                                                                           {"user", "user"},
                                                                           {"gpt", "assistant"},
                                                                           {"assistant", "assistant"},
                                                                           {"chatgpt", "assistant"},
                                                                           {"bing", "assistant"},
                                                                           {"bard", "assistant"},
                                                                           {"model", "assistant"},
                                                                           {"function_call", "assistant"},
                                                                           {"system", "system"},
                                                                           {"tool", "tool"},
                                                                           {"observation", "tool"},
                                                                           {"function_response", "tool"}};
    const std::string& from = textField(turn, "from", where);
    const auto role = kRoles.find(from);
    if (role == kRoles.end()) reject(where + ": 'from' is '" + from + "', expected human, gpt, system or tool");
    return Json{{"role", role->second}, {"content", textField(turn, "value", where)}};
}

/// Renders the first `count` messages.
std::string rendered(const ChatTemplate& chat, Json fields, const Json& messages, std::size_t count, bool generationPrompt) {
    fields["messages"] = Json(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(count));
    fields["add_generation_prompt"] = generationPrompt;
    try {
        return chat.render(fields).text;
    } catch (const Error& error) {
        if (error.code() != ErrorCode::BadInput) throw;
        reject("the chat template marks no {% generation %} and cannot be rendered up to " + position(count - 1) +
               " to find the answers: " + error.subject() + ": " + error.message());
    }
}

/// Where the answer of message `index` begins in the whole text.
std::size_t answerBegin(const ChatTemplate& chat, const Json& fields, const Json& messages, std::size_t index,
                        const std::string& whole) {
    if (index == 0)
        reject("the conversation begins with the assistant, so that the chat template cannot show where its answer begins");
    const std::string before = rendered(chat, fields, messages, index, true);
    if (whole.starts_with(before)) return before.size();
    // The generation prompt may hold more than the template writes before a given answer ("<think>").
    const std::string bare = rendered(chat, fields, messages, index, false);
    const Json& content = messages[index]["content"];
    if (content.is_string() && whole.starts_with(bare) && before.starts_with(bare)) {
        const std::string_view said = jinja::trimLeft(jinja::trimRight(content.get_ref<const std::string&>()));
        const auto begin = said.empty() ? whole.npos : whole.find(said, bare.size());
        if (begin != whole.npos && std::string_view(before)
                                       .substr(bare.size())
                                       .starts_with(std::string_view(whole).substr(bare.size(), begin - bare.size())))
            return begin;
    }
    reject("the chat template marks no {% generation %}, and its text before " + position(index) +
           " changes with what follows, so that the answer cannot be told apart; add {% generation %} to the template");
}

/// Where it ends, white space behind it left out.
std::size_t answerEnd(const ChatTemplate& chat, const Json& fields, const Json& messages, std::size_t index,
                      const std::string& whole, std::size_t begin) {
    std::size_t end = whole.size();
    if (index + 1 < messages.size()) {
        const std::string upTo = rendered(chat, fields, messages, index + 1, false);
        if (whole.starts_with(upTo)) {
            end = upTo.size();
        } else {
            // Some templates close the whole conversation with a special token.
            const std::string* closing = nullptr;
            for (const auto& [name, token] : chat.specialTokens().items()) {
                const auto& text = token.get_ref<const std::string&>();
                if (!text.empty() && upTo.ends_with(text) &&
                    whole.starts_with(std::string_view(upTo).substr(0, upTo.size() - text.size())))
                    closing = &text;
            }
            if (!closing)
                reject("the chat template marks no {% generation %}, and its text of " + position(index) +
                       " changes with what follows, so that the answer cannot be told apart; add {% generation %} to the "
                       "template");
            end = upTo.size() - closing->size();
        }
    }
    if (end < begin) reject("the chat template leaves out " + position(index));
    return begin + jinja::trimRight(std::string_view(whole).substr(begin, end - begin)).size();
}

}  // namespace

Json messagesOf(const Json& row) {
    const bool shareGpt = !row.contains("messages");
    const char* field = shareGpt ? "conversations" : "messages";
    const Json& list = row[field];
    if (!list.is_array() || list.empty()) reject(std::string("'") + field + "' is no filled array");
    Json messages = Json::array();
    bool answered = false;
    for (const Json& message : list) {
        const std::string where = position(messages.size());
        if (!message.is_object()) reject(where + " is no object");
        if (shareGpt && message.contains("from")) {
            messages.push_back(fromShareGpt(message, where));
        } else {
            if (textField(message, "role", where).empty()) reject(where + ": 'role' is empty");
            messages.push_back(message);
            messages.back()["content"] = contentOf(message, where);
        }
        answered = answered || messages.back()["role"] == "assistant";
    }
    if (!answered) reject(std::string("'") + field + "' holds nothing said by the assistant");
    return messages;
}

Example templatedChat(const Json& row, const Json& messages, const ChatTemplate& chat) {
    Json fields = Json::object();
    for (const char* name : {"tools", "documents"})
        if (row.contains(name))
            fields[name] = row[name].is_string() ? parseJson(row[name].get_ref<const std::string&>(), name) : row[name];
    if (const auto more = row.find("chat_template_kwargs"); more != row.end() && more->is_object()) fields.update(*more);
    fields["messages"] = messages;
    fields["add_generation_prompt"] = false;
    RenderedChat whole = [&] {
        try {
            return chat.render(fields);
        } catch (const Error& error) {
            if (error.code() != ErrorCode::BadInput) throw;
            reject("the chat template refuses it: " + error.subject() + ": " + error.message());
        }
    }();
    if (!chat.marksGeneration()) {
        for (std::size_t i = 0; i < messages.size(); ++i) {
            if (messages[i]["role"] != "assistant") continue;
            const std::size_t begin = answerBegin(chat, fields, messages, i, whole.text);
            whole.generated.push_back({begin, answerEnd(chat, fields, messages, i, whole.text, begin)});
        }
    }
    Example example;
    example.instruction = example.complete = true;
    std::size_t from = 0;
    for (const ByteRange& answer : whole.generated) {
        if (answer.begin < from || answer.end <= answer.begin) continue;  // an empty answer, or a block inside a block
        if (answer.begin > from) example.parts.push_back({whole.text.substr(from, answer.begin - from), false});
        example.parts.push_back({whole.text.substr(answer.begin, answer.end - answer.begin), true});
        from = answer.end;
    }
    if (from == 0) reject("the chat template writes no answer of the assistant");
    if (from < whole.text.size()) example.parts.push_back({whole.text.substr(from), false});
    return example;
}

Example plainChat(const Json& messages) {
    Example example;
    example.instruction = true;
    for (const Json& message : messages) {
        const std::string& role = message["role"].get_ref<const std::string&>();
        if (!message["content"].is_string()) reject("a message without 'content' needs a chat template");
        example.parts.push_back({(example.parts.empty() ? "" : "\n\n") + role + ":", false});
        example.parts.push_back({" " + message["content"].get<std::string>(), role == "assistant"});
    }
    return example;
}

}  // namespace resect
