#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/worker/catalogue.h"
#include "core/worker/describe.h"
#include "core/worker/opened.h"
#include "core/workspace/report_file.h"

#include <iostream>

namespace resect::cli {

namespace {

struct PlanOptions : Common {
    std::string method, checkpoint, measure, out;
};

void runPlan(PlanOptions& options) {
    const Catalogue catalogue = loadCatalogue();
    const Method& method = catalogue.registry.method(options.method);
    const OpenedCheckpoint opened(options.checkpoint);
    const Report report = readReport(options.measure);
    if (report.modelFingerprint != opened.checkpoint().fingerprint())
        throw Error(ErrorCode::Mismatch, options.measure, "it was measured on another checkpoint (" + report.modelFingerprint + ", not " + opened.checkpoint().fingerprint() + ")");
    EditPlan plan = method.plan(opened.anatomy(), report, Parameters(method.info().planParameters, settingsOf(options)));
    plan.fingerprint = opened.checkpoint().fingerprint();
    if (!options.out.empty()) writeJsonFile(options.out, plan.toJson());
    if (options.json || options.out.empty()) {
        printJson(plan.toJson());
    } else {
        for (const auto& edit : plan.edits) std::cout << edit->title() << "\n";
        std::cout << "written to " << options.out << "\n";
    }
}

}  // namespace

void addPlan(CLI::App& app) {
    auto options = std::make_shared<PlanOptions>();
    CLI::App* command = app.add_subcommand("plan", "Turn a measurement into an edit plan");
    command->add_option("METHOD", options->method, "The method that measured")->required();
    command->add_option("CKPT", options->checkpoint, "Checkpoint")->required();
    command->add_option("--measure", options->measure, "HDF5 file of `measure`")->required();
    command->add_option("--out", options->out, "plan.json to write (default: standard output)");
    addSettings(*command, *options);
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  resect-cli plan llm-drop MODEL --measure scores.h5 --set target=block --set count=2 --out plan.json");
    command->callback([options] { runPlan(*options); });
}

}  // namespace resect::cli
