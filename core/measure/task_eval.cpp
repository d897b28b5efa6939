#include "core/measure/task_eval.h"

#include "core/base/error.h"
#include "core/measure/perplexity.h"
#include "core/measure/task_record.h"

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
    ChoiceResult result;
    result.id = task.id;
    result.logProbability = scoreAll(model, examples);
    for (std::size_t i = 0; i < result.logProbability.size(); ++i)
        if (!std::isfinite(result.logProbability[i]))
            throw Error(ErrorCode::BadInput, "task " + task.id, "the log-probability of choice " + std::to_string(i) + " is not finite");
    return result;
}

/// The first of the largest quotients.
template <class Length> int bestOf(const ChoiceResult& result, Length length) {
    int best = -1;
    double most = 0;
    for (std::size_t i = 0; i < result.logProbability.size(); ++i) {
        const double value = result.logProbability[i] / static_cast<double>(std::max<std::int64_t>(1, length(i)));
        if (best < 0 || value > most) best = static_cast<int>(i), most = value;
    }
    return best;
}

void pick(ChoiceResult& result, const ChoiceTask& task) {
    result.picked = bestOf(result, [](std::size_t) { return 1; });
    result.pickedNormalised = bestOf(result, [&](std::size_t i) { return task.options[i].characters; });
    result.pickedByBytes = bestOf(result, [&](std::size_t i) { return task.options[i].bytes; });
}

std::size_t stopIn(const std::string& text, const std::vector<std::string>& stops) {
    std::size_t first = text.npos;
    for (const std::string& stop : stops) first = std::min(first, text.find(stop));
    return first;
}

/// Greedy generation up to a stop, or as many tokens as the answer could need.
ExactResult generateAnswer(const LanguageModel& model, const Tokenizer& tokenizer, const ExactTask& task, const JobContext& job) {
    std::vector<std::int64_t> prompt = tokenizer.encode(task.prompt, SpecialTokens::Add);
    SamplingOptions options;
    options.idLimit = tokenizer.vocabSize();
    options.maxNewTokens = task.maxNewTokens > 0 ? task.maxNewTokens : static_cast<int>(tokenizer.encode(" " + task.answer, SpecialTokens::Omit).size()) + 2;
    const auto room = static_cast<std::int64_t>(model.shape().maxPositions) - options.maxNewTokens;
    if (model.shape().maxPositions > 0 && room < 1)
        throw Error(ErrorCode::BadInput, "task " + task.id, "the model's context of " + std::to_string(model.shape().maxPositions) + " tokens has no room for an answer");
    if (model.shape().maxPositions > 0 && static_cast<std::int64_t>(prompt.size()) > room) prompt.erase(prompt.begin(), prompt.end() - room);  // as the harness: the end is kept
    // Decoded together with the prompt, so that a space at the seam is not lost.
    const std::string before = tokenizer.decode(prompt);
    std::vector<std::int64_t> whole = prompt, added;
    const auto text = [&] {
        const std::string all = tokenizer.decode(whole);
        return all.starts_with(before) ? all.substr(before.size()) : tokenizer.decode(added);
    };
    std::stop_source enough;
    const std::stop_callback forward(job.stopToken(), [&] { enough.request_stop(); });
    generate(model, prompt, options, JobContext(enough.get_token(), {}), [&](std::int64_t id, double) {  // progress counts tasks
        whole.push_back(id);
        added.push_back(id);
        if (!task.stops.empty() && stopIn(text(), task.stops) != std::string::npos) enough.request_stop();
    });
    ExactResult result;
    result.id = task.id;
    result.generated = text();
    result.generated.resize(std::min(result.generated.size(), stopIn(result.generated, task.stops)));
    return result;
}

void judge(ExactResult& result, const ExactTask& task) {
    if (task.form == AnswerForm::Gsm8k) {
        result.right = isSameAnswer(extractedAnswer(result.generated, Extraction::Strict), task.answer);
        result.flexible = isSameAnswer(extractedAnswer(result.generated, Extraction::Flexible), task.answer);
    } else {
        result.right = result.flexible = isExactAnswer(result.generated, task.answer);
    }
}

Accuracy accuracyOf(std::int64_t right, std::int64_t total) {
    const double share = total > 0 ? static_cast<double>(right) / static_cast<double>(total) : 0;
    return {share, total > 1 ? std::sqrt(share * (1 - share) / static_cast<double>(total - 1)) : 0, right, total};
}

