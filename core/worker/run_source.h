#pragma once
#include "core/base/job.h"
#include "core/protocol/json.h"

#include <filesystem>
#include <memory>

namespace resect {

/// What an export starts from: a checkpoint itself, or the best checkpoint of a recovery run.
struct ExportSource {
    std::filesystem::path checkpoint;
    Json provenance;                 ///< null for a plain checkpoint; run, step, figures otherwise
    std::shared_ptr<void> scratch;   ///< keeps a merged temporary checkpoint alive
};

/// `path` is a checkpoint or a run folder (it holds job.json). An adapter is put onto the run's base in a temporary folder.
/// Throws NotFound when the run has no checkpoint yet.
ExportSource resolveExportSource(const std::filesystem::path& path, const JobContext& job);

}  // namespace resect
