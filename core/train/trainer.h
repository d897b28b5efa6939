#pragma once
#include "core/base/job.h"
#include "core/train/batches.h"
#include "core/train/losses.h"
#include "core/train/recipe.h"
#include "core/train/run_folder.h"
#include "core/train/train_state.h"
#include "core/train/trainee.h"

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace resect {

/// What the loop works on. Everything must outlive it.
struct TrainInputs {
    Trainee& trainee;
    const LanguageModel* teacher;                 ///< null without distillation
    const std::vector<TokenRow>& rows;            ///< trained on; every row has a target
    const std::vector<TokenRow>& evalRows;        ///< empty = no evaluation
    const TrainOptions& options;
    std::uint64_t seed;
};

/// The training loop over a run folder: steps, evaluations, checkpoints, pause and stop, and what happens when a value is not finite.
class Trainer {
public:
    Trainer(TrainInputs inputs, RunFolder& folder, TrainState state, const JobContext& job);

    enum class End { Done, Stopped };
    /// Runs until the last step, the time limit or a stop (which keeps a checkpoint). Throws BadInput when values were not finite for the
    /// third time, DiskFull or NoPermission when results cannot be kept; the last good checkpoint stays.
    End run();
    const TrainState& state() const noexcept { return m_state; }

private:
    enum class StepResult { Taken, Abandoned, NotFinite };
    StepResult takeStep();
    std::vector<TrainBatch> gatherBatches(std::uint64_t& position);
    bool finishStep();                            ///< evaluation and checkpoint that are due; false = not finite
    bool evaluateNow();                           ///< false = not finite
    void writeCheckpoint();
    void noteBest();
    void judgeSaved();                            ///< the evaluation of a checkpoint that was kept by a stop
    void writePointers();
    End keepAndStop();
    void prune();
    void goBack();                                ///< after a value that is not finite
    void restore(const TrainState& state, const std::filesystem::path& folder);
    void handleRequests();
    bool stopAsked();
    bool isDue(std::int64_t every) const { return every > 0 && m_state.step % every == 0; }
    bool finished() const;
    protocol::MetricsRow row(std::string event) const;
    void showStep(const BatchLoss& loss, double rate, double norm, std::int64_t tokens, double seconds);
    double recovery(double loss) const;

    TrainInputs m_in;
    RunFolder& m_folder;
    TrainState m_state;
    const JobContext& m_job;
    const TrainState m_start;
    DataOrder m_order;
    std::int64_t m_totalSteps;
    std::int64_t m_savedStep = -1;                ///< of the newest checkpoint
    std::string m_notFinite;                      ///< what was not finite, for people
    std::deque<double> m_stepSeconds;
};

}  // namespace resect
