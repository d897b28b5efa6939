#pragma once
#include "core/models/branch.h"
#include "core/models/model.h"

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

// Mixture-of-Depths (arXiv 2404.02258): every other block runs for the tokens that score highest, the others go past it.

namespace resect::depth {

/// What a token's block output is multiplied by: its score, so that the loss trains the router (the paper's), the score's sigmoid, or nothing. Only
/// Sigmoid and None come near a pretrained model's stream; None leaves the router without a gradient from the language model's loss.
enum class Weighing { Score, Sigmoid, None };
/// Which tokens run. Best: the C highest scores of the sequence, which looks ahead. Predicted: those that the causal predictor takes for such.
enum class Selection { Best, Predicted };
/// The causal predictor. Mlp: Linear(D, D/2), SiLU, Linear(D/2, 1) on the stream without gradient, so that the model does not notice; Linear: the same without
/// the hidden layer; Router: the router's own score, whose logistic loss also moves the router.
enum class Predictor { Mlp, Linear, Router };

struct DepthOptions {
    double capacity = 0.125;   ///< C = floor(capacity x real tokens), at least 1 (and all of them from 1 on)
    Weighing weighing = Weighing::Score;
    Predictor predictor = Predictor::Mlp;
    bool operator==(const DepthOptions&) const = default;
};

/// The names of a block's parts: "router.weight" [1, D]; "predictor.up.weight" [D/2, D], "predictor.up.bias", "predictor.out.weight" [1, D/2] (Linear: [1, D]),
/// "predictor.out.bias" [1].
using DepthWeights = std::map<std::string, torch::Tensor>;
/// As training starts: router normal(0, std), predictor the same with zero biases. f32.
DepthWeights initialWeights(const DepthOptions& options, std::int64_t hidden, double std, std::uint64_t seed);

/// What the routers of one model share.
class Depth {
public:
    explicit Depth(DepthOptions options) : options(options) {}
    const DepthOptions options;
    Selection selection = Selection::Predicted;
    std::map<int, DepthWeights> weights;   ///< by block; f32, or f64 in an f64 model

    struct Choice {
        int block = 0;
        torch::Tensor chosen_BT;      ///< bool: these run
        torch::Tensor best_BT;        ///< bool: the C highest scores; undefined in a run with a cache
        torch::Tensor predicted_BT;   ///< logits of the predictor
        torch::Tensor real_BT;        ///< bool; undefined = no padding
    };
    std::function<void(const Choice&)> onChoice;
};

/// Routes blocks that have both layers. Throws Unsupported for others, or blocks routed already; Mismatch for weights of other shapes.
std::shared_ptr<Depth> attachDepth(LanguageModel& model, const DepthOptions& options, const std::map<int, DepthWeights>& weights);
std::shared_ptr<Depth> findDepth(LanguageModel& model);
/// The binary cross entropy of the predictor against the C highest scores, a mean over real tokens and blocks. Undefined without choices.
torch::Tensor predictorLoss(const std::vector<Depth::Choice>& choices);
/// Every `every`-th block from the second on that has both layers.
std::vector<int> routedBlocks(const ModelShape& shape, std::int64_t every);

}  // namespace resect::depth
