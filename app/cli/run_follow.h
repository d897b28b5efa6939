#pragma once
#include "app/cli/common.h"
#include "core/protocol/run_files.h"

#include <filesystem>
#include <functional>

namespace resect::cli {

/// Runs in this process until the run ends, then prints its status. Ctrl+C and SIGTERM stop and keep (exit code 5).
void followRun(const Common& options, const std::filesystem::path& folder, const std::function<protocol::RunStatus(const JobContext&)>& run);

}  // namespace resect::cli
