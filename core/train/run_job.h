#pragma once
#include "core/protocol/json.h"

#include <cstdint>
#include <filesystem>
#include <string>

namespace resect {

/// A file of rows, or a set of images, to train on or to evaluate.
struct RunData {
    std::filesystem::path file;
    std::int64_t maxRows = 0;      ///< 0 = all
    std::uint64_t maxBytes = 0;    ///< of a text file; 0 = all
    std::string imageAspect{};     ///< "pad": pictures are padded to squares first; "" = as the checkpoint says
};

/// What a run shall do: `job.json` of a run folder.
///
/// {"resect_run": 1, "recipe": "lora", "set": {"steps": 300}, "source": {"path": "...", "fingerprint": "sha256:..."}, "plan": {...},
///  "control": "...", "data": {"file": "...", "maxRows": 0, "maxBytes": 0}, "evalData": {...}, "device": "cpu", "dtype": "f32", "seed": 0, "threads": 0}
///
/// Relative paths are relative to the working directory of the program that runs the job. For the recipe "pretrain" the source is a
/// config.json, or a folder that holds one, with the tokenizer files beside it.
struct RunJob {
    std::string recipe = "full";
    Json parameters = Json::object();      ///< of the recipe, {name: value}
    std::filesystem::path source;
    std::string sourceFingerprint;         ///< "" = not compared
    Json plan;                             ///< as in plan.json, null = nothing is cut
    std::filesystem::path reference;       ///< the uncut model when the source was cut elsewhere; "" = the source
    /// Run folder in which the uncut model is trained the same way afterwards; "" = none. Training on a text also teaches that text, which
    /// is no recovery: only the control tells the two apart (protocol::likeForLikeRecovery).
    std::filesystem::path control;
    RunData data, evalData;                ///< evalData.file "" = the held-out tail of data
    std::string device = "auto";
    std::string dtype = "f32";             ///< "f32", "bf16": of the arithmetic; master weights and optimiser state are always f32
    std::uint64_t seed = 0;
    int threads = 0;                       ///< 0 = the default of the machine

    /// Throws BadInput naming the field; unknown fields are an error. Parameters are checked against the recipe (Usage).
    static RunJob fromJson(const Json& json, const std::string& subject);
    Json toJson() const;
};

/// The control of a job: the same without the plan. Throws Usage when nothing is cut, so that there is nothing to control.
RunJob controlOf(const RunJob& job);

/// Creates the run folder with its job.json, paths made absolute; the folder of the control too. Throws BadInput when a folder already holds a
/// job, Usage as controlOf, NoPermission, DiskFull.
void createRun(const std::filesystem::path& folder, const RunJob& job);
/// Reads `folder`/job.json. Throws NotFound, BadInput.
RunJob readRunJob(const std::filesystem::path& folder);

}  // namespace resect
