#include "core/train/trainer.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/export/manifest.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

namespace resect {

namespace fs = std::filesystem;
using protocol::MetricsRow;
using protocol::RunStatus;
using Clock = std::chrono::steady_clock;

namespace {

const char* const kStateFile = "state/state.json";
constexpr int kPatience = 3;                  // times a value may be not finite
constexpr std::size_t kRememberedSteps = 50;  // for the estimate of what is left
constexpr auto kPausePoll = std::chrono::milliseconds(200);

double secondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double median(std::deque<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

Json numberOrNull(double value) { return std::isfinite(value) ? Json(value) : Json(); }

}  // namespace

Trainer::Trainer(TrainInputs inputs, RunFolder& folder, TrainState state, const JobContext& job)
    : m_in(inputs), m_folder(folder), m_state(std::move(state)), m_job(job), m_start(m_state), m_order(inputs.rows.size(), inputs.seed),
      m_totalSteps(totalSteps(inputs.options, static_cast<std::int64_t>(inputs.rows.size()))) {
    if (const auto found = runCheckpoints(folder.checkpoints()); !found.empty() && found.back().step == m_state.step) m_savedStep = m_state.step;
    m_folder.update([&](RunStatus& status) {
        status.step = m_state.step;
        status.totalSteps = m_totalSteps;
        status.tokens = m_state.tokens;
        status.unit = !inputs.rows.empty() && inputs.rows.front().image.set ? "images" : "tokens";
        status.loss = m_state.loss;
        status.evalAccuracy = m_state.evalAccuracy;
        status.baselineAccuracy = m_state.baselineAccuracy;
        status.cutAccuracy = m_state.cutAccuracy;
        status.bestAccuracy = m_state.bestAccuracy;
        status.evalPerplexity = std::exp(m_state.evalLoss);
        status.baselinePerplexity = std::exp(m_state.baselineLoss);
        status.cutPerplexity = std::exp(m_state.cutLoss);
        status.bestPerplexity = std::exp(m_state.bestLoss);
        status.recovery = recovery(m_state.evalLoss);
    });
}

double Trainer::recovery(double loss) const { return (m_state.cutLoss - loss) / (m_state.cutLoss - m_state.baselineLoss); }

MetricsRow Trainer::row(std::string event) const {
    MetricsRow row;
    row.step = m_state.step;
    row.tokens = m_state.tokens;
    row.seconds = m_state.seconds;
    row.event = std::move(event);
    return row;
}

bool Trainer::finished() const {
    return m_state.step >= m_totalSteps || (m_in.options.maxMinutes > 0 && m_state.seconds >= m_in.options.maxMinutes * 60);
}

bool Trainer::stopAsked() { return m_job.stopped() || m_folder.control() == RunControl::Stop; }

std::vector<TrainBatch> Trainer::gatherBatches(std::uint64_t& position) {
    std::vector<TrainBatch> batches;
    for (int i = 0; i < m_in.options.accumulation; ++i) {
        std::vector<const TokenRow*> rows;
        for (int r = 0; r < m_in.options.batchRows; ++r) rows.push_back(&m_in.rows[m_order.rowAt(position++)]);
        batches.push_back(makeBatch(rows));
    }
    return batches;
}

Trainer::StepResult Trainer::takeStep() {
    const auto start = Clock::now();
    const auto& options = m_in.options;
    auto position = m_state.position;
    const auto batches = gatherBatches(position);
    std::int64_t counted = 0, tokens = 0;
    for (const auto& batch : batches) {
        counted += batch.counted;
        tokens += batch.realTokens;
    }
    auto& parts = m_in.trainee.parts();
    parts.beginStep(m_state.step + 1, m_totalSteps);
    const LossOptions lossOptions{options.distillWeight, options.distillTemperature, options.routerBalance, [&parts] { return parts.extraLoss(); }};
    BatchLoss sum;
    std::uint64_t index = 0;
    for (const auto& batch : batches) {
        if (stopAsked()) {
            m_in.trainee.clearGradients();
            return StepResult::Abandoned;
        }
        // What a recipe draws (dropout) depends on the position alone, so that a resumed run draws the same.
        torch::manual_seed(mixSeed(m_in.seed + index++, m_state.position));
        const double share = double(batch.counted) / double(counted);
        const auto there = batch.to(m_in.trainee.model().device());
        parts.beginBatch(there);
        const auto loss = accumulateGradients(m_in.trainee.model(), m_in.teacher, there, lossOptions, share);
        m_in.trainee.collectGradients();
        sum.total += share * loss.total;
        sum.crossEntropy += share * loss.crossEntropy;
        sum.kl += share * loss.kl;
        if (!std::isfinite(sum.total)) {
            m_notFinite = "loss";
            return StepResult::NotFinite;
        }
    }
    const double norm = gradientNorm(m_in.trainee.slots());
    if (!std::isfinite(norm)) {
        m_notFinite = "gradient";
        return StepResult::NotFinite;
    }
    AdamWStep step;
    step.step = m_state.step + 1;
    step.learningRate = learningRateAt(options, step.step, m_totalSteps) * m_state.rateScale;
    step.beta1 = options.beta1;
    step.beta2 = options.beta2;
    step.epsilon = options.epsilon;
    step.gradientScale = options.clip > 0 && norm > options.clip ? options.clip / norm : 1;
    m_in.trainee.takeStep(step);
    m_state.step = step.step;
    m_state.position = position;
    m_state.tokens += tokens;
    m_state.loss = sum.crossEntropy;
    const double seconds = secondsSince(start);
    m_state.seconds += seconds;
    showStep(sum, step.learningRate, norm, tokens, seconds);
    return StepResult::Taken;
}

void Trainer::showStep(const BatchLoss& loss, double rate, double norm, std::int64_t tokens, double seconds) {
    m_stepSeconds.push_back(seconds);
    if (m_stepSeconds.size() > kRememberedSteps) m_stepSeconds.pop_front();
    auto metrics = row("");
    metrics.loss = loss.crossEntropy;
    if (m_in.teacher) metrics.kl = loss.kl;
    metrics.learningRate = rate;
    metrics.gradientNorm = norm;
    metrics.tokensPerSecond = double(tokens) / seconds;
    m_folder.append(metrics);
    const double typical = median(m_stepSeconds);
    m_folder.update([&](RunStatus& status) {
        status.step = m_state.step;
        status.tokens = m_state.tokens;
        status.loss = m_state.loss;
        status.tokensPerSecond = double(tokens) / typical;
        status.etaSeconds = typical * double(m_totalSteps - m_state.step);
    });
    m_job.progress({double(m_state.step), double(m_totalSteps), "steps", "loss " + toText(m_state.loss, 4)});
}

bool Trainer::evaluateNow() {
    m_in.trainee.parts().setTraining(false);
    const auto result = evaluate(m_in.trainee.model(), m_in.evalRows, m_in.options.batchRows, JobContext(m_job.stopToken(), {}),
                                 [this](const TrainBatch& batch) { m_in.trainee.parts().beginBatch(batch); });
    m_in.trainee.parts().setTraining(true);
    m_state.evaluationDue = !result.complete;
    if (!result.complete) return true;
    if (!std::isfinite(result.loss)) {
        m_notFinite = "evaluation loss";
        return false;
    }
    m_state.evalLoss = result.loss;
    m_state.evalAccuracy = result.accuracy;
    auto metrics = row("eval");
    metrics.evalLoss = result.loss;
    metrics.evalPerplexity = result.perplexity();
    metrics.evalAccuracy = numberOrNull(result.accuracy);
    metrics.recovery = numberOrNull(recovery(result.loss));
    m_folder.append(metrics);
    m_folder.update([&](RunStatus& status) {
        status.evalPerplexity = result.perplexity();
        status.evalAccuracy = result.accuracy;
        status.recovery = recovery(result.loss);
    });
    return true;
}

bool Trainer::finishStep() {
    const bool wasDue = m_state.evaluationDue;
    const bool keep = finished() || isDue(m_in.options.checkpointEvery);
    const bool look = keep || wasDue || isDue(m_in.options.evalEvery);
    if (look && !m_in.evalRows.empty() && !evaluateNow()) return false;
    if (m_state.evaluationDue) return true;  // stopped meanwhile
    if (m_savedStep == m_state.step) {
        if (wasDue) judgeSaved();
        return true;
    }
    if (!keep) return true;
    if (!m_in.trainee.parametersAreFinite()) {
        m_notFinite = "weights";
        return false;
    }
    writeCheckpoint();
    return true;
}

void Trainer::noteBest() {
    // Without evaluation rows the newest is the best there is.
    const bool measured = !m_in.evalRows.empty() && !m_state.evaluationDue;
    const bool better = m_in.evalRows.empty() || (measured && !(m_state.evalLoss >= m_state.bestLoss));
    if (!better && m_state.bestStep >= 0) return;
    m_state.bestStep = m_state.step;
    if (measured) m_state.bestLoss = m_state.evalLoss, m_state.bestAccuracy = m_state.evalAccuracy;
}

void Trainer::judgeSaved() {
    noteBest();
    const auto folder = m_folder.checkpoints() / ("step-" + std::to_string(m_state.step));
    writeTrainState(folder / kStateFile, m_state);
    if (m_in.options.recipe->kind() == Recipe::Kind::Weights) writeManifest(folder, {}, {});
    writePointers();
}

void Trainer::writePointers() {
    writeFileAtomically(m_folder.checkpoints() / "last", "step-" + std::to_string(m_state.step) + "\n");
    writeFileAtomically(m_folder.checkpoints() / "best", "step-" + std::to_string(m_state.bestStep) + "\n");
    m_folder.update([&](RunStatus& status) { status.bestPerplexity = std::exp(m_state.bestLoss), status.bestAccuracy = m_state.bestAccuracy; });
}

void Trainer::writeCheckpoint() {
    const auto name = "step-" + std::to_string(m_state.step);
    noteBest();
    m_state.metricsBytes = m_folder.metricsBytes();
    m_state.row = row("checkpoint");
    const auto target = m_folder.checkpoints() / name;
    fs::create_directories(m_folder.checkpoints());
    fs::remove_all(target);
    {
        requireFreeSpace(m_folder.path(), m_in.trainee.savedBytes());
        StagedFolder staged(target);
        const auto written = m_in.trainee.save(staged.path());
        writeTrainState(staged.path() / kStateFile, m_state);
        if (m_in.options.recipe->kind() == Recipe::Kind::Weights) writeManifest(staged.path(), written, {});
        staged.commit();
    }
    m_savedStep = m_state.step;
    writePointers();
    m_folder.append(m_state.row);
    m_folder.log(LogLevel::Info, "Kept checkpoint " + name + (m_state.bestStep == m_state.step ? ", the best so far." : "."));
    prune();
}

void Trainer::prune() {
    const auto found = runCheckpoints(m_folder.checkpoints());
    const auto keep = static_cast<std::size_t>(m_in.options.keep);
    for (std::size_t i = 0; i + keep < found.size(); ++i) {
        if (found[i].step != m_state.bestStep) fs::remove_all(found[i].folder);
    }
}

void Trainer::restore(const TrainState& state, const fs::path& folder) {
    if (folder.empty()) m_in.trainee.reset();
    else m_in.trainee.restore(folder);
    const auto rateScale = m_state.rateScale;
    const auto nonFinite = m_state.nonFinite;
    m_state = state;
    m_state.rateScale = rateScale;
    m_state.nonFinite = nonFinite;
    m_savedStep = folder.empty() ? -1 : m_state.step;
}

void Trainer::goBack() {
    m_in.trainee.clearGradients();
    ++m_state.nonFinite;
    const auto failedStep = m_state.step + (m_notFinite == "loss" || m_notFinite == "gradient" ? 1 : 0);
    auto event = row("nonfinite");
    event.step = failedStep;
    m_folder.append(event);
    const auto found = runCheckpoints(m_folder.checkpoints());
    const auto what = "The " + m_notFinite + " became 'not a number' at step " + std::to_string(failedStep) + ".";
    if (m_state.nonFinite >= kPatience) {
        const auto kept = found.empty() ? std::string(" No checkpoint had been kept.") : " Checkpoint " + found.back().folder.filename().string() + " is kept.";
        throw Error(ErrorCode::BadInput, m_folder.path().string(),
                    what + " That was the third time, so the run has stopped." + kept + " Try a smaller learning rate, or look for damaged weights and rows.");
    }
    m_state.rateScale /= 2;
    restore(found.empty() ? m_start : readTrainState(found.back().folder / kStateFile), found.empty() ? fs::path() : found.back().folder);
    m_folder.append(row("restart"));
    const auto message = what + " Went back to step " + std::to_string(m_state.step) + " and halved the learning rate.";
    m_folder.log(LogLevel::Warning, message);
    m_folder.update([&](RunStatus& status) {
        status.message = message;
        status.step = m_state.step;
        status.tokens = m_state.tokens;
        status.loss = m_state.loss;
    });
}

void Trainer::handleRequests() {
    if (m_folder.control() != RunControl::Pause) return;
    m_folder.append(row("pause"));
    m_folder.log(LogLevel::Info, "Paused at step " + std::to_string(m_state.step) + ".");
    m_folder.update([](RunStatus& status) { status.state = "paused"; });
    while (m_folder.control() == RunControl::Pause && !m_job.stopped()) std::this_thread::sleep_for(kPausePoll);
    if (stopAsked()) return;
    m_folder.clearControl();
    m_folder.append(row("resume"));
    m_folder.log(LogLevel::Info, "Goes on.");
    m_folder.update([](RunStatus& status) { status.state = "running"; });
}

Trainer::End Trainer::run() {
    m_folder.update([](RunStatus& status) { status.state = "running"; });
    m_in.trainee.parts().setTraining(true);
    while (!finished() || m_state.evaluationDue || m_savedStep != m_state.step) {
        handleRequests();
        if (stopAsked()) return keepAndStop();
        if (!finished() && !m_state.evaluationDue) {
            const auto result = takeStep();
            if (result == StepResult::Abandoned) continue;
            if (result == StepResult::NotFinite) {
                goBack();
                continue;
            }
        }
        if (!finishStep()) goBack();
    }
    return End::Done;
}

Trainer::End Trainer::keepAndStop() {
    m_folder.update([](RunStatus& status) { status.state = "stopping"; });
    if (m_state.step > 0 && m_savedStep != m_state.step && m_in.trainee.parametersAreFinite()) writeCheckpoint();
    m_folder.append(row("stop"));
    return End::Stopped;
}

}  // namespace resect
