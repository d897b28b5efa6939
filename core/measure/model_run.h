#pragma once
#include "core/base/job.h"
#include "core/data/dataset.h"
#include "core/models/model.h"

#include <cstddef>
#include <functional>
#include <memory>

namespace resect {

struct RunOptions {
    LoadOptions load;
    bool streamBlocks = false;   ///< block by block from the mapped files instead of resident weights
    int batchRows = 0;           ///< rows per forward pass; 0 = chosen from the row length
};

/// A checkpoint and calibration data, ready to be run: resident or block by block, with the same results.
class ModelRun {
public:
    /// `checkpoint` and `data` must outlive it. A resident model may be handed in (it is then used, not copied).
    ModelRun(const Checkpoint& checkpoint, const Dataset& data, RunOptions options, std::shared_ptr<LanguageModel> resident = {});
    ~ModelRun();

    const ModelShape& shape() const;
    const Checkpoint& checkpoint() const;
    const Dataset& data() const;
    bool streamsBlocks() const;
    std::size_t numBatches() const;
    /// Rows of batch `index`, targets included (int64 [B,T], -100 = no loss). Rows of unequal length are right-padded.
    TokenBatch batch(std::size_t index) const;
    torch::Tensor targets(std::size_t index) const;

    /// Runs every batch without gradients. `observer` may be null. `onLogits`, when given, gets [B,T,V] logits of each batch.
    /// Resident: batch by batch, all blocks. Streamed: block by block, all batches; the observer's setBatch says which.
    /// Returns the number of batches finished (all blocks): fewer when the job was stopped.
    class BatchObserver : public Observer {
    public:
        virtual void setBatch(std::size_t index) { m_batch = index; }
    protected:
        std::size_t m_batch = 0;
    };
    std::size_t run(BatchObserver* observer, const std::function<void(std::size_t batch, const torch::Tensor& logits_BTV)>& onLogits, const JobContext& job);

    /// The resident model, loaded on first use. Throws Unsupported when streaming.
    LanguageModel& model();
    void setCut(const Cut& cut);

private:
    struct Data;
    std::unique_ptr<Data> m_data;
};

}  // namespace resect
