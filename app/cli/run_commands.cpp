#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "app/cli/run_follow.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/models/model.h"
#include "core/protocol/run_files.h"
#include "core/train/run.h"
#include "core/train/run_folder.h"

#include <iostream>

namespace resect::cli {

namespace {

struct Options : Common {
    std::string folder, job;
};

std::string percent(double share) { return toText(100 * share, 3) + " %"; }

void printStatus(const std::string& folder, const protocol::RunStatus& status) {
    std::cout << folder << ": " << status.state << ", step " << formatThousands(status.step) << " of " << formatThousands(status.totalSteps);
    if (status.state == "running" && status.etaSeconds > 0) std::cout << ", " << formatDuration(status.etaSeconds) << " left";
    std::cout << "\n";
    if (status.baselinePerplexity > 0)
        std::cout << "perplexity: uncut " << toText(status.baselinePerplexity, 5) << ", after the cut " << toText(status.cutPerplexity, 5) << ", now "
                  << toText(status.evalPerplexity, 5) << ", best " << toText(status.bestPerplexity, 5) << "; recovered " << percent(status.recovery) << " of the lost loss\n";
    if (status.tokensPerSecond > 0)
        std::cout << formatCount(static_cast<double>(status.tokens)) << " tokens, " << formatCount(status.tokensPerSecond) << " tokens/s, peak memory "
                  << formatBytes(static_cast<std::uint64_t>(status.peakMemoryBytes)) << "\n";
    if (!status.message.empty()) std::cout << status.message << "\n";
}

}  // namespace

void followRun(const Common& options, const std::filesystem::path& folder, const std::function<protocol::RunStatus(const JobContext&)>& run) {
    protocol::RunStatus status;
    {
        const CommandJob job(options);
        status = run(job.context());
    }
    if (options.json) {
        printJson(status);
    } else {
        printStatus(folder.string(), status);
    }
    if (status.state == "stopped") setExitCode(exitCode(ErrorCode::Stopped));
    if (status.state == "failed") setExitCode(exitCode(ErrorCode::BadInput));
}

namespace {

void addRun(CLI::App& app) {
    auto options = std::make_shared<Options>();
    CLI::App* command = app.add_subcommand("run", "Run a job file in its folder, as the window and clusters start it");
    command->add_option("JOB", options->job, "job.json in its run folder")->required();
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  resect-cli run NAME.resect/runs/ID/job.json");
    command->callback([options] {
        options->folder = std::filesystem::absolute(options->job).parent_path().string();
        followRun(*options, options->folder, [&](const JobContext& job) { return runJob(options->folder, job); });
    });
}

void addStatus(CLI::App& app) {
    auto options = std::make_shared<Options>();
    CLI::App* command = app.add_subcommand("status", "Where a run stands");
    command->add_option("RUN", options->folder, "Run folder")->required();
    addCommon(*command, *options, Shared::OutputOnly);
    command->callback([options] {
        const protocol::RunStatus status = readStatus(options->folder);
        if (options->json) {
            printJson(status);
        } else {
            printStatus(options->folder, status);
        }
    });
}

void addStop(CLI::App& app) {
    auto options = std::make_shared<Options>();
    auto word = std::make_shared<RunControl>(RunControl::Stop);
    CLI::App* command = app.add_subcommand("stop", "Ask a run to stop after its step and keep a checkpoint; also pauses");
    command->add_option("RUN", options->folder, "Run folder")->required();
    command->add_flag_callback("--pause", [word] { *word = RunControl::Pause; }, "Finish the step and wait, keeping the memory");
    command->add_flag_callback("--continue", [word] { *word = RunControl::Resume; }, "End a pause");
    command->callback([options, word] { writeControl(options->folder, *word); });
}

void addResume(CLI::App& app) {
    auto options = std::make_shared<Options>();
    CLI::App* command = app.add_subcommand("resume", "Continue a stopped, killed or crashed run from its last checkpoint, exactly where it was");
    command->add_option("RUN", options->folder, "Run folder")->required();
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  resect-cli resume run");
    command->callback([options] { followRun(*options, options->folder, [&](const JobContext& job) { return resumeRun(options->folder, job); }); });
}

}  // namespace

void addRunCommands(CLI::App& app) {
    addRun(app);
    addStatus(app);
    addStop(app);
    addResume(app);
}

}  // namespace resect::cli
