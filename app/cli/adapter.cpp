#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/checkpoint/checkpoint.h"
#include "core/train/recipe.h"
#include "core/train/run.h"

#include <iostream>

namespace resect::cli {

namespace {

namespace fs = std::filesystem;

struct AdapterOptions : Common {
    std::vector<std::string> adapters;
    std::string base, to;
};

/// "DIR" or "DIR=0.5"; of a run folder its best adapter.
AdapterShare shareOf(const std::string& text) {
    AdapterShare share{text, 1};
    if (const auto equals = text.rfind('='); equals != std::string::npos && !fs::exists(text)) {
        const auto factor = parseDouble(text.substr(equals + 1));
        if (!factor) throw Error(ErrorCode::Usage, text, "expected FOLDER or FOLDER=FACTOR");
        share = {text.substr(0, equals), *factor};
    }
    if (fs::exists(share.folder / "job.json")) share.folder = runResult(share.folder);
    return share;
}

std::vector<AdapterShare> sharesOf(const AdapterOptions& options) {
    std::vector<AdapterShare> shares;
    for (const auto& text : options.adapters) shares.push_back(shareOf(text));
    return shares;
}

std::shared_ptr<const Recipe> recipeOf(const std::vector<AdapterShare>& shares) {
    const auto recipe = recipeOfAdapter(shares.front().folder);
    for (const auto& share : shares)
        if (!recipe->recognises(share.folder)) throw Error(ErrorCode::Mismatch, share.folder.string(), "is of another kind than the first adapter, which the recipe " + recipe->info().id + " wrote");
    return recipe;
}

void done(const AdapterOptions& options) {
    if (options.json) printJson({{"folder", options.to}});
    else std::cout << "wrote " << options.to << "\n";
}

/// The one adapter as it is, or the weighted sum of all in the new folder `sum`.
fs::path single(const Recipe& recipe, const std::vector<AdapterShare>& shares, const fs::path& sum) {
    if (shares.size() == 1 && shares.front().factor == 1) return shares.front().folder;
    fs::create_directories(sum);
    recipe.fuse(shares, sum);
    return sum;
}

void runMerge(AdapterOptions& options) {
    const CommandJob job(options);
    const auto shares = sharesOf(options);
    const auto recipe = recipeOf(shares);
    const fs::path to = options.to;
    const StagedFolder scratch(to.string() + ".adapter");   // never committed
    recipe->writeCheckpoint(Checkpoint::open(options.base), single(*recipe, shares, scratch.path() / "sum"), to, job.context());
    done(options);
}

void runFuse(AdapterOptions& options) {
    const auto shares = sharesOf(options);
    StagedFolder staged(options.to);
    recipeOf(shares)->fuse(shares, staged.path());
    staged.commit();
    done(options);
}

void runPeft(AdapterOptions& options) {
    const auto shares = sharesOf(options);
    const auto recipe = recipeOf(shares);
    StagedFolder staged(options.to);
    const StagedFolder scratch(options.to + ".adapter");
    recipe->writePeft(single(*recipe, shares, scratch.path() / "sum"), staged.path());
    staged.commit();
    done(options);
}

CLI::App* addAction(CLI::App& command, const char* name, const char* help, void (*run)(AdapterOptions&)) {
    auto options = std::make_shared<AdapterOptions>();
    CLI::App* action = command.add_subcommand(name, help);
    action->add_option("ADAPTER", options->adapters, "Folder of an adapter, or a run folder (its best one); FOLDER=0.5 takes half of it")->required();
    if (run == runMerge) action->add_option("--base", options->base, "The checkpoint that the adapters were trained on")->required();
    action->add_option("--to", options->to, "New folder")->required();
    addCommon(*action, *options, Shared::OutputOnly);
    action->callback([options, run] { run(*options); });
    return action;
}

}  // namespace

void addAdapter(CLI::App& app) {
    CLI::App* command = app.add_subcommand("adapter", "Merge adapters into their base, add several up, or write one as PEFT LoRA");
    command->require_subcommand(1);
    addAction(*command, "merge", "Write the base with the adapters added as a complete checkpoint", runMerge);
    addAction(*command, "fuse", "Add adapters of one kind and base up to one adapter", runFuse);
    addAction(*command, "peft", "Write the same change as a LoRA adapter of PEFT", runPeft);
    command->footer("Examples:\n  resect-cli adapter merge RUN --base MODEL --to merged\n  resect-cli adapter fuse maths=0.7 stories=0.3 --to both\n"
                    "  resect-cli adapter peft RUN --to lora");
}

}  // namespace resect::cli
