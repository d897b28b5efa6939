#include "core/models/fast_ops.h"

#include "core/models/cpu_kernels.h"
#include "core/models/torch_compat.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace resect::fast {

namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Numbers per unit of parallel work in element-wise loops: small enough to spread, large enough to be worth a thread.
constexpr std::int64_t kGrain = 1 << 14;
/// Rows whose weight gradients are summed together before the parts are added in order.
constexpr std::int64_t kNormRows = 256;

template <class T> T* data(const Tensor& tensor) { return static_cast<T*>(tensor.data_ptr()); }

/// Calls body with the storage type of a tensor: float or kernels::Bf16.
template <class Body> void withType(const Tensor& tensor, const Body& body) {
    if (tensor.scalar_type() == torch::kFloat32) {
        body(float{});
    } else {
        body(kernels::Bf16{});
    }
}

std::int64_t rowGrain(std::int64_t width) { return std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(width, 1)); }

struct RmsNorm : Function<RmsNorm> {
    static Tensor forward(AutogradContext* context, const Tensor& given, const Tensor& weight, double eps) {
        const auto x = given.contiguous();
        const std::int64_t width = x.size(-1), rows = x.numel() / width;
        auto y = torch::empty_like(x);
        auto inverse = torch::empty({rows}, x.options().dtype(torch::kFloat32));
        withType(x, [&]<class T>(T) {
            at::parallel_for(0, rows, rowGrain(width), [&](std::int64_t begin, std::int64_t end) {
                kernels::table<T>().rmsNorm(data<T>(x) + begin * width, data<T>(weight), data<T>(y) + begin * width, data<float>(inverse) + begin, end - begin,
                                            width, static_cast<float>(eps));
            });
        });
        context->save_for_backward({x, weight, inverse});
        return y;
    }
    static variable_list backward(AutogradContext* context, variable_list gradients) {
        const auto saved = context->get_saved_variables();
        const Tensor &x = saved[0], &weight = saved[1], &inverse = saved[2];
        const auto dy = gradients[0].contiguous();
        const std::int64_t width = x.size(-1), rows = x.numel() / width, parts = (rows + kNormRows - 1) / kNormRows;
        auto dx = torch::empty_like(x);
        auto partial = torch::zeros({parts, width}, inverse.options());
        withType(x, [&]<class T>(T) {
            at::parallel_for(0, parts, 1, [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t part = begin; part < end; ++part) {
                    const std::int64_t row = part * kNormRows;
                    kernels::table<T>().rmsNormBackward(data<T>(x) + row * width, data<T>(weight), data<T>(dy) + row * width, data<float>(inverse) + row,
                                                        data<T>(dx) + row * width, data<float>(partial) + part * width, std::min(kNormRows, rows - row), width);
                }
            });
        });
        return {dx, partial.sum(0).to(weight.scalar_type()), {}};
    }
};

Tensor rotated(const Tensor& x_BTNH, const Tensor& cos, const Tensor& sin, float sign) {
    const std::int64_t tokens = x_BTNH.size(1), heads = x_BTNH.size(2), width = x_BTNH.size(3), half = width / 2;
    const std::int64_t batchStride = x_BTNH.stride(0), tokenStride = x_BTNH.stride(1), headStride = x_BTNH.stride(2);
    const std::int64_t tableBatch = cos.size(0) == 1 ? 0 : tokens * half;
    auto y = torch::empty(x_BTNH.sizes(), x_BTNH.options());
    withType(x_BTNH, [&]<class T>(T) {
        at::parallel_for(0, x_BTNH.size(0) * tokens, rowGrain(heads * width), [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t row = begin; row < end; ++row) {
                const std::int64_t b = row / tokens, t = row % tokens, at = b * tableBatch + t * half;
                kernels::table<T>().rotate(data<T>(x_BTNH) + b * batchStride + t * tokenStride, headStride, data<T>(y) + row * heads * width,
                                           data<float>(cos) + at, data<float>(sin) + at, heads, half, sign);
            }
        });
    });
    return y;
}