/// Goes through the tasks; what an earlier run has finished is read from its results.
class Evaluation {
public:
    Evaluation(const LanguageModel& model, const Tokenizer& tokenizer, const TaskFile& tasks, const TaskEvalOptions& options, const JobContext& job)
        : m_model(model), m_tokenizer(tokenizer), m_tasks(tasks), m_options(options), m_job(job) {
        m_scores.tasksTotal = static_cast<std::int64_t>(tasks.choices.size() + tasks.exact.size());
        if (options.results.empty()) return;
        m_record.emplace(options.results, Json{{"resect_task_results", 1},
                                               {"task", tasks.name},
                                               {"tasks", tasks.fingerprint},
                                               {"model", options.model},
                                               {"start", options.start == ContextStart::Bos ? "bos" : "plain"}});
        std::int64_t index = 0;
        for (const ChoiceTask& task : tasks.choices) m_known += earlier(task, index++) != nullptr;
        for (const ExactTask& task : tasks.exact) m_known += earlier(task, index++) != nullptr;
    }

    TaskScores run() {
        for (const ChoiceTask& task : m_tasks.choices) {
            if (m_job.stopped()) break;
            addChoice(task);
        }
        for (const ExactTask& task : m_tasks.exact) {
            if (m_job.stopped() || !addExact(task)) break;
        }
        const auto numChoices = static_cast<std::int64_t>(m_scores.choices.size()), numExact = static_cast<std::int64_t>(m_scores.exactAnswers.size());
        m_scores.accuracy = accuracyOf(m_right, numChoices);
        m_scores.normalised = accuracyOf(m_rightNormalised, numChoices);
        m_scores.byBytes = accuracyOf(m_rightByBytes, numChoices);
        m_scores.exact = accuracyOf(m_exact, numExact);
        m_scores.flexible = accuracyOf(m_flexible, numExact);
        return std::move(m_scores);
    }

private:
    const Json* earlier(const ChoiceTask& task, std::int64_t index) const {
        const Json* row = m_record ? m_record->find(index, task.id) : nullptr;
        return row && row->contains("logProbability") && (*row)["logProbability"].size() == task.options.size() ? row : nullptr;
    }
    const Json* earlier(const ExactTask& task, std::int64_t index) const {
        const Json* row = m_record ? m_record->find(index, task.id) : nullptr;
        return row && row->contains("generated") ? row : nullptr;
    }

    void addChoice(const ChoiceTask& task) {
        ChoiceResult result;
        const Json* row = earlier(task, m_scores.tasksDone);
        if (row) {
            result.id = task.id;
            readField(*row, "logProbability", result.logProbability);
        } else {
            result = evaluateChoice(m_model, m_tokenizer, task, m_options.start);
        }
        pick(result, task);
        if (m_record && !row)
            m_record->add(Json{{"index", m_scores.tasksDone}, {"id", task.id}, {"answer", task.answer}, {"logProbability", result.logProbability}, {"picked", result.picked}, {"pickedNormalised", result.pickedNormalised}});
        m_right += result.picked == task.answer;
        m_rightNormalised += result.pickedNormalised == task.answer;
        m_rightByBytes += result.pickedByBytes == task.answer;
        m_scores.choices.push_back(std::move(result));
        step(row != nullptr);
    }

    /// False when generation was stopped half-way.
    bool addExact(const ExactTask& task) {
        ExactResult result;
        const Json* row = earlier(task, m_scores.tasksDone);
        if (row) {
            result.id = task.id;
            result.generated = stringField(*row, "generated", m_options.results.string() + ": " + task.id);
        } else {
            result = generateAnswer(m_model, m_tokenizer, task, m_job);
            if (m_job.stopped()) return false;
        }
        judge(result, task);
        if (m_record && !row) m_record->add(Json{{"index", m_scores.tasksDone}, {"id", task.id}, {"answer", task.answer}, {"generated", result.generated}, {"right", result.right}, {"flexible", result.flexible}});
        m_exact += result.right;
        m_flexible += result.flexible;
        m_scores.exactAnswers.push_back(std::move(result));
        step(row != nullptr);
        return true;
    }

    /// Progress counts the tasks that this run has to do, so that the time left is right.
    void step(bool known) {
        ++m_scores.tasksDone;
        m_scores.tasksResumed += known;
        if (!known) m_job.progress({static_cast<double>(m_scores.tasksDone - m_scores.tasksResumed), static_cast<double>(m_scores.tasksTotal - m_known), "tasks", m_tasks.name});
    }

    const LanguageModel& m_model;
    const Tokenizer& m_tokenizer;
    const TaskFile& m_tasks;
    const TaskEvalOptions& m_options;
    const JobContext& m_job;
    std::optional<TaskRecord> m_record;
    TaskScores m_scores;
    std::int64_t m_right = 0, m_rightNormalised = 0, m_rightByBytes = 0, m_exact = 0, m_flexible = 0, m_known = 0;
};

}  // namespace

TaskScores evaluateTasks(const LanguageModel& model, const Tokenizer& tokenizer, const TaskFile& tasks, const TaskEvalOptions& options, const JobContext& job) {
    const torch::NoGradGuard noGrad;
    return Evaluation(model, tokenizer, tasks, options, job).run();
}

}  // namespace resect
