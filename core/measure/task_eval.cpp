#include "core/measure/task_eval.h"

#include "core/base/error.h"
#include "core/measure/perplexity.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>

namespace resect {

namespace {

constexpr std::size_t kOptionsAtOnce = 16;

/// Sum of the continuation's log-probabilities of each example; right-padded into batches.
std::vector<double> scoreAll(const LanguageModel& model, const std::vector<ScoredTokens>& examples) {
    std::vector<double> scores;
    for (std::size_t first = 0; first < examples.size(); first += kOptionsAtOnce) {
        const std::size_t count = std::min(kOptionsAtOnce, examples.size() - first);
        std::int64_t longest = 1;
        for (std::size_t i = 0; i < count; ++i) longest = std::max(longest, static_cast<std::int64_t>(examples[first + i].ids.size()) - 1);
        const std::vector<std::int64_t> sizes{static_cast<std::int64_t>(count), longest};
        TokenBatch batch{torch::zeros(sizes, torch::kInt64), torch::zeros(sizes, torch::kBool), {}};
        auto targets_BT = torch::full(sizes, kIgnoredTarget, torch::kInt64);
        for (std::size_t i = 0; i < count; ++i) {
            const auto& [ids, contextTokens] = examples[first + i];
            const auto row = static_cast<std::int64_t>(i) * longest;
            std::copy(ids.begin(), ids.end() - 1, batch.ids_BT.data_ptr<std::int64_t>() + row);
            std::fill_n(batch.mask_BT.data_ptr<bool>() + row, ids.size() - 1, true);
            for (std::size_t t = contextTokens; t < ids.size(); ++t) targets_BT.data_ptr<std::int64_t>()[row + static_cast<std::int64_t>(t) - 1] = ids[t];
        }
        const auto losses = tokenLosses(model.logits(batch.to(model.device())), targets_BT).to(torch::kCPU, torch::kFloat64).sum(1).neg();
        scores.insert(scores.end(), losses.data_ptr<double>(), losses.data_ptr<double>() + count);
    }
    return scores;
}

ChoiceResult evaluateChoice(const LanguageModel& model, const Tokenizer& tokenizer, const ChoiceTask& task, ContextStart start) {
    std::vector<ScoredTokens> examples;
    for (const ChoiceOption& option : task.options)
        examples.push_back(scoredTokens(tokenizer, option.context, option.continuation, start, model.shape().maxPositions));
    ChoiceResult result{task.id, scoreAll(model, examples), -1, -1};
    double best = 0, bestNormalised = 0;
    for (std::size_t i = 0; i < result.logProbability.size(); ++i) {
        const double value = result.logProbability[i];
        if (!std::isfinite(value)) throw Error(ErrorCode::BadInput, "task " + task.id, "the log-probability of choice " + std::to_string(i) + " is not finite");
        const double normalised = value / static_cast<double>(std::max<std::int64_t>(1, task.options[i].characters));
        if (result.picked < 0 || value > best) result.picked = static_cast<int>(i), best = value;
        if (result.pickedNormalised < 0 || normalised > bestNormalised) result.pickedNormalised = static_cast<int>(i), bestNormalised = normalised;
    }
    return result;
}

/// Greedy generation, as many tokens as the answer could need; right when what comes begins with the answer.
ExactResult evaluateExact(const LanguageModel& model, const Tokenizer& tokenizer, const ExactTask& task, const JobContext& job) {
    const auto prompt = tokenizer.encode(task.prompt, SpecialTokens::Add);
    SamplingOptions options;
    options.idLimit = tokenizer.vocabSize();
    options.maxNewTokens = static_cast<int>(tokenizer.encode(" " + task.answer, SpecialTokens::Omit).size()) + 2;
    const std::vector<std::int64_t> generated = generate(model, prompt, options, JobContext(job.stopToken(), {}));  // progress counts tasks
    // Decoded together with the prompt, so that a space at the seam is not lost.
    std::vector<std::int64_t> whole(prompt.begin(), prompt.end());
    const std::string before = tokenizer.decode(whole);
    whole.insert(whole.end(), generated.begin(), generated.end());
    const std::string text = tokenizer.decode(whole);
    ExactResult result{task.id, text.starts_with(before) ? text.substr(before.size()) : tokenizer.decode(generated), false};
    result.right = isExactAnswer(result.generated, task.answer);
    return result;
}

Accuracy accuracyOf(std::int64_t right, std::int64_t total) {
    const double share = total > 0 ? static_cast<double>(right) / static_cast<double>(total) : 0;
    return {share, total > 1 ? std::sqrt(share * (1 - share) / static_cast<double>(total - 1)) : 0, right, total};
}

}  // namespace

TaskScores evaluateTasks(const LanguageModel& model, const Tokenizer& tokenizer, const TaskFile& tasks, ContextStart start, const JobContext& job) {
    const torch::NoGradGuard noGrad;
    TaskScores scores;
    scores.tasksTotal = static_cast<std::int64_t>(tasks.choices.size() + tasks.exact.size());
    std::int64_t right = 0, rightNormalised = 0, exact = 0;
    const auto step = [&] { job.progress({static_cast<double>(++scores.tasksDone), static_cast<double>(scores.tasksTotal), "tasks", tasks.name}); };
    for (const ChoiceTask& task : tasks.choices) {
        if (job.stopped()) break;
        scores.choices.push_back(evaluateChoice(model, tokenizer, task, start));
        right += scores.choices.back().picked == task.answer;
        rightNormalised += scores.choices.back().pickedNormalised == task.answer;
        step();
    }
    for (const ExactTask& task : tasks.exact) {
        if (job.stopped()) break;
        ExactResult result = evaluateExact(model, tokenizer, task, job);
        if (job.stopped()) break;
        exact += result.right;
        scores.exactAnswers.push_back(std::move(result));
        step();
    }
    const auto numChoices = static_cast<std::int64_t>(scores.choices.size());
    scores.accuracy = accuracyOf(right, numChoices);
    scores.normalised = accuracyOf(rightNormalised, numChoices);
    scores.exact = accuracyOf(exact, static_cast<std::int64_t>(scores.exactAnswers.size()));
    return scores;
}

}  // namespace resect
