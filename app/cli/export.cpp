#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/worker/export_job.h"
#include "core/worker/opened.h"
#include "core/worker/run_source.h"

#include <iostream>

namespace resect::cli {

namespace {

struct ExportOptions : Common {
    std::string source, plan, data;
    ExportRequest request;
    double shardGigabytes = 5;
};

void printText(const protocol::ExportMessage& message) {
    std::cout << "wrote " << message.folder << ": " << formatBytes(message.bytes) << ", way " << message.way << "\n";
    if (message.tensorsCompared > 0) {
        std::cout << "tokenizer: " << message.tokenizer << "\nread back and compared: " << message.tensorsCompared << " tensors, "
                  << (message.maxTensorError > 0 ? "largest rounding error " + toText(message.maxTensorError, 3) : std::string("bit for bit")) << "\n";
    } else {
        std::cout << "reopened and compared: largest logit difference " << toText(message.maxAbsLogitError, 3) << ", KL " << toText(message.kl, 3) << "\n";
    }
    std::cout << "opens in:\n";
    for (std::size_t i = 0; i < message.opensIn.size(); ++i) {
        const auto& opens = message.opensIn[i];
        std::cout << "  " << opens.runtime << ": " << opens.verdict << " (" << opens.evidence << ")\n";
        for (const auto& reason : opens.reasons) std::cout << "    " << reason << "\n";
        if (!message.loadCommands[i].empty()) std::cout << "    " << message.loadCommands[i] << "\n";
    }
    printProblems(message.problems);
}

void runExport(ExportOptions& options) {
    configureRuntime(options.threads);
    const CommandJob job(options);
    const ExportSource source = resolveExportSource(options.source, job.context());
    const OpenedCheckpoint opened(source.checkpoint);
    options.request.provenance = source.provenance;
    if (!options.plan.empty()) options.request.plan = readPlan(options.plan);
    options.request.shardBytes = static_cast<std::uint64_t>(options.shardGigabytes * 1e9);
    options.request.dtype = options.dtype;
    if (!options.data.empty()) {
        options.request.data.emplace();
        options.request.data->file = options.data;
    }
    const protocol::ExportMessage message = exportChecked(opened, options.request, job.context());
    if (options.json) {
        printJson(message);
    } else {
        printText(message);
    }
}

}  // namespace

void addExport(CLI::App& app) {
    auto options = std::make_shared<ExportOptions>();
    CLI::App* command = app.add_subcommand("export", "Write the cut or recovered checkpoint, reopen it and compare its logits");
    command->add_option("SOURCE", options->source, "Checkpoint, or a run folder (its best checkpoint; LoRA is merged)")->required();
    command->add_option("--plan", options->plan, "What to cut");
    command->add_option("--to", options->request.to, "New folder, or a new file NAME.gguf for llama.cpp")->required();
    command->add_option("--way", options->request.way, "uniform: stock shape; padded: blocks padded with zeros to one size; zeroed: original shapes, removed parts zero; "
                                                      "exact: what the plan says, with resect.json where no stock shape holds it; "
                                                      "heterogeneous: sizes per block, as DeciLM (folder: for vLLM; .gguf: architectures deci, openelm)")
        ->check(CLI::IsMember({"uniform", "padded", "zeroed", "exact", "heterogeneous"}))->capture_default_str();
    command->add_option("--shard-gb", options->shardGigabytes, "Largest shard in GB")->capture_default_str()->check(CLI::PositiveNumber);
    command->add_option("--data", options->data, "Text or images for the comparison (default: random tokens, or noise)");
    addCommon(*command, *options, Shared::Compute);
    command->get_option("--dtype")->description("f32, bf16 or f16, in a GGUF also q8_0 or q4_0 (default: as stored)");
    command->footer("Examples:\n  resect-cli export MODEL --plan plan.json --to smaller --way uniform\n  resect-cli export RUN --to recovered --dtype bf16\n"
                    "  resect-cli export MODEL --plan plan.json --to smaller.gguf --way exact --dtype q8_0");
    command->callback([options] { runExport(*options); });
}

}  // namespace resect::cli
