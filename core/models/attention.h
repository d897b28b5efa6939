#pragma once
#include <torch/types.h>

#include <memory>
#include <vector>

namespace resect {

/// Which keys a query may see: key indices [first[b,t], last[b,t]], no further back than the window. Real tokens of a document stand side by
/// side, so padding and packed documents are lower bounds and no mask of T x T is needed.
struct AttentionSpan {
    torch::Tensor first_BT;    ///< int32 [B,T] on the model's device; undefined = 0 everywhere
    std::int64_t offset = 0;   ///< cached tokens before this run
    int window = 0;            ///< keys seen, the token itself included; 0 = all
    bool causal = true;        ///< false: every query sees every key, and the other fields do not count
    torch::Tensor last_BT{};   ///< int32 [B,T], the last visible key; undefined = offset + t
};

/// Queries and keys after rotation. Dimensions may be strided views; the last one is dense.
struct AttentionInput {
    torch::Tensor q_BTNH, k_BSGH, v_BSGH;   ///< S = offset + T
    const std::vector<int>* headsPerKv;     ///< query heads of each kv group, heads numbered group by group
    AttentionSpan span;
    double scale = 1;                       ///< on the scores, 1 / sqrt(H)
    double softcap = 0;                     ///< scores become cap tanh(score / cap) before the mask; 0 = as they are
};

/// Softmax attention of one layer (one of the four seams). Stateless.
class AttentionKernel {
public:
    virtual ~AttentionKernel() = default;
    virtual torch::Tensor forward(const AttentionInput& input) const = 0;  ///< [B,T,N,H]
};

/// The exact result by the best means there is: blocked on the CPU, LibTorch's fused one where the version has it, written out otherwise.
std::shared_ptr<const AttentionKernel> exactAttention();

/// Written out: scores, mask, softmax in f32, values. `weights_BNTS`, when given, receives the probabilities.
torch::Tensor plainAttention(const AttentionInput& input, torch::Tensor* weights_BNTS = nullptr);

}  // namespace resect
