#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "app/cli/data_options.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/worker/describe.h"
#include "core/worker/previewing.h"

#include <cmath>
#include <iostream>

namespace resect::cli {

namespace {

struct PreviewOptions : Common {
    std::string plan, checkpoint;
    protocol::DataMessage data;
};

std::string interval(double value, double low, double high) { return toText(value, 5) + " (" + toText(low, 5) + " to " + toText(high, 5) + ")"; }

std::string lossInterval(double perplexity, double low, double high) { return interval(std::log(perplexity), std::log(low), std::log(high)); }

void printImages(const protocol::PreviewMessage& result) {
    const bool labelled = std::isfinite(result.accuracy);
    if (!labelled) {
        std::cout << "no image has a label, so there is neither accuracy nor loss\n";
        return;
    }
    printTable({{"", "uncut", "candidate"},
                {"accuracy (95 %)", interval(result.baselineAccuracy, result.baselineAccuracyLow, result.baselineAccuracyHigh), interval(result.accuracy, result.accuracyLow, result.accuracyHigh)},
                {"loss, nats (95 %)", lossInterval(result.baseline, result.baselineLow, result.baselineHigh), lossInterval(result.perplexity, result.perplexityLow, result.perplexityHigh)}});
}

void runPreview(PreviewOptions& options) {
    configureRuntime(options.threads);
    OpenedCheckpoint opened(options.checkpoint);
    protocol::PreviewMessage result;
    std::string data;
    std::vector<protocol::ProblemMessage> problems;
    bool stopped = false;
    {
        const CommandJob job(options);
        Previewer previewer;
        result = previewer.preview(opened, readPlan(options.plan), options.data, {options.device, options.dtype}, job.context(), {});
        stopped = job.context().stopped();
        data = previewer.data().description;
        problems = describe(previewer.data().problems);
    }
    if (options.json) {
        Json json = result;
        json["data"] = data;
        json["problems"] = problems;
        printJson(json);
    } else {
        std::cout << data << "\n";
        const bool images = result.unit == "images";
        if (images) printImages(result);
        else printTable({{"", "uncut", "candidate"},
                    {"perplexity (95 %)", interval(result.baseline, result.baselineLow, result.baselineHigh), interval(result.perplexity, result.perplexityLow, result.perplexityHigh)}});
        std::cout << (images ? "KL per image " : "KL per token ") << interval(result.kl, result.klLow, result.klHigh) << " nats; " << result.rowsDone << " of " << result.rowsTotal << (images ? " images" : " rows") << " measured\n";
        printProblems(problems);
    }
    if (stopped) setExitCode(exitCode(ErrorCode::Stopped));
}

}  // namespace

void addPreview(CLI::App& app) {
    auto options = std::make_shared<PreviewOptions>();
    CLI::App* command = app.add_subcommand("preview", "Run the candidate masked: perplexity (of images accuracy and loss) and KL against the uncut model; writes nothing");
    command->add_option("PLAN", options->plan, "plan.json")->required();
    command->add_option("CKPT", options->checkpoint, "The checkpoint that the plan was made for")->required();
    addData(*command, options->data);
    addCommon(*command, *options, Shared::Compute);
    command->footer("Example:\n  resect-cli preview plan.json MODEL --data text.txt\n  resect-cli preview plan.json VIT --data t10k-images-idx3-ubyte.gz --max-rows 0");
    command->callback([options] { runPreview(*options); });
}

}  // namespace resect::cli
