#pragma once
#include "core/anatomy/family.h"
#include "core/models/attention.h"
#include "core/models/model.h"
#include "core/models/rope.h"

#include <torch/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace resect {

/// Keys (rotated) and values of one attention layer, room for `capacity` tokens.
struct LayerCache {
    torch::Tensor k_BCGH, v_BCGH;
};

/// Where the tokens of a run stand: what they may see, and their positions for the rotary embedding.
class TokenLayout {
public:
    /// `offset`: cached tokens before; `padding` then holds the left padding of each cached row (empty = none).
    /// Throws BadInput when shapes disagree or the real tokens or documents of a row do not stand side by side.
    TokenLayout(const TokenBatch& batch, torch::Device device, std::int64_t offset, const std::vector<std::int64_t>& padding);

    const AttentionSpan& span() const noexcept { return m_span; }  ///< window not set
    std::int64_t tokens() const noexcept { return m_tokens; }
    /// Left padding of each row, empty when there is none; what a cache must remember. Throws Unsupported for right padding or documents.
    std::vector<std::int64_t> leftPadding() const;
    RotaryTable::Rows rotary(RotaryTable& table) const;
    torch::Tensor positions(torch::Device device) const;  ///< int64 [B or 1, T]

private:
    void layOut(const TokenBatch& batch, torch::Device device, const std::vector<std::int64_t>& padding);
    AttentionSpan m_span;
    std::int64_t m_tokens = 0, m_length = 0;
    torch::Tensor m_positions_BT;  // int64, undefined = offset, offset + 1, ...
    std::vector<std::int64_t> m_padding;
    bool m_cacheable = true;
};

/// What a branch may use besides the residual stream.
struct RunContext {
    int block = 0;
    Observer* observer = nullptr;
    const TokenLayout* layout = nullptr;
    std::function<const RotaryTable::Rows&(int rotaryDim)> rotary;
    LayerCache* cache = nullptr;   ///< of this block's attention; null = no cache
    torch::Tensor hiddenMask{};    ///< [D], 0 for hidden channels that are cut; undefined = all are there

    bool wants(TapPoint point) const { return observer && observer->wants(point, block); }
    /// What a layer writes, without the hidden channels that are cut: before its post-norm, which must not see them.
    torch::Tensor kept(const torch::Tensor& x_BTD) const { return hiddenMask.defined() ? x_BTD * hiddenMask : x_BTD; }
    void tap(TapPoint point, const torch::Tensor& value) const;  ///< shows the value to the observer if it wants it
};

/// One residual branch of a block with its norm: the stream becomes x + forward(x) (one of the four seams).
class Branch {
public:
    virtual ~Branch() = default;
    virtual torch::Tensor forward(const torch::Tensor& x_BTD, const RunContext& context) const = 0;  ///< [B,T,D], what is added
    /// Parameters under their names within the block ("self_attn.q_proj.weight", "input_layernorm.weight").
    virtual void visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) = 0;
    /// Linears under their roles, in forward order.
    virtual void visitLinears(const std::function<void(const std::string& role, std::unique_ptr<Linear>&)>& visit) = 0;
    /// Masks heads, channels and experts as the cut says; an empty cut removes the mask.
    virtual void setCut(const BlockCut& cut) = 0;
    virtual void setAttentionKernel(std::shared_ptr<const AttentionKernel>) {}
};

/// Hands out one weight: called with what the shape expects, returns it in the wanted dtype on the wanted device.
using WeightSource = std::function<torch::Tensor(const ExpectedTensor& wanted)>;

/// The branches of one block, null where absent. `take` gives the tensor of a role or undefined when the shape has none.
using TakeWeight = std::function<torch::Tensor(TensorRole role, int expert)>;
std::unique_ptr<Branch> attentionBranch(const ModelShape& shape, int block, const TakeWeight& take);
std::unique_ptr<Branch> ffnBranch(const ModelShape& shape, int block, const TakeWeight& take);

}  // namespace resect
