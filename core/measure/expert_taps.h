#pragma once
#include "core/models/model.h"

#include <torch/types.h>

#include <functional>
#include <memory>

namespace resect {

/// Shows what flows through each expert of a resident model's mixtures, which the taps of a run do not: while it lives, the down projections report
/// their inputs. The model must not be run with other projections put in their place meanwhile.
class ExpertTaps {
public:
    /// `channels_nF`: the channel activations of one expert for the n tokens that are sent to it, in order of the tokens; part of the graph.
    /// Called during runBlocks(), after ExpertChoice of that block.
    using OnChannels = std::function<void(int block, int expert, const torch::Tensor& channels_nF)>;
    ExpertTaps(LanguageModel& model, OnChannels onChannels);
    ~ExpertTaps();
    ExpertTaps(const ExpertTaps&) = delete;
    ExpertTaps& operator=(const ExpertTaps&) = delete;

private:
    LanguageModel& m_model;
    std::shared_ptr<OnChannels> m_onChannels;
    std::vector<std::pair<int, std::string>> m_replaced;   ///< block, role
};

/// Of a layer's ExpertChoice [B,T,K]: the flattened tokens b T + t that are sent to `expert`, ascending; int64 on the CPU.
torch::Tensor tokensOfExpert(const torch::Tensor& choice_BTK, int expert);

}  // namespace resect
