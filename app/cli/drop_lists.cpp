#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/export/drop_lists.h"
#include "core/worker/describe.h"
#include "core/worker/opened.h"

#include <iostream>

namespace resect::cli {

namespace {

struct DropListOptions : Common {
    std::string checkpoint, from, plan, out, to, counts = "attn";
    bool weights = false;
};

DropLists readLists(const DropListOptions& options, int numBlocks) {
    const Json json = readJsonFile(options.from);
    if (json.is_object()) return readDropLists(json, numBlocks, options.from);
    using enum ReservedLayers;
    const auto counts = options.counts == "mlp" ? Mlp : options.counts == "block" ? Blocks : options.counts == "joint" ? Joint : Attention;
    return readReservedLayers(json, counts, numBlocks, options.from);
}

void importLists(const DropListOptions& options, const OpenedCheckpoint& opened) {
    EditPlan plan = planOf(readLists(options, opened.shape().numBlocks()));
    plan.fingerprint = opened.checkpoint().fingerprint();
    plan.notes = Json{{"method", "llm-drop"}, {"imported", std::filesystem::path(options.from).filename().string()}};
    requireLegal(plan, opened);
    if (!options.out.empty()) writeJsonFile(options.out, plan.toJson());
    if (options.json || options.out.empty()) return printJson(plan.toJson());
    for (const auto& edit : plan.edits) std::cout << edit->title() << "\n";
    std::cout << "written to " << options.out << "\n";
}

void writeLists(const DropListOptions& options, const OpenedCheckpoint& opened) {
    const EditPlan plan = readPlan(options.plan);
    requireLegal(plan, opened);
    const DropLists lists = dropListsOf(plan, opened.shape());
    const CommandJob job(options);
    const auto notes = exportDropLists(opened.checkpoint(), opened.anatomy(), lists, options.to, options.weights ? DropListWeights::Left : DropListWeights::None, job.context());
    if (options.json) return printJson(Json{{"folder", options.to}, {"drop_attn_list", lists.attention}, {"drop_mlp_list", lists.mlp}, {"problems", describe(notes)}});
    std::cout << "drop_attn_list " << Json(lists.attention).dump() << "\ndrop_mlp_list " << Json(lists.mlp).dump() << "\nwritten to " << options.to << "\n";
    printProblems(describe(notes));
}

void runDropLists(const DropListOptions& options) {
    if (options.from.empty() == options.plan.empty()) throw Error(ErrorCode::Usage, "drop-lists", "expected either --from FILE or --plan PLAN");
    if (!options.plan.empty() && options.to.empty()) throw Error(ErrorCode::Usage, "--to", "expected the folder to write");
    const OpenedCheckpoint opened(options.checkpoint);
    options.plan.empty() ? importLists(options, opened) : writeLists(options, opened);
}

}  // namespace

void addDropLists(CLI::App& app) {
    auto options = std::make_shared<DropListOptions>();
    CLI::App* command = app.add_subcommand("drop-lists", "Read or write the drop lists of LLM-Drop: a plan from its config.json, or its config.json from a plan");
    command->add_option("CKPT", options->checkpoint, "The uncut checkpoint")->required();
    command->add_option("--from", options->from, "config.json with drop_attn_list or drop_mlp_list, or a reserved_layers.json");
    command->add_option("--counts", options->counts, "What a reserved_layers.json counts")->check(CLI::IsMember({"attn", "mlp", "block", "joint"}))->capture_default_str();
    command->add_option("--out", options->out, "plan.json to write (default: standard output)");
    command->add_option("--plan", options->plan, "plan.json that drops layers or blocks");
    command->add_option("--to", options->to, "New folder for config.json, reserved_layers.json (and layer_mapping.json of whole blocks)");
    command->add_flag("--weights", options->weights, "With the weights that are left, under the source's names, and the tokenizer");
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Examples:\n  resect-cli drop-lists MODEL --from Mistral-7B-Drop8Attn/config.json --out plan.json\n  resect-cli drop-lists MODEL --plan plan.json --to dropped");
    command->callback([options] { runDropLists(*options); });
}

}  // namespace resect::cli
