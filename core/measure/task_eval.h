#pragma once
#include "core/base/job.h"
#include "core/data/task.h"
#include "core/models/model.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace resect {

/// A share of right answers with its standard error sqrt(p (1 - p) / (n - 1)), that of the harness's mean_stderr.
struct Accuracy {
    double share = 0, error = 0;
    std::int64_t right = 0, total = 0;
};

struct ChoiceResult {
    std::string id;
    std::vector<double> logProbability;   ///< sum over the continuation's tokens, per option
    int picked = -1, pickedNormalised = -1, pickedByBytes = -1;
};
struct ExactResult {
    std::string id, generated;
    bool right = false;      ///< GSM8K: the strict extraction
    bool flexible = false;   ///< GSM8K: the flexible extraction; else as `right`
};

struct TaskScores {
    Accuracy accuracy;             ///< multiple choice: arg-max of the log-probability (acc)
    Accuracy normalised;           ///< divided by the characters of the choice first (acc_norm)
    Accuracy byBytes;              ///< divided by its bytes (acc_bytes)
    Accuracy exact;                ///< exact answers, greedy
    Accuracy flexible;             ///< the same with the flexible extraction
    std::vector<ChoiceResult> choices;
    std::vector<ExactResult> exactAnswers;
    std::int64_t tasksDone = 0, tasksTotal = 0;   ///< done < total: stopped
    std::int64_t tasksResumed = 0;                ///< of those done, read from the results of an earlier run
};

struct TaskEvalOptions {
    ContextStart start = ContextStart::Plain;
    /// Results are appended here, one row a task, as they come, and those already there are not computed again; empty: kept nowhere.
    std::filesystem::path results;
    std::string model;   ///< what identifies the model and its precision; results of another one are refused
};

/// Scores the tasks as lm-evaluation-harness does (simple_evaluate with the loglikelihood and greedy generate_until requests).
/// Stopping keeps the finished tasks. Throws BadInput naming the task whose score is not finite; Mismatch when `results` belongs to
/// another model, task file or context start; NoPermission, DiskFull.
TaskScores evaluateTasks(const LanguageModel& model, const Tokenizer& tokenizer, const TaskFile& tasks, const TaskEvalOptions& options, const JobContext& job);

}  // namespace resect
