#pragma once
#include "core/checkpoint/checkpoint.h"
#include "core/models/model.h"
#include "core/train/recipe.h"

#include <torch/types.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace resect {

struct LoraOptions {
    int rank = 8;
    double alpha = 16;
    double dropout = 0;
    std::vector<std::string> targets;       ///< roles, last parts of roles, or "all-linear", "attention", "mlp"
    bool rankStabilised = false;            ///< scale alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)
    double scale() const noexcept;
};
/// Of the recipe "lora". Throws Usage when no target is named.
LoraOptions loraOptions(const TrainOptions& options);

/// A frozen linear map with a trained low-rank one beside it: y = base(x) + scale x B A x (arXiv 2106.09685, eq. 3).
/// A [r, in] starts uniform in +-1/sqrt(in), B [out, r] at zero, so that the model starts as its base.
class LoraLinear final : public Linear {
public:
    LoraLinear(std::unique_ptr<Linear> base, const LoraOptions& options, torch::ScalarType dtype, std::shared_ptr<const bool> training);
    torch::Tensor forward(const torch::Tensor& x) const override;
    torch::Tensor mergedWeight() const override;      ///< base + scale B A, added in f32
    torch::Tensor bias() const override;
    void visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) override;
    torch::Tensor& a() noexcept { return m_a; }
    torch::Tensor& b() noexcept { return m_b; }
    std::unique_ptr<Linear> takeBase() { return std::move(m_base); }

private:
    std::unique_ptr<Linear> m_base;
    torch::Tensor m_a, m_b;
    double m_scale, m_dropout;
    std::shared_ptr<const bool> m_training;
};

struct LoraSite {
    int block = 0;
    std::string role;                ///< "self_attn.q_proj"
    LoraLinear* layer = nullptr;     ///< owned by the model
};

/// The adapters of a model.
struct LoraAdapters {
    LoraOptions options;
    std::vector<LoraSite> sites;
    std::shared_ptr<bool> training;  ///< dropout acts while true
};

/// Puts an adapter beside every linear map that the targets name. The router of a mixture of experts gets one only when named ("gate").
/// Weights are drawn from `seed`. Throws Usage naming a target that matches nothing, with the roles there are.
LoraAdapters attachLora(LanguageModel& model, const LoraOptions& options, std::uint64_t seed);
/// Draws A anew and clears B, as attachLora did.
void resetLora(LoraAdapters& adapters, std::uint64_t seed);
/// Does the target ("all-linear", "attention", "mlp", "q_proj", "self_attn.q_proj") mean this role?
bool loraTargets(const std::string& target, const std::string& role);

/// A LoRA adapter folded into its base: the new checkpoint `to`, written tensor by tensor. `adapter` is a folder with a PEFT adapter.
/// Throws Mismatch naming the tensor when the two do not belong together.
void mergeAdapter(const Checkpoint& base, const std::filesystem::path& adapter, const std::filesystem::path& to, const JobContext& job = {});

}  // namespace resect
