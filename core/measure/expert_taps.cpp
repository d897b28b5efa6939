#include "core/measure/expert_taps.h"

#include "core/anatomy/family.h"

#include <torch/types.h>
#include <torch/utils.h>

namespace resect {

namespace {

/// Reports its input and does what the layer inside does.
class TappedLinear final : public Linear {
public:
    TappedLinear(std::unique_ptr<Linear> inside, int block, int expert, std::shared_ptr<ExpertTaps::OnChannels> report)
        : m_inside(std::move(inside)), m_block(block), m_expert(expert), m_report(std::move(report)) {}
    torch::Tensor forward(const torch::Tensor& x) const override {
        (*m_report)(m_block, m_expert, x);
        return m_inside->forward(x);
    }
    torch::Tensor mergedWeight() const override { return m_inside->mergedWeight(); }
    torch::Tensor bias() const override { return m_inside->bias(); }
    void visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) override { m_inside->visitParameters(visit); }
    std::unique_ptr<Linear> takeInside() { return std::move(m_inside); }

private:
    std::unique_ptr<Linear> m_inside;
    int m_block, m_expert;
    std::shared_ptr<ExpertTaps::OnChannels> m_report;
};

/// "block_sparse_moe.experts.3.w2" of "model.layers.5.block_sparse_moe.experts.3.w2.weight".
std::string roleWithinBlock(const Family& family, int block, int expert) {
    std::string role = tensorName(family, TensorRole::ExpertDownWeight, block, expert);
    const std::string inside = "." + std::to_string(block) + ".";
    if (const auto at = role.find(inside); at != std::string::npos) role.erase(0, at + inside.size());
    return role.substr(0, role.rfind('.'));
}

}  // namespace

ExpertTaps::ExpertTaps(LanguageModel& model, OnChannels onChannels) : m_model(model), m_onChannels(std::make_shared<OnChannels>(std::move(onChannels))) {
    const ModelShape& shape = model.shape();
    for (int block = 0; block < shape.numBlocks(); ++block)
        for (int expert = 0; expert < shape.blocks[static_cast<std::size_t>(block)].numExperts; ++expert) {
            const std::string role = roleWithinBlock(familyOf(shape), block, expert);
            model.replaceLinear(block, role, [&](std::unique_ptr<Linear> inside) { return std::make_unique<TappedLinear>(std::move(inside), block, expert, m_onChannels); });
            m_replaced.emplace_back(block, role);
        }
}

ExpertTaps::~ExpertTaps() {
    for (const auto& [block, role] : m_replaced)
        m_model.replaceLinear(block, role, [](std::unique_ptr<Linear> tapped) { return static_cast<TappedLinear&>(*tapped).takeInside(); });
}

torch::Tensor tokensOfExpert(const torch::Tensor& choice_BTK, int expert) {
    const auto choice_MK = choice_BTK.to(torch::kCPU).reshape({-1, choice_BTK.size(2)});
    return choice_MK.eq(static_cast<std::int64_t>(expert)).any(1).nonzero().view(-1);
}

}  // namespace resect
