#include "core/protocol/run_files.h"

#include <cmath>
#include <limits>

namespace resect::protocol {

double likeForLikeRecovery(const RunStatus& run, const RunStatus& control) {
    for (const double perplexity : {run.bestPerplexity, control.bestPerplexity, run.cutPerplexity, run.baselinePerplexity}) {
        if (!(perplexity > 0)) return std::numeric_limits<double>::quiet_NaN();
    }
    const double before = std::log(run.cutPerplexity / run.baselinePerplexity), after = std::log(run.bestPerplexity / control.bestPerplexity);
    return before > 0 ? 1 - after / before : std::numeric_limits<double>::quiet_NaN();
}

RESECT_JSON_FIELDS(RunStatus, state, pid, host, heartbeat, started, step, totalSteps, unit, tokensPerSecond, tokens,
                   peakMemoryBytes, etaSeconds, loss, evalPerplexity, baselinePerplexity, cutPerplexity, bestPerplexity,
                   evalAccuracy, baselineAccuracy, cutAccuracy, bestAccuracy, recovery, message)
RESECT_JSON_FIELDS(MetricsRow, step, tokens, seconds, event, loss, evalLoss, evalPerplexity, evalAccuracy, recovery, kl, learningRate,
                   gradientNorm, tokensPerSecond)

}  // namespace resect::protocol
