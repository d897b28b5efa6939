#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/models/tensor_file.h"
#include "core/worker/logits.h"

#include <torch/types.h>

#include <algorithm>
#include <iostream>

namespace resect::cli {

namespace {

struct LogitsOptions : Common {
    std::string checkpoint, out;
    LogitsRequest request;
};

void runLogits(LogitsOptions& options) {
    if (options.request.ids.empty() == options.request.input.empty())
        throw Error(ErrorCode::Usage, "logits", "expected either --ids or --input");
    configureRuntime(options.threads);
    OpenedCheckpoint opened(options.checkpoint);
    const CommandJob job(options);
    const auto results = computeLogits(opened, options.request, {options.device, options.dtype}, job.context());
    if (!options.out.empty()) {
        writeTensors(options.out, results);
        if (options.json) {
            Json json{{"file", options.out}, {"tensors", Json::array()}};
            for (const auto& [name, tensor] : results) json["tensors"].push_back({{"name", name}, {"shape", tensor.sizes().vec()}});
            printJson(json);
        } else {
            std::cout << "wrote " << results.size() << " tensors to " << options.out << "\n";
        }
        return;
    }
    // Without a file: the five likeliest next tokens of the last position.
    const torch::Tensor last_V = torch::log_softmax(results.front().second[0][-1].to(torch::kFloat64), -1);
    const auto [values, indices] = last_V.topk(std::min<std::int64_t>(5, last_V.numel()));
    const Tokenizer* tokenizer = opened.findTokenizer();
    Json json{{"next", Json::array()}};
    for (std::int64_t i = 0; i < values.numel(); ++i) {
        const auto id = indices[i].item<std::int64_t>();
        json["next"].push_back({{"id", id}, {"logProbability", values[i].item<double>()}, {"text", tokenizer ? Json(tokenizer->piece(id)) : Json()}});
    }
    printJson(json);
}

}  // namespace

void addLogits(CLI::App& app) {
    auto options = std::make_shared<LogitsOptions>();
    CLI::App* command = app.add_subcommand("logits", "Run token ids and write logits, hidden states and gradients");
    command->add_option("CKPT", options->checkpoint, "Checkpoint")->required();
    command->add_option("--ids", options->request.ids, "Token ids of one row, separated by commas")->delimiter(',');
    command->add_option("--input", options->request.input, "Safetensors file with input_ids [B, T] and optionally attention_mask");
    command->add_option("--out", options->out, "Safetensors file to write; without it the likeliest next tokens are printed");
    command->add_flag("--hidden-states", options->request.hiddenStates, "Also hidden_states.0 to hidden_states.L");
    command->add_flag("--gradients", options->request.gradients, "Also grad.<tensor> of the mean next-token loss");
    addCommon(*command, *options, Shared::Compute);
    command->footer("Example:\n  resect-cli logits MODEL --ids 1,403,407 --out out.safetensors --hidden-states");
    command->callback([options] { runLogits(*options); });
}

}  // namespace resect::cli
