#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "app/cli/data_options.h"
#include "app/cli/run_follow.h"
#include "core/base/error.h"
#include "core/worker/measuring.h"
#include "core/worker/opened.h"
#include "core/train/recipe.h"
#include "core/train/run_job.h"
#include "core/worker/runs.h"

#include <iostream>

namespace resect::cli {

namespace {

struct RecoverOptions : Common {
    std::string recipe, checkpoint, plan, out;
    RunData data, evalData;
    bool prepareOnly = false, control = false;
};

RunJob jobOf(const RecoverOptions& options) {
    RunJob job;
    job.recipe = options.recipe;
    job.parameters = settingsOf(options);
    job.source = std::filesystem::absolute(options.checkpoint);
    if (!options.plan.empty()) job.plan = readPlan(options.plan).toJson();
    job.data = options.data;
    job.data.file = std::filesystem::absolute(options.data.file);
    job.evalData = options.evalData;
    job.evalData.imageAspect = options.data.imageAspect;
    if (!options.evalData.file.empty()) job.evalData.file = std::filesystem::absolute(options.evalData.file);
    job.device = options.device;
    if (!options.dtype.empty()) job.dtype = options.dtype;
    job.seed = options.seed;
    job.threads = options.threads;
    return job;
}

void runRecover(RecoverOptions& options) {
    recipe(options.recipe);  // an unknown recipe is told before anything is read
    RunJob job = jobOf(options);
    std::filesystem::path folder = options.out;
    if (folder.empty()) {
        if (options.workspace.empty()) throw Error(ErrorCode::Usage, "recover", "expected --out RUN or --workspace DIR");
        folder = workspaceFor(options.workspace, OpenedCheckpoint(options.checkpoint)).newRun(options.recipe);
    }
    if (options.control) job.control = folder.string() + "-control";
    createRun(folder, job);
    if (options.prepareOnly) {
        std::cout << (folder / "job.json").string() << "\n";
        return;
    }
    followRun(options, folder, [&](const JobContext& context) { return runToEnd(folder, RunStart::Fresh, context); });
}

}  // namespace

void addRecover(CLI::App& app) {
    auto options = std::make_shared<RecoverOptions>();
    CLI::App* command = app.add_subcommand("recover", "Train a cut model back; the run is a folder that can be paused, stopped, resumed and watched");
    command->add_option("RECIPE", options->recipe, "full, lora, pretrain or one of a plugin (see: resect-cli methods)")->required();
    command->add_option("CKPT", options->checkpoint, "The source checkpoint (pretrain: a config.json, or a folder with one and tokenizer files)")->required();
    command->add_option("--plan", options->plan, "What to cut first");
    command->add_option("--data", options->data.file, "Text or rows to train on; for image models an image folder or IDX file with labels")->required();
    command->add_option("--data-rows", options->data.maxRows, "Rows or images to use, 0 = all")->capture_default_str()->check(CLI::NonNegativeNumber);
    command->add_option("--eval-data", options->evalData.file, "The same to evaluate on (default: a held-out tail of the data)");
    addImageAspect(*command, options->data.imageAspect);
    command->add_option("--out", options->out, "New run folder (default: runs/ID of the workspace)");
    command->add_flag("--control", options->control, "Then train the uncut model the same way (RUN-control), to tell recovery from learning the text");
    command->add_flag("--prepare-only", options->prepareOnly, "Write job.json and print its path, for `resect-cli run` on another machine");
    addSettings(*command, *options);
    addCommon(*command, *options, Shared::Compute);
    command->footer("Examples:\n  resect-cli recover lora MODEL --plan plan.json --data text.txt --out run --set lora_rank=16 --set steps=300\n"
                    "  resect-cli recover full MODEL --plan plan.json --data text.txt --out run --dtype bf16\n"
                    "  resect-cli recover full VIT --plan plan.json --data train-images-idx3-ubyte.gz --out run --set batch_rows=64\n"
                    "Ctrl+C stops after the step and keeps a checkpoint (exit code 5); `resect-cli resume RUN` goes on.");
    command->callback([options] { runRecover(*options); });
}

}  // namespace resect::cli
