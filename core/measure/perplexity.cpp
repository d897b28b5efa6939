#include "core/measure/perplexity.h"

#include "core/base/error.h"
#include "core/measure/classification.h"
#include "core/measure/statistics.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace resect {

namespace {

constexpr std::int64_t kLogitsAtOnce = 1 << 21;

/// Calls `visit(first, count)` for tiles of positions whose logits are few enough to copy.
template <class Visit> void forTiles(std::int64_t positions, std::int64_t vocabSize, Visit visit) {
    const std::int64_t tile = std::max<std::int64_t>(1, kLogitsAtOnce / std::max<std::int64_t>(1, vocabSize));
    for (std::int64_t first = 0; first < positions; first += tile) visit(first, std::min(tile, positions - first));
}

torch::Tensor logProbabilities(const torch::Tensor& logits_MV) { return torch::log_softmax(logits_MV.to(torch::kFloat32), -1); }

}  // namespace

torch::Tensor tokenLosses(const torch::Tensor& logits, const torch::Tensor& targets) {
    const torch::NoGradGuard noGrad;
    const std::int64_t vocabSize = logits.size(-1);
    const auto logits_MV = logits.reshape({-1, vocabSize});
    const auto targets_M = targets.reshape({-1}).to(logits.device());
    const auto counted_M = targets_M.ne(kIgnoredTarget);
    auto losses_M = torch::empty({logits_MV.size(0)}, logits.options().dtype(torch::kFloat32));
    forTiles(logits_MV.size(0), vocabSize, [&](std::int64_t first, std::int64_t count) {
        const auto picked = targets_M.narrow(0, first, count).clamp_min(0).unsqueeze(1);
        const auto loss = logProbabilities(logits_MV.narrow(0, first, count)).gather(1, picked).squeeze(1).neg();
        losses_M.narrow(0, first, count).copy_(torch::where(counted_M.narrow(0, first, count), loss, torch::zeros_like(loss)));
    });
    return losses_M.view(targets.sizes());
}

torch::Tensor tokenDivergences(const torch::Tensor& reference, const torch::Tensor& candidate) {
    const torch::NoGradGuard noGrad;
    const std::int64_t vocabSize = reference.size(-1);
    const auto p_MV = reference.reshape({-1, vocabSize}), q_MV = candidate.reshape({-1, vocabSize});
    auto divergences_M = torch::empty({p_MV.size(0)}, reference.options().dtype(torch::kFloat32));
    forTiles(p_MV.size(0), vocabSize, [&](std::int64_t first, std::int64_t count) {
        const auto logP = logProbabilities(p_MV.narrow(0, first, count)), logQ = logProbabilities(q_MV.narrow(0, first, count));
        divergences_M.narrow(0, first, count).copy_((logP.exp() * (logP - logQ)).sum(-1));
    });
    std::vector<std::int64_t> sizes = reference.sizes().vec();
    sizes.pop_back();
    return divergences_M.view(sizes);
}

void addRowLosses(RowLosses& rows, const torch::Tensor& losses_BT, const torch::Tensor& targets_BT, const std::vector<RowSpan>& spans, Positions positions) {
    const auto losses = losses_BT.to(torch::kCPU).contiguous();
    const auto targets = targets_BT.to(torch::kCPU).contiguous();
    const std::int64_t tokens = losses.size(1);
    for (std::size_t b = 0; b < spans.size(); ++b) {
        const float* loss = losses.data_ptr<float>() + static_cast<std::int64_t>(b) * tokens;
        const std::int64_t* target = targets.data_ptr<std::int64_t>() + static_cast<std::int64_t>(b) * tokens;
        const RowSpan& span = spans[b];
        const std::int64_t begin = positions == Positions::All ? span.begin : span.begin + (span.end - span.begin) / 2;
        double sum = 0, count = 0;
        for (std::int64_t t = begin; t < span.end; ++t) {
            if (target[t] == kIgnoredTarget) continue;
            if (!std::isfinite(loss[t]))
                throw Error(ErrorCode::BadInput, "row " + std::to_string(span.row) + ", token " + std::to_string(t - span.begin),
                            "the loss is not finite; the weights hold NaN or infinity, or overflow in this precision");
            sum += loss[t];
            count += 1;
        }
        rows.loss.push_back(sum);
        rows.count.push_back(count);
    }
}

Perplexity RowLosses::result(std::int64_t rowsTotal) const {
    Perplexity result;
    const MeanError mean = clusteredMean(loss, count);
    result.loss = mean.mean;
    result.error = mean.error;
    result.perplexity = std::exp(mean.mean);
    const double half = halfWidth95(static_cast<std::int64_t>(loss.size())) * mean.error;
    result.low = std::exp(mean.mean - half);
    result.high = std::exp(mean.mean + half);
    result.positions = static_cast<std::int64_t>(std::accumulate(count.begin(), count.end(), 0.0));
    result.rowsDone = static_cast<std::int64_t>(loss.size());
    result.rowsTotal = rowsTotal;
    return result;
}

Perplexity measurePerplexity(ModelRun& run, Positions positions, const JobContext& job) {
    requireHead(run.shape());
    RowLosses rows;
    const auto onLogits = [&](std::size_t batch, const torch::Tensor& logits_BTV) {
        const auto targets_BT = run.targets(batch);
        addRowLosses(rows, tokenLosses(logits_BTV, targets_BT), targets_BT, run.targetSpans(batch), positions);
    };
    run.run(nullptr, onLogits, job);
    if (rows.loss.empty()) throw Error(ErrorCode::Stopped, "perplexity", "stopped before the first rows were finished");
    const Perplexity result = rows.result(static_cast<std::int64_t>(run.data().rows.size()));
    if (result.positions == 0) throw Error(ErrorCode::BadInput, "perplexity", run.data().holdsImages() ? "no image has a label" : "no position of the data has a next token to be predicted");
    return result;
}

}  // namespace resect
