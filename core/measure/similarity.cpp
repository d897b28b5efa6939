#include "core/measure/similarity.h"

#include "core/measure/statistics.h"
#include "core/measure/stream_kernels.h"

#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

namespace resect {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

enum Metric { CosBlock, CosAttention, CosMlp, RelativeBlock, RelativeAttention, RelativeMlp, kNumMetrics };

/// What one row contributes to one block.
struct BlockRow {
    std::array<double, kNumMetrics> sum{}, count{};
    bool seen = false;
};
/// What one row contributes to one point of the stream.
struct StreamRow {
    double norm = 0, count = 0, largest = 0;
    std::int64_t channel = 0;
};

/// The states of one batch at the sampled tokens, kept until it has gone through all blocks.
struct BatchStates {
    torch::Tensor positions;              // int64, rows of the flattened [B*T, D]; undefined = all of them
    std::vector<std::int64_t> counts;     // sampled tokens per row of the batch
    std::vector<torch::Tensor> points;    // L+1 x [S, D]
};

/// Sums over rows of one cell of the window matrix.
struct WindowCell {
    ClusterTotals cosine, angle;
    ClusterCounts cosineCounts, angleCounts;
};

void addCosine(BlockRow& row, Metric metric, double product, double squareA, double squareB) {
    const double scale = std::sqrt(squareA) * std::sqrt(squareB);
    if (scale == 0) return;
    row.sum[metric] += product / scale;
    row.count[metric] += 1;
}

void addRelative(BlockRow& row, Metric metric, double updateSquare, double afterSquare) {
    if (afterSquare == 0) return;
    row.sum[metric] += std::sqrt(updateSquare / afterSquare);
    row.count[metric] += 1;
}

/// A zero vector, or one that is not finite.
bool isOdd(const kernels::TokenSums& s) { return !(s.hh > 0 && s.mm > 0 && s.oo > 0 && std::isfinite(s.hh + s.mm + s.oo)); }

/// What one row contributes to every cell of the window matrix.
struct WindowRow {
    std::vector<double> sum, valid, angle, angles;
};
/// `angular`: the token whose angles count, -1 = all.
WindowRow windowRow(const double* cosine, std::int64_t tokens, std::size_t pairs, std::int64_t angular) {
    WindowRow row{std::vector<double>(pairs, 0), std::vector<double>(pairs, 0), std::vector<double>(pairs, 0), std::vector<double>(pairs, 0)};
    for (std::int64_t t = 0; t < tokens; ++t, cosine += pairs) {
        for (std::size_t pair = 0; pair < pairs; ++pair) {
            const bool valid = cosine[pair] == cosine[pair];  // not NaN
            row.sum[pair] += valid ? cosine[pair] : 0.0;
            row.valid[pair] += valid ? 1.0 : 0.0;
        }
        if (angular >= 0 && t != angular) continue;
        for (std::size_t pair = 0; pair < pairs; ++pair) {
            if (std::isnan(cosine[pair])) continue;
            row.angle[pair] += std::acos(std::clamp(cosine[pair], -1.0, 1.0)) / std::numbers::pi;
            row.angles[pair] += 1;
        }
    }
    return row;
}

}  // namespace

struct SimilarityCollector::Data {
    Data(const ModelRun& modelRun, SimilarityOptions wanted) : run(modelRun), options(wanted) {
        const auto numRows = run.data().rows.size();
        const auto numBlocks = static_cast<std::size_t>(run.shape().numBlocks());
        blocks.assign(numBlocks, std::vector<BlockRow>(numRows));
        points.assign(numBlocks + 1, std::vector<StreamRow>(numRows));
        finished.assign(numRows, false);
        cells.resize(numBlocks * (numBlocks + 1) / 2);
        tokensPerRow = options.windowTokens;
        if (tokensPerRow == 0) {
            const std::int64_t perToken = static_cast<std::int64_t>(numBlocks + 1) * run.shape().hiddenSize * 4;
            std::int64_t tokens = 0;
            for (const auto& row : run.data().rows) tokens += row.tokens();
            if (tokens * perToken > options.stateMemory)
                tokensPerRow = static_cast<int>(std::max<std::int64_t>(1, options.stateMemory / perToken / static_cast<std::int64_t>(numRows)));
        }
    }

    const ModelRun& run;
    SimilarityOptions options;
    int tokensPerRow = 0;                         // 0 = all
    std::size_t batch = 0;
    std::vector<RowSpan> spans;
    torch::Tensor before, between;                // of the block that is running
    std::vector<std::vector<BlockRow>> blocks;    // [L][row]
    std::vector<std::vector<StreamRow>> points;   // [L+1][row]
    std::vector<bool> finished;
    std::map<std::size_t, BatchStates> states;
    std::vector<WindowCell> cells;
    std::int64_t sampled = 0, zeroTokens = 0, brokenTokens = 0;
    std::string firstBroken;

