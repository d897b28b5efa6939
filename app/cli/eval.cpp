#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "app/cli/data_options.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/data/class_labels.h"
#include "core/measure/classification.h"
#include "core/measure/task_eval.h"
#include "core/worker/describe.h"
#include "core/worker/opened.h"
#include "core/worker/run_source.h"

#include <chrono>
#include <iostream>

namespace resect::cli {

namespace {

struct EvalOptions : Common {
    std::string checkpoint, task;
    protocol::DataMessage data;
    std::string results, shotsFile, questionForm = "auto";
    std::int64_t maxTasks = 0;
    int shots = 0;
    bool secondHalf = false, bos = false, stream = false;
};

double secondsSince(std::chrono::steady_clock::time_point start) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }

Json perplexityOf(EvalOptions& options, OpenedCheckpoint& opened, const JobContext& job) {
    const Compute compute{options.device, options.dtype};
    const Dataset data = opened.data(options.data);
    RunOptions run;
    run.load = opened.loadOptions(compute);
    run.streamBlocks = options.stream;
    ModelRun modelRun(opened.checkpoint(), data, run, options.stream ? nullptr : opened.model(compute, job));
    const auto start = std::chrono::steady_clock::now();
    const Perplexity result = measurePerplexity(modelRun, options.secondHalf ? Positions::SecondHalf : Positions::All, job);
    const double seconds = secondsSince(start);
    std::int64_t tokens = 0;
    for (std::int64_t row = 0; row < result.rowsDone; ++row) tokens += static_cast<std::int64_t>(data.rows[row].ids.size());
    Json formats = Json::object();
    for (const FormatCount& found : data.formats) formats[found.format] = found.rows;
    return {{"data", data.description},
            {"rowsTaken", formats},
            {"rowsRejected", data.rejectedRows},
            {"positions", options.secondHalf ? "second half" : "all"},
            {"perplexity", result.perplexity},
            {"perplexityLow", result.low},
            {"perplexityHigh", result.high},
            {"loss", result.loss},
            {"standardError", result.error},
            {"scored", result.positions},
            {"rowsDone", result.rowsDone},
            {"rowsTotal", result.rowsTotal},
            {"tokensPerSecond", seconds > 0 ? static_cast<double>(tokens) / seconds : 0},
            {"problems", describe(data.problems)}};
}

Json accuracyJson(const Accuracy& accuracy) {
    return {{"share", accuracy.share}, {"standardError", accuracy.error}, {"right", accuracy.right}, {"total", accuracy.total}};
}

Json proportionJson(const Proportion& share) { return {{"share", share.share}, {"low", share.low}, {"high", share.high}, {"right", share.right}, {"total", share.total}}; }

Json classificationOf(EvalOptions& options, OpenedCheckpoint& opened, const JobContext& job) {
    if (options.secondHalf) throw Error(ErrorCode::Usage, "--second-half", "is for rows of text; this model runs images");
    requireHead(opened.shape());
    const Compute compute{options.device, options.dtype};
    const Dataset data = opened.data(options.data, job);
    RunOptions run;
    run.load = opened.loadOptions(compute);
    run.streamBlocks = options.stream;
    ModelRun modelRun(opened.checkpoint(), data, run, options.stream ? nullptr : opened.model(compute, job));
    const auto start = std::chrono::steady_clock::now();
    const Classification result = measureClassification(modelRun, job);
    const double seconds = secondsSince(start);
    const ClassLabels names(opened.path(), opened.shape());
    Json json{{"data", data.description},
              {"imagesRejected", data.rejectedRows},
              {"accuracy", proportionJson(result.top1)},
              {"top5", proportionJson(result.top5)},
              {"loss", result.loss.loss},
              {"standardError", result.loss.error},
              {"imagesDone", result.loss.rowsDone},
              {"imagesTotal", result.loss.rowsTotal},
              {"imagesPerSecond", seconds > 0 ? static_cast<double>(result.loss.rowsDone) / seconds : 0},
              {"problems", describe(data.problems)}};
    if (!result.confusion.empty()) {
        Json labels = Json::array(), confusion = Json::array();
        for (int label = 0; label < result.labels; ++label) {
            labels.push_back(names.name(label));
            const auto first = result.confusion.begin() + static_cast<std::ptrdiff_t>(label) * result.labels;
            confusion.push_back(std::vector<std::int64_t>(first, first + result.labels));
        }
        json["labels"] = labels;
        json["confusion"] = confusion;  // [true][predicted]
    }
    return json;
}

TaskOptions taskOptions(const EvalOptions& options) {
    TaskOptions wanted;
    wanted.maxTasks = options.maxTasks;
    wanted.shots = options.shots;
    wanted.shotsFile = options.shotsFile;
    if (options.questionForm == "question") wanted.form = QuestionForm::Question;
    if (options.questionForm == "bare") wanted.form = QuestionForm::Bare;
    if (options.questionForm == "qa") wanted.form = QuestionForm::QA;
    return wanted;
}

Json tasksOf(EvalOptions& options, OpenedCheckpoint& opened, const JobContext& job) {
    const TaskFile tasks = loadTasks(options.task, taskOptions(options));
    const auto model = opened.model({options.device, options.dtype}, job);
    TaskEvalOptions evaluation;
    evaluation.start = options.bos ? ContextStart::Bos : ContextStart::Plain;
    evaluation.results = options.results;
    if (!options.results.empty())
        evaluation.model = opened.checkpoint().fingerprint() + " " + dtypeName(opened.loadOptions({options.device, options.dtype}).dtype) + " on " + options.device;
    const auto start = std::chrono::steady_clock::now();
    const TaskScores scores = evaluateTasks(*model, opened.tokenizer(), tasks, evaluation, job);
    Json json{{"task", tasks.name}, {"tasksDone", scores.tasksDone}, {"tasksTotal", scores.tasksTotal}, {"tasksResumed", scores.tasksResumed}, {"shots", options.shots}, {"seconds", secondsSince(start)}, {"problems", describe(tasks.problems)}};
    if (scores.accuracy.total > 0) {
        json["accuracy"] = accuracyJson(scores.accuracy);
        json["accuracyNormalised"] = accuracyJson(scores.normalised);
        json["accuracyByBytes"] = accuracyJson(scores.byBytes);
    }
    if (scores.exact.total > 0) {
        json["exactAnswers"] = accuracyJson(scores.exact);
        json["exactFlexible"] = accuracyJson(scores.flexible);
    }
    return json;
}

void printAccuracy(const Json& json, const char* field, const char* title) {
    if (!json.contains(field)) return;
    const Json& accuracy = json[field];
    std::cout << title << " " << toText(accuracy["share"].get<double>(), 4) << " +- " << toText(accuracy["standardError"].get<double>(), 2) << " ("
              << accuracy["right"] << " of " << accuracy["total"] << ")\n";
}

void printShare(const Json& share, const char* title) {
    const auto number = [&](const char* field) { return toText(share[field].get<double>(), 4); };
    std::cout << title << " " << number("share") << " (95 %: " << number("low") << " to " << number("high") << "; " << share["right"] << " of " << share["total"] << ")\n";
}

void printText(const Json& json) {
    if (json.contains("top5")) {
        std::cout << json["data"].get<std::string>() << "\n";
        printShare(json["accuracy"], "accuracy");
        printShare(json["top5"], "among the five likeliest");
        std::cout << "loss " << toText(json["loss"].get<double>(), 6) << " +- " << toText(json["standardError"].get<double>(), 3) << " nats per image; " << json["imagesDone"] << " of "
                  << json["imagesTotal"] << " images, " << formatCount(json["imagesPerSecond"].get<double>()) << " images/s\n";
    } else if (json.contains("perplexity")) {
        std::cout << json["data"].get<std::string>() << "\n";
        std::cout << "perplexity " << toText(json["perplexity"].get<double>(), 6) << " (95 %: " << toText(json["perplexityLow"].get<double>(), 6) << " to "
                  << toText(json["perplexityHigh"].get<double>(), 6) << "), loss " << toText(json["loss"].get<double>(), 6) << " +- "
                  << toText(json["standardError"].get<double>(), 3) << " nats over " << formatThousands(json["scored"].get<std::int64_t>()) << " positions\n";
        std::cout << formatCount(json["tokensPerSecond"].get<double>()) << " tokens/s\n";
    } else {
        std::cout << json["task"].get<std::string>() << ": " << json["tasksDone"] << " of " << json["tasksTotal"] << " tasks";
        if (json["tasksResumed"] > 0) std::cout << ", " << json["tasksResumed"] << " of them by an earlier run";
        std::cout << "\n";
        printAccuracy(json, "accuracy", "accuracy");
        printAccuracy(json, "accuracyNormalised", "length-normalised accuracy");
        printAccuracy(json, "accuracyByBytes", "accuracy normalised by bytes");
        printAccuracy(json, "exactAnswers", "exact answers");
        printAccuracy(json, "exactFlexible", "exact answers, flexible extraction");
    }
    printProblems(json["problems"].get<std::vector<protocol::ProblemMessage>>());
}

void runEval(EvalOptions& options) {
    if (options.data.file.empty() == options.task.empty()) throw Error(ErrorCode::Usage, "eval", "expected either --data FILE or --task FILE");
    configureRuntime(options.threads);
    Json json;
    bool stopped = false;
    {
        const CommandJob job(options);
        const ExportSource source = resolveExportSource(options.checkpoint, job.context());
        OpenedCheckpoint opened(source.checkpoint);
        json = options.task.empty() ? (opened.shape().image ? classificationOf : perplexityOf)(options, opened, job.context()) : tasksOf(options, opened, job.context());
        stopped = job.context().stopped();
    }
    if (options.json) {
        printJson(json);
    } else {
        printText(json);
    }
    if (stopped) setExitCode(exitCode(ErrorCode::Stopped));
}

}  // namespace

