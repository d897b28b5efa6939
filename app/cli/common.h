#pragma once
#include "core/base/job.h"
#include "core/protocol/json.h"
#include "core/protocol/messages.h"

#include <CLI/CLI.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace resect::cli {

/// Options that every command shares.
struct Common {
    std::string device = "auto", dtype, workspace;
    std::uint64_t seed = 0;
    int threads = 0;
    bool json = false;
    std::vector<std::string> settings;   ///< "name=value" of --set
};

/// Which of the shared options a command takes.
enum class Shared { OutputOnly, Compute };
void addCommon(CLI::App& command, Common& common, Shared shared);
/// Adds `--set NAME=VALUE` (repeatable).
void addSettings(CLI::App& command, Common& common);
/// {"name": "value"} of --set; throws Usage for an entry without '='.
Json settingsOf(const Common& common);

/// Ctrl+C and SIGTERM ask the job to stop; a second Ctrl+C ends the program. Progress goes to stderr: a bar on a terminal, a line every two seconds otherwise.
class CommandJob {
public:
    explicit CommandJob(const Common& common);
    ~CommandJob();
    const JobContext& context() const noexcept { return m_context; }

private:
    struct Bar;
    std::shared_ptr<Bar> m_bar;
    JobContext m_context;
};

/// Prints one JSON document on stdout.
void printJson(const Json& json);
/// Prints rows in columns; numbers (cells that start with a digit, sign or '.') are right-aligned. The first row is the head.
void printTable(const std::vector<std::vector<std::string>>& rows);
/// "error: config.json: hidden_size: ..." for each problem.
void printProblems(const std::vector<protocol::ProblemMessage>& problems);

/// The exit code of a command that did not throw; 0 unless it sets something else (5: stopped and kept).
void setExitCode(int code);
int currentExitCode();

}  // namespace resect::cli
