#pragma once
#include "core/models/model.h"
#include "core/train/batches.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

namespace resect {

struct LossOptions {
    double distillWeight = 0;        ///< w: loss = (1 - w) crossEntropy + w T^2 KL(teacher || student)
    double distillTemperature = 1;   ///< T
    double routerBalance = 0;        ///< factor of the load-balancing loss; 0 = none
    /// Asked once after the forward pass; a differentiable f32 scalar that is added to the loss. Empty, or an undefined answer = none.
    std::function<torch::Tensor()> extra{};
};

/// What one batch cost. Means over its counted positions, in nats.
struct BatchLoss {
    double total = 0;                ///< what is minimised
    double crossEntropy = 0;
    double kl = 0;                   ///< KL(teacher || student) at temperature T, without the T^2; 0 without a teacher
    double extra = 0;                ///< what LossOptions::extra added
    double balance = 0;              ///< load-balancing loss, 1 = perfectly even for top-1; 0 for dense models
};

/// Runs the batch forward and backward and adds share x d(total) to the gradients. `batch` lies on the model's device and has counted
/// positions. `teacher` may be null when distillWeight is 0; it runs without gradients. A total that is not finite is returned without
/// a backward pass. With a teacher or a mixture of experts the logits are made piece by piece, so that memory does not grow with B x T x V.
BatchLoss accumulateGradients(LanguageModel& model, const LanguageModel* teacher, const TrainBatch& batch, const LossOptions& options, double share);

/// The load-balancing loss of a mixture of experts as Hugging Face computes it for Mixtral (Switch Transformer, arXiv 2101.03961, eq. 4-6, over the
/// top-k choices of all blocks together): E x sum_e (share of choices that fall on e, summed over the k places) x (mean probability of e).
/// `logits_BTE`: router logits per block, all with the same E (others are left out); `mask_BT` may be undefined. Differentiable, f32 scalar.
torch::Tensor routerBalanceLoss(const std::vector<torch::Tensor>& logits_BTE, const torch::Tensor& mask_BT, int topK);

struct Evaluation {
    double loss = 0;                 ///< mean cross entropy per counted position; NaN when nothing was evaluated
    std::int64_t counted = 0;
    double accuracy = std::numeric_limits<double>::quiet_NaN();   ///< of images: share of the labels that are the likeliest; NaN for text
    bool complete = false;           ///< false: stopped early
    double perplexity() const noexcept;
};
/// Without gradients, in order, `batchRows` rows at a time. `onBatch` is told which batch comes.
Evaluation evaluate(const LanguageModel& model, std::span<const TokenRow> rows, int batchRows, const JobContext& job,
                    const std::function<void(const TrainBatch&)>& onBatch = {});

}  // namespace resect
