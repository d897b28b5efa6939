#pragma once
#include "core/base/job.h"
#include "core/protocol/run_files.h"

#include <filesystem>
#include <optional>

namespace resect {

enum class RunStart { Fresh, Resume };

/// Runs or resumes a run folder to its end and writes its report; when it is done its control follows (RunJob::control), resumed where it was
/// left. Returns the last status of the run itself. Throws as runJob and resumeRun do.
protocol::RunStatus runToEnd(const std::filesystem::path& folder, RunStart start, const JobContext& job);

/// The status of the control of a run, and what the two say together; nullopt when the run has none or it was deleted.
struct ControlResult {
    std::filesystem::path folder;
    protocol::RunStatus status;
    double likeForLike = 0;   ///< protocol::likeForLikeRecovery; NaN while it is not known
};
std::optional<ControlResult> findControl(const std::filesystem::path& folder);

/// Writes `report.h5` of a run folder: its metrics as curves over the step. Replaces an earlier one. Throws NotFound, BadInput, DiskFull, NoPermission.
void writeRunReport(const std::filesystem::path& folder);

}  // namespace resect
