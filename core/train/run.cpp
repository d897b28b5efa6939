#include "core/train/run.h"

#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/data/image_set.h"
#include "core/export/hf_writer.h"
#include "core/surgery/edit_plan.h"
#include "core/train/estimate.h"
#include "core/train/trainer.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <memory>

namespace resect {

namespace fs = std::filesystem;
using protocol::RunStatus;

namespace {

enum class Start { Fresh, Resume };

struct TrainData {
    std::vector<TokenRow> rows, evalRows;
    std::string fingerprint, description;
};

void dropUntargeted(std::vector<TokenRow>& rows) {
    std::erase_if(rows, [](const TokenRow& row) { return std::ranges::all_of(row.targets, [](auto target) { return target == kIgnoredTarget; }); });
}

std::unique_ptr<Tokenizer> tokenizerOf(const fs::path& folder) {
    if (!fs::exists(folder / "tokenizer.json") && !fs::exists(folder / "tokenizer.model")) return nullptr;
    return Tokenizer::load(folder);
}

fs::path folderOf(const fs::path& path) { return fs::is_directory(path) ? path : path.parent_path(); }

fs::path configFile(const fs::path& source) { return fs::is_directory(source) ? source / "config.json" : source; }

DataOptions dataOptions(const RunData& data, const TrainOptions& options, int rowLength, const fs::path& source) {
    DataOptions wanted;
    wanted.layout = options.layout;
    wanted.rowLength = rowLength;
    wanted.maxRows = data.maxRows;
    wanted.maxBytes = data.maxBytes;
    wanted.answersOnly = options.answersOnly;
    wanted.chatTemplateFolder = source;
    wanted.padToSquare = data.imageAspect == "pad";
    return wanted;
}

std::int64_t evalRowsFor(const TrainOptions& options, const ModelShape& shape) {
    constexpr std::int64_t kTextRows = 64, kImages = 1000;
    return options.evalRows > 0 ? options.evalRows : shape.image ? kImages : kTextRows;
}

/// Training rows, and evaluation rows from their own file or from the tail of the training data.
TrainData loadData(const RunJob& job, const TrainOptions& options, const ModelShape& shape, std::vector<Problem>& problems, const JobContext& context) {
    if (shape.image && shape.image->labels == 0) throw Error(ErrorCode::Unsupported, shape.modelType, "has no classifier whose labels could be trained on");
    const int rowLength = rowLengthFor(options, shape);
    const auto folder = folderOf(job.source);
    const auto tokenizer = tokenizerOf(folder);
    const std::int64_t evalRows = evalRowsFor(options, shape);
    auto training = loadModelData(job.data.file, folder, shape, tokenizer.get(), dataOptions(job.data, options, rowLength, folder), context);
    problems = training.problems;
    TrainData data{std::move(training.rows), {}, training.fingerprint, training.description};
    dropUntargeted(data.rows);
    if (!job.evalData.file.empty()) {
        auto wanted = dataOptions(job.evalData, options, rowLength, folder);
        wanted.maxRows = wanted.maxRows > 0 ? std::min(wanted.maxRows, evalRows) : evalRows;
        auto evaluation = loadModelData(job.evalData.file, folder, shape, tokenizer.get(), wanted, context);
        problems.insert(problems.end(), evaluation.problems.begin(), evaluation.problems.end());
        data.evalRows = std::move(evaluation.rows);
        dropUntargeted(data.evalRows);
        data.fingerprint += "+" + evaluation.fingerprint;
    } else if (options.evalFraction > 0 && data.rows.size() > 1) {
        const auto share = static_cast<std::int64_t>(std::llround(options.evalFraction * double(data.rows.size())));
        const auto most = std::min(evalRows, static_cast<std::int64_t>(data.rows.size()) - 1);
        const auto held = std::clamp<std::int64_t>(share, 1, most);
        data.evalRows.assign(std::make_move_iterator(data.rows.end() - held), std::make_move_iterator(data.rows.end()));
        data.rows.resize(data.rows.size() - static_cast<std::size_t>(held));
    }
    if (data.rows.empty()) throw Error(ErrorCode::BadInput, job.data.file.string(), shape.image ? "holds no labelled image" : "holds no row that can be trained on");
    return data;
}

EditPlan checkedPlan(const RunJob& job, const ModelShape& source, const std::string& fingerprint) {
    auto plan = EditPlan::fromJson(job.plan, "plan");
    for (const auto& found : checkPlan(plan, source, fingerprint)) {
        if (found.problem.severity != Severity::Error) continue;
        const bool other = !plan.fingerprint.empty() && !fingerprint.empty() && plan.fingerprint != fingerprint;
        throw Error(other ? ErrorCode::Mismatch : ErrorCode::BadInput, "plan: " + found.problem.subject, found.problem.message);
    }
    return plan;
}

/// One start of a run, step by step; each step is shown in the status and can be stopped.
class Session {
public:
    Session(RunFolder& folder, const RunJob& job, Start start, const JobContext& context)
        : m_folder(folder), m_job(job), m_start(start), m_context(context), m_options(trainOptions(recipe(job.recipe), job.parameters)) {}

