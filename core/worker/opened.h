#pragma once
#include "core/anatomy/anatomy.h"
#include "core/checkpoint/checkpoint.h"
#include "core/data/dataset.h"
#include "core/data/tokenizer.h"
#include "core/models/model.h"
#include "core/protocol/messages.h"
#include "core/surgery/edit_plan.h"

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace resect {

/// Where and in which numbers to compute, as the user spelled it.
struct Compute {
    std::string device = "auto";
    std::string dtype;   ///< empty: f32 on the CPU, the stored type on a GPU
};

/// A checkpoint that is open: files, anatomy, tokenizer, and the resident model once something had to run it.
/// The files and the anatomy never change, so questions may be answered from any thread; the model belongs to the one running job.
class OpenedCheckpoint {
public:
    /// Throws as Checkpoint::open. An unknown family opens; what needs the shape then throws with the reason.
    explicit OpenedCheckpoint(const std::filesystem::path& path);

    const std::filesystem::path& path() const noexcept { return m_checkpoint.folder(); }
    const Checkpoint& checkpoint() const noexcept { return m_checkpoint; }
    const Anatomy& anatomy() const noexcept { return m_anatomy; }
    const ModelShape& shape() const { return m_anatomy.shape(); }
    std::string name() const;
    bool hasTokenizer() const;
    /// Loaded on first use. Throws NotFound when the folder has none.
    const Tokenizer& tokenizer() const;
    /// Null instead of throwing when there is none.
    const Tokenizer* findTokenizer() const;
    /// The resident model, loaded on first use and again when device or dtype change. Its cut is removed before it is handed out.
    std::shared_ptr<LanguageModel> model(const Compute& compute, const JobContext& job = {});
    LoadOptions loadOptions(const Compute& compute) const;
    /// Reads a data file for this checkpoint: tokenised text, its rows bounded by the model's context, or images as the model wants them.
    Dataset data(const protocol::DataMessage& data, const JobContext& job = {}) const;

private:
    Checkpoint m_checkpoint;
    Anatomy m_anatomy;
    mutable std::mutex m_mutex;
    mutable std::unique_ptr<Tokenizer> m_tokenizer;
    std::shared_ptr<LanguageModel> m_model;
    LoadOptions m_modelOptions;
};

/// Reads a plan file. `opened` gives the subject for errors only; checking is checkPlan's.
EditPlan readPlan(const std::filesystem::path& file);
/// Throws BadInput with the plan's first Error, another checkpoint's fingerprint among them.
void requireLegal(const EditPlan& plan, const OpenedCheckpoint& opened);


}  // namespace resect
