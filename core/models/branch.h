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
    torch::Tensor k_BCGH, v_BCGH;     ///< undefined until they are allocated
    std::vector<std::int64_t> sizes;  ///< B, C, G, H of all rows; empty = the block has no attention layer
    torch::TensorOptions options{};
    /// What a layer that skips rows or tokens has decided, undefined = nothing yet. Bool [B]: the rows that it runs for, decided at their first tokens; the
    /// cached rows of an attention layer are these, ascending. Int64 [B, C]: the place in its row of each cached token, ascending, -1 = none.
    torch::Tensor decided{};
    /// Room for so many rows, empty.
    void allocate(std::int64_t rows);
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
    /// Bool [B, T] on the model's device, undefined = all tokens are real ones.
    const torch::Tensor& realTokens() const noexcept { return m_real_BT; }
    bool hasDocuments() const noexcept { return m_documents; }
    /// The same for some rows of the batch, int64 on the model's device.
    TokenLayout ofRows(const torch::Tensor& rows_R) const;
    /// For K tokens of each row, which keep their positions and see each other and `cached` earlier ones, but none of the rest: int64 [B,K] ascending, and
    /// bool which of them are there (the others stand behind and see themselves only).
    TokenLayout ofTokens(const torch::Tensor& index_BK, const torch::Tensor& there_BK, std::int64_t cached) const;
    RotaryTable::Rows rotary(RotaryTable& table) const;
    torch::Tensor positions(torch::Device device) const;  ///< int64 [B or 1, T]

private:
    TokenLayout() = default;
    void layOut(const TokenBatch& batch, torch::Device device, const std::vector<std::int64_t>& padding);
    AttentionSpan m_span;
    std::int64_t m_tokens = 0, m_length = 0;
    torch::Tensor m_positions_BT;  // int64, undefined = offset, offset + 1, ...
    torch::Tensor m_real_BT;
    std::vector<std::int64_t> m_padding;
    bool m_cacheable = true, m_documents = false;
};

/// What a branch may use besides the residual stream.
struct RunContext {
    int block = 0;
    Observer* observer = nullptr;
    const TokenLayout* layout = nullptr;
    std::function<const RotaryTable::Rows&(int rotaryDim)> rotary;
    LayerCache* cache = nullptr;   ///< of this block's attention; null = no cache
    torch::Tensor hiddenMask{};    ///< [D], 0 for hidden channels that are cut; undefined = all are there
    /// Bool [B, T]: the only tokens that an attention layer computes an output for (0 for the others, which supply keys and values all the same).
    /// Undefined = all. Other layers know nothing of it.
    torch::Tensor asking_BT{};

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
    /// What enters the layer: the norm of the stream, or the stream itself where the family has no norm before it.
    virtual torch::Tensor normed(const torch::Tensor& x_BTD) const = 0;
    /// Does it decide at a sequence's first tokens which rows it runs for? Its part of a cache is then allocated by itself, with LayerCache::allocate.
    virtual bool choosesRows() const noexcept { return false; }
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