Tensor denseLast(const Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

struct Rotate : Function<Rotate> {
    static Tensor forward(AutogradContext* context, const Tensor& x_BTNH, const Tensor& cos, const Tensor& sin) {
        context->save_for_backward({cos, sin});
        return rotated(denseLast(x_BTNH), cos, sin, 1);
    }
    static variable_list backward(AutogradContext* context, variable_list gradients) {
        const auto saved = context->get_saved_variables();
        return {rotated(denseLast(gradients[0]), saved[0], saved[1], -1), {}, {}};
    }
};

struct SiluMul : Function<SiluMul> {
    static Tensor forward(AutogradContext* context, const Tensor& givenGate, const Tensor& givenUp) {
        const auto gate = givenGate.contiguous(), up = givenUp.contiguous();
        auto y = torch::empty_like(gate);
        withType(gate, [&]<class T>(T) {
            at::parallel_for(0, gate.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
                kernels::table<T>().siluMul(data<T>(gate) + begin, data<T>(up) + begin, data<T>(y) + begin, end - begin);
            });
        });
        context->save_for_backward({gate, up});
        return y;
    }
    static variable_list backward(AutogradContext* context, variable_list gradients) {
        const auto saved = context->get_saved_variables();
        const Tensor &gate = saved[0], &up = saved[1];
        const auto dy = gradients[0].contiguous();
        auto dGate = torch::empty_like(gate), dUp = torch::empty_like(up);
        withType(gate, [&]<class T>(T) {
            at::parallel_for(0, gate.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
                kernels::table<T>().siluMulBackward(data<T>(gate) + begin, data<T>(up) + begin, data<T>(dy) + begin, data<T>(dGate) + begin,
                                                    data<T>(dUp) + begin, end - begin);
            });
        });
        return {dGate, dUp};
    }
};

Tensor asRows(const Tensor& x) { return x.reshape({-1, x.size(-1)}); }

struct LinearMap : Function<LinearMap> {
    static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const compat::Optional<Tensor>& bias) {
        const auto rows_MK = asRows(x);
        auto sizes = x.sizes().vec();
        sizes.back() = weight.size(0);
        auto y_MO = torch::empty({rows_MK.size(0), weight.size(0)}, x.options());
        if (bias) {
            y_MO.copy_(bias->expand_as(y_MO));
        }
        product(rows_MK, weight.t(), y_MO, bias ? Into::Add : Into::Overwrite);
        // The input is needed for the gradient of the weight only: under a frozen map it is not kept.
        context->save_for_backward({weight.requires_grad() ? x : Tensor(), weight});
        context->saved_data["bias"] = bias.has_value();
        return y_MO.view(sizes);
    }
    static variable_list backward(AutogradContext* context, variable_list gradients) {
        const auto saved = context->get_saved_variables();
        const Tensor &x = saved[0], &weight = saved[1];
        const auto dy_MO = asRows(gradients[0]);
        Tensor dx, dWeight, dBias;
        if (context->needs_input_grad(0)) {
            auto rows_MK = torch::empty({dy_MO.size(0), weight.size(1)}, dy_MO.options());
            product(dy_MO, weight, rows_MK);
            auto sizes = gradients[0].sizes().vec();
            sizes.back() = weight.size(1);
            dx = rows_MK.view(sizes);
        }
        if (context->needs_input_grad(1)) {
            dWeight = torch::empty_like(weight);
            product(dy_MO.t(), asRows(x), dWeight);
        }
        if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) {
            dBias = dy_MO.sum(0);
        }
        return {dx, dWeight, dBias};
    }
};

/// What the backward pass of the head needs, made during the forward pass chunk by chunk; undefined where nobody asks.
struct HeadGradients {
    Tensor dHidden_MD, dWeight_VD;  // of the mean loss; dWeight summed in f32
};

double headLossInChunks(const Tensor& hidden_MD, const Tensor& weight_VD, const Tensor& targets_M, HeadGradients& gradients) {
    constexpr std::int64_t kChunkBytes = 64 << 20;
    const std::int64_t rows = hidden_MD.size(0), classes = weight_VD.size(0), rowBytes = classes * hidden_MD.element_size();
    const std::int64_t chunk = std::clamp<std::int64_t>(kChunkBytes / rowBytes, 16, rows);
    const bool wanted = gradients.dHidden_MD.defined() || gradients.dWeight_VD.defined();
    auto buffer = torch::empty({chunk, classes}, hidden_MD.options());
    std::vector<double> losses(static_cast<std::size_t>(rows), 0.0);
    for (std::int64_t row = 0; row < rows; row += chunk) {
        const std::int64_t count = std::min(chunk, rows - row);
        auto logits = buffer.narrow(0, 0, count);
        const auto hidden = hidden_MD.narrow(0, row, count);
        product(hidden, weight_VD.t(), logits);
        withType(logits, [&]<class T>(T) {
            at::parallel_for(0, count, rowGrain(classes), [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t i = begin; i < end; ++i) {
                    losses[static_cast<std::size_t>(row + i)] = kernels::table<T>().crossEntropy(
                        data<T>(logits) + i * classes, data<std::int64_t>(targets_M) + row + i, 1, classes, wanted ? 1.0f / static_cast<float>(rows) : 0.0f);
                }
            });
        });
        if (gradients.dHidden_MD.defined()) {
            auto dHidden = gradients.dHidden_MD.narrow(0, row, count);
            product(logits, weight_VD, dHidden);
        }
        if (gradients.dWeight_VD.defined()) {
            if (gradients.dWeight_VD.scalar_type() == logits.scalar_type()) {
                product(logits.t(), hidden, gradients.dWeight_VD, row == 0 ? Into::Overwrite : Into::Add);
            } else {
                auto part = torch::empty_like(weight_VD);
                product(logits.t(), hidden, part);
                row == 0 ? gradients.dWeight_VD.copy_(part) : gradients.dWeight_VD.add_(part);
            }
        }
    }
    double total = 0;
    for (const double loss : losses) {
        total += loss;
    }
    return total / static_cast<double>(rows);
}

