#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/export/hf_writer.h"
#include "core/worker/describe.h"

#include <iostream>

namespace resect::cli {

namespace {

struct VerifyOptions : Common {
    std::string folder;
};

void runVerify(VerifyOptions& options) {
    const CommandJob job(options);
    const std::vector<Problem> problems = verifyFolder(options.folder, job.context());
    if (options.json) {
        printJson({{"folder", options.folder}, {"good", !hasErrors(problems)}, {"problems", describe(problems)}});
    } else {
        printProblems(describe(problems));
        std::cout << options.folder << (hasErrors(problems) ? ": not good" : ": good") << "\n";
    }
    if (hasErrors(problems)) setExitCode(exitCode(ErrorCode::BadInput));
}

}  // namespace

void addVerify(CLI::App& app) {
    auto options = std::make_shared<VerifyOptions>();
    CLI::App* command = app.add_subcommand("verify", "Check a written checkpoint: hashes, configuration, shapes, finite values, tokenizer");
    command->add_option("DIR", options->folder, "Checkpoint folder")->required();
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  resect-cli verify smaller-model");
    command->callback([options] { runVerify(*options); });
}

}  // namespace resect::cli
