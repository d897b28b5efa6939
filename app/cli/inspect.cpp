#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "app/cli/inspect_gguf.h"
#include "core/anatomy/cost.h"
#include "core/base/numbers.h"
#include "core/checkpoint/gguf_file.h"
#include "core/worker/describe.h"
#include "core/worker/opened.h"

#include <iostream>

namespace resect::cli {

namespace {

struct InspectOptions : Common {
    std::string path;
    bool tensors = false, deep = false;
};

std::string headsText(const protocol::BlockMessage& block) {
    if (!block.hasAttention) return "absent";
    return std::to_string(block.numHeads) + "/" + std::to_string(block.numKvHeads) + " x " + std::to_string(block.headDim);
}

std::string ffnText(const protocol::BlockMessage& block) {
    if (!block.hasFfn) return "absent";
    return (block.numExperts > 0 ? std::to_string(block.numExperts) + " x " : "") + std::to_string(block.ffnSize);
}

/// Alike blocks fold into one line: "0-11".
void printBlocks(const protocol::ModelMessage& model) {
    std::vector<std::vector<std::string>> rows{{"block", "heads/kv x dim", "channels", "parameters"}};
    if (!model.blocks.front().tower.empty()) rows.front().emplace_back("tower");
    for (std::size_t i = 0; i < model.blocks.size();) {
        std::size_t end = i + 1;
        const auto& block = model.blocks[i];
        while (end < model.blocks.size() && headsText(model.blocks[end]) == headsText(block) && ffnText(model.blocks[end]) == ffnText(block) &&
               model.blocks[end].parameters == block.parameters && model.blocks[end].tower == block.tower)
            ++end;
        const std::string range = end == i + 1 ? std::to_string(i) : std::to_string(i) + "-" + std::to_string(end - 1);
        rows.push_back({range, headsText(block), ffnText(block), formatThousands(block.parameters) + (end > i + 1 ? " each" : "")});
        if (!block.tower.empty()) rows.back().push_back(block.tower);
        i = end;
    }
    std::cout << "\n";
    printTable(rows);
}

void printText(const protocol::ModelMessage& model) {
    std::cout << model.name << ": " << (model.familyTitle.empty() ? "unknown family" : model.familyTitle) << ", " << formatCount(static_cast<double>(model.parameters))
              << " parameters, " << formatBytes(model.bytes) << " " << model.dtype << " in " << model.numTensors << " tensors, " << model.numShards
              << (model.numShards == 1 ? " file" : " shards") << "\n";
    if (model.understood) {
        std::cout << "vocabulary " << formatThousands(model.vocabSize) << ", hidden size " << model.hiddenSize << ", context " << formatThousands(model.maxPositions)
                  << ", " << (model.tied ? "head tied to the embedding" : model.headParameters > 0 ? "own head" : "no head") << ", tokenizer " << (model.hasTokenizer ? "present" : "missing") << "\n";
        std::cout << "embedding " << formatThousands(model.embeddingParameters) << ", final norm " << formatThousands(model.finalNormParameters) << ", head "
                  << formatThousands(model.headParameters) << " parameters"
                  << (model.linkParameters > 0 ? ", between the towers " + formatThousands(model.linkParameters) : std::string()) << "\n";
    }
    if (!model.licence.empty()) std::cout << "licence: " << model.licence << "\n";
    std::cout << "fingerprint " << model.fingerprint << "\n";
    if (!model.blocks.empty()) printBlocks(model);
    if (!model.edits.empty()) {
        std::cout << "\ncan be cut:";
        for (const auto& edit : model.edits) std::cout << " " << edit;
        std::cout << "\n";
    }
    std::cout << "\n";
    if (model.problems.empty()) std::cout << "health: every tensor is accounted for\n";
    printProblems(model.problems);
}

void printTensors(const Checkpoint& checkpoint) {
    std::vector<std::vector<std::string>> rows{{"tensor", "dtype", "shape", "bytes", "file"}};
    for (const TensorInfo& tensor : checkpoint.tensors())
        rows.push_back({tensor.name, std::string(name(tensor.dtype)), shapeText(tensor.shape), formatThousands(static_cast<std::int64_t>(tensor.bytes())),
                        checkpoint.shards()[tensor.shard].path().filename().string()});
    std::cout << "\n";
    printTable(rows);
}

void runInspect(InspectOptions& options) {
    if (looksLikeGguf(options.path)) return inspectGguf(options.path, options.json ? GgufOutput::Json : GgufOutput::Text, options.tensors);
    const OpenedCheckpoint opened(options.path);
    protocol::ModelMessage model = describe(opened);
    if (options.deep) {
        const CommandJob job(options);
        for (const Problem& problem : findNonFinite(opened.checkpoint(), job.context())) model.problems.push_back(describe(problem));
    }
    if (!options.json) {
        printText(model);
        if (options.tensors) printTensors(opened.checkpoint());
        return;
    }
    Json json = model;
    if (opened.anatomy().understood()) {
        const Cost cost = costOf(opened.shape(), std::max<std::int64_t>(1, std::min<std::int64_t>(1024, model.maxPositions)));
        json["kvBytesPerToken16Bit"] = cost.kvElementsPerToken * 2;
        json["linearFlopsPerToken"] = cost.linearFlopsPerToken;
    }
    if (options.tensors) {
        json["tensors"] = Json::array();
        for (const TensorInfo& tensor : opened.checkpoint().tensors())
            json["tensors"].push_back({{"name", tensor.name}, {"dtype", name(tensor.dtype)}, {"shape", tensor.shape}, {"bytes", tensor.bytes()},
                                       {"file", opened.checkpoint().shards()[tensor.shard].path().filename().string()}});
    }
    printJson(json);
}

}  // namespace

void addInspect(CLI::App& app) {
    auto options = std::make_shared<InspectOptions>();
    CLI::App* command = app.add_subcommand("inspect", "What a checkpoint is made of: sizes, blocks, health report");
    command->add_option("CKPT", options->path, "Folder, config.json, index, .safetensors or .gguf file")->required();
    command->add_flag("--tensors", options->tensors, "List every tensor");
    command->add_flag("--deep", options->deep, "Also read all weights and report values that are not finite");
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Examples:\n  resect-cli inspect resources/demo/dense\n  resect-cli inspect MODEL --tensors --json");
    command->callback([options] { runInspect(*options); });
}

}  // namespace resect::cli