void addEval(CLI::App& app) {
    auto options = std::make_shared<EvalOptions>();
    options->data.maxRows = options->data.rowLength = 0;
    options->data.layout = "auto";
    CLI::App* command = app.add_subcommand("eval", "Perplexity on a text, or accuracy on labelled images or a task file");
    command->add_option("CKPT", options->checkpoint, "Checkpoint, or a run folder (its best checkpoint)")->required();
    command->add_option("--data", options->data.file, kDataHelp);
    command->add_option("--task", options->task, "JSON lines of multiple-choice or exact-answer tasks, or HellaSwag as six lines a task (.txt)");
    command->add_option("--row-length", options->data.rowLength, "Tokens per row")->default_str("256, or the model's context")->check(CLI::PositiveNumber);
    command->add_option("--max-rows", options->data.maxRows, "Rows or images to use, 0 = all")->capture_default_str()->check(CLI::NonNegativeNumber);
    command->add_option("--layout", options->data.layout, "chunks of running text, packed or padded examples; auto: packed for rows with prompt and answer, else chunks")->check(CLI::IsMember({"auto", "chunks", "packed", "padded"}))->capture_default_str();
    addImageAspect(*command, options->data.imageAspect);
    command->add_option("--max-tasks", options->maxTasks, "Tasks to use, 0 = all")->capture_default_str()->check(CLI::NonNegativeNumber);
    command->add_option("--shots", options->shots, "Tasks: solved examples in front of each")->capture_default_str()->check(CLI::NonNegativeNumber);
    command->add_option("--shots-file", options->shotsFile, "Where they come from (default: the first others of the task file)");
    command->add_option("--question-form", options->questionForm, "question: 'Question: ... Answer:', qa: 'Q: ... A:', bare; auto goes by the file's name")
        ->check(CLI::IsMember({"auto", "question", "qa", "bare"}))->capture_default_str();
    command->add_option("--results", options->results, "Append each task's result to this file (JSON lines); a second run goes on where it ends");
    command->add_flag("--second-half", options->secondHalf, "Score only the second half of each row, as llama-perplexity does");
    command->add_flag("--bos", options->bos, "Tasks: put BOS in front of the context");
    command->add_flag("--stream", options->stream, "Block by block from the files, for models larger than memory");
    addCommon(*command, *options, Shared::Compute);
    command->footer("Examples:\n  resect-cli eval MODEL --data text.txt\n  resect-cli eval VIT --data t10k-images-idx3-ubyte.gz\n  resect-cli eval MODEL --task questions.jsonl --json\n"
                    "  resect-cli eval MODEL --task gsm8k-test.jsonl --shots 5 --shots-file gsm8k-train.jsonl --results gsm8k.jsonl");
    command->callback([options] { runEval(*options); });
}

}  // namespace resect::cli
