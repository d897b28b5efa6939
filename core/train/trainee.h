#pragma once
#include "core/train/adamw.h"
#include "core/train/trained_parts.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace resect {

/// Throws Unsupported for a model of several towers: they can be opened, cut, run and exported.
void requireTrainable(const ModelShape& shape);

/// A model in training: its weights, what of them is trained, and the optimiser's state.
class Trainee {
public:
    /// Loads the checkpoint start.base, which must outlive it, and lets the recipe of start.options prepare it.
    Trainee(const TrainingStart& start, const LoadOptions& load);

    LanguageModel& model() noexcept { return *m_model; }
    std::vector<AdamWSlot>& slots() noexcept { return m_slots; }
    TrainedParts& parts() noexcept { return *m_parts; }

    std::int64_t trainableParameters() const noexcept;
    bool parametersAreFinite() const;
    /// Adds the gradients of one backward pass to the step's: in f32 where the model computes in bf16. Clears the model's.
    void collectGradients();
    void clearGradients();
    /// AdamW with the gradients of the step, which are cleared.
    void takeStep(const AdamWStep& step);

    /// Back to the weights of the base, moments zero.
    void reset();
    /// Writes what the recipe keeps and state/optimizer.safetensors into the (staged) folder. Returns the weight files that were written.
    /// Throws DiskFull, NoPermission.
    std::vector<WrittenShard> save(const std::filesystem::path& folder) const;
    std::uint64_t savedBytes() const noexcept;   ///< roughly what save() takes on the disk
    /// Continues from what save() wrote. Throws NotFound, Corrupt, Mismatch.
    void restore(const std::filesystem::path& folder);

private:
    void addSlot(const TrainedTensor& tensor, double weightDecay);
    void setMaster(AdamWSlot& slot, const torch::Tensor& value);
    void begin(AdamWSlot& slot);
    std::unique_ptr<LanguageModel> m_model;
    std::unique_ptr<TrainedParts> m_parts;
    std::vector<AdamWSlot> m_slots;
    std::map<std::string, std::size_t> m_slotOf;   // by name
};

/// Writes random weights of the shape of `config` (its text is kept) with the side files of `sideFiles` (may be empty) as a checkpoint in the
/// new folder `to`: the base of a run that trains from nothing.
void writeRandomCheckpoint(const Json& config, const std::filesystem::path& sideFiles, double std, std::uint64_t seed, const std::filesystem::path& to);

}  // namespace resect
