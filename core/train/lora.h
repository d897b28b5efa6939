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

}  // namespace resect
