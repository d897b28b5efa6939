#include "core/train/losses.h"

#include "core/measure/classification.h"

#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace resect {

namespace {

/// Largest f32 logits piece [n, V] that is held at once.
constexpr std::int64_t kPieceBytes = 64 << 20;

class RouterCollector final : public Observer {
public:
    bool wants(TapPoint point, int) const override { return point == TapPoint::RouterLogits; }
    void observe(TapPoint, int, const torch::Tensor& value) override { logits_BTE.push_back(value); }
    std::vector<torch::Tensor> logits_BTE;
};

/// Final-norm outputs of the counted positions [n, D]; of images, of the tokens that the classifier reads [n, P, D].
torch::Tensor countedHidden(const LanguageModel& model, const TrainBatch& batch, const torch::Tensor& positions_n, Observer* observer) {
    const auto x_BTD = model.runBlocks(model.embed(batch.tokens), batch.tokens, 0, model.shape().numBlocks(), observer);
    const auto normed_BTD = model.finalNorm(x_BTD);
    if (const auto& image = model.shape().image) return normed_BTD.narrow(1, 0, image->prefixTokens).index_select(0, positions_n);
    return normed_BTD.reshape({-1, normed_BTD.size(-1)}).index_select(0, positions_n);
}

torch::Tensor logitsOf(const LanguageModel& model, const torch::Tensor& hidden_nD) {
    if (model.shape().image) return model.head(hidden_nD).squeeze(1).to(torch::kFloat32);
    return model.head(hidden_nD.unsqueeze(0)).squeeze(0).to(torch::kFloat32);
}

struct PieceSums {
    double crossEntropy = 0, kl = 0;
};

/// Adds the loss of one piece to the gradients of the head and of `hidden_nD` (a leaf). Sums over the piece, scaled by `scale` in the gradient.
PieceSums backwardPiece(LanguageModel& model, const LanguageModel* teacher, const torch::Tensor& hidden_nD, const torch::Tensor& teacherHidden_nD,
                        const torch::Tensor& targets_n, const LossOptions& options, double scale) {
    const auto logits_nV = logitsOf(model, hidden_nD);
    auto total = torch::nll_loss(torch::log_softmax(logits_nV, -1), targets_n, {}, at::Reduction::Sum);
    PieceSums sums{total.item<double>(), 0};
    if (teacher) {
        const double T = options.distillTemperature;
        torch::Tensor wanted_nV;
        {
            torch::NoGradGuard noGrad;
            wanted_nV = torch::log_softmax(logitsOf(*teacher, teacherHidden_nD) / T, -1);
        }
        const auto kl = torch::kl_div(torch::log_softmax(logits_nV / T, -1), wanted_nV, at::Reduction::Sum, /*log_target=*/true);
        sums.kl = kl.item<double>();
        total = total * (1 - options.distillWeight) + kl * (options.distillWeight * T * T);
    }
    if (total.requires_grad()) (total * scale).backward();
    return sums;
}

torch::Tensor extraOf(const LossOptions& options) { return options.extra ? options.extra() : torch::Tensor(); }

/// The general path: hidden states once, then logits piece by piece, each with its own backward pass down to the hidden states.
BatchLoss accumulateByPieces(LanguageModel& model, const LanguageModel* teacher, const TrainBatch& batch, const LossOptions& options, double share) {
    const auto flatTargets = batch.targets_BT.reshape({-1});
    const auto positions_n = torch::nonzero(flatTargets != kIgnoredTarget).squeeze(1);
    const auto targets_n = flatTargets.index_select(0, positions_n);
    RouterCollector routers;
    const bool balanced = options.routerBalance > 0 && model.shape().numExpertsPerToken > 0;
    const auto hidden_nD = countedHidden(model, batch, positions_n, balanced ? &routers : nullptr);
    torch::Tensor teacherHidden_nD;
    if (teacher) {
        torch::NoGradGuard noGrad;
        teacherHidden_nD = countedHidden(*teacher, batch, positions_n, nullptr);
    }
    const auto n = hidden_nD.size(0);
    const auto rows = std::max<std::int64_t>(1, kPieceBytes / (4 * model.shape().vocabSize));
    BatchLoss loss;
    std::vector<torch::Tensor> gradients;
    for (std::int64_t begin = 0; begin < n; begin += rows) {
        const auto count = std::min(rows, n - begin);
        auto leaf_nD = hidden_nD.detach().narrow(0, begin, count).clone().requires_grad_();
        const auto teacherPiece = teacher ? teacherHidden_nD.narrow(0, begin, count) : torch::Tensor();
        const auto sums = backwardPiece(model, teacher, leaf_nD, teacherPiece, targets_n.narrow(0, begin, count), options, share / double(n));
        loss.crossEntropy += sums.crossEntropy / double(n);
        loss.kl += sums.kl / double(n);
        gradients.push_back(leaf_nD.grad());
    }
    loss.total = loss.crossEntropy;
    if (teacher)
        loss.total = (1 - options.distillWeight) * loss.crossEntropy +
                     options.distillWeight * options.distillTemperature * options.distillTemperature * loss.kl;
    std::vector<torch::Tensor> ends, endGradients;
    if (hidden_nD.requires_grad()) {
        ends.push_back(hidden_nD);
        endGradients.push_back(torch::cat(gradients));
    }
    if (!routers.logits_BTE.empty()) {
        const auto balance = routerBalanceLoss(routers.logits_BTE, batch.tokens.mask_BT, model.shape().numExpertsPerToken);
        loss.balance = balance.item<double>();
        loss.total += options.routerBalance * loss.balance;
        if (balance.requires_grad()) {
            ends.push_back(balance);
            endGradients.push_back(torch::full_like(balance, share * options.routerBalance));
        }
    }
    if (const auto extra = extraOf(options); extra.defined()) {
        loss.extra = extra.item<double>();
        loss.total += loss.extra;
        if (extra.requires_grad()) {
            ends.push_back(extra);
            endGradients.push_back(torch::full_like(extra, share));
        }
    }
    if (std::isfinite(loss.total) && !ends.empty()) torch::autograd::backward(ends, endGradients);
    return loss;
}

}  // namespace

