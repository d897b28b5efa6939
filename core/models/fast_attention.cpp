#include "core/models/cpu_kernels.h"
#include "core/models/fast_ops.h"
#include "core/models/torch_compat.h"

#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

namespace resect::fast {

namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr std::int64_t kFewTokens = 4, kFewHeadDim = 1024;

template <class T> T* data(const Tensor& tensor) { return static_cast<T*>(tensor.data_ptr()); }

/// What the kernels need besides q, k and v; kept for the backward pass.
struct Setting {
    std::vector<std::int64_t> headsPerKv;
    Tensor first_BT;
    std::int64_t offset, window;
    double scale;
};

kernels::HeadStrides stridesOf(const Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2)}; }

template <class T> kernels::AttentionTask<T> taskOf(const Tensor& q, const Tensor& k, const Tensor& v, const Setting& setting, Tensor& out, const Tensor& logSum) {
    return {.q = data<T>(q), .k = data<T>(k), .v = data<T>(v), .qStrides = stridesOf(q), .kStrides = stridesOf(k), .vStrides = stridesOf(v),
            .numHeads = q.size(2), .numKvHeads = k.size(2), .tokens = q.size(1), .keys = k.size(1), .headDim = q.size(3),
            .offset = setting.offset, .window = setting.window, .first = setting.first_BT.defined() ? data<std::int32_t>(setting.first_BT) : nullptr,
            .scale = static_cast<float>(setting.scale), .out = data<T>(out), .logSum = logSum.defined() ? data<float>(logSum) : nullptr};
}

std::vector<std::int64_t> firstHeads(const Setting& setting) {
    std::vector<std::int64_t> first(setting.headsPerKv.size());
    std::exclusive_scan(setting.headsPerKv.begin(), setting.headsPerKv.end(), first.begin(), std::int64_t{0});
    return first;
}

/// Every kv group's keys and values packed once, then all tiles of all heads spread over the threads.
template <class T> void forwardTiles(const kernels::AttentionTask<T>& task, const Setting& setting, std::int64_t batches) {
    const auto& table = kernels::table<T>();
    const std::int64_t groups = task.numKvHeads, padded = kernels::roundUp(task.keys, kernels::kKeyTile), width = kernels::roundUp(task.headDim, 16);
    const auto packed = torch::empty({batches * groups, padded * (task.headDim + width)}, torch::kFloat32);
    const auto keysOf = [&](std::int64_t pair) { return data<float>(packed) + pair * packed.size(1); };
    at::parallel_for(0, batches * groups, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t pair = begin; pair < end; ++pair) {
            table.packKeysValues(task, pair / groups, pair % groups, keysOf(pair), keysOf(pair) + padded * task.headDim);
        }
    });
    std::vector<std::int64_t> groupOfHead;
    for (std::size_t group = 0; group < setting.headsPerKv.size(); ++group) {
        groupOfHead.insert(groupOfHead.end(), static_cast<std::size_t>(setting.headsPerKv[group]), static_cast<std::int64_t>(group));
    }
    const std::int64_t tiles = (task.tokens + kernels::kQueryTile - 1) / kernels::kQueryTile;
    at::parallel_for(0, batches * task.numHeads * tiles, 1, [&](std::int64_t begin, std::int64_t end) {
        const auto scratch = torch::empty({kernels::attentionScratch(task.headDim)}, torch::kFloat32);
        for (std::int64_t i = begin; i < end; ++i) {
            // Later tiles see more keys: light and heavy ones alternate, so that contiguous shares are even.
            const std::int64_t head = i / tiles, place = i % tiles, tile = place % 2 == 0 ? place / 2 : tiles - 1 - place / 2;
            const std::int64_t b = head / task.numHeads, n = head % task.numHeads, pair = b * groups + groupOfHead[static_cast<std::size_t>(n)];
            table.attention(task, b, n, tile * kernels::kQueryTile, keysOf(pair), keysOf(pair) + padded * task.headDim, data<float>(scratch));
        }
    });
}

template <class T> void forwardFew(const kernels::AttentionTask<T>& task, const Setting& setting, std::int64_t batches) {
    const auto first = firstHeads(setting);
    const std::int64_t groups = task.numKvHeads;
    at::parallel_for(0, batches * groups, task.keys > 256 ? 1 : batches * groups, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> scratch;
        for (std::int64_t pair = begin; pair < end; ++pair) {
            const auto group = static_cast<std::size_t>(pair % groups);
            scratch.resize(static_cast<std::size_t>(setting.headsPerKv[group] * task.keys));
            kernels::table<T>().attentionFew(task, pair / groups, pair % groups, first[group], setting.headsPerKv[group], scratch.data());
        }
    });
}

