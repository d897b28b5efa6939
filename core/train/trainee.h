#pragma once
#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/models/model.h"
#include "core/train/adamw.h"
#include "core/train/lora.h"
#include "core/train/recipe.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace resect {

/// A model in training: its weights, what of them is trained, and the optimiser's state. `base` must outlive it.
class Trainee {
public:
    Trainee(const Checkpoint& base, const TrainOptions& options, const LoadOptions& load, std::uint64_t seed, const JobContext& job);

    LanguageModel& model() noexcept { return *m_model; }
    std::vector<AdamWSlot>& slots() noexcept { return m_slots; }
    const LoraAdapters* adapters() const noexcept { return m_adapters ? &*m_adapters : nullptr; }
    /// Dropout on or off.
    void setTraining(bool training);

    std::int64_t trainableParameters() const noexcept;
    bool parametersAreFinite() const;
    /// Adds the gradients of one backward pass to the step's: in f32 where the model computes in bf16. Clears the model's.
    void collectGradients();
    void clearGradients();

    /// Back to the weights of the base, moments zero.
    void reset();
    /// Writes weights and optimiser state into the (staged) folder: for full training a Hugging Face checkpoint, for LoRA a PEFT adapter;
    /// in both cases state/optimizer.safetensors. Returns the weight files that were written. Throws DiskFull, NoPermission.
    std::vector<WrittenShard> save(const std::filesystem::path& folder) const;
    std::uint64_t savedBytes() const noexcept;   ///< roughly what save() takes on the disk
    /// Continues from what save() wrote. Throws NotFound, Corrupt, Mismatch.
    void restore(const std::filesystem::path& folder);

private:
    void addSlot(const std::string& name, torch::Tensor& parameter);
    torch::Tensor baseValue(const std::string& name) const;
    void setMaster(AdamWSlot& slot, const torch::Tensor& value);
    std::vector<WrittenShard> saveWeights(const std::filesystem::path& folder) const;
    void saveAdapter(const std::filesystem::path& folder) const;
    const AdamWSlot& slot(const std::string& name) const;
    bool isSavedExactly(const AdamWSlot& slot) const;
    const Checkpoint& m_base;
    TrainOptions m_options;
    std::uint64_t m_seed;
    std::unique_ptr<LanguageModel> m_model;
    std::optional<LoraAdapters> m_adapters;
    std::vector<AdamWSlot> m_slots;
    std::map<std::string, std::size_t> m_slotOf;   // by name
};

/// Writes random weights of the shape of `config` (its text is kept) with the side files of `sideFiles` (may be empty) as a checkpoint in the
/// new folder `to`: the base of a run that trains from nothing.
void writeRandomCheckpoint(const Json& config, const std::filesystem::path& sideFiles, double std, std::uint64_t seed, const std::filesystem::path& to);

/// A LoRA adapter folded into its base: the new checkpoint `to`, written tensor by tensor. `adapter` is a folder with a PEFT adapter.
/// Throws Mismatch naming the tensor when the two do not belong together.
void mergeAdapter(const Checkpoint& base, const std::filesystem::path& adapter, const std::filesystem::path& to, const JobContext& job = {});

}  // namespace resect
