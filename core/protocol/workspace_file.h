#pragma once
#include "core/protocol/json.h"

#include <filesystem>
#include <string>

namespace resect::protocol {

/// workspace.json of a workspace folder (NAME.resect), as the window, the worker and the command line read and write it:
///
/// {"resect_workspace": 1, "checkpoint": "/absolute", "checkpoint_relative": "../from/the/folder", "fingerprint": "sha256:...",
///  "selections": {name: [components]}, "layout": {...}, ...}
struct WorkspaceFile {
    std::filesystem::path checkpoint;    ///< the source, absolute; empty for a cache that serves all checkpoints
    std::string fingerprint;             ///< of the source
    Json selections = Json::object();    ///< named selections: {name: [components]}
    Json layout = Json::object();        ///< the window's own
    Json others = Json::object();        ///< every other field; whoever writes the file keeps them

    /// Where the checkpoint has moved together with the folder, it is found beside it. Throws Unsupported (a newer version), BadInput naming
    /// the field.
    static WorkspaceFile fromJson(const Json& json, const std::filesystem::path& folder, const std::string& subject);
    /// Stores the checkpoint also relative to the folder, so that both can be moved together.
    Json toJson(const std::filesystem::path& folder) const;
};

}  // namespace resect::protocol
