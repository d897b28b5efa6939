#include "core/worker/export_job.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/export/verify_script.h"
#include "core/measure/image_batch.h"
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

/// What both models run: rows of the given text or images, else random tokens or one picture of noise.
std::vector<TokenBatch> comparisonBatches(const OpenedCheckpoint& source, const ExportRequest& request, const JobContext& job) {
    const ModelShape& shape = source.shape();
    const int length = static_cast<int>(shape.maxPositions > 0 ? std::min<std::int64_t>(kCompareTokens, shape.maxPositions) : kCompareTokens);
    std::vector<TokenBatch> batches;
    const auto add = [&](const std::vector<std::int64_t>& ids) { batches.emplace_back().ids_BT = torch::tensor(ids, torch::kInt64).unsqueeze(0); };
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
    if (const auto& image = shape.image) {
        auto generator = torch::make_generator<torch::CPUGeneratorImpl>(20);
        batches.emplace_back().pixels_BCHW = torch::randn({1, image->channels, image->height, image->width}, generator);
        return batches;
    }
    std::mt19937_64 random(20);
    for (int r = 0; r < kCompareRows; ++r) {
        std::vector<std::int64_t> row;
        for (int t = 0; t < length; ++t) row.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(shape.vocabSize)));
        add(row);
    }
    return batches;
}

std::vector<torch::Tensor> streamedLogits(const Checkpoint& checkpoint, const Cut& cut, const std::vector<TokenBatch>& batches, const JobContext& job) {
    BlockStream stream(checkpoint, LoadOptions{});
    if (!cut.empty()) stream.setCut(cut);
    std::vector<torch::Tensor> all(batches.size());
    stream.run(batches, nullptr, [](std::size_t) {},
               [&](std::size_t batch, const torch::Tensor&, const torch::Tensor& logits_BTV) { all[batch] = logits_BTV.to(torch::kFloat32); }, job);
    if (job.stopped()) throw Error(ErrorCode::Stopped, "comparison", "stopped before the logits were compared");
    return all;
}

/// The likeliest tokens after each of the first ones, as another program can check them.
Json sampleOf(const torch::Tensor& ids_T, const torch::Tensor& logits_BTV) {
    constexpr std::int64_t kTokens = 32, kLikeliest = 8;
    const auto tokens = std::min<std::int64_t>(kTokens, logits_BTV.size(1));
    const auto [values, top] = torch::log_softmax(logits_BTV[0].narrow(0, 0, tokens).to(torch::kFloat64), -1).topk(std::min(kLikeliest, logits_BTV.size(2)), -1);
    Json sample{{"input_ids", std::vector<std::int64_t>(ids_T.data_ptr<std::int64_t>(), ids_T.data_ptr<std::int64_t>() + tokens)}, {"top_ids", Json::array()}, {"top_log_probabilities", Json::array()}};
    for (std::int64_t t = 0; t < tokens; ++t) {
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
    if (!batches.empty() && batches.front().ids_BT.defined()) result.sample = sampleOf(batches.front().ids_BT[0], found.front());
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