    bool pictures() const { return run.data().holdsImages(); }
    bool isCut(int block, BranchSlot slot) const {
        const BlockShape& shape = run.shape().blocks[static_cast<std::size_t>(block)];
        const bool present = slot == BranchSlot::Attention ? shape.hasAttention : shape.hasFfn;
        if (!present || run.cut().blocks.empty()) return !present;
        const BlockCut& cut = run.cut().blocks[static_cast<std::size_t>(block)];
        return cut.block || (slot == BranchSlot::Attention ? cut.attention : cut.ffn);
    }

    void addBlock(int block, const torch::Tensor& after);
    void addPoint(int point, const torch::Tensor& x_BTD);
    void noteToken(int block, std::size_t row, std::int64_t token, const kernels::TokenSums& sums);
    void sample(int point, const torch::Tensor& x_BTD);
    void addWindows(std::size_t index);
    UnitScores unit(Metric metric) const;
    std::vector<bool> rowsOf(std::size_t block) const;
};

SimilarityCollector::SimilarityCollector(const ModelRun& run, SimilarityOptions options) : m_data(std::make_unique<Data>(run, options)) {}
SimilarityCollector::~SimilarityCollector() = default;

bool SimilarityCollector::wants(TapPoint point, int) const {
    return point == TapPoint::BlockInput || point == TapPoint::AfterAttention || point == TapPoint::BlockOutput;
}

void SimilarityCollector::setBatch(std::size_t index) {
    m_data->batch = index;
    m_data->spans = m_data->run.rowSpans(index);
    m_data->before = m_data->between = torch::Tensor();
}

void SimilarityCollector::observe(TapPoint point, int block, const torch::Tensor& value) {
    Data& data = *m_data;
    if (point == TapPoint::BlockInput) {
        data.before = value;
        if (data.points[0][data.spans.front().row].count == 0) {  // the first block that runs
            data.sample(0, value);
            data.addPoint(0, value);
        }
    } else if (point == TapPoint::AfterAttention) {
        data.between = value;
    } else if (point == TapPoint::BlockOutput) {
        data.addBlock(block, value);
        data.addPoint(block + 1, value);
        data.sample(block + 1, value);
        data.before = data.between = torch::Tensor();
    }
}

void SimilarityCollector::Data::addBlock(int block, const torch::Tensor& after) {
    const std::int64_t tokens = after.size(1), size = after.size(2);
    const auto flat = [&](const torch::Tensor& x) { return x.reshape({-1, size}); };
    const auto sums = kernels::tokenSums(flat(before), flat(between), flat(after));
    std::vector<char> odd(spans.size(), 0);
    at::parallel_for(0, static_cast<std::int64_t>(spans.size()), 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t b = first; b < last; ++b) {
            const RowSpan& span = spans[static_cast<std::size_t>(b)];
            BlockRow row;
            row.seen = true;
            for (std::int64_t t = span.begin; t < span.end; ++t) {
                const auto& s = sums[static_cast<std::size_t>(b * tokens + t)];
                addCosine(row, CosBlock, s.ho, s.hh, s.oo);
                addCosine(row, CosAttention, s.hm, s.hh, s.mm);
                addCosine(row, CosMlp, s.mo, s.mm, s.oo);
                addRelative(row, RelativeBlock, s.oh2, s.oo);
                addRelative(row, RelativeAttention, s.mh2, s.mm);
                addRelative(row, RelativeMlp, s.om2, s.oo);
                if (isOdd(s)) odd[static_cast<std::size_t>(b)] = 1;
            }
            blocks[static_cast<std::size_t>(block)][span.row] = row;
        }
    });
    for (std::size_t b = 0; b < spans.size(); ++b)
        for (std::int64_t t = spans[b].begin; odd[b] && t < spans[b].end; ++t) {
            const auto& s = sums[static_cast<std::size_t>(static_cast<std::int64_t>(b) * tokens + t)];
            if (isOdd(s)) noteToken(block, spans[b].row, t - spans[b].begin, s);
        }
}

void SimilarityCollector::Data::noteToken(int block, std::size_t row, std::int64_t token, const kernels::TokenSums& sums) {
    if (std::isfinite(sums.hh + sums.mm + sums.oo)) {
        ++zeroTokens;
        return;
    }
    if (brokenTokens++ == 0) firstBroken = "block " + std::to_string(block) + ", row " + std::to_string(row) + ", token " + std::to_string(token);
}

