#pragma once
#include "core/base/job.h"
#include "core/data/task.h"
#include "core/models/model.h"

#include <cstdint>
#include <string>
#include <vector>

namespace resect {

/// A share of right answers with its standard error sqrt(p (1 - p) / (n - 1)).
struct Accuracy {
    double share = 0, error = 0;
    std::int64_t right = 0, total = 0;
};

struct ChoiceResult {
    std::string id;
    std::vector<double> logProbability;   ///< sum over the continuation's tokens, per option
    int picked = -1, pickedNormalised = -1;
};
struct ExactResult {
    std::string id, generated;
    bool right = false;
};

struct TaskScores {
    Accuracy accuracy;             ///< multiple choice: arg-max of the log-probability
    Accuracy normalised;           ///< divided by the characters of the choice first
    Accuracy exact;                ///< exact answers, greedy
    std::vector<ChoiceResult> choices;
    std::vector<ExactResult> exactAnswers;
    std::int64_t tasksDone = 0, tasksTotal = 0;   ///< done < total: stopped
};

/// Scores the tasks as lm-evaluation-harness does. Stopping keeps the finished tasks. Throws BadInput naming the task whose score is not finite.
TaskScores evaluateTasks(const LanguageModel& model, const Tokenizer& tokenizer, const TaskFile& tasks, ContextStart start, const JobContext& job);

}  // namespace resect
