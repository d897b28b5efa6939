#include "core/protocol/run_files.h"

namespace resect::protocol {

RESECT_JSON_FIELDS(RunStatus, state, pid, host, heartbeat, started, step, totalSteps, tokensPerSecond, tokens,
                   peakMemoryBytes, etaSeconds, loss, evalPerplexity, baselinePerplexity, cutPerplexity, bestPerplexity,
                   recovery, message)
RESECT_JSON_FIELDS(MetricsRow, step, tokens, seconds, event, loss, evalLoss, evalPerplexity, recovery, kl, learningRate,
                   gradientNorm, tokensPerSecond)

}  // namespace resect::protocol
