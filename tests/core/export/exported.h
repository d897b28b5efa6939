#pragma once
#include "core/base/error.h"
#include "core/export/hf_writer.h"
#include "core/surgery/edit_plan.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>

#include <string>
#include <vector>

namespace resect::test {

/// A tiny checkpoint with a folder to export into.
struct ExportCase {
    TinyCheckpoint tiny;
    Checkpoint checkpoint = tiny.open();
    Anatomy anatomy = Anatomy::of(checkpoint);
    TempFolder out;
    explicit ExportCase(TinyCheckpoint made) : tiny(std::move(made)) {}

    Cut cut(std::vector<EditPointer> edits) const { return cutOf({"", std::move(edits), nullptr}, anatomy.shape()); }
    std::filesystem::path target(const std::string& name = "exported") const { return out / name; }
    ExportResult run(std::vector<EditPointer> edits, const ExportOptions& options = {}, const JobContext& job = {}) const {
        return exportHuggingFace(checkpoint, anatomy, cut(std::move(edits)), target(), options, job);
    }
    /// Names left in the folder that holds the target.
    std::vector<std::string> left() const {
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(out.path()))
            names.push_back(entry.path().filename().string());
        return names;
    }
};

/// The error that `action` throws; fails the test when it throws none.
template <class Action>
Error errorOf(Action action) {
    try {
        action();
    } catch (const Error& error) {
        return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    return Error(ErrorCode::Internal, "", "");
}

inline std::string listed(const std::vector<Problem>& problems) {
    std::string text;
    for (const Problem& problem : problems)
        text += std::string(name(problem.severity)) + " " + problem.subject + ": " + problem.message + "\n";
    return text;
}

}  // namespace resect::test
