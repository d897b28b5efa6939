#pragma once
#include "core/anatomy/model_shape.h"

#include <torch/types.h>

#include <utility>

namespace resect {

/// How a router's scores become a choice of experts and their weights.
///
/// Softmax over all experts, then the best k (Mixtral, Qwen, OLMoE, DeepSeekMoE). Softmax over the best k logits alone is the same as
/// normalising the weights of the chosen. Or sigmoid: experts are chosen by score + correction within the best groups, weighed by the score
/// (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
struct RouterRule {
    int topK = 1;
    bool normalised = true;
    bool sigmoid = false;
    double scaling = 1;
    int groups = 1, groupsPerToken = 1;
};
RouterRule routerRule(const ModelShape& shape);

/// logits_ME; correction_E undefined = 0; `mask_E` 0 or -inf for experts that are cut away (undefined = none; also added to the logits
/// already), `available` experts remain. Returns weights [M, K] in f32 (f64 for f64) and the chosen experts [M, K].
std::pair<torch::Tensor, torch::Tensor> route(const torch::Tensor& logits_ME, const torch::Tensor& correction_E, const torch::Tensor& mask_E,
                                              int available, const RouterRule& rule);

}  // namespace resect
