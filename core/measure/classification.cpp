#include "core/measure/classification.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"

#include <torch/types.h>
#include <torch/utils.h>

namespace resect {

namespace {

/// How many labels are likelier than the target, per picture; int64 [B] on the CPU.
torch::Tensor ranks(const torch::Tensor& logits_BV, const torch::Tensor& targets_B) {
    const auto own_B1 = logits_BV.gather(1, targets_B.clamp_min(0).unsqueeze(1));
    const auto labels_V = torch::arange(logits_BV.size(1), targets_B.options());
    const auto before_BV = logits_BV.gt(own_B1).logical_or(logits_BV.eq(own_B1).logical_and(labels_V.unsqueeze(0).lt(targets_B.unsqueeze(1))));
    return before_BV.sum(1).to(torch::kCPU);
}

}  // namespace

void LabelHits::add(const LabelHits& other) noexcept {
    right1 += other.right1;
    right5 += other.right5;
    total += other.total;
}

LabelHits countHits(const torch::Tensor& logits, const torch::Tensor& targets) {
    const torch::NoGradGuard noGrad;
    const auto logits_BV = logits.reshape({-1, logits.size(-1)});
    const auto targets_B = targets.reshape({-1}).to(logits.device());
    const auto ranks_B = ranks(logits_BV, targets_B);
    const auto counted_B = targets_B.ne(kIgnoredTarget).to(torch::kCPU);
    const auto count = [&](const torch::Tensor& which_B) { return which_B.logical_and(counted_B).sum().item<std::int64_t>(); };
    return {count(ranks_B.lt(1)), count(ranks_B.lt(5)), counted_B.sum().item<std::int64_t>()};
}

void requireHead(const ModelShape& shape) {
    if (shape.image && shape.image->labels == 0)
        throw Error(ErrorCode::Unsupported, shape.modelType, "has no classifier, so there are neither losses nor probabilities of labels; it can be measured, cut and exported");
    if (familyOf(shape).headless || shape.link.projectionSize > 0)
        throw Error(ErrorCode::Unsupported, shape.modelType, "predicts no next token, so there is no perplexity; it can be measured, cut and exported");
}

Classification measureClassification(ModelRun& run, const JobContext& job) {
    requireHead(run.shape());
    Classification result;
    result.labels = static_cast<int>(run.shape().vocabSize);
    const auto V = static_cast<std::size_t>(result.labels);
    if (result.labels <= kMostConfused) result.confusion.assign(V * V, 0);
    RowLosses rows;
    LabelHits hits;
    run.run(nullptr, [&](std::size_t batch, const torch::Tensor& logits) {
        const auto targets_B1 = run.targets(batch);
        addRowLosses(rows, tokenLosses(logits, targets_B1), targets_B1, run.targetSpans(batch), Positions::All);
        hits.add(countHits(logits, targets_B1));
        if (result.confusion.empty()) return;
        const auto predicted_B = logits.select(1, 0).argmax(-1).to(torch::kCPU);
        for (std::int64_t b = 0; b < predicted_B.size(0); ++b)
            if (const auto label = targets_B1[b][0].item<std::int64_t>(); label != kIgnoredTarget) ++result.confusion[static_cast<std::size_t>(label) * V + static_cast<std::size_t>(predicted_B[b].item<std::int64_t>())];
    }, job);
    if (rows.loss.empty()) throw Error(ErrorCode::Stopped, "accuracy", "stopped before the first images were finished");
    if (hits.total == 0) throw Error(ErrorCode::BadInput, "accuracy", "no image has a label");
    result.loss = rows.result(static_cast<std::int64_t>(run.data().rows.size()));
    result.top1 = proportion(hits.right1, hits.total);
    result.top5 = proportion(hits.right5, hits.total);
    return result;
}

}  // namespace resect
