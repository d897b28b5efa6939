#include "core/worker/export_job.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/export/verify_script.h"
#include "core/measure/image_batch.h"
#include "core/models/tower_model.h"
#include "core/worker/describe.h"
#include "core/worker/gguf_job.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <random>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr int kCompareRows = 4, kCompareTokens = 64;

/// A picture that any program can make again: sin(0.1 (channel + 1) x + 0.07 y), [1, C, height, width].
torch::Tensor wavePicture(const ImageShape& image) {
    const auto x_W = torch::arange(image.width, torch::kFloat64) * 0.1, y_H = torch::arange(image.height, torch::kFloat64) * 0.07;
    const auto channel_C = torch::arange(1, image.channels + 1, torch::kFloat64);
    return torch::sin(channel_C.view({1, -1, 1, 1}) * x_W.view({1, 1, 1, -1}) + y_H.view({1, 1, -1, 1})).to(torch::kFloat32);
}

/// A picture and random words; of LLaVA with a place for each row of the picture before them.
TokenBatch pictureAndText(const ModelShape& shape, int length) {
    const ImageShape& image = *shape.towers.front().shape.image;
    std::vector<std::int64_t> ids;
    if (!shape.link.featureBlocks.empty()) ids.assign(static_cast<std::size_t>(imageRows(shape)), shape.link.imageTokenId);
    std::mt19937_64 random(20);
    for (int t = 0; t < length; ++t) {
        const auto id = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(shape.vocabSize));
        ids.push_back(id == shape.link.imageTokenId ? (id + 1) % shape.vocabSize : id);
    }
    TokenBatch batch;
    batch.ids_BT = torch::tensor(ids, torch::kInt64).unsqueeze(0);
    batch.pixels_BCHW = wavePicture(image);
    return batch;
}

/// What both models run: rows of the given text or images, else random tokens or one picture.
std::vector<TokenBatch> comparisonBatches(const OpenedCheckpoint& source, const ExportRequest& request, const JobContext& job) {
    const ModelShape& shape = source.shape();
    const int length = static_cast<int>(shape.maxPositions > 0 ? std::min<std::int64_t>(kCompareTokens, shape.maxPositions) : kCompareTokens);
    std::vector<TokenBatch> batches;
    const auto add = [&](const std::vector<std::int64_t>& ids) { batches.emplace_back().ids_BT = torch::tensor(ids, torch::kInt64).unsqueeze(0); };
    if (!shape.towers.empty()) return {pictureAndText(shape, length)};
    if (shape.image) batches.emplace_back().pixels_BCHW = wavePicture(*shape.image);  // first: the one that verify_export.py can make too
    if (request.data) {
        protocol::DataMessage wanted = *request.data;
        wanted.rowLength = length;
        wanted.maxRows = kCompareRows;
        wanted.layout = "chunks";
        const Dataset data = source.data(wanted, job);
        for (const TokenRow& row : data.rows) {
            const TokenRow* const one = &row;
            if (row.image.set) batches.emplace_back().pixels_BCHW = imagePixels(std::span(&one, 1));
            else add(row.ids);
        }
        return batches;
    }
    if (shape.image) return batches;
    std::mt19937_64 random(20);
    for (int r = 0; r < kCompareRows; ++r) {
        std::vector<std::int64_t> row;
        for (int t = 0; t < length; ++t) row.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(shape.vocabSize)));
        add(row);
    }
    return batches;
}

std::vector<torch::Tensor> streamedLogits(const Checkpoint& checkpoint, const Cut& cut, const std::vector<TokenBatch>& batches, const JobContext& job) {
    std::vector<torch::Tensor> all(batches.size());
    if (!Anatomy::of(checkpoint).shape().towers.empty()) {
        const auto model = LanguageModel::load(checkpoint, LoadOptions{}, job);
        if (!cut.empty()) model->setCut(cut);
        for (std::size_t i = 0; i < batches.size() && !job.stopped(); ++i) all[i] = model->logits(batches[i]);
        if (job.stopped()) throw Error(ErrorCode::Stopped, "comparison", "stopped before the logits were compared");
        return all;
    }
    BlockStream stream(checkpoint, LoadOptions{});
    if (!cut.empty()) stream.setCut(cut);
    stream.run(batches, nullptr, [](std::size_t) {},
               [&](std::size_t batch, const torch::Tensor&, const torch::Tensor& logits_BTV) { all[batch] = logits_BTV.to(torch::kFloat32); }, job);
    if (job.stopped()) throw Error(ErrorCode::Stopped, "comparison", "stopped before the logits were compared");
    return all;
}

