#pragma once
#include "core/protocol/json.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

/// The files of a run folder, as the trainer writes and the window reads them. All text; a reader needs no connection to the run.
///
///   job.json        what to do: RunJob
///   status.json     heartbeat, replaced atomically once a second: RunStatus
///   metrics.jsonl   one MetricsRow per line, appended and flushed; a torn last line is ignored
///   control         a word written by others, polled every step: "pause", "resume", "stop"
///   log.txt         one line per message, "2026-01-31T12:00:00Z INFO ..."
///   checkpoints/step-N/   complete checkpoint + training state; `best` and `last` are text files that hold a folder name
///   report.h5       written at the end
namespace resect::protocol {

struct RunStatus {
    std::string state;             ///< queued, starting, running, pausing, paused, stopping, done, failed, stopped
    std::int64_t pid = 0;
    std::string host;
    std::string heartbeat, started;///< ISO 8601, UTC
    std::int64_t step = 0, totalSteps = 0;
    std::string unit = "tokens";   ///< tokens, images: what is counted below
    double tokensPerSecond = 0;
    std::int64_t tokens = 0;       ///< trained on so far
    std::int64_t peakMemoryBytes = 0;
    double etaSeconds = 0;
    double loss = 0, evalPerplexity = 0;   ///< perplexity: exp of the mean loss, of images too
    double baselinePerplexity = 0; ///< of the uncut model on the evaluation rows
    double cutPerplexity = 0;      ///< right after the cut, before the first step
    double bestPerplexity = 0;
    /// Images: share of the evaluation pictures whose likeliest label is right, at the same four moments. NaN = not known.
    double evalAccuracy = std::numeric_limits<double>::quiet_NaN(), baselineAccuracy = evalAccuracy, cutAccuracy = evalAccuracy, bestAccuracy = evalAccuracy;
    double recovery = 0;           ///< (cut - now) / (cut - baseline) in losses; above 1 when training on the text gains more than the cut lost
    std::string message;           ///< the last thing worth telling, or why it failed
};

/// Fields that a row does not have are null in the file; numbers that are not finite too.
struct MetricsRow {
    std::int64_t step = 0, tokens = 0;
    double seconds = 0;            ///< trained, pauses not counted
    std::string event;             ///< "" = a training step; eval, checkpoint, pause, resume, nonfinite, restart, stop
    Json loss, evalLoss, evalPerplexity, evalAccuracy, recovery, kl, learningRate, gradientNorm, tokensPerSecond;
};

/// The share of the gap between cut and uncut model that training closed when both were trained the same way, in losses (nats):
/// 1 - (run.best - control.best) / (run.cut - run.baseline). Unlike RunStatus::recovery it does not count what training on the text teaches
/// any model. NaN while one of the values is missing.
double likeForLikeRecovery(const RunStatus& run, const RunStatus& control);

RESECT_JSON_DECLARE(RunStatus)
RESECT_JSON_DECLARE(MetricsRow)

}  // namespace resect::protocol
