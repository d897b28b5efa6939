#include "core/measure/importance.h"

#include "core/measure/expert_taps.h"
#include "core/measure/statistics.h"
#include "core/measure/stream_kernels.h"
#include "core/models/decoder.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>

namespace resect {

namespace {

std::vector<double> numbers(const torch::Tensor& x) {
    const auto values = x.to(torch::kFloat64).contiguous();
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

void normaliseByMean(std::vector<double>& scores) {
    const double mean = std::accumulate(scores.begin(), scores.end(), 0.0) / static_cast<double>(scores.size());
    if (mean > 0) for (double& score : scores) score /= mean;
}

constexpr std::size_t kGroups = 10;   // of rows, for the jackknife

/// Statistics of the columns of one tap over some of the rows; f64 [C].
struct ColumnStatistics {
    torch::Tensor absolute, squares, mean, deviations;   // sum |x|, sum x^2, mean x, sum (x - mean)^2
    double tokens = 0, rows = 0;

    void merge(const ColumnStatistics& other) {
        rows += other.rows;
        if (other.tokens == 0) return;
        if (tokens == 0) {
            const double own = rows;
            *this = {other.absolute.clone(), other.squares.clone(), other.mean.clone(), other.deviations.clone(), other.tokens, own};
            return;
        }
        const double total = tokens + other.tokens;
        const auto step = other.mean - mean;
        absolute += other.absolute;
        squares += other.squares;
        deviations += other.deviations + step * step * (tokens * other.tokens / total);
        mean += step * (other.tokens / total);
        tokens = total;
    }
};

/// Of tokens [begin, end) of x_TC. Within a row the sums in f64 lose less than the activations' own rounding; rows are merged around their means.
ColumnStatistics statisticsOf(const torch::Tensor& x_TC, std::int64_t begin, std::int64_t end) {
    const auto zeros = [&] { return torch::zeros({x_TC.size(1)}, torch::kFloat64); };
    ColumnStatistics own{zeros(), zeros(), zeros(), {}, static_cast<double>(end - begin), 0};
    kernels::addColumnSums(x_TC, begin, end, own.mean, own.absolute, own.squares);
    own.mean /= own.tokens;
    own.deviations = (own.squares - own.mean * own.mean * own.tokens).clamp_min(0);
    return own;
}

/// The columns of one tap of one block: statistics by group of rows.
using Columns = std::array<ColumnStatistics, kGroups>;

ColumnStatistics pooled(const Columns& columns, std::optional<std::size_t> without = {}) {
    ColumnStatistics all;
    for (std::size_t group = 0; group < kGroups; ++group)
        if (group != without) all.merge(columns[group]);
    return all;
}

class ActivationCollector final : public ModelRun::BatchObserver {
public:
    explicit ActivationCollector(const ModelRun& run) : m_run(run), m_heads(run.shape().blocks.size()), m_channels(run.shape().blocks.size()) {
        for (std::size_t block = 0; block < m_channels.size(); ++block)
            m_channels[block].resize(static_cast<std::size_t>(std::max(1, run.shape().blocks[block].numExperts)));
    }
    bool wants(TapPoint point, int) const override {
        return point == TapPoint::HeadOutputs || point == TapPoint::Channels || (point == TapPoint::ExpertChoice && !m_run.streamsBlocks());
    }
    void observe(TapPoint point, int block, const torch::Tensor& value) override {
        const auto index = static_cast<std::size_t>(block);
        if (point == TapPoint::ExpertChoice) {
            m_choice_BTK = value.to(torch::kCPU);
            for (Columns& expert : m_channels[index])
                for (const RowSpan& span : m_run.rowSpans(m_batch)) expert[span.row % kGroups].rows += 1;
            return;
        }
        Columns& columns = point == TapPoint::HeadOutputs ? m_heads[index] : m_channels[index].front();
        const auto spans = m_run.rowSpans(m_batch);
        for (std::size_t b = 0; b < spans.size(); ++b) {
            ColumnStatistics own = statisticsOf(value.select(0, static_cast<std::int64_t>(b)), spans[b].begin, spans[b].end);
            own.rows = 1;
            columns[spans[b].row % kGroups].merge(own);
        }
    }
    void observeExpert(int block, int expert, const torch::Tensor& channels_nF) {
        const auto tokens = tokensOfExpert(m_choice_BTK, expert);
        const auto* token = tokens.data_ptr<std::int64_t>();
        const std::int64_t count = tokens.numel(), length = m_choice_BTK.size(1);
        const auto spans = m_run.rowSpans(m_batch);
        for (std::size_t b = 0; b < spans.size(); ++b) {
            const std::int64_t row = static_cast<std::int64_t>(b) * length;
            const auto begin = std::lower_bound(token, token + count, row + spans[b].begin) - token, end = std::lower_bound(token, token + count, row + spans[b].end) - token;
            if (begin < end) m_channels[static_cast<std::size_t>(block)][static_cast<std::size_t>(expert)][spans[b].row % kGroups].merge(statisticsOf(channels_nF, begin, end));
        }
    }
    const Columns& heads(std::size_t block) const { return m_heads[block]; }
    const std::vector<Columns>& channels(std::size_t block) const { return m_channels[block]; }   ///< one, or one per expert

private:
    const ModelRun& m_run;
    std::vector<Columns> m_heads;
    std::vector<std::vector<Columns>> m_channels;
    torch::Tensor m_choice_BTK;
};

constexpr std::size_t kScores = 6;
using Scores = std::array<std::vector<double>, kScores>;
std::array<ScoreTable*, kScores> tablesOf(ActivationTables& tables) {
    return {&tables.mean, &tables.rms, &tables.wanda, &tables.variance, &tables.weightedVariance, &tables.standardised};
}

/// The projection that reads the columns: mean |W| and sum W^2 over its rows; f64 [C].
struct ColumnWeights {
    torch::Tensor absolute, squares;
    explicit ColumnWeights(const torch::Tensor& weight) {
        const auto wide = weight.to(torch::kFloat64);
        absolute = wide.abs().mean(0);
        squares = wide.square().sum(0);
    }
};

Scores scoresOf(const ColumnStatistics& x, const ColumnWeights& weights, std::int64_t width) {
    const auto perUnit = [&](const torch::Tensor& columns) { return columns.view({-1, width}); };
    if (x.tokens == 0) {
        Scores nothing;
        for (auto& scores : nothing) scores.assign(static_cast<std::size_t>(weights.absolute.numel() / width), 0.0);
        return nothing;
    }
    const auto variance = x.deviations / x.tokens, weighted = variance * weights.squares;
    const auto ranked = width > 1 ? weighted.square() : weighted;
    const auto spread = ranked.std(0, /*unbiased=*/true, /*keepdim=*/false);
    const auto standardised = (ranked - ranked.mean()) / torch::where(spread > 0, spread, torch::ones_like(spread));
    return {numbers(perUnit(x.absolute).mean(1) / x.tokens),
            numbers((perUnit(x.squares).mean(1) / x.tokens).sqrt()),
            numbers(perUnit(weights.absolute * (x.squares / x.rows).sqrt()).sum(1)),
            numbers(perUnit(variance).mean(1)),
            numbers(perUnit(weighted).mean(1)),
            numbers(perUnit(torch::nan_to_num(standardised)).mean(1))};
}

Scores folded(Scores scores, const std::vector<int>& headsPerKv) {
    for (auto& list : scores) list = foldHeads(list, headsPerKv);
    return scores;
}

/// Appends one block's scores with their errors by leaving out each group of rows in turn.
template <class ScoresOf> void append(ActivationTables& tables, const Columns& columns, ScoresOf scoresFor) {
    const Scores whole = scoresFor(pooled(columns));
    std::vector<Scores> parts;
    for (std::size_t group = 0; group < kGroups; ++group)
        if (columns[group].rows > 0) parts.push_back(scoresFor(pooled(columns, group)));
    const auto all = tablesOf(tables);
    const auto count = static_cast<double>(parts.size());
    for (std::size_t kind = 0; kind < kScores; ++kind) {
        std::vector<double> errors(whole[kind].size(), std::numeric_limits<double>::quiet_NaN());
        for (std::size_t i = 0; parts.size() > 1 && i < errors.size(); ++i) {
            double mean = 0, squares = 0;
            for (const Scores& part : parts) mean += part[kind][i] / count;
            for (const Scores& part : parts) squares += (part[kind][i] - mean) * (part[kind][i] - mean);
            errors[i] = std::sqrt((count - 1) / count * squares);
        }
        auto& scores = all[kind]->score.back();
        auto& last = all[kind]->error.back();
        scores.insert(scores.end(), whole[kind].begin(), whole[kind].end());
        last.insert(last.end(), errors.begin(), errors.end());
    }
}

void beginBlock(ActivationTables& tables) {
    for (ScoreTable* table : tablesOf(tables)) {
        table->score.emplace_back();
        table->error.emplace_back();
    }
}

bool sawRows(const Columns& columns) {
    return std::any_of(columns.begin(), columns.end(), [](const auto& group) { return group.rows > 0; });
}

void addBlock(ActivationScores& scores, const ActivationCollector& collector, const BlockMatrices& matrices, int block) {
    const BlockShape& shape = matrices.shape().blocks[static_cast<std::size_t>(block)];
    for (ActivationTables* tables : {&scores.head, &scores.group, &scores.channel}) beginBlock(*tables);
    const Columns& heads = collector.heads(static_cast<std::size_t>(block));
    if (sawRows(heads)) {
        const ColumnWeights weights(matrices.read(block, TensorRole::OutputWeight));
        append(scores.head, heads, [&](const ColumnStatistics& x) { return scoresOf(x, weights, shape.headDim); });
        append(scores.group, heads, [&](const ColumnStatistics& x) { return folded(scoresOf(x, weights, shape.headDim), shape.headsPerKv); });
    }
    const auto& channels = collector.channels(static_cast<std::size_t>(block));
    for (std::size_t expert = 0; expert < channels.size(); ++expert) {
        if (!sawRows(channels[expert])) continue;
        const bool routed = shape.numExperts > 0;
        const ColumnWeights weights(routed ? matrices.read(block, TensorRole::ExpertDownWeight, static_cast<int>(expert)) : matrices.read(block, TensorRole::DownWeight));
        append(scores.channel, channels[expert], [&](const ColumnStatistics& x) { return scoresOf(x, weights, 1); });
    }
    for (ScoreTable* table : tablesOf(scores.head)) requireFiniteScores(table->score.back(), block, "head");
    for (ScoreTable* table : tablesOf(scores.channel)) requireFiniteScores(table->score.back(), block, "channel");
}

}  // namespace

UnitTable magnitude(const Checkpoint& checkpoint, const ModelShape& shape, ComponentKind kind, const MagnitudeOptions& options, const JobContext& job,
                    torch::ScalarType dtype) {
    const torch::NoGradGuard noGrad;
    LoadOptions load;
    load.dtype = dtype;
    const BlockMatrices matrices(shape, checkpointWeights(checkpoint, load));
    UnitTable table(shape.blocks.size());
    for (int block = 0; block < shape.numBlocks() && !job.stopped(); ++block) {
        auto& scores = table[static_cast<std::size_t>(block)];
        scores = coupledScores(matrices, block, kind, {.power = options.power}, options.reduction);
        if (options.normalisation == Normalisation::Mean && !scores.empty()) normaliseByMean(scores);
        job.progress({block + 1.0, static_cast<double>(shape.numBlocks()), "blocks", "weight norms of " + std::string(name(kind)) + "s"});
    }
    return table;
}

ActivationScores measureActivations(ModelRun& run, const JobContext& job) {
    const torch::NoGradGuard noGrad;
    const auto& blocks = run.shape().blocks;
    const bool routed = std::any_of(blocks.begin(), blocks.end(), [](const BlockShape& block) { return block.numExperts > 0; });
    ActivationCollector collector(run);
    ActivationScores scores;
    scores.rowsTotal = static_cast<std::int64_t>(run.data().rows.size());
    scores.expertsSkipped = routed && run.streamsBlocks();
    {
        std::optional<ExpertTaps> taps;
        if (routed && !run.streamsBlocks())
            taps.emplace(run.model(), [&](int block, int expert, const torch::Tensor& channels_nF) { collector.observeExpert(block, expert, channels_nF); });
        scores.rowsDone = static_cast<std::int64_t>(run.run(&collector, {}, job));
    }
    LoadOptions load;
    load.dtype = run.options().load.dtype == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    const BlockMatrices matrices(run.shape(), checkpointWeights(run.checkpoint(), load));
    for (int block = 0; block < run.shape().numBlocks(); ++block) addBlock(scores, collector, matrices, block);
    return scores;
}

namespace {

/// Mean |x| of every dimension of the residual stream.
class StreamCollector final : public ModelRun::BatchObserver {
public:
    explicit StreamCollector(const ModelRun& run) : m_run(run), m_points(run.shape().blocks.size() + 1) {}
    bool wants(TapPoint point, int block) const override { return point == TapPoint::BlockOutput || (point == TapPoint::BlockInput && block == 0); }
    void observe(TapPoint point, int block, const torch::Tensor& x_BTD) override {
        Columns& columns = m_points[point == TapPoint::BlockInput ? 0 : static_cast<std::size_t>(block) + 1];
        const auto spans = m_run.rowSpans(m_batch);
        for (std::size_t b = 0; b < spans.size(); ++b) {
            ColumnStatistics own = statisticsOf(x_BTD.select(0, static_cast<std::int64_t>(b)), spans[b].begin, spans[b].end);
            own.rows = 1;
            columns[spans[b].row % kGroups].merge(own);
        }
    }
    const std::vector<Columns>& points() const { return m_points; }

private:
    const ModelRun& m_run;
    std::vector<Columns> m_points;
};

}  // namespace

HiddenScores measureHidden(ModelRun& run, const MagnitudeOptions& options, const JobContext& job) {
    const torch::NoGradGuard noGrad;
    HiddenScores scores;
    LoadOptions load;
    load.dtype = run.options().load.dtype == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    scores.magnitude = hiddenChannelScores(run.shape(), checkpointWeights(run.checkpoint(), load), {.power = options.power}, options.reduction);
    if (options.normalisation == Normalisation::Mean) normaliseByMean(scores.magnitude);
    StreamCollector collector(run);
    scores.rowsTotal = static_cast<std::int64_t>(run.data().rows.size());
    scores.rowsDone = static_cast<std::int64_t>(run.run(&collector, {}, job));
    const auto size = run.shape().hiddenSize;
    const ColumnWeights ones(torch::ones({1, size}));
    for (const Columns& columns : collector.points()) {
        scores.activation.emplace_back();
        scores.error.emplace_back();
        if (!sawRows(columns)) continue;
        ActivationTables tables;
        beginBlock(tables);
        append(tables, columns, [&](const ColumnStatistics& x) { return scoresOf(x, ones, 1); });
        scores.activation.back() = std::move(tables.mean.score.back());
        scores.error.back() = std::move(tables.mean.error.back());
    }
    return scores;
}

}  // namespace resect