void SimilarityCollector::Data::addPoint(int point, const torch::Tensor& x_BTD) {
    const std::int64_t tokens = x_BTD.size(1);
    const auto extents = kernels::tokenExtents(x_BTD.reshape({-1, x_BTD.size(2)}));
    for (std::size_t b = 0; b < spans.size(); ++b) {
        StreamRow row;
        std::int64_t where = -1;
        for (std::int64_t t = spans[b].begin; t < spans[b].end; ++t) {
            const auto& extent = extents[static_cast<std::size_t>(static_cast<std::int64_t>(b) * tokens + t)];
            row.norm += std::sqrt(extent.squaredNorm);
            row.count += 1;
            if (extent.largest > row.largest) row.largest = extent.largest, where = t;
        }
        if (where >= 0) row.channel = x_BTD[static_cast<std::int64_t>(b)][where].abs().argmax().item<std::int64_t>();
        points[static_cast<std::size_t>(point)][spans[b].row] = row;
    }
}

void SimilarityCollector::Data::sample(int point, const torch::Tensor& x_BTD) {
    if (!options.windows) return;
    BatchStates& own = states[batch];
    if (own.points.empty()) {
        own.points.resize(blocks.size() + 1);
        std::vector<std::int64_t> positions;
        bool all = true;
        for (std::size_t b = 0; b < spans.size(); ++b) {
            const std::int64_t length = spans[b].end - spans[b].begin;
            const std::int64_t wanted = tokensPerRow == 0 ? length : std::min<std::int64_t>(tokensPerRow, length);
            for (std::int64_t j = 0; j < wanted; ++j)
                positions.push_back(static_cast<std::int64_t>(b) * x_BTD.size(1) + spans[b].begin + (pictures() ? j * length / wanted : ((j + 1) * length) / wanted - 1));
            own.counts.push_back(wanted);
            all = all && wanted == x_BTD.size(1);
        }
        if (!all) own.positions = torch::tensor(positions, torch::kInt64).to(x_BTD.device());
    }
    const auto flat = x_BTD.reshape({-1, x_BTD.size(2)});
    own.points[static_cast<std::size_t>(point)] = own.positions.defined() ? flat.index_select(0, own.positions) : flat;
}

void SimilarityCollector::Data::addWindows(std::size_t index) {
    const auto found = states.find(index);
    if (found == states.end()) return;
    BatchStates own = std::move(found->second);
    states.erase(found);
    for (std::size_t point = 1; point < own.points.size(); ++point)  // a block that the cut drops leaves the stream as it is
        if (!own.points[point].defined()) own.points[point] = own.points[point - 1];
    if (own.points.size() < 2 || !own.points[0].defined()) return;
    const auto cosines = kernels::pairCosines(own.points);
    const auto pairs = static_cast<std::size_t>(cosines.size(1));
    std::vector<const double*> starts;
    const double* next = cosines.data_ptr<double>();
    for (const std::int64_t count : own.counts) {
        starts.push_back(next);
        next += count * static_cast<std::int64_t>(pairs);
        sampled += count;
    }
    std::vector<WindowRow> rows(starts.size());
    at::parallel_for(0, static_cast<std::int64_t>(rows.size()), 1, [&](std::int64_t first, std::int64_t last) {
        for (auto row = static_cast<std::size_t>(first); row < static_cast<std::size_t>(last); ++row)
            rows[row] = windowRow(starts[row], own.counts[row], pairs, options.angularTokens == AngularTokens::All ? -1 : pictures() ? 0 : own.counts[row] - 1);
    });
    for (const WindowRow& row : rows) {
        for (std::size_t pair = 0; pair < pairs; ++pair) {
            WindowCell& cell = cells[pair];
            if (row.valid[pair] > 0) cell.cosine.add(row.sum[pair], row.valid[pair]), cell.cosineCounts.add(row.valid[pair]);
            if (row.angles[pair] > 0) cell.angle.add(row.angle[pair], row.angles[pair]), cell.angleCounts.add(row.angles[pair]);
        }
    }
}

void SimilarityCollector::batchFinished(std::size_t index) {
    m_data->addWindows(index);
    for (const RowSpan& span : m_data->run.rowSpans(index)) m_data->finished[span.row] = true;
}

