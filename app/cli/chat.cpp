#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/chat_template.h"
#include "core/protocol/json.h"

#include <fstream>
#include <iostream>

namespace resect::cli {

namespace {

struct ChatOptions : Common {
    std::string checkpoint, input, name = "default", templateFile;
    bool generationPrompt = false;
};

void requireMessages(const Json& row, const std::string& where) {
    if (!row.is_object()) throw Error(ErrorCode::BadInput, where, "expected a JSON object, found " + std::string(row.type_name()));
    const auto messages = row.find("messages");
    if (messages == row.end()) throw Error(ErrorCode::BadInput, where + ": messages", "is missing; expected an array of {\"role\", \"content\"}");
    if (!messages->is_array()) throw Error(ErrorCode::BadInput, where + ": messages", "expected an array of {\"role\", \"content\"}, found " + std::string(messages->type_name()));
    for (std::size_t i = 0; i < messages->size(); ++i) {
        const Json& message = (*messages)[i];
        const std::string field = where + ": messages[" + std::to_string(i) + "]";
        if (!message.is_object()) throw Error(ErrorCode::BadInput, field, "expected an object with 'role' and 'content', found " + std::string(message.type_name()));
        stringField(message, "role", field);
    }
}

void renderRows(const ChatTemplate& chat, std::istream& rows, const std::string& subject, bool generationPrompt) {
    std::string line;
    for (int number = 1; std::getline(rows, line); ++number) {
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        const std::string where = subject + ": line " + std::to_string(number);
        Json row = parseJson(line, where);
        requireMessages(row, where);
        if (generationPrompt) row["add_generation_prompt"] = true;
        try {
            std::cout << Json{{"text", chat.render(row).text}}.dump() << "\n";
        } catch (const Error& error) {
            throw Error(error.code(), where + ": " + error.subject(), error.message());
        }
    }
}

void runChat(ChatOptions& options) {
    std::unique_ptr<ChatTemplate> chat;
    if (!options.templateFile.empty())
        chat = std::make_unique<ChatTemplate>(readFile(options.templateFile), options.templateFile, specialTokenTexts(options.checkpoint));
    else if (!std::filesystem::is_directory(options.checkpoint))
        throw Error(ErrorCode::NotFound, options.checkpoint, "is no folder");
    else
        chat = ChatTemplate::find(options.checkpoint, options.name);
    if (!chat)
        throw Error(ErrorCode::NotFound, options.checkpoint, "has no chat template; expected chat_template.jinja, or chat_template in tokenizer_config.json");
    if (options.input.empty() || options.input == "-") return renderRows(*chat, std::cin, "standard input", options.generationPrompt);
    std::ifstream rows(options.input);
    if (!rows) throw Error(ErrorCode::NotFound, options.input, "cannot be read");
    renderRows(*chat, rows, options.input, options.generationPrompt);
}

}  // namespace

void addChat(CLI::App& app) {
    auto options = std::make_shared<ChatOptions>();
    CLI::App* command = app.add_subcommand("chat", "Rows {\"messages\", ...} in, rows {\"text\"} out: the chat template applied");
    command->add_option("CKPT", options->checkpoint, "Folder with a chat template")->required();
    command->add_option("--input", options->input, "JSON lines; besides messages, tools, documents and any other field go to the template (default: standard input)");
    command->add_option("--template", options->name, "Which one, where the checkpoint has several")->capture_default_str();
    command->add_option("--template-file", options->templateFile, "This template instead of the checkpoint's");
    command->add_flag("--add-generation-prompt", options->generationPrompt, "End with the beginning of the assistant's answer");
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}' | resect-cli chat MODEL --add-generation-prompt");
    command->callback([options] { runChat(*options); });
}

}  // namespace resect::cli