    Trainer::End run() {
        configureRuntime(m_job.threads);
        m_load = {parseDevice(m_job.device), parseDtype(m_job.dtype), false};
        prepareBase();
        readData();
        requireMemory();
        if (m_start == Start::Resume) m_checkpoints = runCheckpoints(m_folder.checkpoints());
        auto state = startingState();
        if (!state.has_value()) measureReference();
        if (m_context.stopped()) return Trainer::End::Stopped;
        say(LogLevel::Info, "Loading the model.");
        Trainee trainee({m_options, m_job.seed, &*m_base, m_cut ? &m_sourceShape : nullptr, m_cut ? &*m_cut : nullptr, m_data.rows, m_folder.path() / "recipe", m_context},
                        m_load);
        say(LogLevel::Info, formatCount(double(trainee.trainableParameters())) + " trained parameters.");
        if (!restoreNewest(trainee, state) && !measureStart(trainee)) return Trainer::End::Stopped;
        if (m_options.distillWeight > 0 && !m_teacher) loadReference();
        Trainer trainer({trainee, m_options.distillWeight > 0 ? m_teacher.get() : nullptr, m_data.rows, m_data.evalRows, m_options, m_job.seed}, m_folder, m_state,
                        m_context);
        const auto end = trainer.run();
        m_state = trainer.state();
        if (end == Trainer::End::Done) finish();
        return end;
    }
    std::string summary() const;

private:
    void say(LogLevel level, const std::string& message) {
        m_folder.log(level, message);
        m_folder.update([&](RunStatus& status) { status.message = message; });
    }
    void prepareBase();
    void prepareCutBase();
    void readData();
    void requireMemory();
    std::optional<TrainState> startingState();
    bool restoreNewest(Trainee& trainee, std::optional<TrainState>& state);
    void loadReference();
    void measureReference();
    bool measureStart(Trainee& trainee);
    void finish();

