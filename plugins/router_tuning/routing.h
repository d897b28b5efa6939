#pragma once
#include "core/models/branch.h"
#include "core/models/model.h"

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

// Routers that decide per sequence or token whether a layer of a frozen model runs: MindSkip of Router-Tuning (arXiv 2410.13184).

namespace resect::router {

/// What a router switches off.
enum class Target { Attention, Mlp, Block };
enum class Granularity { Sequence, Token };
/// What a sequence's router looks at: the prompt, which is all that there is when a text is generated, or every token that is there, those to be
/// predicted among them (what the authors' code does).
enum class Pool { Prompt, All };
/// Which routers learn from the language model's loss: all, or only those that are open (the authors' first code, where a closed one never sees it).
enum class TrainGrad { All, Selected };

struct GateOptions {
    Target target = Target::Attention;
    Granularity granularity = Granularity::Sequence;
    double threshold = 0.5;          ///< open when sigmoid(score) reaches it; <= 0 always, > 1 never
    Pool pool = Pool::Prompt;
    std::int64_t promptTokens = 32;  ///< taken as the prompt of a row that has none and is not the start of a generation; 0 = all
    bool operator==(const GateOptions&) const = default;
};
/// "attn_sequence", "mlp_token", ...: target and granularity as the authors spell them. The inverse throws BadInput naming `subject`.
std::string spelling(const GateOptions& options);
void readSpelling(GateOptions& options, std::string_view text, const std::string& subject);

/// What the routers of one model share. Owned by the branches that it is attached to; belongs to the running thread, like the model.
class Routing {
public:
    explicit Routing(GateOptions options) : gate(options) {}

    const GateOptions gate;
    TrainGrad trainGrad = TrainGrad::All;
    /// [1, D] by block; f32, or f64 in an f64 model. score = weight . h, h the attention-side norm of the stream, for a sequence its mean.
    std::map<int, torch::Tensor> weights;
    /// int64 [B]: tokens of each row's prompt, for the batches that follow; undefined = GateOptions::promptTokens.
    torch::Tensor promptTokens_B;
    /// Decisions that take the place of the routers': bool [B], of tokens [B,T], by block.
    std::map<int, torch::Tensor> held;

    struct Decision {
        int block = 0;
        torch::Tensor scores;  ///< sigmoid: [B], of tokens [B,T]
        torch::Tensor gates;   ///< 1 or 0, in the dtype of the scores; backwards the gradient goes straight to the scores
        torch::Tensor real_BT; ///< bool; undefined = no padding
        /// Mean of the gates over sequences, or over real tokens.
        torch::Tensor capacity() const;
    };
    /// Told of every decision that a router takes; not of those of the tokens that follow a prompt, where it stands.
    std::function<void(const Decision&)> onDecision;
};

/// Puts routers before the layers of some blocks; `weights` [1, D] by block become Routing::weights (moved to the model's device and f32 or f64).
/// Without gradients rows or tokens that a router closes are not computed: a closed sequence writes no keys and values and its decision stands from
/// its prompt to its end; a closed token still supplies its keys and values. With gradients all is computed and multiplied.
/// Throws Unsupported for a block without the layers that it takes, or that has routers already; Mismatch for weights of another width.
std::shared_ptr<Routing> attachRouters(LanguageModel& model, const GateOptions& options, const std::map<int, torch::Tensor>& weights);
/// Null when the model has none.
std::shared_ptr<Routing> findRouting(LanguageModel& model);
/// Takes them off again.
void detachRouters(LanguageModel& model);

/// Lengths of the rows' prompts, int64 [B]: the tokens before the first target; of a text, whose first token has a target, `ofText` tokens (0 = all).
torch::Tensor promptsOf(const torch::Tensor& targets_BT, std::int64_t ofText);

/// The layers that the router of a block needs; empty = it has them.
std::string missingLayer(const BlockShape& block, Target target);

}  // namespace resect::router
