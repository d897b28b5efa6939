#pragma once
#include "core/method/method.h"
#include "core/worker/opened.h"
#include "core/workspace/workspace.h"

#include <cstdint>
#include <filesystem>
#include <string>

namespace resect {

struct MeasureRequest {
    std::string method;
    Json set = Json::object();          ///< parameters of the method
    protocol::DataMessage data;
    Compute compute;
    bool streamBlocks = false;
    std::uint64_t seed = 0;
    std::filesystem::path workspace;    ///< empty: the user's cache folder
    std::filesystem::path out;          ///< also written here when not empty
};

struct Measured {
    std::filesystem::path file;
    bool cached = false;
};

/// Runs a method's measurement, or finds the same one done before. A stopped one is kept, marked partial.
/// Throws Usage (unknown method, parameters), BadInput (data), Stopped when nothing was finished.
Measured measure(OpenedCheckpoint& opened, const MethodRegistry& registry, const MeasureRequest& request, const JobContext& job);

/// The workspace at `folder`, made for this checkpoint when there is none. An empty folder name gives the user's cache
/// ($XDG_CACHE_HOME/resect/measures.resect), which serves all checkpoints.
Workspace workspaceFor(const std::filesystem::path& folder, const OpenedCheckpoint& opened);

}  // namespace resect
