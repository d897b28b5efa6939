#include "core/measure/ablation.h"

#include "core/base/error.h"
#include "core/measure/perplexity.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace resect {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Paired differences of one ablation.
struct Differences {
    ClusterTotals totals;
    ClusterCounts counts;
    void add(const RowLosses& with, const RowLosses& without) {
        for (std::size_t row = 0; row < with.loss.size(); ++row) {
            if (with.count[row] <= 0) continue;
            totals.add(without.loss[row] - with.loss[row], with.count[row]);
            counts.add(with.count[row]);
        }
    }
    void add(const Differences& other) {
        totals.sum += other.totals.sum, totals.sumSquares += other.totals.sumSquares, totals.sumTimesCount += other.totals.sumTimesCount;
        counts.rows += other.counts.rows, counts.count += other.counts.count, counts.countSquares += other.counts.countSquares;
    }
    MeanError result() const { return counts.count > 0 ? clusteredMean(totals, counts) : MeanError{kNaN, kNaN}; }
};

struct Uncut {
    LanguageModel& model;
    ~Uncut() { model.setCut({}); }
};

class Ablator {
public:
    Ablator(ModelRun& run, const Cut& base, std::span<const Ablation> ablations, const JobContext& job)
        : m_run(run), m_base(base.blocks.empty() ? emptyCut(run.shape()) : base), m_ablations(ablations), m_job(job), m_order(ablations.size()), m_all(ablations.size()) {
        std::iota(m_order.begin(), m_order.end(), std::size_t{0});
        std::stable_sort(m_order.begin(), m_order.end(), [&](std::size_t a, std::size_t b) { return ablations[a].block < ablations[b].block; });
    }
    AblationScores resident();
    AblationScores streamed();

private:
    Cut cutOf(const Ablation& ablation) const {
        Cut cut = m_base;
        cut.blocks.at(static_cast<std::size_t>(ablation.block)) = ablation.cut;
        return cut;
    }
    RowLosses losses(const torch::Tensor& logits_BTV, std::size_t index) const {
        RowLosses rows;
        const auto targets_BT = m_run.targets(index);
        addRowLosses(rows, tokenLosses(logits_BTV, targets_BT), targets_BT, m_run.rowSpans(index), Positions::All);
        return rows;
    }
    bool batch(LanguageModel& model, std::size_t index, std::vector<Differences>& own);
    AblationScores result() const;
    void report() const { m_job.progress({static_cast<double>(m_done), static_cast<double>(m_ablations.size() * m_run.data().rows.size()), "ablated rows", "leaving out one at a time"}); }

    ModelRun& m_run;
    Cut m_base;
    std::span<const Ablation> m_ablations;
    const JobContext& m_job;
    std::vector<std::size_t> m_order;      // by block
    std::vector<Differences> m_all;
    RowLosses m_whole;
    std::size_t m_done = 0, m_rowsDone = 0;
};

/// False when it was stopped before every ablation had run.
bool Ablator::batch(LanguageModel& model, std::size_t index, std::vector<Differences>& own) {
    const int numBlocks = m_run.shape().numBlocks();
    const TokenBatch batch = m_run.batch(index).to(model.device());
    const auto logitsOf = [&](const torch::Tensor& x_BTD) { return model.head(model.finalNorm(x_BTD)); };
    model.setCut(m_base);
    auto x_BTD = model.embed(batch);
    const RowLosses whole = losses(logitsOf(model.runBlocks(x_BTD, batch, 0, numBlocks)), index);
    m_whole.loss.insert(m_whole.loss.end(), whole.loss.begin(), whole.loss.end());
    m_whole.count.insert(m_whole.count.end(), whole.count.begin(), whole.count.end());
    int at = 0;
    for (const std::size_t which : m_order) {
        const Ablation& ablation = m_ablations[which];
        if (m_job.stopped()) return false;
        if (at < ablation.block) {
            model.setCut(m_base);
            x_BTD = model.runBlocks(x_BTD, batch, at, ablation.block);
            at = ablation.block;
        }
        model.setCut(cutOf(ablation));
        own[which].add(whole, losses(logitsOf(model.runBlocks(x_BTD, batch, at, numBlocks)), index));
        m_done += whole.loss.size();
        report();
    }
    return true;
}

AblationScores Ablator::resident() {
    LanguageModel& model = m_run.model();
    const Uncut uncut{model};
    for (std::size_t index = 0; index < m_run.numBatches() && !m_job.stopped(); ++index) {
        std::vector<Differences> own(m_ablations.size());
        const bool finished = batch(model, index, own);
        if (!finished && m_rowsDone > 0) break;   // of this batch only some ablations know
        for (std::size_t i = 0; i < own.size(); ++i) m_all[i].add(own[i]);
        if (!finished) break;
        m_rowsDone += m_run.rowSpans(index).size();
    }
    return result();
}

AblationScores Ablator::streamed() {
    const Cut before = m_run.cut();
    struct Restore {
        ModelRun& run;
        const Cut& cut;
        ~Restore() { run.setCut(cut); }
    } restore{m_run, before};
    const std::size_t rows = m_run.data().rows.size();
    const auto pass = [&](const Cut& cut) {
        RowLosses all;
        m_run.setCut(cut);
        m_run.run(nullptr, [&](std::size_t index, const torch::Tensor& logits_BTV) {
            const RowLosses own = losses(logits_BTV, index);
            all.loss.insert(all.loss.end(), own.loss.begin(), own.loss.end());
            all.count.insert(all.count.end(), own.count.begin(), own.count.end());
        }, JobContext(m_job.stopToken(), {}));
        return all;
    };
    m_whole = pass(m_base);
    for (const std::size_t which : m_order) {
        if (m_job.stopped() || m_whole.loss.size() < rows) break;
        const RowLosses without = pass(cutOf(m_ablations[which]));
        if (without.loss.size() < rows) break;
        m_all[which].add(m_whole, without);
        m_done += rows;
        report();
    }
    if (m_done == rows * m_ablations.size()) m_rowsDone = rows;
    return result();
}

AblationScores Ablator::result() const {
    AblationScores scores;
    scores.rowsTotal = static_cast<std::int64_t>(m_run.data().rows.size());
    scores.rowsDone = static_cast<std::int64_t>(m_rowsDone);
    const Perplexity whole = m_whole.result(scores.rowsTotal);
    if (!m_whole.loss.empty() && whole.positions == 0) throw Error(ErrorCode::BadInput, "ablation", "no position of the data has a next token to be predicted");
    scores.loss = whole.loss;
    for (const Differences& one : m_all) scores.rise.push_back(one.result());
    return scores;
}

}  // namespace

AblationScores measureAblations(ModelRun& run, const Cut& base, std::span<const Ablation> ablations, const JobContext& job) {
    const torch::NoGradGuard noGrad;
    Ablator ablator(run, base, ablations, job);
    return run.streamsBlocks() ? ablator.streamed() : ablator.resident();
}

}  // namespace resect
