#include "core/train/train_state.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"

#include <algorithm>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kStem = "step-";

RESECT_JSON_FIELDS(TrainState, step, tokens, position, seconds, rateScale, nonFinite, evaluationDue, loss, evalLoss, baselineLoss, cutLoss, bestLoss, evalAccuracy, baselineAccuracy, cutAccuracy,
                   bestAccuracy, bestStep, jobKey, dataFingerprint, metricsBytes, row)

}  // namespace

void writeTrainState(const fs::path& file, const TrainState& state) {
    Json json{{"resect_training_state", 1}};
    Json fields;
    to_json(fields, state);
    json.update(fields);
    writeJsonFile(file, json);
}

TrainState readTrainState(const fs::path& file) {
    const auto json = readJsonFile(file);
    const auto subject = file.string();
    if (!json.is_object() || intField(json, "resect_training_state", subject, 0) != 1) throw Error(ErrorCode::BadInput, subject, "is no training state of version 1");
    intField(json, "step", subject);
    TrainState state;
    try {
        from_json(json, state);
    } catch (const Json::exception& error) {
        throw Error(ErrorCode::BadInput, subject, error.what());
    }
    return state;
}

std::vector<RunCheckpoint> runCheckpoints(const fs::path& checkpoints) {
    std::vector<RunCheckpoint> found;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(checkpoints, none)) {
        const auto name = entry.path().filename().string();
        if (!name.starts_with(kStem) || !entry.is_directory()) continue;
        if (const auto step = parseInt(std::string_view(name).substr(kStem.size()))) found.push_back({*step, entry.path()});
    }
    std::ranges::sort(found, {}, &RunCheckpoint::step);
    return found;
}

std::optional<fs::path> pointedCheckpoint(const fs::path& checkpoints, const std::string& pointer) {
    const auto file = checkpoints / pointer;
    if (!fs::exists(file)) return std::nullopt;
    auto name = readFile(file, 4096);
    while (!name.empty() && (name.back() == '\n' || name.back() == ' ')) name.pop_back();
    const auto folder = checkpoints / name;
    return name.empty() || !fs::is_directory(folder) ? std::nullopt : std::optional(folder);
}

}  // namespace resect
