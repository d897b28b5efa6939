#pragma once
#include "core/models/model.h"
#include "plugins/s2ft/s2_selection.h"

#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

namespace resect::s2 {

/// A linear map of which some columns (Side::In) or rows (Side::Out) are trained; the others stay as they are, bit for bit (arXiv 2412.06289).
///
/// The forward pass is one product with the whole weight W [out, in], as it stands. The trained part is a leaf of its own, P = W[:, index] [out, k] or
/// W[index, :] [k, in], f32 (f64 under f64 weights), which only takes the gradient:
///   dx = dy W,   In: dP = dy^T x[:, index],   Out: dP = dy[:, index]^T x
/// so that of the input only k columns are kept for the backward pass (Out: all of it), and nothing of W gets a gradient. write() puts P into W,
/// rounded once, after each step: the units stay where they are in the weight (no permutation), for any choice of heads, grouped queries included.
class S2Linear final : public Linear {
public:
    /// `index` ascends. Throws Internal when `base` is no dense map whose weight can be written.
    S2Linear(std::unique_ptr<Linear> base, Side side, const std::vector<std::int64_t>& index);
    torch::Tensor forward(const torch::Tensor& x) const override;
    torch::Tensor mergedWeight() const override { return m_weight; }
    torch::Tensor bias() const override { return m_base->bias(); }
    void visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) override { m_base->visitParameters(visit); }

    torch::Tensor& trained() noexcept { return m_trained; }
    const torch::Tensor& index() const noexcept { return m_index; }   ///< int64 [k]
    Side side() const noexcept { return m_side; }
    void write();   ///< P into W
    std::unique_ptr<Linear> takeBase() { return std::move(m_base); }

private:
    std::unique_ptr<Linear> m_base;
    torch::Tensor m_weight;   // [out, in], a view of what the base computes with
    torch::Tensor m_trained, m_index;
    Side m_side;
};

/// The trained part of a weight [out, in], in its dtype: [out, k] or [k, in].
torch::Tensor sliceOf(const torch::Tensor& weight, Side side, const torch::Tensor& index);
/// Writes it, rounded to the weight's dtype.
void writeSlice(torch::Tensor weight, Side side, const torch::Tensor& index, const torch::Tensor& value);
/// The weight [out, in] of one linear map of a model, as a view that writes through. Throws Internal where there is none.
torch::Tensor writableWeight(LanguageModel& model, int block, const std::string& role);

}  // namespace resect::s2
