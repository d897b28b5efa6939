#pragma once
#include "core/base/problem.h"
#include "core/data/tokenizer.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// One way to go on, scored by the log-probability of `continuation` after `context`.
struct ChoiceOption {
    std::string context;
    std::string continuation;  ///< with the space in front
    std::string text;          ///< the choice itself, for people
    /// acc_norm divides the log-probability by this: characters (code points) of the continuation without its leading space.
    std::int64_t characters = 0;
    std::int64_t bytes = 0;  ///< the same in bytes of UTF-8, for acc_bytes
};

/// A question with one right choice.
struct ChoiceTask {
    std::string id;
    std::vector<ChoiceOption> options;
    int answer = 0;  ///< index into options
};

/// How the text generated for an exact-answer row is judged.
enum class AnswerForm {
    Beginning,  ///< it begins with the answer, see isExactAnswer()
    Gsm8k,      ///< a number behind "####" (strict) or the last number anywhere (flexible), as lm-evaluation-harness's gsm8k
};

/// A prompt that has one right answer.
struct ExactTask {
    std::string id;
    std::string prompt, answer;
    AnswerForm form = AnswerForm::Beginning;
    std::string target = {};              ///< how a solved example goes on behind the prompt, for few-shot prompts
    std::vector<std::string> stops = {};  ///< generation ends before the first of these
    int maxNewTokens = 0;                 ///< 0 = as many as the answer could need
};

struct TaskFile {
    std::string name;  ///< file name without extension
    std::vector<ChoiceTask> choices;
    std::vector<ExactTask> exact;
    std::string fingerprint;        ///< "sha256:..." of the tasks
    std::vector<Problem> problems;  ///< rejected lines, each with its number and reason
};

/// The prompt around a `question`, where the harness has several and the row does not tell which.
enum class QuestionForm {
    Auto,      ///< by the file's name: openbookqa -> Bare, social-iqa, social_iqa or siqa -> QA, else Question
    Question,  ///< "Question: <question>\nAnswer:" (ARC)
    Bare,      ///< the question itself (OpenBookQA)
    QA,        ///< "Q: <question>\nA:" (Social IQa)
};

struct TaskOptions {
    std::int64_t maxTasks = 0;  ///< 0 = all
    QuestionForm form = QuestionForm::Auto;
    int shots = 0;                    ///< solved examples in front of every context, with an empty line between
    std::filesystem::path shotsFile;  ///< where they come from, its first ones; empty: the first others of the file itself
};

/// Reads a .jsonl of tasks, one form of row per file or mixed; contexts as lm-evaluation-harness writes them:
///
///  - `question`, `choices`, `answer` (index): the question in its form + " <choice>" (ARC, OpenBookQA, Social IQa)
///  - `goal`, `choices`, `answer`: "Question: <goal>\nAnswer:" + " <choice>" (PIQA)
///  - `context`, `choices`, `answer`: the context + " <choice>" (HellaSwag)
///  - `sentence` with one "_", `choices`, `answer`: the choice in place of the blank ends the context, and the rest of the
///    sentence is scored (WinoGrande)
///  - `question`, `answer` true or false, perhaps `passage`: "<passage>\nQuestion: <question>?\nAnswer:" + " no" or " yes"
///  (BoolQ)
///  - `question`, `answer` with "#### <number>": "Question: <question>\nAnswer:", judged by its number (GSM8K)
///  - `prompt`, `answer` (a text): an exact-answer row
///
/// A .txt holds HellaSwag tasks of six lines as llama-perplexity reads them: context, index of the right ending, four endings.
/// Throws NotFound, Usage (fewer examples than shots), BadInput (empty, no usable row, not UTF-8).
TaskFile loadTasks(const std::filesystem::path& file, const TaskOptions& options);
TaskFile loadTasks(const std::filesystem::path& file, std::int64_t maxTasks = 0);

/// True when `generated` begins with `answer` (white space before either aside) and no letter or digit follows: "2. So" answers
/// "2", "20" does not. Capitals count.
bool isExactAnswer(std::string_view generated, std::string_view answer);

/// What lm-evaluation-harness's gsm8k takes as the answer: the number behind the first "#### ", or the last number anywhere
/// (flexible). "[invalid]" when there is none.
enum class Extraction { Strict, Flexible };
std::string extractedAnswer(std::string_view generated, Extraction extraction);
/// Equal without ",", "$", everything up to "#### ", a full stop at the end and capitals.
bool isSameAnswer(std::string_view found, std::string_view target);

/// A context and the tokens to be scored after it.
struct ScoredTokens {
    std::vector<std::int64_t> ids;
    std::size_t contextTokens = 0;  ///< ids[contextTokens..] are scored, each given all before it; at least 1
};

enum class ContextStart { Plain, Bos };

/// Tokens as in lm-evaluation-harness: spaces at the end of the context move to the continuation; continuation tokens are
/// encode(context + continuation) behind the first len(encode(context)); no special tokens, but with ContextStart::Bos the
/// tokenizer's BOS is put in front when it has one. An empty context is BOS (or EOS when there is none). Tokens are dropped
/// from the left until at most `maxTokens` + 1 are left (the last is predicted, not fed); 0 = no limit. Throws BadInput when
/// the continuation has no token.
ScoredTokens scoredTokens(const Tokenizer& tokenizer, const std::string& context, const std::string& continuation,
                          ContextStart start, std::int64_t maxTokens = 0);

}  // namespace resect
