#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/numbers.h"
#include "core/worker/gguf_job.h"

#include <iostream>

namespace resect::cli {

namespace {

struct ImportOptions : Common {
    std::string file, to;
};

void runImport(ImportOptions& options) {
    const CommandJob job(options);
    const protocol::ExportMessage message = importGgufFile(options.file, options.to, options.dtype, job.context());
    if (options.json) return printJson(message);
    std::cout << "wrote " << message.folder << ": " << formatBytes(static_cast<std::uint64_t>(message.bytes)) << "\n";
    printProblems(message.problems);
}

}  // namespace

void addImport(CLI::App& app) {
    auto options = std::make_shared<ImportOptions>();
    CLI::App* command = app.add_subcommand("import", "Make a Hugging Face checkpoint of a GGUF file: weights, config.json, tokenizer");
    command->add_option("FILE", options->file, "FILE.gguf: llama, qwen2, qwen3, deci or openelm; F32, F16, BF16, Q8_0 or Q4_0")->required();
    command->add_option("--to", options->to, "New folder")->required();
    command->add_option("--dtype", options->dtype, "f32, bf16 or f16 (default: as stored, block types as f32)");
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  resect-cli import model.gguf --to model");
    command->callback([options] { runImport(*options); });
}

}  // namespace resect::cli
