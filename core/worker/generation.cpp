#include "core/worker/generation.h"

#include "core/base/error.h"
#include "core/data/image_set.h"
#include "core/measure/image_batch.h"
#include "core/models/tower_model.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <chrono>

namespace resect {

namespace {

/// One picture per file, as the vision tower wants them.
torch::Tensor pixelsOf(const OpenedCheckpoint& opened, const std::vector<std::filesystem::path>& files, const JobContext& job) {
    const ModelShape vision = towerShape(opened.shape(), 0);
    std::vector<torch::Tensor> pixels;
    for (const auto& file : files) {
        const Dataset data = loadImages(file, opened.path(), vision, {}, job);
        if (data.rows.size() != 1) throw Error(ErrorCode::BadInput, file.string(), "expected one picture, found " + std::to_string(data.rows.size()));
        const TokenRow* const row = &data.rows.front();
        pixels.push_back(imagePixels(std::span(&row, 1)));
    }
    return torch::cat(pixels);
}

}  // namespace

Generation generateText(OpenedCheckpoint& opened, const std::string& prompt, const std::optional<Cut>& cut, const SamplingOptions& sampling,
                        const Compute& compute, const JobContext& job, const std::function<void(const GeneratedToken&)>& onToken, SpecialTokens special,
                        const std::vector<std::filesystem::path>& pictures) {
    const Tokenizer& tokenizer = opened.tokenizer();
    std::vector<std::int64_t> ids = tokenizer.encode(prompt, special);
    if (ids.empty()) throw Error(ErrorCode::Usage, "prompt", "it has no tokens; write at least one word");
    const auto model = opened.model(compute, job);
    if (cut) model->setCut(*cut);

    TokenBatch batch;
    if (!pictures.empty()) {
        ids = withPicturePlaces(ids, opened.shape(), std::ssize(pictures));
        batch.pixels_BCHW = pixelsOf(opened, pictures, job);
    }
    batch.ids_BT = torch::tensor(ids, torch::kInt64).unsqueeze(0);

    Generation result;
    std::vector<std::int64_t> all = ids;
    std::string before = tokenizer.decode(all);
    const auto start = std::chrono::steady_clock::now();
    SamplingOptions known = sampling;
    known.idLimit = tokenizer.vocabSize();
    generateAbout(*model, batch.to(model->device()), known, job, [&](std::int64_t id, double logProbability) {
        all.push_back(id);
        // Decoding the whole keeps spaces and multi-byte characters right; the new text is what it adds.
        const std::string now = tokenizer.decode(all);
        GeneratedToken token{id, now.starts_with(before) ? now.substr(before.size()) : tokenizer.piece(id), logProbability};
        before = now;
        result.text += token.text;
        if (onToken) onToken(token);
        result.tokens.push_back(std::move(token));
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result.tokensPerSecond = seconds > 0 ? static_cast<double>(result.tokens.size()) / seconds : 0;
    return result;
}

namespace {

class AttentionObserver final : public Observer {
public:
    explicit AttentionObserver(int block) : m_block(block) {}
    bool wants(TapPoint point, int block) const override { return point == TapPoint::AttentionWeights && block == m_block; }
    void observe(TapPoint, int, const torch::Tensor& weights_BNTT) override { weights = weights_BNTT; }
    torch::Tensor weights;

private:
    int m_block;
};

}  // namespace

AttentionPicture attentionOf(OpenedCheckpoint& opened, const std::string& text, int block, int head, int maxTokens, const Compute& compute, const JobContext& job) {
    const ModelShape& shape = opened.shape();
    if (block < 0 || block >= shape.numBlocks() || !shape.blocks[block].hasAttention)
        throw Error(ErrorCode::NotFound, "block " + std::to_string(block), "has no attention to show");
    if (head < 0 || head >= shape.blocks[block].numHeads)
        throw Error(ErrorCode::NotFound, "block " + std::to_string(block), "has heads 0 to " + std::to_string(shape.blocks[block].numHeads - 1));
    const Tokenizer& tokenizer = opened.tokenizer();
    std::vector<std::int64_t> ids = tokenizer.encode(text);
    if (ids.size() > static_cast<std::size_t>(maxTokens)) ids.resize(maxTokens);
    if (ids.empty()) throw Error(ErrorCode::Usage, "text", "it has no tokens");

    const torch::InferenceMode guard;
    const auto model = opened.model(compute, job);
    AttentionObserver observer(block);
    TokenBatch batch;
    batch.ids_BT = torch::tensor(ids, torch::kInt64).unsqueeze(0);
    batch = batch.to(model->device());
    model->runBlocks(model->embed(batch), batch, 0, block + 1, &observer);
    const torch::Tensor weights_TT = observer.weights[0][head].to(torch::kCPU, torch::kFloat64).contiguous();

    AttentionPicture picture;
    const auto count = static_cast<std::int64_t>(ids.size());
    for (std::int64_t row = 0; row < count; ++row) {
        picture.tokens.push_back(tokenizer.piece(ids[row]));
        const double* values = weights_TT.data_ptr<double>() + row * count;
        picture.weights.emplace_back(values, values + count);
    }
    return picture;
}

}  // namespace resect
