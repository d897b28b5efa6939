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

constexpr const char* kInvalid = "[invalid]";

std::int64_t countCharacters(std::string_view text) {
    return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

ChoiceOption option(std::string context, std::string continuation, std::string text) {
    const std::int64_t space = continuation.starts_with(' ') ? 1 : 0;
    const std::int64_t characters = countCharacters(continuation) - space,
                       bytes = static_cast<std::int64_t>(continuation.size()) - space;
    return {std::move(context), std::move(continuation), std::move(text), characters, bytes};
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

std::string asked(const std::string& question, QuestionForm form) {
    if (form == QuestionForm::Bare) return question;
    return form == QuestionForm::QA ? "Q: " + question + "\nA:" : "Question: " + question + "\nAnswer:";
}

QuestionForm formFor(const std::string& fileName) {
    const auto names = [&](const char* part) { return fileName.find(part) != fileName.npos; };
    if (names("openbookqa")) return QuestionForm::Bare;
    return names("social-iqa") || names("social_iqa") || names("siqa") ? QuestionForm::QA : QuestionForm::Question;
}

ChoiceTask readChoices(const Json& row, QuestionForm form) {
    ChoiceTask task;
    const std::vector<std::string> choices = choicesOf(row);
    if (row.contains("sentence")) {
        task.options = blankOptions(textOf(row, "sentence"), choices);
    } else {
        const char* field = row.contains("question") ? "question" : row.contains("goal") ? "goal" : "context";
        const std::string text = textOf(row, field);
        const std::string context = field == std::string_view("context") ? text
                                    : field == std::string_view("goal")  ? asked(text, QuestionForm::Question)
                                                                         : asked(text, form);
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
    std::string question = textOf(row, "question");
    if (!question.ends_with('?')) question += '?';
    const std::string context =
        (row.contains("passage") ? textOf(row, "passage") + "\n" : "") + asked(question, QuestionForm::Question);
    ChoiceTask task;
    task.options = {option(context, " no", "no"), option(context, " yes", "yes")};
    task.answer = row["answer"].get<bool>() ? 1 : 0;
    return task;
}

/// The prompt and the stops of lm-evaluation-harness's gsm8k.
ExactTask readGsm8k(const Json& row, const std::string& id) {
    ExactTask task{id, asked(textOf(row, "question"), QuestionForm::Question), "", AnswerForm::Gsm8k};
    task.target = " " + textOf(row, "answer");
    task.answer = extractedAnswer(task.target, Extraction::Strict);
    if (task.answer == kInvalid) reject("'answer' has no number behind '#### '");
    task.stops = {"Question:", "</s>", "<|im_end|>"};
    task.maxNewTokens = 256;
    return task;
}

void readTask(const Json& row, const std::string& fallbackId, QuestionForm form, TaskFile& file) {
    if (!row.is_object()) reject("is no JSON object");
    const std::string id = row.contains("id") && row["id"].is_string() ? row["id"].get<std::string>() : fallbackId;
    if (row.contains("choices")) {
        file.choices.push_back(readChoices(row, form));
        file.choices.back().id = id;
    } else if (row.contains("question") && row.contains("answer") && row["answer"].is_boolean()) {
        file.choices.push_back(readYesNo(row));
        file.choices.back().id = id;
    } else if (row.contains("question") && row.contains("answer") && row["answer"].is_string()) {
        file.exact.push_back(readGsm8k(row, id));
    } else if (row.contains("prompt")) {
        const std::string prompt = textOf(row, "prompt"), answer = textOf(row, "answer");
        if (prompt.empty() || answer.empty()) reject("'prompt' or 'answer' is empty");
        file.exact.push_back({id, prompt, answer});
        file.exact.back().target = (answer.starts_with(' ') || prompt.ends_with(' ') ? "" : " ") + answer;
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
        add(std::to_string(task.maxNewTokens));
        for (const std::string& stop : task.stops) add(stop);
    }
    return "sha256:" + sha256Hex(all);
}

}  // namespace

namespace {

std::string readText(const std::filesystem::path& path) {
    std::string text = readFile(path);
    if (text.empty()) throw Error(ErrorCode::BadInput, path.string(), "is empty");
    if (const auto bad = findInvalidUtf8(text))
        throw Error(ErrorCode::BadInput, path.string(), "is not UTF-8 at byte " + std::to_string(*bad));
    return text;
}

std::vector<std::string> linesOf(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t from = 0; from < text.size();) {
        const std::size_t end = std::min(text.find('\n', from), text.size());
        lines.push_back(text.substr(from, end - from));
        if (lines.back().ends_with('\r')) lines.back().pop_back();
        from = end + 1;
    }
    return lines;
}

bool isFull(const TaskFile& file, std::int64_t maxTasks) {
    return maxTasks > 0 && static_cast<std::int64_t>(file.choices.size() + file.exact.size()) >= maxTasks;
}

void readRows(const std::vector<std::string>& lines, const std::string& subject, QuestionForm form, std::int64_t maxTasks,
              TaskFile& file) {
    for (std::size_t i = 0; i < lines.size() && !isFull(file, maxTasks); ++i) {
        if (lines[i].find_first_not_of(" \t") == std::string::npos) continue;
        const std::string where = "line " + std::to_string(i + 1);
        try {
            readTask(parseJson(lines[i], subject + ": " + where), file.name + "-" + std::to_string(i), form, file);
        } catch (const Error& error) {
            if (error.code() != ErrorCode::BadInput) throw;
            file.problems.push_back({Severity::Warning, where, error.message(), ""});
        }
    }
}

/// Context, index of the right ending, four endings.
void readSixLines(const std::vector<std::string>& lines, const std::string& subject, std::int64_t maxTasks, TaskFile& file) {
    constexpr std::size_t kLines = 6;
    if (lines.size() % kLines != 0)
        throw Error(ErrorCode::BadInput, subject,
                    "expected six lines for each task, found " + std::to_string(lines.size()) + " lines");
    for (std::size_t at = 0; at < lines.size() && !isFull(file, maxTasks); at += kLines) {
        ChoiceTask task;
        task.id = file.name + "-" + std::to_string(at / kLines);
        const std::string& index = lines[at + 1];
        if (index.size() != 1 || index[0] < '0' || index[0] > '3')
            throw Error(ErrorCode::BadInput, subject + ": line " + std::to_string(at + 2),
                        "expected the index of the right ending, 0 to 3, found '" + index + "'");
        task.answer = index[0] - '0';
        for (std::size_t i = 2; i < kLines; ++i) task.options.push_back(option(lines[at], " " + lines[at + i], lines[at + i]));
        file.choices.push_back(std::move(task));
    }
}

TaskFile readTaskFile(const std::filesystem::path& path, QuestionForm form, std::int64_t maxTasks) {
    TaskFile file;
    file.name = path.stem().string();
    const auto lines = linesOf(readText(path));
    if (path.extension() == ".txt")
        readSixLines(lines, path.string(), maxTasks, file);
    else
        readRows(lines, path.string(), form == QuestionForm::Auto ? formFor(file.name) : form, maxTasks, file);
    if (file.choices.empty() && file.exact.empty()) {
        const std::string why =
            file.problems.empty() ? "" : "; " + file.problems.front().subject + " " + file.problems.front().message;
        throw Error(ErrorCode::BadInput, path.string(), "holds no usable task" + why);
    }
    return file;
}

struct Shot {
    std::string id, text;
};

/// Puts the first solved examples that are not the task itself in front of every context.
void addShots(TaskFile& file, const TaskFile& source, int count, const std::string& subject) {
    std::vector<Shot> shots;
    for (const ChoiceTask& task : source.choices) {
        const ChoiceOption& right = task.options[static_cast<std::size_t>(task.answer)];
        shots.push_back({task.id, right.context + right.continuation});
    }
    for (const ExactTask& task : source.exact) shots.push_back({task.id, task.prompt + task.target});
    const bool same = &file == &source || file.name == source.name;
    if (shots.size() < static_cast<std::size_t>(count) + (same ? 1 : 0))
        throw Error(ErrorCode::Usage, subject,
                    "holds " + std::to_string(shots.size()) + " tasks, too few for " + std::to_string(count) + " examples");
    const auto before = [&](const std::string& id) {
        std::string out;
        int taken = 0;
        for (const Shot& shot : shots) {
            if (taken == count) break;
            if (same && shot.id == id) continue;
            out += shot.text + "\n\n";
            ++taken;
        }
        return out;
    };
    for (ChoiceTask& task : file.choices) {
        const std::string examples = before(task.id);
        for (ChoiceOption& option : task.options) option.context = examples + option.context;
    }
    for (ExactTask& task : file.exact) task.prompt = before(task.id) + task.prompt;
}

}  // namespace

TaskFile loadTasks(const std::filesystem::path& path, const TaskOptions& options) {
    TaskFile file = readTaskFile(path, options.form, options.maxTasks);
    if (options.shots > 0) {
        const auto& from = options.shotsFile.empty() ? path : options.shotsFile;
        const TaskFile source =
            readTaskFile(from, options.form == QuestionForm::Auto ? formFor(file.name) : options.form, options.shots + 1);
        addShots(file, source, options.shots, from.string());
    }
    file.fingerprint = fingerprintOf(file);
    return file;
}

TaskFile loadTasks(const std::filesystem::path& path, std::int64_t maxTasks) {
    TaskOptions options;
    options.maxTasks = maxTasks;
    return loadTasks(path, options);
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

std::string extractedAnswer(std::string_view generated, Extraction extraction) {
    const auto isDigit = [](char c) { return c >= '0' && c <= '9'; };
    const auto isOneOf = [](char c, std::string_view set) { return set.find(c) != set.npos; };
    if (extraction == Extraction::Strict) {  // #### (\-?[0-9\.\,]+)
        for (auto at = generated.find("#### "); at != generated.npos; at = generated.find("#### ", at + 1)) {
            const std::size_t begin = at + 5;
            std::size_t end = begin + (begin < generated.size() && generated[begin] == '-' ? 1 : 0);
            const std::size_t digits = end;
            while (end < generated.size() && (isDigit(generated[end]) || isOneOf(generated[end], ".,"))) ++end;
            if (end > digits) return std::string(generated.substr(begin, end - begin));
        }
        return kInvalid;
    }
    std::string last = kInvalid;  // (-?[$0-9.,]{2,})|(-?[0-9]+)
    for (std::size_t at = 0; at < generated.size();) {
        const std::size_t sign = generated[at] == '-' ? 1 : 0;
        std::size_t end = at + sign;
        while (end < generated.size() && (isDigit(generated[end]) || isOneOf(generated[end], "$.,"))) ++end;
        if (end - at - sign < 2) {
            end = at + sign;
            while (end < generated.size() && isDigit(generated[end])) ++end;
        }
        if (end > at + sign) {
            last = generated.substr(at, end - at);
            at = end;
        } else {
            ++at;
        }
    }
    return last;
}

bool isSameAnswer(std::string_view found, std::string_view target) {
    const auto plain = [](std::string_view text) {
        std::string out;
        for (const char c : text)
            if (c != ',' && c != '$') out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
        if (const auto mark = out.rfind("#### "); mark != out.npos) out.erase(0, mark + 5);
        if (out.ends_with('.')) out.pop_back();
        return out;
    };
    return plain(found) == plain(target);
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
