#pragma once
#include "core/protocol/run_files.h"

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace resect {

/// Where a run stands, but for weights and moments: what makes a resumed run continue exactly.
struct TrainState {
    std::int64_t step = 0;               ///< optimiser steps taken
    std::int64_t tokens = 0;             ///< trained on
    std::uint64_t position = 0;          ///< rows taken from the endless sequence of epochs
    double seconds = 0;                  ///< trained, pauses not counted
    double rateScale = 1;                ///< halved each time a value was not finite
    int nonFinite = 0;                   ///< how often
    bool evaluationDue = false;          ///< stopped before the evaluation of this step
    double loss = std::numeric_limits<double>::quiet_NaN();           ///< of the last step
    double evalLoss = std::numeric_limits<double>::quiet_NaN();       ///< latest; NaN = none
    double baselineLoss = std::numeric_limits<double>::quiet_NaN();   ///< of the uncut model
    double cutLoss = std::numeric_limits<double>::quiet_NaN();        ///< before the first step
    double bestLoss = std::numeric_limits<double>::quiet_NaN();       ///< lowest evaluation loss among the checkpoints
    double evalAccuracy = evalLoss, baselineAccuracy = evalLoss, cutAccuracy = evalLoss;   ///< of images, with those losses; NaN = none
    double bestAccuracy = evalLoss;      ///< of the checkpoint with the lowest loss
    std::int64_t bestStep = -1;          ///< of that checkpoint
    std::string jobKey, dataFingerprint; ///< what the run was started with
    std::uint64_t metricsBytes = 0;      ///< of metrics.jsonl before the row of this checkpoint
    protocol::MetricsRow row;            ///< of this checkpoint
};

void writeTrainState(const std::filesystem::path& file, const TrainState& state);
TrainState readTrainState(const std::filesystem::path& file);   ///< throws NotFound, BadInput

/// The folders checkpoints/step-N of a run, ascending by N. Unfinished ones are left out.
struct RunCheckpoint {
    std::int64_t step = 0;
    std::filesystem::path folder;
};
std::vector<RunCheckpoint> runCheckpoints(const std::filesystem::path& checkpoints);
/// The folder that the text file `checkpoints/best` or `checkpoints/last` names; nullopt when there is none.
std::optional<std::filesystem::path> pointedCheckpoint(const std::filesystem::path& checkpoints, const std::string& pointer);

}  // namespace resect