std::vector<bool> SimilarityCollector::Data::rowsOf(std::size_t block) const {
    if (std::find(finished.begin(), finished.end(), true) != finished.end()) return finished;
    // Nothing went through all blocks: a block counts when it saw as many rows as the first one.
    std::vector<bool> rows;
    std::size_t here = 0, first = 0;
    for (std::size_t row = 0; row < finished.size(); ++row) {
        rows.push_back(blocks[block][row].seen);
        here += blocks[block][row].seen;
        first += blocks[0][row].seen;
    }
    return here == first ? rows : std::vector<bool>(finished.size(), false);
}

UnitScores SimilarityCollector::Data::unit(Metric metric) const {
    UnitScores scores;
    const bool cosine = metric <= CosMlp;
    for (std::size_t block = 0; block < blocks.size(); ++block) {
        const bool noAttention = isCut(static_cast<int>(block), BranchSlot::Attention), noFfn = isCut(static_cast<int>(block), BranchSlot::Ffn);
        const int part = metric % 3;  // block, attention, mlp
        const bool absent = part == 0 ? noAttention && noFfn : part == 1 ? noAttention : noFfn;
        std::vector<double> sums, counts;
        const auto rows = rowsOf(block);
        for (std::size_t row = 0; !absent && row < rows.size(); ++row)
            if (rows[row]) sums.push_back(blocks[block][row].sum[metric]), counts.push_back(blocks[block][row].count[metric]);
        const MeanError mean = clusteredMean(sums, counts);
        scores.score.push_back(cosine ? std::clamp(1 - mean.mean, 0.0, 2.0) : mean.mean);
        scores.error.push_back(mean.error);
    }
    return scores;
}

SimilarityScores SimilarityCollector::result() const {
    const Data& data = *m_data;
    SimilarityScores scores;
    scores.rowsTotal = static_cast<std::int64_t>(data.finished.size());
    scores.rowsDone = std::count(data.finished.begin(), data.finished.end(), true);
    UnitScores* const units[] = {&scores.block, &scores.attention, &scores.mlp, &scores.relativeBlock, &scores.relativeAttention, &scores.relativeMlp};
    for (int metric = 0; metric < kNumMetrics; ++metric) *units[metric] = data.unit(static_cast<Metric>(metric));
    for (std::size_t point = 0; point < data.points.size(); ++point) {
        const auto rows = data.rowsOf(point == 0 ? 0 : point - 1);
        std::vector<double> sums, counts;
        double largest = kNaN, channel = kNaN;
        for (std::size_t row = 0; row < rows.size(); ++row) {
            const StreamRow& own = data.points[point][row];
            if (!rows[row] || own.count == 0) continue;
            sums.push_back(own.norm);
            counts.push_back(own.count);
            if (std::isnan(largest) || own.largest > largest) largest = own.largest, channel = static_cast<double>(own.channel);
        }
        const MeanError mean = clusteredMean(sums, counts);
        scores.norm.score.push_back(mean.mean);
        scores.norm.error.push_back(mean.error);
        scores.largest.push_back(largest);
        scores.largestChannel.push_back(channel);
    }
    if (data.options.windows) {
        const std::size_t n = data.blocks.size();
        for (auto* matrix : {&scores.window, &scores.windowError, &scores.angular, &scores.angularError}) matrix->assign(n * n, kNaN);
        std::size_t pair = 0;
        for (std::size_t i = 0; i <= n; ++i) {
            for (std::size_t j = i + 1; j <= n; ++j, ++pair) {
                const WindowCell& cell = data.cells[pair];
                const MeanError cosine = clusteredMean(cell.cosine, cell.cosineCounts), angle = clusteredMean(cell.angle, cell.angleCounts);
                const std::size_t at = i * n + (j - i - 1);
                scores.window[at] = std::clamp(1 - cosine.mean, 0.0, 2.0);
                scores.windowError[at] = cosine.error;
                scores.angular[at] = angle.mean;
                scores.angularError[at] = angle.error;
            }
        }
        scores.windowTokens = data.sampled;
    }
    if (data.brokenTokens > 0)
        scores.notes.push_back({Severity::Error, data.firstBroken, "the residual stream is not finite here (" + std::to_string(data.brokenTokens) +
                                " tokens in all); the units concerned have no score", "Check the checkpoint's health report, or measure in f32."});
    if (data.zeroTokens > 0)
        scores.notes.push_back({Severity::Warning, "residual stream", std::to_string(data.zeroTokens) + " tokens with a zero vector were left out of the cosines", ""});
    return scores;
}

SimilarityScores measureSimilarity(ModelRun& run, const SimilarityOptions& options, const JobContext& job) {
    SimilarityCollector collector(run, options);
    run.run(&collector, {}, job);
    return collector.result();
}

}  // namespace resect