BatchLoss accumulateGradients(LanguageModel& model, const LanguageModel* teacher, const TrainBatch& batch, const LossOptions& options, double share) {
    const bool byPieces = (teacher && options.distillWeight > 0) || (options.routerBalance > 0 && model.shape().numExpertsPerToken > 0);
    if (byPieces) return accumulateByPieces(model, options.distillWeight > 0 ? teacher : nullptr, batch, options, share);
    auto loss = model.loss(batch.tokens, batch.targets_BT);
    BatchLoss result;
    result.crossEntropy = loss.item<double>();
    if (const auto extra = extraOf(options); extra.defined()) {
        result.extra = extra.item<double>();
        loss = loss + extra;
    }
    result.total = result.crossEntropy + result.extra;
    if (std::isfinite(result.total) && loss.requires_grad()) (loss * share).backward();
    return result;
}

torch::Tensor routerBalanceLoss(const std::vector<torch::Tensor>& logits_BTE, const torch::Tensor& mask_BT, int topK) {
    std::vector<torch::Tensor> all;
    const auto E = logits_BTE.front().size(-1);
    for (const auto& logits : logits_BTE) {
        if (logits.size(-1) == E) all.push_back(logits.reshape({-1, E}).to(torch::kFloat32));
    }
    const auto probabilities_nE = torch::softmax(torch::cat(all), -1);
    auto weights_n1 = torch::ones({probabilities_nE.size(0), 1}, probabilities_nE.options());
    if (mask_BT.defined())
        weights_n1 = mask_BT.reshape({-1, 1}).to(probabilities_nE.options()).repeat({static_cast<std::int64_t>(all.size()), 1});
    const auto counted = weights_n1.sum();
    const auto chosen_nk = std::get<1>(probabilities_nE.topk(std::min<std::int64_t>(topK, E), -1));
    const auto choices_nE = torch::zeros_like(probabilities_nE).scatter_(-1, chosen_nk, 1.0);
    const auto share_E = (choices_nE * weights_n1).sum(0) / counted;
    const auto mean_E = (probabilities_nE * weights_n1).sum(0) / counted;
    return (share_E * mean_E).sum() * double(E);
}

double Evaluation::perplexity() const noexcept { return std::exp(loss); }

Evaluation evaluate(const LanguageModel& model, std::span<const TokenRow> rows, int batchRows, const JobContext& job, const std::function<void(const TrainBatch&)>& onBatch) {
    torch::NoGradGuard noGrad;
    Evaluation result;
    double sum = 0;
    LabelHits hits;
    std::size_t done = 0;
    while (done < rows.size() && !job.stopped()) {
        std::vector<const TokenRow*> group;
        for (const auto& row : rows.subspan(done, std::min(rows.size() - done, static_cast<std::size_t>(batchRows)))) group.push_back(&row);
        const auto there = makeBatch(group).to(model.device());
        if (onBatch) onBatch(there);
        if (there.tokens.pixels_BCHW.defined()) {
            const auto logits = model.logits(there.tokens);
            sum += tokenLosses(logits, there.targets_BT).sum().item<double>();
            hits.add(countHits(logits, there.targets_BT));
        } else {
            sum += model.loss(there.tokens, there.targets_BT).item<double>() * double(there.counted);
        }
        result.counted += there.counted;
        done += group.size();
        job.progress({double(done), double(rows.size()), hits.total > 0 ? "images" : "rows", "evaluating"});
    }
    result.complete = done == rows.size();
    result.loss = result.counted > 0 ? sum / double(result.counted) : std::numeric_limits<double>::quiet_NaN();
    if (hits.total > 0) result.accuracy = double(hits.right1) / double(hits.total);
    return result;
}

}  // namespace resect