/// Loss and its gradients in one pass over chunks of rows, so that logits are never kept; the backward pass only scales them.
struct HeadLoss : Function<HeadLoss> {
    static Tensor forward(AutogradContext* context, const Tensor& given, const Tensor& weight_VD, const Tensor& targets_M, bool wantsHidden, bool wantsWeight) {
        const auto hidden_MD = given.contiguous();
        HeadGradients gradients;
        if (wantsHidden) {
            gradients.dHidden_MD = torch::empty_like(hidden_MD);
        }
        if (wantsWeight) {
            const bool oneChunk = hidden_MD.size(0) * weight_VD.size(0) * weight_VD.element_size() <= (64 << 20);
            gradients.dWeight_VD = torch::empty(weight_VD.sizes(), weight_VD.options().dtype(oneChunk ? weight_VD.scalar_type() : torch::kFloat32));
        }
        const double loss = headLossInChunks(hidden_MD, weight_VD, targets_M.contiguous(), gradients);
        context->saved_data["hidden"] = gradients.dHidden_MD;
        context->saved_data["weight"] = gradients.dWeight_VD.defined() ? gradients.dWeight_VD.to(weight_VD.scalar_type()) : Tensor();
        return torch::tensor(static_cast<float>(loss), torch::kFloat32);
    }
    static variable_list backward(AutogradContext* context, variable_list gradients) {
        TORCH_CHECK(context->saved_data.count("spent") == 0, "the head loss can be differentiated once");
        context->saved_data["spent"] = true;
        const float scale = gradients[0].item<float>();
        const auto take = [&](const char* name) {
            Tensor gradient = context->saved_data[name].toTensor();
            context->saved_data[name] = Tensor();  // so that the accumulator may keep it without a copy
            return gradient.defined() && scale != 1.0f ? gradient.mul_(scale) : gradient;
        };
        auto dHidden = take("hidden");
        auto dWeight = take("weight");
        return {dHidden, dWeight, {}, {}, {}};
    }
};

}  // namespace

void product(const Tensor& a, const Tensor& b, Tensor& out, Into into) {
    const auto whole = [into](const Tensor& left, const Tensor& right, Tensor& result) {
        into == Into::Add ? at::addmm_out(result, result, left, right) : at::mm_out(result, left, right);
    };
    const std::int64_t m = a.size(0), n = b.size(1), side = std::max(m, n);
    const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(a.size(1));
    const std::int64_t threads = at::get_num_threads();
    if (a.scalar_type() != torch::kFloat32 || threads == 1 || work < 1 << 18) {
        whole(a, b, out);  // oneDNN spreads bf16 products over the threads itself
        return;
    }
    // The larger side of the result is split; each part goes to the BLAS, which runs it on the calling thread (configureRuntime sees to that).
    constexpr std::int64_t kUnit = 16;
    const std::int64_t step = ((side + threads - 1) / threads + kUnit - 1) / kUnit * kUnit;
    at::parallel_for(0, (side + step - 1) / step, 1, [&](std::int64_t begin, std::int64_t end) {
        const at::AutoDispatchBelowADInplaceOrView below;  // the gradient mode of the calling thread does not reach this one
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t from = i * step, count = std::min(step, side - from);
            if (m >= n) {
                auto part = out.narrow(0, from, count);
                whole(a.narrow(0, from, count), b, part);
            } else {
                auto part = out.narrow(1, from, count);
                whole(a, b.narrow(1, from, count), part);
            }
        }
    });
}

Tensor rmsNorm(const Tensor& x, const Tensor& weight, double eps) { return RmsNorm::apply(x, weight, eps); }
Tensor rotate(const Tensor& x_BTNH, const Tensor& cos, const Tensor& sin) { return Rotate::apply(x_BTNH, cos, sin); }
Tensor siluMul(const Tensor& gate, const Tensor& up) { return SiluMul::apply(gate, up); }
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
    return LinearMap::apply(x, weight, bias.defined() ? compat::Optional<Tensor>(bias) : compat::Optional<Tensor>());
}
Tensor headLoss(const Tensor& hidden_MD, const Tensor& weight_VD, const Tensor& targets_M) {
    const bool enabled = torch::GradMode::is_enabled();
    return HeadLoss::apply(hidden_MD, weight_VD, targets_M, enabled && hidden_MD.requires_grad(), enabled && weight_VD.requires_grad());
}

}  // namespace resect::fast
