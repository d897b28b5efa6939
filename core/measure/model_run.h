#pragma once
#include "core/base/job.h"
#include "core/data/dataset.h"
#include "core/models/model.h"

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace resect {

enum class PaddingSide { Right, Left };

struct RunOptions {
    LoadOptions load;
    bool streamBlocks = false;   ///< block by block from the mapped files instead of resident weights
    int batchRows = 0;           ///< rows per forward pass; 0 = chosen from the row length, the vocabulary and the device
    PaddingSide padding = PaddingSide::Right;
};

/// Where the real tokens of one row stand in its batch.
struct RowSpan {
    std::size_t row = 0;               ///< index into Dataset::rows
    std::int64_t begin = 0, end = 0;   ///< positions [begin, end) are real, the others padding
};

/// A checkpoint and calibration data (text, or images for image models), ready to be run: resident or block by block, with the same results.
class ModelRun {
public:
    /// `checkpoint` and `data` must outlive it. A resident model may be handed in (it is then used, not copied, and its device and dtype count).
    /// Throws BadInput when there are no rows, Unsupported or BadInput when the checkpoint is not understood.
    ModelRun(const Checkpoint& checkpoint, const Dataset& data, RunOptions options, std::shared_ptr<LanguageModel> resident = {});
    ~ModelRun();

    const ModelShape& shape() const;
    const Checkpoint& checkpoint() const;
    const Dataset& data() const;
    const RunOptions& options() const;
    std::string dtypeName() const;      ///< "f32", "bf16", "f16", "f64": as asked for
    bool streamsBlocks() const;
    std::size_t numBatches() const;
    /// Rows of batch `index` on the CPU. Rows of unequal length are padded and masked.
    TokenBatch batch(std::size_t index) const;
    torch::Tensor targets(std::size_t index) const;              ///< int64 [B,T], of images [B,1]; kIgnoredTarget = no loss
    std::vector<RowSpan> rowSpans(std::size_t index) const;      ///< one per row of the batch: where its tokens stand in what observers see
    std::vector<RowSpan> targetSpans(std::size_t index) const;   ///< where they stand in logits and targets: of images the one label
    const char* unit() const;                                    ///< of rows, for people: "rows", "images"

    /// Told which batch comes next and which went through all blocks.
    class BatchObserver : public Observer {
    public:
        virtual void setBatch(std::size_t index) { m_batch = index; }
        virtual void batchFinished(std::size_t) {}
    protected:
        std::size_t m_batch = 0;
    };
    using OnLogits = std::function<void(std::size_t batch, const torch::Tensor& logits_BTV)>;
    /// Runs every batch without gradients. `observer` may be null. `onLogits`, when given, gets [B,T,V] logits (of images [B,1,V]) of each batch; returning is enough
    /// to go on. Resident: batch by batch, all blocks. Streamed: block by block, as many batches at a time as 2 GB of residual streams allow.
    /// Returns the number of rows that went through all blocks: fewer when the job was stopped (noticed between blocks).
    std::size_t run(BatchObserver* observer, const OnLogits& onLogits, const JobContext& job);
    /// The same for batches [first, last) only.
    std::size_t run(BatchObserver* observer, const OnLogits& onLogits, const JobContext& job, std::size_t first, std::size_t last);

    /// The resident model, loaded on first use. Throws Unsupported when streaming.
    LanguageModel& model();
    /// From the next run on, what the cut leaves runs. An empty cut removes it.
    void setCut(const Cut& cut);
    const Cut& cut() const;

private:
    struct Data;
    std::unique_ptr<Data> m_data;
};

}  // namespace resect