/// What another program can check: the likeliest tokens or labels at some positions, of CLIP the similarity; null where stock classes give no logits.
Json sampleOf(const TokenBatch& batch, const torch::Tensor& logits_BTV, const ModelShape& shape) {
    constexpr std::int64_t kTokens = 32, kLikeliest = 8;
    const std::string loader = transformersClass(shape);
    if (loader.empty() || loader == "AutoModel") return nullptr;
    Json sample{{"class", loader}};
    const std::int64_t positions = logits_BTV.size(1), count = std::min(kTokens, positions);
    const std::int64_t first = batch.pixels_BCHW.defined() ? positions - count : 0;  // places of a picture come first
    if (batch.pixels_BCHW.defined()) sample["picture"] = batch.pixels_BCHW.sizes().slice(1).vec();
    if (batch.ids_BT.defined()) {
        const auto ids_T = batch.ids_BT[0].contiguous();
        const std::int64_t listed = batch.pixels_BCHW.defined() ? ids_T.size(0) : count;
        sample["input_ids"] = std::vector<std::int64_t>(ids_T.data_ptr<std::int64_t>(), ids_T.data_ptr<std::int64_t>() + listed);
    }
    if (shape.link.projectionSize > 0) {
        sample["similarity"] = logits_BTV[0][0][0].item<double>();
        return sample;
    }
    sample["first_position"] = first;
    const auto [values, top] = torch::log_softmax(logits_BTV[0].narrow(0, first, count).to(torch::kFloat64), -1).topk(std::min(kLikeliest, logits_BTV.size(2)), -1);
    sample["top_ids"] = sample["top_log_probabilities"] = Json::array();
    for (std::int64_t t = 0; t < count; ++t) {
        Json row = Json::array(), logs = Json::array();
        for (std::int64_t k = 0; k < top.size(1); ++k) row.push_back(top[t][k].item<std::int64_t>()), logs.push_back(values[t][k].item<double>());
        sample["top_ids"].push_back(std::move(row));
        sample["top_log_probabilities"].push_back(std::move(logs));
    }
    return sample;
}

SliceWay wayOf(const std::string& way) {
    if (way == "padded") return SliceWay::Padded;
    if (way == "zeroed") return SliceWay::Zeroed;
    if (way == "uniform" || way == "exact" || way == "heterogeneous") return SliceWay::Exact;
    throw Error(ErrorCode::Usage, "way " + way, "expected uniform, padded, zeroed, exact or heterogeneous");
}

std::optional<DType> storedDtype(const std::string& text) {
    if (text.empty()) return std::nullopt;
    if (text == "f32" || text == "float32") return DType::F32;
    if (text == "bf16" || text == "bfloat16") return DType::BF16;
    if (text == "f16" || text == "float16") return DType::F16;
    throw Error(ErrorCode::Usage, "dtype " + text, "expected f32, bf16 or f16");
}

bool narrows(const Checkpoint& source, std::optional<DType> dtype) {
    return dtype && std::any_of(source.tensors().begin(), source.tensors().end(), [&](const TensorInfo& tensor) { return tensor.dtype != *dtype; });
}

void requireEqual(const LogitComparison& comparison, bool narrowed) {
    const bool good = narrowed ? comparison.kl <= 0.01 : comparison.maxAbsError <= 1e-4;
    if (!good)
        throw Error(ErrorCode::Internal, "export", "the reopened checkpoint does not compute what the candidate computes: largest logit difference " +
                                                       toText(comparison.maxAbsError, 3) + ", KL " + toText(comparison.kl, 3) + "; nothing was kept");
}

}  // namespace

