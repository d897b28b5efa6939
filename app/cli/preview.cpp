#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "app/cli/data_options.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/worker/previewing.h"

#include <iostream>

namespace resect::cli {

namespace {

struct PreviewOptions : Common {
    std::string plan, checkpoint;
    protocol::DataMessage data;
};

std::string interval(double value, double low, double high) { return toText(value, 5) + " (" + toText(low, 5) + " to " + toText(high, 5) + ")"; }

void runPreview(PreviewOptions& options) {
    configureRuntime(options.threads);
    OpenedCheckpoint opened(options.checkpoint);
    protocol::PreviewMessage result;
    bool stopped = false;
    {
        const CommandJob job(options);
        Previewer previewer;
        result = previewer.preview(opened, readPlan(options.plan), options.data, {options.device, options.dtype}, job.context(), {});
        stopped = job.context().stopped();
    }
    if (options.json) {
        printJson(result);
    } else {
        printTable({{"", "uncut", "candidate"},
                    {"perplexity (95 %)", interval(result.baseline, result.baselineLow, result.baselineHigh), interval(result.perplexity, result.perplexityLow, result.perplexityHigh)}});
        std::cout << "KL per token " << interval(result.kl, result.klLow, result.klHigh) << " nats; " << result.rowsDone << " of " << result.rowsTotal << " rows measured\n";
    }
    if (stopped) setExitCode(exitCode(ErrorCode::Stopped));
}

}  // namespace

void addPreview(CLI::App& app) {
    auto options = std::make_shared<PreviewOptions>();
    CLI::App* command = app.add_subcommand("preview", "Run the candidate masked: perplexity and KL against the uncut model; writes nothing");
    command->add_option("PLAN", options->plan, "plan.json")->required();
    command->add_option("CKPT", options->checkpoint, "The checkpoint that the plan was made for")->required();
    addData(*command, options->data);
    addCommon(*command, *options, Shared::Compute);
    command->footer("Example:\n  resect-cli preview plan.json MODEL --data text.txt");
    command->callback([options] { runPreview(*options); });
}

}  // namespace resect::cli