    RunFolder& m_folder;
    const RunJob& m_job;
    Start m_start;
    const JobContext& m_context;
    TrainOptions m_options;
    LoadOptions m_load;
    std::optional<Checkpoint> m_source, m_base;
    std::optional<Cut> m_cut;                  // of the source, when there is a plan
    ModelShape m_sourceShape, m_shape;
    TrainData m_data;
    std::unique_ptr<LanguageModel> m_teacher;
    std::vector<RunCheckpoint> m_checkpoints;  // that may be continued from, newest last
    TrainState m_state;
};

void Session::prepareBase() {
    const auto baseFolder = m_folder.path() / "base";
    std::string fingerprint;
    if (m_options.recipe->origin() == Recipe::Origin::RandomWeights) {
        const auto config = readJsonFile(configFile(m_job.source));
        fingerprint = "sha256:" + sha256Hex(config.dump());
        if (!fs::exists(baseFolder)) {
            say(LogLevel::Info, "Drawing random weights.");
            writeRandomCheckpoint(config, folderOf(m_job.source), m_options.initStd, m_job.seed, baseFolder);
        }
        m_base = Checkpoint::open(baseFolder);
    } else {
        say(LogLevel::Info, "Opening " + m_job.source.string() + ".");
        m_source = Checkpoint::open(m_job.source);
        requireTrainable(Anatomy::of(*m_source).shape());
        fingerprint = m_source->fingerprint();
        if (!m_job.plan.is_null()) prepareCutBase();
        m_base = m_job.plan.is_null() ? Checkpoint::open(m_job.source) : Checkpoint::open(baseFolder);
    }
    if (!m_job.sourceFingerprint.empty() && m_job.sourceFingerprint != fingerprint)
        throw Error(ErrorCode::Mismatch, m_job.source.string(), "has another fingerprint than the job expects: the checkpoint was changed or replaced");
    m_shape = Anatomy::of(*m_base).shape();
    m_sourceShape = m_source ? Anatomy::of(*m_source).shape() : m_shape;
    m_state.jobKey = sha256Hex(Json{{"recipe", m_job.recipe}, {"source", fingerprint}, {"plan", m_job.plan}, {"dtype", m_job.dtype}}.dump());
}

void Session::prepareCutBase() {
    const auto anatomy = Anatomy::of(*m_source);
    const auto plan = checkedPlan(m_job, anatomy.shape(), m_source->fingerprint());
    m_cut = cutOf(plan, anatomy.shape());
    const auto to = m_folder.path() / "base";
    if (fs::exists(to)) return;  // complete: it gets its name last
    say(LogLevel::Info, "Cutting the model.");
    ExportOptions options;
    options.provenance = {{"plan", m_job.plan}, {"source", m_job.source.string()}};
    exportHuggingFace(*m_source, anatomy, *m_cut, to, options, m_context);
}

void Session::readData() {
    say(LogLevel::Info, "Reading " + m_job.data.file.string() + ".");
    std::vector<Problem> problems;
    m_data = loadData(m_job, m_options, m_shape, problems, m_context);
    m_state.dataFingerprint = m_data.fingerprint;
    m_folder.log(LogLevel::Info, m_data.description + "; trained on " + formatThousands(static_cast<std::int64_t>(m_data.rows.size())) + (m_shape.image ? " images" : " rows") + ", evaluated on " +
                                     formatThousands(static_cast<std::int64_t>(m_data.evalRows.size())) + ".");
    for (const auto& problem : problems) m_folder.log(problem.severity == Severity::Note ? LogLevel::Info : LogLevel::Warning, problem.subject + ": " + problem.message);
}

void Session::requireMemory() {
    auto estimate = estimateMemory(m_shape, m_sourceShape, m_options, m_job.dtype, rowLengthFor(m_options, m_shape), m_cut ? &*m_cut : nullptr);
    judgeMemory(estimate, m_job.device);
    m_folder.log(LogLevel::Info, "Needs about " + formatBytes(estimate.memory()) + " of memory (estimate: " + estimate.priceWords() + "); " +
                                     formatBytes(estimate.freeBytes) + " are free.");
    if (hasErrors(estimate.problems)) throw Error(ErrorCode::OutOfMemory, "memory", estimate.problems.front().message + " " + estimate.problems.front().advice);
}

/// The state of the newest of m_checkpoints, of which it drops those that cannot be read; nullopt for a fresh start.
std::optional<TrainState> Session::startingState() {
    while (!m_checkpoints.empty()) {
        const auto folder = m_checkpoints.back().folder;
        try {
            const auto state = readTrainState(folder / "state" / "state.json");
            if (state.jobKey != m_state.jobKey) throw Error(ErrorCode::Mismatch, folder.string(), "belongs to another job: recipe, source, plan or dtype were changed");
            if (state.dataFingerprint != m_state.dataFingerprint) throw Error(ErrorCode::Mismatch, m_job.data.file.string(), "the data is not what the run was started with");
            return state;
        } catch (const Error& error) {
            if (error.code() == ErrorCode::Mismatch) throw;
            m_folder.log(LogLevel::Warning, std::string("Cannot continue from ") + error.what() + "; trying the one before.");
            m_checkpoints.pop_back();
            if (m_checkpoints.empty()) throw Error(ErrorCode::Corrupt, m_folder.checkpoints().string(), "no checkpoint can be read; start a new run");
        }
    }
    return std::nullopt;
}

bool Session::restoreNewest(Trainee& trainee, std::optional<TrainState>& state) {
    while (state) {
        const auto folder = m_checkpoints.back().folder;
        try {
            trainee.restore(folder);
            m_state = *state;
            m_folder.truncateMetrics(m_state.metricsBytes, m_state.step);
            break;
        } catch (const Error& error) {
            m_folder.log(LogLevel::Warning, std::string("Cannot continue from ") + error.what() + "; trying the one before.");
            m_checkpoints.pop_back();
            if (m_checkpoints.empty()) throw Error(ErrorCode::Corrupt, m_folder.checkpoints().string(), "no checkpoint can be read; start a new run");
            state = startingState();
        }
    }
    if (!state) return false;
    // Newer folders were damaged: they must not be taken for the newest again.
    for (const auto& other : runCheckpoints(m_folder.checkpoints())) {
        if (other.step > m_state.step) fs::remove_all(other.folder);
    }
    m_folder.append(m_state.row);
    auto row = m_state.row;
    row.event = "resume";
    m_folder.append(row);
    say(LogLevel::Info, "Continues from step " + std::to_string(m_state.step) + ".");
    return true;
}

void Session::loadReference() {
    const auto path = m_job.reference.empty() ? m_job.source : m_job.reference;
    say(LogLevel::Info, "Loading the uncut model.");
    auto load = m_load;
    load.trainable = false;
    m_teacher = LanguageModel::load(Checkpoint::open(path), load, m_context);
    if (m_teacher->shape().vocabSize != m_shape.vocabSize) throw Error(ErrorCode::Mismatch, path.string(), "has another vocabulary than the model that is trained");
}

void Session::measureReference() {
    const bool differs = !m_job.reference.empty() || !m_job.plan.is_null();
    if (m_data.evalRows.empty() || !differs) return;
    loadReference();
    say(LogLevel::Info, "Measuring the uncut model.");
    const auto result = evaluate(*m_teacher, m_data.evalRows, m_options.batchRows, m_context);
    if (m_options.distillWeight == 0) m_teacher.reset();
    if (!result.complete) return;
    if (!std::isfinite(result.loss)) throw Error(ErrorCode::BadInput, m_job.source.string(), "the uncut model's loss is not a number; look for damaged weights (resect-cli inspect --deep, or Check all data on the Overview page)");
    m_state.baselineLoss = result.loss;
    m_state.baselineAccuracy = result.accuracy;
}

/// The loss before the first step. False when it was stopped.
bool Session::measureStart(Trainee& trainee) {
    m_folder.truncateMetrics(0, -1);
    if (m_data.evalRows.empty()) return true;
    say(LogLevel::Info, "Measuring the model before the first step.");
    trainee.parts().setTraining(false);
    const auto result = evaluate(trainee.model(), m_data.evalRows, m_options.batchRows, m_context, [&trainee](const TrainBatch& batch) { trainee.parts().beginBatch(batch); });
    if (!result.complete) return false;
    if (!std::isfinite(result.loss))
        throw Error(ErrorCode::BadInput, m_base->folder().string(), "the model's loss is not a number before the first step; look for damaged weights (resect-cli inspect --deep, or Check all data on the Overview page)");
    m_state.cutLoss = m_state.evalLoss = result.loss;
    m_state.cutAccuracy = m_state.evalAccuracy = result.accuracy;
    if (std::isnan(m_state.baselineLoss) && m_options.recipe->origin() == Recipe::Origin::Checkpoint) m_state.baselineLoss = result.loss, m_state.baselineAccuracy = result.accuracy;
    protocol::MetricsRow row;
    row.event = "eval";
    row.evalLoss = result.loss;
    row.evalPerplexity = result.perplexity();
    if (std::isfinite(result.accuracy)) row.evalAccuracy = result.accuracy;
    m_folder.append(row);
    return true;
}

std::string Session::summary() const {
    std::string text = "Finished after " + formatThousands(m_state.step) + " steps and " + formatDuration(m_state.seconds) + ".";
    if (m_data.evalRows.empty()) return text;
    if (m_shape.image)
        text += " Accuracy " + toText(m_state.cutAccuracy, 4) + " before, " + toText(m_state.bestAccuracy, 4) + " at its best (step " + std::to_string(m_state.bestStep) + "); loss " +
                toText(m_state.cutLoss, 4) + " and " + toText(m_state.bestLoss, 4) + ".";
    else text += " Perplexity " + toText(std::exp(m_state.cutLoss), 4) + " before, " + toText(std::exp(m_state.bestLoss), 4) + " at its best (step " +
            std::to_string(m_state.bestStep) + ").";
    const double recovered = (m_state.cutLoss - m_state.bestLoss) / (m_state.cutLoss - m_state.baselineLoss);
    if (std::isfinite(recovered)) text += " " + toText(100 * recovered, 3) + " % of the lost loss is back, what any model learns from this " + (m_shape.image ? "data" : "text") + " included.";
    return text;
}

void Session::finish() {
    const auto merged = m_folder.path() / "merged";
    if (m_options.recipe->kind() == Recipe::Kind::Adapter && m_options.merge) {
        say(LogLevel::Info, "Merging the adapter.");
        std::error_code ignored;
        fs::remove_all(merged, ignored);  // of an earlier end with fewer steps
        m_options.recipe->writeCheckpoint(*m_base, runResult(m_folder.path()), merged, m_context);
    }
    say(LogLevel::Info, summary());
}

RunStatus execute(const fs::path& folder, Start start, const JobContext& context) {
    const auto job = readRunJob(folder);
    RunFolder run(folder);
    try {
        if (start == Start::Resume) run.clearControl();
        else if (run.metricsBytes() > 0 || !runCheckpoints(run.checkpoints()).empty())
            throw Error(ErrorCode::Usage, folder.string(), "was started before; resume it, or choose another folder");
        Session session(run, job, start, context);
        const auto end = session.run();
        const bool done = end == Trainer::End::Done;
        if (!done) run.clearControl();
        const auto message = done ? run.status().message : "Stopped at step " + std::to_string(run.status().step) + "; it can be resumed.";
        if (!done) run.log(LogLevel::Info, message);
        run.update([&](RunStatus& status) {
            status.state = done ? "done" : "stopped";
            status.message = message;
            status.etaSeconds = 0;
        });
    } catch (const std::exception& thrown) {
        std::optional<Error> translated;
        if (const auto* files = dynamic_cast<const fs::filesystem_error*>(&thrown)) translated = systemError(files->code().value(), files->path1(), "cannot be used");
        const std::exception& error = translated ? static_cast<const std::exception&>(*translated) : thrown;
        const auto* known = dynamic_cast<const Error*>(&error);
        const bool stopped = known && known->code() == ErrorCode::Stopped;
        std::string message = error.what();
        if (!known) message = message.substr(0, message.find('\n'));  // LibTorch appends a stack trace
        run.log(stopped ? LogLevel::Info : LogLevel::Error, message);
        run.update([&](RunStatus& status) {
            status.state = stopped ? "stopped" : "failed";
            status.message = message;
        });
        if (translated) throw *translated;
        if (!stopped) throw;
    }
    return run.status();
}

}  // namespace

RunStatus runJob(const fs::path& folder, const JobContext& job) { return execute(folder, Start::Fresh, job); }
RunStatus resumeRun(const fs::path& folder, const JobContext& job) { return execute(folder, Start::Resume, job); }

fs::path runResult(const fs::path& folder) {
    const auto checkpoints = folder / "checkpoints";
    if (const auto best = pointedCheckpoint(checkpoints, "best")) return *best;
    if (const auto last = pointedCheckpoint(checkpoints, "last")) return *last;
    const auto found = runCheckpoints(checkpoints);
    if (found.empty()) throw Error(ErrorCode::NotFound, folder.string(), "the run has kept no checkpoint yet");
    return found.back().folder;
}

fs::path runBase(const fs::path& folder) {
    if (fs::exists(folder / "base")) return folder / "base";
    return readRunJob(folder).source;
}

fs::path runCheckpoint(const fs::path& folder, const fs::path& scratch, const JobContext& job) {
    const auto how = recipe(readRunJob(folder).recipe);
    const auto result = runResult(folder);
    if (how->kind() == Recipe::Kind::Weights) return result;
    how->writeCheckpoint(Checkpoint::open(runBase(folder)), result, scratch, job);
    return scratch;
}

JobShapes shapesOfJob(const RunJob& job) {
    if (recipe(job.recipe)->origin() == Recipe::Origin::RandomWeights) {
        const auto file = configFile(job.source);
        const auto shape = readModelShape(readJsonFile(file), Json(), file.string());
        return {shape, shape, {}};
    }
    const auto checkpoint = Checkpoint::open(job.source);
    const auto anatomy = Anatomy::of(checkpoint);
    requireTrainable(anatomy.shape());
    if (job.plan.is_null()) return {anatomy.shape(), anatomy.shape(), {}};
    const auto plan = checkedPlan(job, anatomy.shape(), {});
    auto cut = cutOf(plan, anatomy.shape());
    auto left = shapeAfter(anatomy.shape(), cut);
    return {anatomy.shape(), std::move(left), std::move(cut)};
}

std::int64_t countTrainRows(const RunJob& job, const TrainOptions& options, const ModelShape& shape) {
    std::vector<Problem> problems;
    return static_cast<std::int64_t>(loadData(job, options, shape, problems, {}).rows.size());
}

}  // namespace resect
