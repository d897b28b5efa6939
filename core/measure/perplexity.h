#pragma once
#include "core/measure/model_run.h"

#include <torch/types.h>

#include <vector>

namespace resect {

/// Which positions of a row count.
enum class Positions {
    All,         ///< every position that has a target; for chunks that is 1..C-1
    SecondHalf,  ///< predicted positions C/2+1..C-1 only, as llama-perplexity scores
};

/// Mean loss in nats with its standard error over rows, and what follows from it.
struct Perplexity {
    double loss = 0, error = 0;        ///< per position; error NaN for a single row
    double perplexity = 0;             ///< exp(loss)
    double low = 0, high = 0;          ///< 95 % interval of the perplexity; NaN for a single row
    std::int64_t positions = 0;        ///< scored
    std::int64_t rowsDone = 0, rowsTotal = 0;
};

/// Sums of loss and of counted positions, row by row.
struct RowLosses {
    std::vector<double> loss, count;
    Perplexity result(std::int64_t rowsTotal) const;
};

/// -log p(target) in f32, 0 where the target is kIgnoredTarget. logits [..., V] of any float dtype, targets int64 of the same leading shape on
/// any device. Softmax temporaries exist for a few positions at a time only.
torch::Tensor tokenLosses(const torch::Tensor& logits, const torch::Tensor& targets);
/// KL(p || q) per position in nats, f32, p = softmax(reference), q = softmax(candidate); logits [..., V].
torch::Tensor tokenDivergences(const torch::Tensor& reference, const torch::Tensor& candidate);

/// Appends the rows of a batch. `spans` as ModelRun::targetSpans gives them; losses [B,T]. Throws BadInput naming row and token where a counted loss is not finite.
void addRowLosses(RowLosses& rows, const torch::Tensor& losses_BT, const torch::Tensor& targets_BT, const std::vector<RowSpan>& spans, Positions positions);

/// Runs the data through the model; of images the target is the label. Stopping keeps the finished rows (rowsDone < rowsTotal).
/// Throws BadInput when no position has a target or a loss is not finite, Stopped when nothing was finished.
Perplexity measurePerplexity(ModelRun& run, Positions positions, const JobContext& job);

}  // namespace resect
