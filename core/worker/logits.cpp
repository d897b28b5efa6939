#include "core/worker/logits.h"

#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/data/dataset.h"
#include "core/measure/image_batch.h"
#include "core/models/tensor_file.h"

#include <torch/types.h>
#include <torch/utils.h>

namespace resect {

namespace {

constexpr std::int64_t kMostTokens = 1 << 17;   // of pictures in one pass

using Named = std::vector<std::pair<std::string, torch::Tensor>>;

/// Keeps the embedding output and what leaves every block; where there are several towers, of the language tower alone.
class HiddenStates final : public Observer {
public:
    explicit HiddenStates(int first) : m_first(first) {}
    bool wants(TapPoint point, int block) const override { return block >= m_first && (point == TapPoint::BlockOutput || (point == TapPoint::BlockInput && block == m_first)); }
    void observe(TapPoint, int, const torch::Tensor& value) override { states.push_back(value.detach()); }
    std::vector<torch::Tensor> states;

private:
    int m_first;
};

struct Input {
    TokenBatch batch;
    torch::Tensor labels_B1;  // of pictures, where given
};

Input readPictures(const OpenedCheckpoint& opened, const LogitsRequest& request, const JobContext& job) {
    const std::string subject = request.input.string();
    Input input;
    if (!request.image.empty()) {
        protocol::DataMessage wanted;
        wanted.file = request.image.string();
        wanted.maxRows = 0;
        wanted.imageAspect = request.imageAspect;
        const Dataset data = opened.data(wanted, job);
        if (data.tokens > kMostTokens)
            throw Error(ErrorCode::Usage, request.image.string(), "holds " + formatThousands(std::ssize(data.rows)) + " images, too many for one pass; eval runs many");
        std::vector<const TokenRow*> rows;
        std::vector<std::int64_t> labels;
        for (const TokenRow& row : data.rows) rows.push_back(&row), labels.push_back(row.targets.front());
        input.batch.pixels_BCHW = imagePixels(rows);
        if (data.targets == std::ssize(labels)) input.labels_B1 = torch::tensor(labels, torch::kInt64).view({-1, 1});
        return input;
    }
    if (request.input.empty()) throw Error(ErrorCode::Usage, "logits", "this model runs pictures: give an image, or a safetensors file with pixel_values [B, C, height, width]");
    auto tensors = readTensors(request.input);
    if (!tensors.contains("pixel_values")) throw Error(ErrorCode::BadInput, subject + ": pixel_values", "expected pictures [B, C, height, width], found none");
    input.batch.pixels_BCHW = tensors["pixel_values"].to(torch::kFloat32);
    if (tensors.contains("labels")) input.labels_B1 = tensors["labels"].to(torch::kInt64).view({-1, 1});
    return input;
}

TokenBatch readBatch(const LogitsRequest& request, std::int64_t vocabSize, bool mayHavePictures) {
    TokenBatch batch;
    if (!request.ids.empty()) {
        batch.ids_BT = torch::tensor(request.ids, torch::kInt64).unsqueeze(0);
    } else {
        const std::string subject = request.input.string();
        auto tensors = readTensors(request.input);
        if (mayHavePictures && tensors.contains("pixel_values")) batch.pixels_BCHW = tensors["pixel_values"].to(torch::kFloat32);
        if (batch.pixels_BCHW.defined() && !tensors.contains("input_ids")) return batch;
        if (!tensors.contains("input_ids")) throw Error(ErrorCode::BadInput, subject + ": input_ids", "expected an integer tensor [B, T], found none");
        batch.ids_BT = tensors["input_ids"].to(torch::kInt64);
        if (batch.ids_BT.dim() == 1) batch.ids_BT = batch.ids_BT.unsqueeze(0);
        if (batch.ids_BT.dim() != 2) throw Error(ErrorCode::BadInput, subject + ": input_ids", "expected [B, T], found " + std::to_string(batch.ids_BT.dim()) + " dimensions");
        if (tensors.contains("attention_mask")) {
            batch.mask_BT = tensors["attention_mask"].to(torch::kBool);
            if (batch.mask_BT.sizes() != batch.ids_BT.sizes()) throw Error(ErrorCode::BadInput, subject + ": attention_mask", "expected the shape of input_ids");
        }
    }
    if (batch.ids_BT.numel() == 0) throw Error(ErrorCode::BadInput, "input_ids", "expected at least one token, found none");
    const auto low = batch.ids_BT.min().item<std::int64_t>(), high = batch.ids_BT.max().item<std::int64_t>();
    if (!mayHavePictures && (low < 0 || high >= vocabSize))  // a placeholder may lie beyond the vocabulary
        throw Error(ErrorCode::BadInput, "input_ids", "expected ids from 0 to " + std::to_string(vocabSize - 1) + ", found " + std::to_string(low < 0 ? low : high));
    return batch;
}

/// targets[t] = ids[t+1], ignored at the end of a row and where either side is padding.
torch::Tensor nextTokens(const TokenBatch& batch) {
    torch::Tensor targets_BT = torch::full_like(batch.ids_BT, kIgnoredTarget);
    const auto last = batch.ids_BT.size(1) - 1;
    targets_BT.narrow(1, 0, last).copy_(batch.ids_BT.narrow(1, 1, last));
    if (batch.mask_BT.defined()) {
        targets_BT.masked_fill_(~batch.mask_BT, kIgnoredTarget);
        targets_BT.narrow(1, 0, last).masked_fill_(~batch.mask_BT.narrow(1, 1, last), kIgnoredTarget);
    }
    return targets_BT;
}

torch::Tensor plain(const torch::Tensor& tensor) { return tensor.detach().to(torch::kCPU, torch::kFloat32).contiguous(); }

void addGradients(const OpenedCheckpoint& opened, const Input& input, const Compute& compute, const JobContext& job, Named& results) {
    const bool pictures = opened.shape().image.has_value();
    if (pictures && (!input.labels_B1.defined() || opened.shape().vocabSize == 0))
        throw Error(ErrorCode::BadInput, "labels", "gradients of pictures need a classifier and labels [B] beside pixel_values");
    LoadOptions options = opened.loadOptions(compute);
    options.trainable = true;
    const auto model = LanguageModel::load(opened.checkpoint(), options, job);
    const TokenBatch there = input.batch.to(model->device());
    const torch::Tensor loss = model->loss(there, pictures ? input.labels_B1 : nextTokens(there));
    loss.backward();
    results.emplace_back("loss", plain(loss));
    model->visitParameters([&](const std::string& name, torch::Tensor& parameter) {
        if (parameter.grad().defined()) results.emplace_back("grad." + name, plain(parameter.grad()));
    });
}

}  // namespace

Named computeLogits(OpenedCheckpoint& opened, const LogitsRequest& request, const Compute& compute, const JobContext& job) {
    const ModelShape& shape = opened.shape();
    const bool pictures = shape.image.has_value(), towers = !shape.towers.empty();
    if (!pictures && !request.image.empty()) throw Error(ErrorCode::Usage, request.image.string(), towers ? "give pictures as pixel_values in a safetensors file, beside input_ids" : "is an image, but the model runs text");
    const Input input = pictures ? readPictures(opened, request, job) : Input{readBatch(request, shape.vocabSize, towers), {}};
    Named results;
    if (towers && shape.link.projectionSize > 0 && input.batch.ids_BT.defined() && input.batch.pixels_BCHW.defined()) {  // CLIP compares
        const torch::InferenceMode guard;
        const auto model = opened.model(compute, job);
        results.emplace_back("logits_per_image", plain(model->logits(input.batch.to(model->device())).select(1, 0)));
    } else {
        const torch::InferenceMode guard;
        const auto model = opened.model(compute, job);
        const TokenBatch there = input.batch.to(model->device());
        HiddenStates hidden(towers && input.batch.ids_BT.defined() ? blocksOf(shape, 1).first : 0);
        torch::Tensor x_BTD = model->runBlocks(model->embed(there), there, 0, model->shape().numBlocks(), request.hiddenStates ? &hidden : nullptr);
        x_BTD = model->finalNorm(x_BTD);
        results.emplace_back("logits", plain(model->head(x_BTD)));
        if (!hidden.states.empty() && input.batch.ids_BT.defined() && !shape.link.projectionSize) hidden.states.back() = x_BTD;  // vision transformers give theirs before the final norm
        for (std::size_t i = 0; i < hidden.states.size(); ++i) results.emplace_back("hidden_states." + std::to_string(i), plain(hidden.states[i]));
    }
    if (request.gradients) addGradients(opened, input, compute, job, results);
    return results;
}

}  // namespace resect
