#include "plugins/s2ft/s2_linear.h"

#include "core/base/error.h"
#include "core/models/fast_ops.h"
#include "core/models/ops.h"
#include "core/models/torch_compat.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/utils.h>

namespace resect::s2 {

namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor asRows(const Tensor& x) { return x.reshape({-1, x.size(-1)}); }

/// a b, on the fast path where there is one.
Tensor product(const Tensor& a, const Tensor& b) {
    if (!ops::useFast(a)) return torch::matmul(a, b);
    auto out = torch::empty({a.size(0), b.size(1)}, a.options());
    fast::product(a, b, out);
    return out;
}

struct PartlyTrained : torch::autograd::Function<PartlyTrained> {
    static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const compat::Optional<Tensor>& bias, const Tensor& trained, const Tensor& index, bool inputSide) {
        // A copy: a view would keep the whole input alive.
        context->save_for_backward({weight, inputSide ? asRows(x).index_select(1, index) : asRows(x), index});
        context->saved_data["inputSide"] = inputSide;
        context->saved_data["dtype"] = static_cast<std::int64_t>(trained.scalar_type());
        return ops::linear(x, weight, bias ? *bias : Tensor());
    }
    static variable_list backward(AutogradContext* context, variable_list gradients) {
        const auto saved = context->get_saved_variables();
        const Tensor &weight = saved[0], &kept = saved[1], &index = saved[2];
        const auto dy_MO = asRows(gradients[0]);
        Tensor dx, dTrained;
        if (context->needs_input_grad(0)) {
            auto sizes = gradients[0].sizes().vec();
            sizes.back() = weight.size(1);
            dx = product(dy_MO, weight).view(sizes);
        }
        const auto type = static_cast<torch::ScalarType>(context->saved_data["dtype"].toInt());
        if (context->saved_data["inputSide"].toBool()) dTrained = product(dy_MO.t(), kept).to(type);
        else dTrained = product(dy_MO.index_select(1, index).t(), kept).to(type);
        return {dx, Tensor(), Tensor(), dTrained, Tensor(), Tensor()};
    }
};

/// The stored weight of a dense map as [out, in]; undefined when the map computes with something else.
Tensor storedWeight(Linear& linear) {
    const auto weight = linear.mergedWeight();
    bool isStored = false;
    linear.visitParameters([&](const std::string& name, Tensor& parameter) { isStored = isStored || (name == "weight" && parameter.data_ptr() == weight.data_ptr()); });
    return isStored ? weight : Tensor();
}

}  // namespace

Tensor sliceOf(const Tensor& weight, Side side, const Tensor& index) { return weight.index_select(side == Side::In ? 1 : 0, index); }

void writeSlice(Tensor weight, Side side, const Tensor& index, const Tensor& value) {
    torch::NoGradGuard noGrad;
    weight.index_copy_(side == Side::In ? 1 : 0, index, value.to(weight.device(), weight.scalar_type()));
}

Tensor writableWeight(LanguageModel& model, int block, const std::string& role) {
    Tensor weight;
    model.replaceLinear(block, role, [&](std::unique_ptr<Linear> linear) {
        weight = storedWeight(*linear);
        return linear;
    });
    if (!weight.defined()) throw Error(ErrorCode::Internal, "block " + std::to_string(block) + ", " + role, "is no dense linear map");
    return weight.detach();
}

S2Linear::S2Linear(std::unique_ptr<Linear> base, Side side, const std::vector<std::int64_t>& index) : m_base(std::move(base)), m_side(side) {
    torch::NoGradGuard noGrad;
    m_weight = storedWeight(*m_base);
    if (!m_weight.defined()) throw Error(ErrorCode::Internal, "S2FT", "can train a part of dense linear maps only");
    m_weight = m_weight.detach();
    m_index = torch::tensor(index, torch::kInt64).to(m_weight.device());
    const auto wide = m_weight.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    m_trained = sliceOf(m_weight, side, m_index).to(wide).contiguous().requires_grad_();
}

Tensor S2Linear::forward(const Tensor& x) const {
    if (!torch::GradMode::is_enabled()) return ops::linear(x, m_weight, m_base->bias());
    const auto bias = m_base->bias();
    return PartlyTrained::apply(x, m_weight, bias.defined() ? compat::Optional<Tensor>(bias) : compat::Optional<Tensor>(), m_trained, m_index, m_side == Side::In);
}

void S2Linear::write() { writeSlice(m_weight, m_side, m_index, m_trained); }

}  // namespace resect::s2
