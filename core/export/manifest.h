#pragma once
#include "core/base/job.h"
#include "core/base/problem.h"
#include "core/checkpoint/checkpoint_writer.h"

#include <filesystem>
#include <vector>

namespace resect {

inline constexpr const char* kManifestName = "manifest.json";

/// Every regular file below `folder`, relative with '/', ascending.
std::vector<std::string> filesBelow(const std::filesystem::path& folder);

/// Writes manifest.json: name, size and SHA-256 of every other file. Hashes that were computed while writing are not computed
/// again.
/// {"resect_manifest": 1, "files": [{"name": "config.json", "bytes": 666, "sha256": "..."}]}
void writeManifest(const std::filesystem::path& folder, const std::vector<WrittenShard>& known, const JobContext& job);

/// Missing, foreign and changed files; every problem. Reads all bytes.
std::vector<Problem> checkManifest(const std::filesystem::path& folder, const JobContext& job);

}  // namespace resect
