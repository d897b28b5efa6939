#include "core/train/lora.h"

#include "core/base/error.h"
#include "core/models/ops.h"
#include "core/train/batches.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace resect {

namespace {

constexpr std::uint64_t kInitStream = 0x10fa;

bool isRouter(const std::string& role) { return role.ends_with(".gate") || role.ends_with("shared_expert_gate"); }
bool isAttention(const std::string& role) { return role.starts_with("self_attn.") || role.starts_with("attn."); }

/// A [r, in] in f32, the same on every device.
torch::Tensor drawA(std::int64_t rank, std::int64_t inputs, std::uint64_t seed) {
    auto generator = at::detail::createCPUGenerator(seed);
    const double bound = 1 / std::sqrt(double(inputs));
    return torch::empty({rank, inputs}).uniform_(-bound, bound, generator);
}

}  // namespace

double LoraOptions::scale() const noexcept { return alpha / (rankStabilised ? std::sqrt(double(rank)) : double(rank)); }

LoraLinear::LoraLinear(std::unique_ptr<Linear> base, const LoraOptions& options, torch::ScalarType dtype, std::shared_ptr<const bool> training)
    : m_base(std::move(base)), m_scale(options.scale()), m_dropout(options.dropout), m_training(std::move(training)) {
    const auto weight = m_base->mergedWeight();
    const auto like = torch::TensorOptions(weight.device()).dtype(dtype);
    m_a = torch::zeros({options.rank, weight.size(1)}, like).requires_grad_();
    m_b = torch::zeros({weight.size(0), options.rank}, like).requires_grad_();
}

torch::Tensor LoraLinear::forward(const torch::Tensor& x) const {
    const auto input = m_dropout > 0 && *m_training ? torch::dropout(x, m_dropout, true) : x;
    const auto low = ops::linear(input, m_a, {});
    return m_base->forward(x) + ops::linear(low, m_b, {}) * m_scale;
}

torch::Tensor LoraLinear::mergedWeight() const {
    const auto weight = m_base->mergedWeight();
    const auto added = torch::matmul(m_b.to(torch::kFloat32), m_a.to(torch::kFloat32)) * m_scale;
    return (weight.to(torch::kFloat32) + added).to(weight.scalar_type());
}

torch::Tensor LoraLinear::bias() const { return m_base->bias(); }

void LoraLinear::visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) {
    m_base->visitParameters(visit);
    visit("lora_A.weight", m_a);
    visit("lora_B.weight", m_b);
}

bool loraTargets(const std::string& target, const std::string& role) {
    if (target == "all-linear") return !isRouter(role);
    if (target == "attention") return isAttention(role);
    if (target == "mlp") return !isAttention(role) && !isRouter(role);
    return role == target || role.ends_with("." + target);
}

LoraAdapters attachLora(LanguageModel& model, const LoraOptions& options, std::uint64_t seed) {
    LoraAdapters adapters{options, {}, std::make_shared<bool>(true)};
    std::set<std::string> unused(options.targets.begin(), options.targets.end()), known;
    for (int block = 0; block < model.shape().numBlocks(); ++block) {
        for (const auto& role : model.linearRoles(block)) {
            known.insert(role);
            bool wanted = false;
            for (const auto& target : options.targets) {
                if (!loraTargets(target, role)) continue;
                wanted = true;
                unused.erase(target);
            }
            if (!wanted) continue;
            LoraLinear* layer = nullptr;
            model.replaceLinear(block, role, [&](std::unique_ptr<Linear> base) {
                auto made = std::make_unique<LoraLinear>(std::move(base), options, model.dtype(), adapters.training);
                layer = made.get();
                return made;
            });
            adapters.sites.push_back({block, role, layer});
        }
    }
    if (!unused.empty()) {
        std::string roles;
        for (const auto& role : known) roles += (roles.empty() ? "" : ", ") + role;
        throw Error(ErrorCode::Usage, "lora_targets", *unused.begin() + " names no linear map of this model; there are " + roles);
    }
    resetLora(adapters, seed);
    return adapters;
}

void resetLora(LoraAdapters& adapters, std::uint64_t seed) {
    torch::NoGradGuard noGrad;
    std::uint64_t index = 0;
    for (auto& site : adapters.sites) {
        auto& a = site.layer->a();
        a.copy_(drawA(a.size(0), a.size(1), mixSeed(seed ^ kInitStream, index++)));
        site.layer->b().zero_();
    }
}

}  // namespace resect
