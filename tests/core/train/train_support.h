#pragma once
#include "core/train/run.h"
#include "core/train/train_state.h"
#include "tests/support/tiny_checkpoint.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

namespace resect::test {

/// A tiny task: rows of `input_ids` that count upwards from a start, so that the next token is always known. Written as JSON lines.
std::filesystem::path writeCounting(const std::filesystem::path& file, int rows, int length, int vocabulary);

/// A run folder in `folder` with its job.
struct TinyRun {
    std::shared_ptr<TempFolder> folder = std::make_shared<TempFolder>();
    TinyCheckpoint source;
    RunJob job;
    std::filesystem::path path() const { return *folder / "run"; }
    void create() const { createRun(path(), job); }
    protocol::RunStatus run() const;        ///< creates and runs
};
/// Small sizes; `parameters` are added to the tests' defaults.
TinyRun tinyRun(const std::string& recipe, const Json& parameters, const TinyOptions& options = {});

/// Rows of training steps, evaluations and events as text without times and speeds, in file order.
std::vector<std::string> comparableRows(const std::filesystem::path& run);
/// File name -> SHA-256 of everything below the folder.
std::map<std::string, std::string> hashesBelow(const std::filesystem::path& folder);

/// Starts this test program again as a process of its own that runs (or resumes) the folder.
pid_t startChild(const std::filesystem::path& run, const std::string& how);
int waitForExit(pid_t child);               ///< exit code, or minus the signal
/// Waits until `done` holds; fails the test after 60 s.
void waitUntil(const std::function<bool()>& done);
bool reachedStep(const std::filesystem::path& run, std::int64_t step);

}  // namespace resect::test
