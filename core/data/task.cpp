#include "core/data/task.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/data/unicode.h"
#include "core/protocol/json.h"

#include <algorithm>

namespace resect {
namespace {

[[noreturn]] void reject(const std::string& reason) { throw Error(ErrorCode::BadInput, "row", reason); }

std::string textOf(const Json& row, const char* field) {
    const auto found = row.find(field);
    if (found == row.end() || !found->is_string()) reject(std::string("'") + field + "' is missing or no text");
    return found->get<std::string>();
}

std::int64_t countCharacters(std::string_view text) {
    return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

ChoiceOption option(std::string context, std::string continuation, std::string text) {
    const std::int64_t characters = countCharacters(continuation) - (continuation.starts_with(' ') ? 1 : 0);
    return {std::move(context), std::move(continuation), std::move(text), characters};
}

std::vector<std::string> choicesOf(const Json& row) {
    std::vector<std::string> choices;
    if (!row["choices"].is_array()) reject("'choices' is no array");
    for (const Json& choice : row["choices"]) {
        if (!choice.is_string() || choice.get_ref<const std::string&>().empty()) reject("a choice is no text");
        choices.push_back(choice.get<std::string>());
    }
    if (choices.size() < 2) reject("has fewer than two choices");
    return choices;
}

std::vector<ChoiceOption> blankOptions(const std::string& sentence, const std::vector<std::string>& choices) {
    const auto blank = sentence.find('_');
    if (blank == sentence.npos || sentence.find('_', blank + 1) != sentence.npos)
        reject("'sentence' has not exactly one blank '_'");
    const std::string rest = sentence.substr(blank + 1);
    const auto word = rest.find_first_not_of(' ');
    if (word == rest.npos) reject("'sentence' ends with its blank, so that nothing is left to score");
    std::vector<ChoiceOption> options;
    for (const std::string& choice : choices)
        options.push_back(option(sentence.substr(0, blank) + choice, " " + rest.substr(word), choice));
    return options;
}

ChoiceTask readChoices(const Json& row) {
    ChoiceTask task;
    const std::vector<std::string> choices = choicesOf(row);
    if (row.contains("sentence")) {
        task.options = blankOptions(textOf(row, "sentence"), choices);
    } else {
        const char* field = row.contains("question") ? "question" : row.contains("goal") ? "goal" : "context";
        const std::string text = textOf(row, field);
        const std::string context = field == std::string_view("context") ? text : "Question: " + text + "\nAnswer:";
        for (const std::string& choice : choices) task.options.push_back(option(context, " " + choice, choice));
    }
    const auto answer = row.find("answer");
    if (answer == row.end() || !answer->is_number_integer()) reject("'answer' is missing or no index");
    const auto index = answer->get<std::int64_t>();
    if (index < 0 || index >= static_cast<std::int64_t>(choices.size()))
        reject("'answer' is " + std::to_string(index) + ", but there are " + std::to_string(choices.size()) + " choices");
    task.answer = static_cast<int>(index);
    return task;
}

ChoiceTask readYesNo(const Json& row) {
    const std::string context = "Question: " + textOf(row, "question") + "\nAnswer:";
    ChoiceTask task;
    task.options = {option(context, " no", "no"), option(context, " yes", "yes")};
    task.answer = row["answer"].get<bool>() ? 1 : 0;
    return task;
}

void readTask(const Json& row, const std::string& fallbackId, TaskFile& file) {
    if (!row.is_object()) reject("is no JSON object");
    const std::string id = row.contains("id") && row["id"].is_string() ? row["id"].get<std::string>() : fallbackId;
    if (row.contains("choices")) {
        file.choices.push_back(readChoices(row));
        file.choices.back().id = id;
    } else if (row.contains("question") && row.contains("answer") && row["answer"].is_boolean()) {
        file.choices.push_back(readYesNo(row));
        file.choices.back().id = id;
    } else if (row.contains("prompt")) {
        const std::string prompt = textOf(row, "prompt"), answer = textOf(row, "answer");
        if (prompt.empty() || answer.empty()) reject("'prompt' or 'answer' is empty");
        file.exact.push_back({id, prompt, answer});
    } else {
        reject("has neither choices nor a prompt with an answer");
    }
}

std::string fingerprintOf(const TaskFile& file) {
    std::string all;
    const auto add = [&](const std::string& text) { all += std::to_string(text.size()) + ':' + text; };
    for (const ChoiceTask& task : file.choices) {
        for (const ChoiceOption& option : task.options) {
            add(option.context);
            add(option.continuation);
        }
        add(std::to_string(task.answer));
    }
    for (const ExactTask& task : file.exact) {
        add(task.prompt);
        add(task.answer);
    }
    return "sha256:" + sha256Hex(all);
}

}  // namespace

TaskFile loadTasks(const std::filesystem::path& path, std::int64_t maxTasks) {
    const std::string text = readFile(path);
    if (text.empty()) throw Error(ErrorCode::BadInput, path.string(), "is empty");
    if (const auto bad = findInvalidUtf8(text))
        throw Error(ErrorCode::BadInput, path.string(), "is not UTF-8 at byte " + std::to_string(*bad));
    TaskFile file;
    file.name = path.stem().string();
    std::int64_t number = 0;
    for (std::size_t from = 0; from < text.size();) {
        const std::size_t end = std::min(text.find('\n', from), text.size());
        const std::string line = text.substr(from, end - from);
        from = end + 1;
        ++number;
        if (line.find_first_not_of(" \t\r") == line.npos) continue;
        if (maxTasks > 0 && static_cast<std::int64_t>(file.choices.size() + file.exact.size()) >= maxTasks) break;
        const std::string where = "line " + std::to_string(number);
        try {
            readTask(parseJson(line, path.string() + ": " + where), file.name + "-" + std::to_string(number - 1), file);
        } catch (const Error& error) {
            if (error.code() != ErrorCode::BadInput) throw;
            file.problems.push_back({Severity::Warning, where, error.message(), ""});
        }
    }
    if (file.choices.empty() && file.exact.empty()) {
        const std::string why =
            file.problems.empty() ? "" : "; " + file.problems.front().subject + " " + file.problems.front().message;
        throw Error(ErrorCode::BadInput, path.string(), "holds no usable task" + why);
    }
    file.fingerprint = fingerprintOf(file);
    return file;
}

bool isExactAnswer(std::string_view generated, std::string_view answer) {
    const auto trimmed = [](std::string_view text) {
        return text.substr(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    };
    generated = trimmed(generated);
    answer = trimmed(answer);
    if (answer.empty() || !generated.starts_with(answer)) return false;
    const std::string rest = replaceInvalidUtf8(generated.substr(answer.size()));  // generation may stop inside a character
    std::size_t pos = 0;
    return rest.empty() || !isWordCharacter(nextCodePoint(rest, pos));
}

ScoredTokens scoredTokens(const Tokenizer& tokenizer, const std::string& context, const std::string& continuation,
                          ContextStart start, std::int64_t maxTokens) {
    const std::size_t kept = context.find_last_not_of(" \t\n\r") == context.npos ? 0 : context.find_last_not_of(" \t\n\r") + 1;
    const std::string head = context.substr(0, kept), tail = context.substr(kept) + continuation;
    ScoredTokens scored;
    scored.ids = tokenizer.encode(head + tail, SpecialTokens::Omit);
    scored.contextTokens = head.empty() ? 0 : tokenizer.encode(head, SpecialTokens::Omit).size();
    if (scored.ids.size() <= scored.contextTokens)
        throw Error(ErrorCode::BadInput, "'" + continuation + "'", "adds no token to its context");
    const auto first = tokenizer.bosId() ? tokenizer.bosId() : tokenizer.eosId();
    const bool needed = scored.contextTokens == 0;
    if (needed && !first)
        throw Error(ErrorCode::BadInput, "'" + continuation + "'",
                    "has no context, and the tokenizer has neither BOS nor EOS to put in front");
    if (needed || (start == ContextStart::Bos && tokenizer.bosId())) {
        scored.ids.insert(scored.ids.begin(), *first);
        ++scored.contextTokens;
    }
    const auto limit = static_cast<std::size_t>(maxTokens) + 1;
    if (maxTokens > 0 && scored.ids.size() > limit) {
        const std::size_t dropped = scored.ids.size() - limit;
        scored.ids.erase(scored.ids.begin(), scored.ids.begin() + static_cast<std::ptrdiff_t>(dropped));
        scored.contextTokens = std::max<std::size_t>(scored.contextTokens - std::min(dropped, scored.contextTokens), 1);
    }
    return scored;
}

}  // namespace resect
