#include "core/worker/run_source.h"

#include "core/base/error.h"
#include "core/train/run.h"

#include <string>
#include <unistd.h>

namespace resect {

namespace fs = std::filesystem;

namespace {

/// A folder that goes when the last copy of the source does.
struct ScratchFolder {
    fs::path path;
    ~ScratchFolder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
};

Json provenanceOf(const fs::path& run, const fs::path& result) {
    const protocol::RunStatus status = readStatus(run);
    const RunJob job = readRunJob(run);
    Json json{{"run",
             {{"recipe", job.recipe},
              {"parameters", job.parameters},
              {"plan", job.plan},
              {"sourceFingerprint", job.sourceFingerprint},
              {"checkpoint", result.filename().string()},
              {"step", status.step},
              {"baselinePerplexity", status.baselinePerplexity},
              {"cutPerplexity", status.cutPerplexity},
              {"bestPerplexity", status.bestPerplexity},
              {"recovery", status.recovery}}}};
    if (status.unit == "images") json["run"].update(Json{{"baselineAccuracy", status.baselineAccuracy}, {"cutAccuracy", status.cutAccuracy}, {"bestAccuracy", status.bestAccuracy}});
    return json;
}

}  // namespace

ExportSource resolveExportSource(const fs::path& path, const JobContext& job) {
    if (!fs::is_directory(path) || !fs::exists(path / "job.json")) return {path, {}, {}};
    auto scratch = std::make_shared<ScratchFolder>();
    const fs::path result = runResult(path);
    scratch->path = fs::temp_directory_path() / ("resect-merged-" + std::to_string(getpid()) + "-" + result.filename().string());
    fs::remove_all(scratch->path);
    return {runCheckpoint(path, scratch->path, job), provenanceOf(path, result), scratch};
}

}  // namespace resect