LogitComparison compareLogits(const Checkpoint& candidate, const Cut& cut, const Checkpoint& written, const std::vector<TokenBatch>& batches, const JobContext& job) {
    const torch::InferenceMode guard;
    const auto expected = streamedLogits(candidate, cut, batches, job);
    const auto found = streamedLogits(written, {}, batches, job);
    LogitComparison result;
    double klSum = 0;
    for (std::size_t i = 0; i < batches.size(); ++i) {
        const double error = (expected[i] - found[i]).abs().max().item<double>();
        result.maxAbsError = std::isnan(error) ? error : std::max(result.maxAbsError, error);
        const torch::Tensor p = torch::log_softmax(expected[i].to(torch::kFloat64), -1), q = torch::log_softmax(found[i].to(torch::kFloat64), -1);
        klSum += (p.exp() * (p - q)).sum().item<double>();
        result.tokens += expected[i].size(0) * expected[i].size(1);
    }
    if (!batches.empty()) result.sample = sampleOf(batches.front(), found.front(), Anatomy::of(written).shape());
    result.kl = result.tokens > 0 ? klSum / static_cast<double>(result.tokens) : 0;
    return result;
}

protocol::ExportMessage exportChecked(const OpenedCheckpoint& source, const ExportRequest& request, const JobContext& job) {
    if (wantsGguf(request)) return exportGgufChecked(source, request, job);
    Cut cut;
    if (request.plan) {
        requireLegal(*request.plan, source);
        cut = cutOf(*request.plan, source.shape());
    }
    cut.blocks.resize(source.shape().blocks.size());
    const SliceWay way = wayOf(request.way);
    const ModelShape after = shapeAfter(source.shape(), cut);
    if (request.way == "uniform" && !isUniform(after))
        throw Error(ErrorCode::BadInput, "way uniform", "the plan leaves blocks of different sizes, which a stock architecture cannot hold. "
                                                        "Choose padded (opens everywhere), zeroed, or exact (opens in Resect)");
    ExportOptions options;
    options.way = way;
    options.heterogeneous = request.way == "heterogeneous";
    options.dtype = storedDtype(request.dtype);
    options.shardBytes = request.shardBytes;
    options.provenance = request.provenance.is_object() ? request.provenance : Json::object();
    options.provenance["source"] = {{"path", source.name()}, {"fingerprint", source.checkpoint().fingerprint()}};
    if (request.plan) options.provenance["plan"] = request.plan->toJson();

    const auto batches = comparisonBatches(source, request, job);
    protocol::ExportMessage message;
    const ExportResult result = exportHuggingFace(source.checkpoint(), source.anatomy(), cut, request.to, options, job, [&](const fs::path& staged) {
        const LogitComparison comparison = compareLogits(source.checkpoint(), cut, Checkpoint::open(staged), batches, job);
        requireEqual(comparison, narrows(source.checkpoint(), options.dtype));
        if (!comparison.sample.is_null()) {
            writeFileAtomically(staged / kVerifyScript, verifyScript());
            writeJsonFile(staged / kVerifySample, comparison.sample);
        }
        message.maxAbsLogitError = comparison.maxAbsError;
        message.kl = comparison.kl;
        message.verified = true;
    });
    message.folder = fs::absolute(result.folder).string();
    message.way = request.way;
    message.bytes = static_cast<std::int64_t>(result.bytes);
    message.files = result.files;
    for (const LoadAdvice& advice : options.heterogeneous ? deciAdvice(result.shape, fs::absolute(result.folder), LoadAdvice::Evidence::Checked)
                                                          : loadAdvice(result.shape, fs::absolute(result.folder), LoadAdvice::Evidence::Checked)) {
        message.opensIn.push_back({advice.program, std::string(name(advice.verdict)), advice.reasons, std::string(name(advice.evidence))});
        message.loadCommands.push_back(advice.command);
    }
    return message;
}

}  // namespace resect
