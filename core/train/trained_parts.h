#pragma once
#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/models/model.h"
#include "core/surgery/cut.h"
#include "core/train/recipe.h"

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace resect {

struct TrainBatch;

/// What a recipe prepares a model with. Everything but the model may be empty: a model with random weights is prepared to time a step.
struct TrainingStart {
    const TrainOptions& options;
    std::uint64_t seed = 0;
    const Checkpoint* base = nullptr;          ///< that the model was loaded from; null when a step is only timed
    const ModelShape* source = nullptr;        ///< before the plan, whose numbers users give components; null = nothing was cut
    const Cut* cut = nullptr;                  ///< of the source; null = nothing was cut
    std::span<const TokenRow> rows{};          ///< that will be trained on, for measuring before the start
    std::filesystem::path keep{};              ///< folder of the run for what must be the same after a resume (may not exist yet); "" = none
    JobContext job{};
};

/// One tensor that is trained.
struct TrainedTensor {
    std::string name;                          ///< unique in the run; names it in state files
    torch::Tensor parameter;                   ///< leaf, contiguous, requires grad; the model's dtype or f32
    bool decays = true;                        ///< weight decay acts on it
};

/// What a recipe trains in one model, and its modules there. The optimiser works on f32 masters: the parameter itself, or a copy when
/// the parameter is narrower.
class TrainedParts {
public:
    /// The f32 master of a trained tensor, by name.
    using Value = std::function<torch::Tensor(const std::string& name)>;

    virtual ~TrainedParts();
    virtual std::vector<TrainedTensor> tensors() = 0;   ///< the same at every call
    /// Training on, evaluation off: dropout, sampling.
    virtual void setTraining(bool) {}
    /// Before the batches of a step (1-based): schedules of extra losses.
    virtual void beginStep(std::int64_t /*step*/, std::int64_t /*total*/) {}
    /// Before a batch runs, trained on or evaluated.
    virtual void beginBatch(const TrainBatch&) {}

    /// Added to the loss of the batch that has just run forward: a differentiable f32 scalar, a mean over the batch; undefined = none.
    /// What the modules collected for it is forgotten by the call.
    virtual torch::Tensor extraLoss() { return {}; }

    /// Puts parameters that are not in the base back to how the run began.
    virtual void reset() {}
    /// The value that a tensor begins with; undefined = what the parameter holds (after reset).
    virtual torch::Tensor startValue(const std::string& /*name*/) const { return {}; }
    /// The optimiser, a reset or a restore has written the parameters.
    virtual void parametersChanged() {}

    /// Writes the checkpoint of the run (weights or adapter) into the existing folder; returns the weight files, which the manifest of a
    /// complete checkpoint lists. Throws DiskFull, NoPermission.
    virtual std::vector<WrittenShard> save(const std::filesystem::path& folder, const Value& master) const = 0;
    /// Bytes that save() takes on the disk, roughly.
    virtual std::uint64_t savedBytes() const noexcept = 0;
    /// Does save() keep every bit of the master? Otherwise the master is kept beside it.
    virtual bool savesExactly(const std::string& /*name*/) const { return false; }
    /// Reads back what was saved exactly, by name. Throws NotFound, Corrupt, Mismatch.
    virtual std::map<std::string, torch::Tensor> load(const std::filesystem::path& /*folder*/) const { return {}; }
};

/// A tensor of a checkpoint in its stored dtype and form.
torch::Tensor storedTensor(const Checkpoint& checkpoint, const TensorInfo& info);
/// config.json, resect.json, the files of extensions and everything that goes along with them (tokenizer, templates), copied.
void copyDescription(const Checkpoint& from, const std::filesystem::path& to);
/// A copy of the checkpoint in the new folder `to` in which some tensors have other values: `changed` maps a tensor's name to what makes the new
/// value (stored form and shape, any dtype; it is rounded to the stored dtype) from the stored one. All others keep their bytes.
void writeChanged(const Checkpoint& base, const std::map<std::string, std::function<torch::Tensor(const torch::Tensor& stored)>>& changed,
                  const std::filesystem::path& to, const JobContext& job);

}  // namespace resect
