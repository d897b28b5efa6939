#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "app/cli/data_options.h"
#include "core/base/error.h"
#include "core/data/class_labels.h"
#include "core/measure/classification.h"
#include "core/models/tensor_file.h"
#include "core/worker/logits.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <iostream>

namespace resect::cli {

namespace {

struct LogitsOptions : Common {
    std::string checkpoint, out;
    LogitsRequest request;
};

/// The five likeliest labels of every picture.
void printLabels(const OpenedCheckpoint& opened, const torch::Tensor& logits_B1V) {
    requireHead(opened.shape());
    const ClassLabels labels(opened.path(), opened.shape());
    Json json{{"images", Json::array()}};
    for (std::int64_t b = 0; b < logits_B1V.size(0); ++b) {
        const auto [values, indices] = torch::log_softmax(logits_B1V[b][0].to(torch::kFloat64), -1).topk(std::min<std::int64_t>(5, logits_B1V.size(2)));
        Json likeliest = Json::array();
        for (std::int64_t i = 0; i < values.numel(); ++i) {
            const auto label = indices[i].item<std::int64_t>();
            likeliest.push_back({{"label", label}, {"name", labels.name(label)}, {"probability", std::exp(values[i].item<double>())}});
        }
        json["images"].push_back(std::move(likeliest));
    }
    printJson(json);
}

void runLogits(LogitsOptions& options) {
    if (!options.request.ids.empty() + !options.request.input.empty() + !options.request.image.empty() != 1)
        throw Error(ErrorCode::Usage, "logits", "expected one of --ids, --input and --image");
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
    if (opened.shape().image) return printLabels(opened, results.front().second);
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
    CLI::App* command = app.add_subcommand("logits", "Run token ids or images and write logits, hidden states and gradients");
    command->add_option("CKPT", options->checkpoint, "Checkpoint")->required();
    command->add_option("--ids", options->request.ids, "Token ids of one row, separated by commas")->delimiter(',');
    command->add_option("--input", options->request.input, "Safetensors file with input_ids [B, T] and optionally attention_mask; of image models pixel_values [B, C, height, width]");
    command->add_option("--image", options->request.image, "Image models: a PNG or JPEG file, or a small set as --data of eval takes it, prepared as the checkpoint says");
    addImageAspect(*command, options->request.imageAspect);
    command->add_option("--out", options->out, "Safetensors file to write; without it the likeliest next tokens (labels of images) are printed");
    command->add_flag("--hidden-states", options->request.hiddenStates, "Also hidden_states.0 to hidden_states.L");
    command->add_flag("--gradients", options->request.gradients, "Also grad.<tensor> of the mean next-token loss");
    addCommon(*command, *options, Shared::Compute);
    command->footer("Example:\n  resect-cli logits MODEL --ids 1,403,407 --out out.safetensors --hidden-states\n  resect-cli logits VIT --image cat.jpg");
    command->callback([options] { runLogits(*options); });
}

}  // namespace resect::cli
