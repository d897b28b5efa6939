#pragma once
#include "core/base/problem.h"
#include "core/measure/model_run.h"

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace resect {

/// Last: the last token of each row; of a picture its first one, the class token, which the classifier reads.
enum class AngularTokens { Last, All };

struct SimilarityOptions {
    bool windows = true;
    /// Tokens of each row, evenly spaced and the last one (of pictures the first) among them, that the window matrix is computed from; 0 = all while the residual streams
    /// of all of them fit into `stateMemory`, otherwise as many as fit. Depends on shape and data only, so that streamed and resident runs agree.
    int windowTokens = 0;
    AngularTokens angularTokens = AngularTokens::Last;
    std::int64_t stateMemory = std::int64_t{1} << 30;
};

/// One number per unit with its standard error over rows; NaN where a unit is absent or was not reached.
struct UnitScores {
    std::vector<double> score, error;
};

/// How much every block, attention layer and FFN layer changes the residual stream. L blocks.
struct SimilarityScores {
    UnitScores block, attention, mlp;                               ///< S = 1 - mean cos(before, after), in [0, 2]; [L]
    UnitScores relativeBlock, relativeAttention, relativeMlp;       ///< mean |update| / |after|; [L]
    UnitScores norm;                                                ///< mean |x| of the stream: 0 = embedding output, i = output of block i-1; [L+1]
    std::vector<double> largest, largestChannel;                    ///< max |x| over all tokens, and the channel; [L+1]
    /// [L, L]: entry (i, n-1) compares the stream entering block i with the one n blocks later; NaN where i + n > L. Empty when not asked for.
    std::vector<double> window, windowError;                        ///< 1 - mean cos
    std::vector<double> angular, angularError;                      ///< mean arccos(cos) / pi, in [0, 1]
    std::int64_t windowTokens = 0;                                  ///< tokens behind the window matrix
    std::int64_t rowsDone = 0, rowsTotal = 0;
    std::vector<Problem> notes;
};

/// Taps the residual stream immediately before and after each residual add, which is right for every family (pre-norm, sandwich norm, parallel
/// branches, residual multipliers). Source: "What Matters in Transformers?", arXiv 2406.15786; window and angular distances: arXiv 2403.17887.
/// Cosines are taken in the model's precision with sums in double, per real token; padding never counts. A token whose norm is zero is skipped
/// and counted in the notes; one that is not finite makes its unit NaN and is named there.
class SimilarityCollector final : public ModelRun::BatchObserver {
public:
    SimilarityCollector(const ModelRun& run, SimilarityOptions options);
    ~SimilarityCollector() override;
    bool wants(TapPoint point, int block) const override;
    void observe(TapPoint point, int block, const torch::Tensor& value) override;
    void setBatch(std::size_t index) override;
    void batchFinished(std::size_t index) override;
    /// Over the rows that went through all blocks; when there is none (a streamed run stopped early), of the blocks that saw all rows they were given.
    SimilarityScores result() const;

private:
    struct Data;
    std::unique_ptr<Data> m_data;
};

/// Runs the data and collects. Stopping keeps the finished part.
SimilarityScores measureSimilarity(ModelRun& run, const SimilarityOptions& options, const JobContext& job);

}  // namespace resect
