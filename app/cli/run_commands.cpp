#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "app/cli/run_follow.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/models/model.h"
#include "core/protocol/run_files.h"
#include "core/train/run_folder.h"
#include "core/worker/runs.h"

#include <cmath>
#include <iostream>
#include <optional>

namespace resect::cli {

namespace {

struct RunCommandsOptions : Common {
    std::string folder, job;
};

std::string percent(double share) { return toText(100 * share, 3) + " %"; }

void printStatus(const std::string& folder, const protocol::RunStatus& status, const std::optional<ControlResult>& control) {
    std::cout << folder << ": " << status.state << ", step " << formatThousands(status.step) << " of " << formatThousands(status.totalSteps);
    if (status.state == "running" && status.etaSeconds > 0) std::cout << ", " << formatDuration(status.etaSeconds) << " left";
    std::cout << "\n";
    const bool images = status.unit == "images";
    const auto line = [](const char* what, double uncut, double cut, double now, double best) {
        std::cout << what << (std::isfinite(uncut) ? ": uncut " + toText(uncut, 4) + ", after the cut " : ": before ") << toText(cut, 4) << ", now " << toText(now, 4) << ", best " << toText(best, 4) << "\n";
    };
    if (images && std::isfinite(status.bestAccuracy)) {
        line("accuracy", status.baselineAccuracy, status.cutAccuracy, status.evalAccuracy, status.bestAccuracy);
        line("loss", std::log(status.baselinePerplexity), std::log(status.cutPerplexity), std::log(status.evalPerplexity), std::log(status.bestPerplexity));
    }
    if (!images && status.baselinePerplexity > 0)
        std::cout << "perplexity: uncut " << toText(status.baselinePerplexity, 5) << ", after the cut " << toText(status.cutPerplexity, 5) << ", now "
                  << toText(status.evalPerplexity, 5) << ", best " << toText(status.bestPerplexity, 5) << "\n";
    if (status.tokensPerSecond > 0)
        std::cout << formatCount(static_cast<double>(status.tokens)) << " " << status.unit << ", " << formatCount(status.tokensPerSecond) << " " << status.unit << "/s, peak memory "
                  << formatBytes(static_cast<std::uint64_t>(status.peakMemoryBytes)) << "\n";
    if (!status.message.empty()) std::cout << status.message << "\n";
    if (!(status.bestPerplexity > 0) || !(status.baselinePerplexity > 0)) return;
    if (!control) {
        if (std::isfinite(status.recovery))
            std::cout << "recovered: " << percent(status.recovery) << " of the loss between the untrained models; what any model learns from this data is included (--control tells the two apart)\n";
    } else if (std::isfinite(control->likeForLike)) {
        std::cout << "recovered like for like: " << percent(control->likeForLike) << " of the gap (the uncut model, trained the same way, reaches " << (images ? "accuracy " : "perplexity ")
                  << (images ? toText(control->status.bestAccuracy, 4) : toText(control->status.bestPerplexity, 5)) << (control->status.state == "done" ? ")\n" : " so far)\n");
    } else {
        std::cout << "control: " << control->status.state << ", step " << formatThousands(control->status.step) << " of " << formatThousands(control->status.totalSteps) << "\n";
    }
}

void showStatus(const Common& options, const std::filesystem::path& folder, const protocol::RunStatus& status) {
    const auto control = findControl(folder);
    if (!options.json) return printStatus(folder.string(), status, control);
    Json json = status;
    if (control) {
        json["control"] = control->status;
        json["likeForLike"] = std::isfinite(control->likeForLike) ? Json(control->likeForLike) : Json();
    }
    printJson(json);
}

}  // namespace

void followRun(const Common& options, const std::filesystem::path& folder, const std::function<protocol::RunStatus(const JobContext&)>& run) {
    protocol::RunStatus status;
    {
        const CommandJob job(options);
        status = run(job.context());
    }
    showStatus(options, folder, status);
    const auto control = findControl(folder);
    if (status.state == "stopped" || (control && control->status.state == "stopped")) setExitCode(exitCode(ErrorCode::Stopped));
    if (status.state == "failed") setExitCode(exitCode(ErrorCode::BadInput));
}

namespace {

void addRun(CLI::App& app) {
    auto options = std::make_shared<RunCommandsOptions>();
    CLI::App* command = app.add_subcommand("run", "Run a job file in its folder, as the window and clusters start it");
    command->add_option("JOB", options->job, "job.json in its run folder")->required();
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  resect-cli run NAME.resect/runs/ID/job.json");
    command->callback([options] {
        options->folder = std::filesystem::absolute(options->job).parent_path().string();
        followRun(*options, options->folder, [&](const JobContext& job) { return runToEnd(options->folder, RunStart::Fresh, job); });
    });
}

void addStatus(CLI::App& app) {
    auto options = std::make_shared<RunCommandsOptions>();
    CLI::App* command = app.add_subcommand("status", "Where a run stands");
    command->add_option("RUN", options->folder, "Run folder")->required();
    addCommon(*command, *options, Shared::OutputOnly);
    command->callback([options] {
        showStatus(*options, options->folder, readStatus(options->folder));
    });
}

void addStop(CLI::App& app) {
    auto options = std::make_shared<RunCommandsOptions>();
    auto word = std::make_shared<RunControl>(RunControl::Stop);
    CLI::App* command = app.add_subcommand("stop", "Ask a run to stop after its step and keep a checkpoint; also pauses");
    command->add_option("RUN", options->folder, "Run folder")->required();
    command->add_flag_callback("--pause", [word] { *word = RunControl::Pause; }, "Finish the step and wait, keeping the memory");
    command->add_flag_callback("--continue", [word] { *word = RunControl::Resume; }, "End a pause");
    command->callback([options, word] { writeControl(options->folder, *word); });
}

void addResume(CLI::App& app) {
    auto options = std::make_shared<RunCommandsOptions>();
    CLI::App* command = app.add_subcommand("resume", "Continue a stopped, killed or crashed run from its last checkpoint, exactly where it was");
    command->add_option("RUN", options->folder, "Run folder")->required();
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  resect-cli resume run");
    command->callback([options] { followRun(*options, options->folder, [&](const JobContext& job) { return runToEnd(options->folder, RunStart::Resume, job); }); });
}

}  // namespace

void addRunCommands(CLI::App& app) {
    addRun(app);
    addStatus(app);
    addStop(app);
    addResume(app);
}

}  // namespace resect::cli
