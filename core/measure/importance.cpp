#include "core/measure/importance.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/measure/statistics.h"
#include "core/measure/stream_kernels.h"
#include "core/models/decoder.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace resect {

namespace {

/// The weights of one block by role, read from the files when asked for.
class BlockWeightReader {
public:
    BlockWeightReader(const Checkpoint& checkpoint, const ModelShape& shape)
        : m_shape(shape), m_family(familyOf(shape)), m_source(checkpointWeights(checkpoint, LoadOptions{})) {
        for (const ExpectedTensor& tensor : expectedTensors(shape))
            if (tensor.block >= 0 && tensor.expert < 0) m_tensors.emplace(std::pair(tensor.block, tensor.role), tensor);
    }
    bool has(int block, TensorRole role) const { return m_tensors.contains({block, role}) || m_tensors.contains({block, fused(role)}); }
    /// [out, in], cut out of a fused tensor and turned where the family stores it so.
    torch::Tensor read(int block, TensorRole role) const {
        const bool own = m_tensors.contains({block, role});
        auto weight = m_source(m_tensors.at({block, own ? role : fused(role)}));
        if (m_family.transposedLinears) weight = weight.t();
        if (own) return weight;
        const BlockShape& shape = m_shape.blocks[static_cast<std::size_t>(block)];
        const std::int64_t q = std::int64_t{shape.numHeads} * shape.headDim, kv = std::int64_t{shape.numKvHeads} * shape.headDim;
        switch (role) {
            case TensorRole::QueryWeight: return weight.narrow(0, 0, q);
            case TensorRole::KeyWeight: return weight.narrow(0, q, kv);
            case TensorRole::ValueWeight: return weight.narrow(0, q + kv, kv);
            case TensorRole::GateWeight: return weight.narrow(0, 0, shape.ffnSize);
            default: return weight.narrow(0, shape.ffnSize, shape.ffnSize);
        }
    }

private:
    static TensorRole fused(TensorRole role) {
        using enum TensorRole;
        if (role == QueryWeight || role == KeyWeight || role == ValueWeight) return QkvWeight;
        return role == GateWeight || role == UpWeight ? GateUpWeight : role;
    }
    const ModelShape& m_shape;
    const Family& m_family;
    WeightSource m_source;
    std::map<std::pair<int, TensorRole>, ExpectedTensor> m_tensors;
};

std::vector<double> numbers(const torch::Tensor& x) {
    const auto values = x.to(torch::kFloat64).contiguous();
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

/// sum |w|^p of each unit along `axis` of a matrix, `width` rows or columns a unit.
std::vector<double> sliceNorms(const torch::Tensor& weight, int axis, int width, double power) {
    const auto powers = power == 2 ? weight.to(torch::kFloat64).square() : weight.to(torch::kFloat64).abs().pow(power);
    return numbers(powers.sum(1 - axis).view({-1, width}).sum(1));
}

struct UnitSlices {
    TensorRole role;
    int axis;
    ComponentKind owner;   // whose units the slices are: heads inside a kv group are folded
};

std::vector<UnitSlices> slicesOf(ComponentKind kind) {
    using enum TensorRole;
    switch (kind) {
        case ComponentKind::Head: return {{QueryWeight, 0, kind}, {OutputWeight, 1, kind}};
        case ComponentKind::KvGroup:
            return {{QueryWeight, 0, ComponentKind::Head}, {OutputWeight, 1, ComponentKind::Head}, {KeyWeight, 0, kind}, {ValueWeight, 0, kind}};
        case ComponentKind::Channel: return {{GateWeight, 0, kind}, {UpWeight, 0, kind}, {DownWeight, 1, kind}};
        default: throw Error(ErrorCode::Unsupported, std::string(name(kind)), "weight norms are defined for heads, kv groups and channels");
    }
}

void normaliseByMean(std::vector<double>& scores) {
    const double mean = std::accumulate(scores.begin(), scores.end(), 0.0) / static_cast<double>(scores.size());
    if (mean > 0) for (double& score : scores) score /= mean;
}

void requireFinite(const std::vector<double>& scores, int block, const char* unit) {
    for (std::size_t i = 0; i < scores.size(); ++i)
        if (!std::isfinite(scores[i]))
            throw Error(ErrorCode::BadInput, "block " + std::to_string(block) + ", " + unit + " " + std::to_string(i),
                        "the score is not finite; the weights hold NaN or infinity, or the activations overflow in this precision");
}

std::vector<double> blockMagnitude(const BlockWeightReader& weights, const BlockShape& shape, int block, ComponentKind kind, const MagnitudeOptions& options) {
    std::vector<double> scores;
    double tensors = 0;
    for (const UnitSlices& slices : slicesOf(kind)) {
        if (!weights.has(block, slices.role)) {
            if (slices.role == TensorRole::GateWeight && weights.has(block, TensorRole::UpWeight)) continue;  // a family without gates
            return {};
        }
        auto norms = sliceNorms(weights.read(block, slices.role), slices.axis, kind == ComponentKind::Channel ? 1 : shape.headDim, options.power);
        if (slices.owner != kind) norms = foldHeads(norms, shape.headsPerKv);
        scores.resize(norms.size(), 0.0);
        for (std::size_t i = 0; i < norms.size(); ++i) scores[i] += norms[i];
        tensors += 1;
    }
    if (options.reduction == Reduction::Mean) for (double& score : scores) score /= tensors;
    if (options.normalisation == Normalisation::Mean && !scores.empty()) normaliseByMean(scores);
    requireFinite(scores, block, std::string(name(kind)).c_str());
    return scores;
}

/// Running sums over the columns of one tap of one block.
struct Columns {
    torch::Tensor absolute, squares;                   // f64 [C]
    torch::Tensor rowSquares, rowTimesCount;           // f64 [units]: over rows, s^2 and s c of the unit's sum of |x|
    ClusterCounts counts;
};

class ActivationCollector final : public ModelRun::BatchObserver {
public:
    explicit ActivationCollector(const ModelRun& run) : m_run(run), m_heads(run.shape().blocks.size()), m_channels(run.shape().blocks.size()) {}
    bool wants(TapPoint point, int) const override { return point == TapPoint::HeadOutputs || point == TapPoint::Channels; }
    void observe(TapPoint point, int block, const torch::Tensor& value) override {
        const auto index = static_cast<std::size_t>(block);
        const bool heads = point == TapPoint::HeadOutputs;
        add(heads ? m_heads[index] : m_channels[index], value, heads ? m_run.shape().blocks[index].headDim : 1);
    }
    const std::vector<Columns>& heads() const { return m_heads; }
    const std::vector<Columns>& channels() const { return m_channels; }

private:
    void add(Columns& columns, const torch::Tensor& x_BTC, int width) {
        const auto options = torch::TensorOptions().dtype(torch::kFloat64);
        const std::int64_t size = x_BTC.size(2), units = size / width;
        if (!columns.absolute.defined())
            columns = {torch::zeros({size}, options), torch::zeros({size}, options), torch::zeros({units}, options), torch::zeros({units}, options), {}};
        const auto spans = m_run.rowSpans(m_batch);
        auto absolute = torch::empty({size}, options);
        for (std::size_t b = 0; b < spans.size(); ++b) {
            absolute.zero_();
            kernels::addColumnSums(x_BTC.select(0, static_cast<std::int64_t>(b)), spans[b].begin, spans[b].end, absolute, columns.squares);
            columns.absolute += absolute;
            const auto count = static_cast<double>(spans[b].end - spans[b].begin);
            const auto unit = width == 1 ? absolute : absolute.view({units, width}).mean(1);
            columns.rowSquares += unit * unit;
            columns.rowTimesCount += unit * count;
            columns.counts.add(count);
        }
    }
    const ModelRun& m_run;
    std::vector<Columns> m_heads, m_channels;
};

struct TapScores {
    std::vector<double> mean, error, rms, wanda;
};

/// `columnWeight`: mean |W| over the rows of the projection that reads these columns.
TapScores tapScores(const Columns& columns, int width, const torch::Tensor& columnWeight) {
    TapScores scores;
    if (!columns.absolute.defined() || columns.counts.count == 0) return scores;
    const auto perUnit = [&](const torch::Tensor& x) { return x.view({-1, width}); };
    scores.mean = numbers(perUnit(columns.absolute).mean(1) / columns.counts.count);
    scores.rms = numbers((perUnit(columns.squares).mean(1) / columns.counts.count).sqrt());
    scores.wanda = numbers(perUnit(columnWeight * (columns.squares / columns.counts.rows).sqrt()).sum(1));
    const auto squares = numbers(columns.rowSquares), timesCount = numbers(columns.rowTimesCount);
    for (std::size_t i = 0; i < scores.mean.size(); ++i)
        scores.error.push_back(clusteredMean(ClusterTotals{scores.mean[i] * columns.counts.count, squares[i], timesCount[i]}, columns.counts).error);
    return scores;
}

torch::Tensor columnMeans(const BlockWeightReader& weights, int block, TensorRole role) { return weights.read(block, role).to(torch::kFloat64).abs().mean(0); }

}  // namespace

std::vector<double> foldHeads(const std::vector<double>& perHead, const std::vector<int>& headsPerKv) {
    std::vector<double> groups;
    auto head = perHead.begin();
    for (const int count : headsPerKv) {
        groups.push_back(std::accumulate(head, head + count, 0.0));
        head += count;
    }
    return groups;
}

UnitTable magnitude(const Checkpoint& checkpoint, const ModelShape& shape, ComponentKind kind, const MagnitudeOptions& options, const JobContext& job) {
    const torch::NoGradGuard noGrad;
    const BlockWeightReader weights(checkpoint, shape);
    UnitTable table(shape.blocks.size());
    for (int block = 0; block < shape.numBlocks() && !job.stopped(); ++block) {
        table[static_cast<std::size_t>(block)] = blockMagnitude(weights, shape.blocks[static_cast<std::size_t>(block)], block, kind, options);
        job.progress({block + 1.0, static_cast<double>(shape.numBlocks()), "blocks", "weight norms of " + std::string(name(kind)) + "s"});
    }
    return table;
}

ActivationScores measureActivations(ModelRun& run, const JobContext& job) {
    const torch::NoGradGuard noGrad;
    ActivationCollector collector(run);
    ActivationScores scores;
    scores.rowsTotal = static_cast<std::int64_t>(run.data().rows.size());
    scores.rowsDone = static_cast<std::int64_t>(run.run(&collector, {}, job));
    const BlockWeightReader weights(run.checkpoint(), run.shape());
    for (int block = 0; block < run.shape().numBlocks(); ++block) {
        const auto index = static_cast<std::size_t>(block);
        const BlockShape& shape = run.shape().blocks[index];
        TapScores heads, channels;
        if (collector.heads()[index].absolute.defined()) heads = tapScores(collector.heads()[index], shape.headDim, columnMeans(weights, block, TensorRole::OutputWeight));
        if (collector.channels()[index].absolute.defined()) channels = tapScores(collector.channels()[index], 1, columnMeans(weights, block, TensorRole::DownWeight));
        for (const auto* list : {&heads.mean, &heads.rms, &heads.wanda}) requireFinite(*list, block, "head");
        for (const auto* list : {&channels.mean, &channels.rms, &channels.wanda}) requireFinite(*list, block, "channel");
        const auto fold = [&](const std::vector<double>& list) { return list.empty() ? list : foldHeads(list, shape.headsPerKv); };
        scores.groupMean.push_back(fold(heads.mean));
        scores.groupRms.push_back(fold(heads.rms));
        scores.groupWanda.push_back(fold(heads.wanda));
        scores.headMean.push_back(std::move(heads.mean));
        scores.headError.push_back(std::move(heads.error));
        scores.headRms.push_back(std::move(heads.rms));
        scores.headWanda.push_back(std::move(heads.wanda));
        scores.channelMean.push_back(std::move(channels.mean));
        scores.channelError.push_back(std::move(channels.error));
        scores.channelRms.push_back(std::move(channels.rms));
        scores.channelWanda.push_back(std::move(channels.wanda));
    }
    return scores;
}

}  // namespace resect
