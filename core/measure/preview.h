#pragma once
#include "core/measure/model_run.h"
#include "core/protocol/messages.h"

#include <cstdint>
#include <functional>
#include <memory>

namespace resect {

/// What previews of the same model on the same rows share: the uncut model's final states and losses, and residual streams in front of blocks, so that
/// a changed plan runs only from its first cut block on. Emptied by itself when model, data, batches or precision change. Not thread-safe.
class PreviewCache {
public:
    explicit PreviewCache(std::uint64_t memoryLimit = std::uint64_t{1} << 30);
    ~PreviewCache();
    void clear();
    std::uint64_t bytes() const noexcept;   ///< held now
    /// Block runs of candidates since construction (batches x blocks), for tests and the log.
    std::int64_t blocksRun() const noexcept;

    struct Data;
    Data& data() noexcept { return *m_data; }

private:
    std::unique_ptr<Data> m_data;
};

struct PreviewOptions {
    /// Ends when the 95 % interval of the candidate's perplexity is narrower than this on either side (0.02 = 2 %); 0 = runs all rows.
    double relativeInterval = 0.02;
    std::int64_t minimumRows = 8;
    /// Images instead: ends when the 95 % interval of the candidate's accuracy is narrower than this on either side; 0 = runs all.
    double accuracyInterval = 0.01;
    std::int64_t minimumImages = 256;
};

/// Runs the cut as a mask over the uncut model: perplexity of both, and the mean KL(uncut || candidate) per scored token, each with a 95 % interval
/// over rows. Images: accuracy of both with Wilson's interval, loss (as its exp), and KL per picture, labelled or not. Equals what the applied checkpoint gives (to 1e-4). `update` (may be null) gets a message after each batch; the last one, also returned,
/// says final. Resident or block by block, as the run says; streamed it ends only after all rows. Stopping keeps the finished rows.
/// Throws as measurePerplexity, Unsupported for an image model without a classifier; Mismatch when the cut has another number of blocks.
protocol::PreviewMessage preview(ModelRun& run, const Cut& cut, PreviewCache& cache, const PreviewOptions& options,
                                 const std::function<void(const protocol::PreviewMessage&)>& update, const JobContext& job);

}  // namespace resect
