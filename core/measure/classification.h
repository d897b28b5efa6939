#pragma once
#include "core/measure/perplexity.h"
#include "core/measure/statistics.h"

#include <torch/types.h>

#include <vector>

namespace resect {

/// What became of labelled pictures.
struct LabelHits {
    std::int64_t right1 = 0, right5 = 0;   ///< the label is the likeliest, is among the five likeliest
    std::int64_t total = 0;                ///< labelled
    void add(const LabelHits& other) noexcept;
};
/// Counts a batch. logits [B,1,V], targets int64 [B,1] on any device, kIgnoredTarget = no label. Of equal logits the lower label counts as the likelier.
LabelHits countHits(const torch::Tensor& logits, const torch::Tensor& targets);

/// A classifier on labelled pictures.
struct Classification {
    Perplexity loss;                       ///< mean cross entropy of the labels in nats; its `perplexity` is the exp of it
    Proportion top1, top5;                 ///< accuracies with Wilson's 95 % interval; top5 is 1 for five labels and fewer
    int labels = 0;
    std::vector<std::int64_t> confusion;   ///< [true][predicted], row-major; empty above kMostConfused labels
};
inline constexpr int kMostConfused = 200;

/// Throws Unsupported for a model whose outputs are no probabilities: of pictures without a classifier, of text without a next token.
void requireHead(const ModelShape& shape);
/// Runs the data through the model. Stopping keeps the finished pictures. Throws Unsupported as requireHead, BadInput when no picture has a label or a
/// loss is not finite, Stopped when nothing was finished.
Classification measureClassification(ModelRun& run, const JobContext& job);

}  // namespace resect
