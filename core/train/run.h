#pragma once
#include "core/anatomy/model_shape.h"
#include "core/base/job.h"
#include "core/surgery/cut.h"
#include "core/train/recipe.h"
#include "core/train/run_folder.h"
#include "core/train/run_job.h"

#include <cstdint>
#include <filesystem>
#include <optional>

namespace resect {

/// Runs the job of a fresh run folder to its end and returns its last status: done, or stopped when it was asked to (a checkpoint is kept).
/// A failure is written into the status before it is thrown. Throws Usage when the run was started before (resume it), Mismatch when another
/// process holds the folder, the source has another fingerprint than the job says, or the plan is for another checkpoint; BadInput for data
/// and weights that cannot be trained on; OutOfMemory with numbers before anything large is loaded; DiskFull, NoPermission.
protocol::RunStatus runJob(const std::filesystem::path& folder, const JobContext& job);
/// Continues from the newest checkpoint that can be read, or from the beginning when there is none. A finished run is left as it is,
/// unless job.json now asks for more steps. On the CPU the continued run equals an uninterrupted one bit for bit.
protocol::RunStatus resumeRun(const std::filesystem::path& folder, const JobContext& job);

/// The folder with the result of a run: its best checkpoint, or adapter. Throws NotFound when none was kept.
std::filesystem::path runResult(const std::filesystem::path& folder);
/// The checkpoint that a run trains: `base` in its folder when something was cut, else the source.
std::filesystem::path runBase(const std::filesystem::path& folder);

/// The result of a run as a complete checkpoint. A recipe that keeps adapters writes it into the new folder `scratch`; otherwise that stays unused.
/// Returns the folder that holds it. Throws NotFound when the run has kept none yet.
std::filesystem::path runCheckpoint(const std::filesystem::path& folder, const std::filesystem::path& scratch, const JobContext& job);

/// Shapes before and after the plan of a job. Throws as opening the source and checking the plan do.
struct JobShapes {
    ModelShape source, cut;
    std::optional<Cut> plan;   ///< what the plan removes; empty without one
};
JobShapes shapesOfJob(const RunJob& job);
/// Rows that would be trained on. Reads and tokenises the data.
std::int64_t countTrainRows(const RunJob& job, const TrainOptions& options, const ModelShape& shape);

}  // namespace resect
