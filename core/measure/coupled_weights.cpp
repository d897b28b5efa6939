#include "core/measure/coupled_weights.h"

#include "core/base/error.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace resect {

namespace {

using enum TensorRole;

TensorRole fused(TensorRole role) {
    if (role == QueryWeight || role == KeyWeight || role == ValueWeight) return QkvWeight;
    return role == GateWeight || role == UpWeight ? GateUpWeight : role;
}

std::vector<double> numbers(const torch::Tensor& x) {
    const auto values = x.to(torch::kCPU, torch::kFloat64).contiguous();
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

/// One number per unit along `axis` of a matrix, `width` rows or columns a unit.
std::vector<double> sliceScores(const torch::Tensor& weight, int axis, int width, SliceForm form) {
    const auto wide = weight.to(torch::kFloat64);
    if (form.vectorised) return numbers(wide.sum(1 - axis).abs().view({-1, width}).sum(1));
    const auto powers = form.power == 2 ? wide.square() : form.power == 1 ? wide.abs() : wide.abs().pow(form.power);
    return numbers(powers.sum(1 - axis).view({-1, width}).sum(1));
}

struct UnitSlices {
    TensorRole role;
    int axis;
    ComponentKind owner;   // whose units the slices are: heads inside a kv group are folded
};

std::vector<UnitSlices> slicesOf(ComponentKind kind) {
    switch (kind) {
        case ComponentKind::Head: return {{QueryWeight, 0, kind}, {OutputWeight, 1, kind}};
        case ComponentKind::KvGroup:
            return {{QueryWeight, 0, ComponentKind::Head}, {OutputWeight, 1, ComponentKind::Head}, {KeyWeight, 0, kind}, {ValueWeight, 0, kind}};
        case ComponentKind::Channel: return {{GateWeight, 0, kind}, {UpWeight, 0, kind}, {DownWeight, 1, kind}};
        default: throw Error(ErrorCode::Unsupported, std::string(name(kind)), "weight scores are defined for heads, kv groups, channels and experts");
    }
}

TensorRole ofExpert(TensorRole role) { return role == GateWeight ? ExpertGateWeight : role == UpWeight ? ExpertUpWeight : ExpertDownWeight; }

void combine(std::vector<double>& total, const std::vector<double>& next, Reduction reduction, bool first) {
    if (first) {
        total = next;
        return;
    }
    for (std::size_t i = 0; i < total.size(); ++i) {
        if (reduction == Reduction::Mean || reduction == Reduction::Sum) total[i] += next[i];
        if (reduction == Reduction::Max) total[i] = std::max(total[i], next[i]);
        if (reduction == Reduction::Product) total[i] *= next[i];
    }
}

void finish(std::vector<double>& total, int tensors, Reduction reduction) {
    if (reduction == Reduction::Mean) for (double& score : total) score /= tensors;
}

/// Channels of a dense MLP (expert -1) or of one expert, heads, kv groups.
std::vector<double> sliced(const BlockMatrices& matrices, int block, ComponentKind kind, int expert, SliceForm form, Reduction reduction) {
    const BlockShape& shape = matrices.shape().blocks[static_cast<std::size_t>(block)];
    std::vector<double> scores;
    int tensors = 0;
    for (const UnitSlices& slices : slicesOf(kind)) {
        const TensorRole role = expert < 0 ? slices.role : ofExpert(slices.role);
        if (!matrices.has(block, role, expert)) {
            if (slices.role == GateWeight && matrices.has(block, UpWeight)) continue;  // a family without gates
            return {};
        }
        auto part = sliceScores(matrices.read(block, role, expert), slices.axis, kind == ComponentKind::Channel ? 1 : shape.headDim, form);
        if (slices.owner != kind) part = foldHeads(part, shape.headsPerKv);
        combine(scores, part, reduction, tensors++ == 0);
    }
    finish(scores, tensors, reduction);
    return scores;
}

std::vector<double> expertScores(const BlockMatrices& matrices, int block, SliceForm form, Reduction reduction) {
    const BlockShape& shape = matrices.shape().blocks[static_cast<std::size_t>(block)];
    std::vector<double> scores;
    if (shape.numExperts == 0) return scores;
    combine(scores, sliceScores(matrices.read(block, RouterWeight), 0, 1, form), reduction, true);
    for (const TensorRole role : {ExpertGateWeight, ExpertUpWeight, ExpertDownWeight}) {
        std::vector<double> part;
        for (int expert = 0; expert < shape.numExperts; ++expert) {
            const auto columns = sliceScores(matrices.read(block, role, expert), role == ExpertDownWeight ? 1 : 0, 1, form);
            part.push_back(std::accumulate(columns.begin(), columns.end(), 0.0));
        }
        combine(scores, part, reduction, false);
    }
    finish(scores, 4, reduction);
    return scores;
}

}  // namespace

BlockMatrices::BlockMatrices(const ModelShape& shape, WeightSource source) : m_shape(shape), m_source(std::move(source)) {
    for (const ExpectedTensor& tensor : expectedTensors(shape))
        if (tensor.block >= 0) m_tensors.emplace(std::tuple(tensor.block, tensor.role, tensor.expert), tensor);
}

bool BlockMatrices::has(int block, TensorRole role, int expert) const {
    return m_tensors.contains({block, role, expert}) || m_tensors.contains({block, fused(role), expert});
}

torch::Tensor BlockMatrices::read(int block, TensorRole role, int expert) const {
    const bool own = m_tensors.contains({block, role, expert});
    auto weight = m_source(m_tensors.at({block, own ? role : fused(role), expert}));
    if (familyOf(m_shape).transposedLinears) weight = weight.t();
    if (own) return weight;
    const BlockShape& shape = m_shape.blocks[static_cast<std::size_t>(block)];
    const std::int64_t q = std::int64_t{shape.numHeads} * shape.headDim, kv = std::int64_t{shape.numKvHeads} * shape.headDim;
    switch (role) {
        case QueryWeight: return weight.narrow(0, 0, q);
        case KeyWeight: return weight.narrow(0, q, kv);
        case ValueWeight: return weight.narrow(0, q + kv, kv);
        case GateWeight: return weight.narrow(0, 0, shape.ffnSize);
        default: return weight.narrow(0, shape.ffnSize, shape.ffnSize);
    }
}

std::vector<std::string> BlockMatrices::names(int block) const {
    static const std::set<TensorRole> kMatrices{QueryWeight, KeyWeight, ValueWeight, QkvWeight, OutputWeight, GateWeight, UpWeight, GateUpWeight, DownWeight,
                                                RouterWeight, ExpertGateWeight, ExpertUpWeight, ExpertDownWeight};
    std::vector<std::string> names;
    for (const auto& [key, tensor] : m_tensors)
        if (tensor.block == block && kMatrices.contains(tensor.role)) names.push_back(tensor.name);
    return names;
}

std::vector<double> coupledScores(const BlockMatrices& matrices, int block, ComponentKind kind, SliceForm form, Reduction reduction) {
    std::vector<double> scores;
    const int experts = matrices.shape().blocks[static_cast<std::size_t>(block)].numExperts;
    if (kind == ComponentKind::Expert) {
        scores = expertScores(matrices, block, form, reduction);
    } else if (kind == ComponentKind::Channel && experts > 0) {
        for (int expert = 0; expert < experts; ++expert) {
            const auto own = sliced(matrices, block, kind, expert, form, reduction);
            scores.insert(scores.end(), own.begin(), own.end());
        }
    } else {
        scores = sliced(matrices, block, kind, -1, form, reduction);
    }
    requireFiniteScores(scores, block, name(kind));
    return scores;
}

std::vector<double> hiddenChannelScores(const ModelShape& shape, const WeightSource& source, SliceForm form, Reduction reduction) {
    static const std::set<TensorRole> kWriters{OutputWeight, DownWeight, ExpertDownWeight, SharedDownWeight};
    const bool turned = familyOf(shape).transposedLinears;
    std::vector<double> scores;
    int tensors = 0;
    for (const ExpectedTensor& tensor : expectedTensors(shape)) {
        const bool vector = tensor.shape.size() == 1, matrix = tensor.shape.size() == 2;
        const bool streamNorm = vector && isNormRole(tensor.role) && !tensor.name.ends_with(".bias") && tensor.role != QueryNorm && tensor.role != KeyNorm;
        if (!streamNorm && !matrix) continue;
        auto weight = source(tensor);
        if (matrix && turned && tensor.block >= 0) weight = weight.t();
        const auto part = streamNorm ? sliceScores(weight.unsqueeze(0), 1, 1, form) : sliceScores(weight, kWriters.contains(tensor.role) ? 0 : 1, 1, form);
        combine(scores, part, reduction, tensors++ == 0);
    }
    finish(scores, tensors, reduction);
    requireFiniteScores(scores, -1, "hidden channel");
    return scores;
}

std::vector<double> foldHeads(const std::vector<double>& perHead, const std::vector<int>& headsPerKv) {
    std::vector<double> groups;
    auto head = perHead.begin();
    for (const int count : headsPerKv) {
        groups.push_back(std::accumulate(head, head + count, 0.0));
        head += count;
    }
    return groups;
}

void requireFiniteScores(const std::vector<double>& scores, int block, std::string_view unit) {
    for (std::size_t i = 0; i < scores.size(); ++i)
        if (!std::isfinite(scores[i]))
            throw Error(ErrorCode::BadInput, (block < 0 ? std::string() : "block " + std::to_string(block) + ", ") + std::string(unit) + " " + std::to_string(i),
                        "the score is not finite; the weights hold NaN or infinity, or the activations overflow in this precision");
}

}  // namespace resect