template <class T> void backwardGroups(const kernels::AttentionTask<T>& task, const kernels::AttentionGradients<T>& gradients, const Setting& setting,
                                       std::int64_t batches) {
    const auto first = firstHeads(setting);
    const std::int64_t groups = task.numKvHeads, size = kernels::attentionBackwardScratch(task.tokens, task.keys, task.headDim);
    at::parallel_for(0, batches * groups, 1, [&](std::int64_t begin, std::int64_t end) {
        const auto scratch = torch::empty({size}, torch::kFloat32);
        for (std::int64_t pair = begin; pair < end; ++pair) {
            const auto group = static_cast<std::size_t>(pair % groups);
            kernels::table<T>().attentionBackward(task, gradients, pair / groups, pair % groups, first[group], setting.headsPerKv[group], data<float>(scratch));
        }
    });
}

template <class Body> void withType(const Tensor& tensor, const Body& body) {
    if (tensor.scalar_type() == torch::kFloat32) {
        body(float{});
    } else {
        body(kernels::Bf16{});
    }
}

Tensor denseLast(const Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

struct BlockedAttention : Function<BlockedAttention> {
    static Tensor forward(AutogradContext* context, const Tensor& givenQ, const Tensor& givenK, const Tensor& givenV, const Setting& setting, bool trains) {
        const auto q = denseLast(givenQ), k = denseLast(givenK), v = denseLast(givenV);
        auto out = torch::empty(q.sizes(), q.options());
        Tensor logSum_BNT;
        if (trains) {
            logSum_BNT = torch::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(torch::kFloat32));
        }
        withType(q, [&]<class T>(T) {
            const auto task = taskOf<T>(q, k, v, setting, out, logSum_BNT);
            if (!trains && task.tokens <= kFewTokens && task.headDim <= kFewHeadDim) {
                forwardFew(task, setting, q.size(0));
            } else {
                forwardTiles(task, setting, q.size(0));
            }
        });
        if (trains) {
            context->save_for_backward({q, k, v, out});
            context->saved_data["logSum"] = logSum_BNT;
            context->saved_data["first"] = setting.first_BT;
            context->saved_data["heads"] = setting.headsPerKv;
            context->saved_data["place"] = std::vector<std::int64_t>{setting.offset, setting.window};
            context->saved_data["scale"] = setting.scale;
        }
        return out;
    }
    static variable_list backward(AutogradContext* context, variable_list given) {
        const auto saved = context->get_saved_variables();
        const Tensor &q = saved[0], &k = saved[1], &v = saved[2];
        Tensor out = saved[3];
        const auto place = context->saved_data["place"].toIntVector();
        const Setting setting{context->saved_data["heads"].toIntVector(), context->saved_data["first"].toTensor(), place[0], place[1],
                              context->saved_data["scale"].toDouble()};
        const auto logSum = context->saved_data["logSum"].toTensor();
        const auto dOut = given[0].contiguous();
        auto dq = torch::empty(q.sizes(), q.options()), dk = torch::empty(k.sizes(), k.options()), dv = torch::empty(v.sizes(), v.options());
        withType(q, [&]<class T>(T) {
            const auto task = taskOf<T>(q, k, v, setting, out, logSum);
            backwardGroups(task, {data<T>(out), data<T>(dOut), data<T>(dq), data<T>(dk), data<T>(dv)}, setting, q.size(0));
        });
        return {dq, dk, dv, {}, {}};
    }
};

}  // namespace

Tensor attention(const AttentionInput& input) {
    const Setting setting{{input.headsPerKv->begin(), input.headsPerKv->end()}, input.span.first_BT.defined() ? input.span.first_BT.contiguous() : Tensor(),
                          input.span.offset, input.span.window, input.scale};
    const bool trains = torch::GradMode::is_enabled() &&
                        (input.q_BTNH.requires_grad() || input.k_BSGH.requires_grad() || input.v_BSGH.requires_grad());
    return BlockedAttention::apply(input.q_BTNH, input.k_BSGH, input.v_BSGH, setting, trains);
}

}  // namespace resect::fast
