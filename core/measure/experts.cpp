#include "core/measure/experts.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/measure/statistics.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace resect {

namespace {

/// Running sums of one block.
struct Sums {
    torch::Tensor chosen_E, mass_E, gate_E, salience_E;  // f64, over tokens
    torch::Tensor pairs_EE, logits_EE;                   // f64: tokens that chose both; products of logits
    torch::Tensor rowSquares_E, rowTimesCount_E;         // f64, over rows: (tokens that chose it)^2, and times the row's tokens
    ClusterCounts counts;
    double tokens = 0;
};

class Collector final : public ModelRun::BatchObserver {
public:
    explicit Collector(const ModelRun& run)
        : m_run(run), m_sigmoid(familyOf(run.shape()).moe && familyOf(run.shape()).moe->sigmoidWithCorrection), m_blocks(run.shape().blocks.size()) {}

    bool wants(TapPoint point, int) const override {
        return point == TapPoint::RouterLogits || point == TapPoint::ExpertChoice || point == TapPoint::ExpertGates || point == TapPoint::ExpertNorms;
    }
    void observe(TapPoint point, int block, const torch::Tensor& value) override {
        const auto plain = value.to(torch::kCPU);
        if (point == TapPoint::RouterLogits) m_logits_BTE = plain.to(torch::kFloat64);
        else if (point == TapPoint::ExpertChoice) m_choice_BTK = plain;
        else if (point == TapPoint::ExpertGates) m_gates_BTK = plain.to(torch::kFloat64);
        else add(m_blocks[static_cast<std::size_t>(block)], plain.to(torch::kFloat64));  // the norms come last
    }
    const std::vector<Sums>& blocks() const { return m_blocks; }

private:
    void add(Sums& sums, const torch::Tensor& norms_BTK) {
        const std::int64_t e = m_logits_BTE.size(2);
        const auto options = torch::TensorOptions().dtype(torch::kFloat64);
        if (!sums.chosen_E.defined()) {
            const auto zeros = [&] { return torch::zeros({e}, options); };
            sums = {zeros(), zeros(), zeros(), zeros(), torch::zeros({e, e}, options), torch::zeros({e, e}, options), zeros(), zeros(), {}, 0};
        }
        const auto spans = m_run.rowSpans(m_batch);
        for (std::size_t b = 0; b < spans.size(); ++b) {
            const std::int64_t row = static_cast<std::int64_t>(b), begin = spans[b].begin, length = spans[b].end - begin;
            const auto ofRow = [&](const torch::Tensor& x) { return x[row].narrow(0, begin, length); };
            const auto logits_TE = ofRow(m_logits_BTE), gates_TK = ofRow(m_gates_BTK), choice_TK = ofRow(m_choice_BTK);
            const auto chosen_TE = torch::zeros({length, e}, options).scatter(1, choice_TK, 1.0), chosen_E = chosen_TE.sum(0);
            sums.chosen_E += chosen_E;
            sums.mass_E += (m_sigmoid ? torch::sigmoid(logits_TE) : torch::softmax(logits_TE, -1)).sum(0);
            sums.gate_E.scatter_add_(0, choice_TK.reshape({-1}), gates_TK.reshape({-1}));
            sums.salience_E.scatter_add_(0, choice_TK.reshape({-1}), (gates_TK * ofRow(norms_BTK)).reshape({-1}));
            sums.pairs_EE += torch::matmul(chosen_TE.t(), chosen_TE);
            sums.logits_EE += torch::matmul(logits_TE.t(), logits_TE);
            const auto count = static_cast<double>(length);
            sums.rowSquares_E += chosen_E * chosen_E;
            sums.rowTimesCount_E += chosen_E * count;
            sums.counts.add(count);
            sums.tokens += count;
        }
    }

    const ModelRun& m_run;
    bool m_sigmoid;
    std::vector<Sums> m_blocks;
    torch::Tensor m_logits_BTE, m_choice_BTK, m_gates_BTK;
};

std::vector<double> numbers(const torch::Tensor& x) {
    const auto values = x.contiguous();
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

void requireFinite(const std::vector<double>& scores, int block, const char* what) {
    for (std::size_t i = 0; i < scores.size(); ++i)
        if (!std::isfinite(scores[i]))
            throw Error(ErrorCode::BadInput, "block " + std::to_string(block) + ", expert " + std::to_string(i),
                        std::string("the ") + what + " is not finite; the weights hold NaN or infinity, or the activations overflow in this precision");
}

}  // namespace

ExpertScores measureExperts(ModelRun& run, const JobContext& job) {
    const auto& blocks = run.shape().blocks;
    if (std::none_of(blocks.begin(), blocks.end(), [](const BlockShape& block) { return block.numExperts > 0; }))
        throw Error(ErrorCode::Unsupported, run.shape().modelType, "no block has experts, so there is nothing to measure about them");
    const torch::NoGradGuard noGrad;
    Collector collector(run);
    ExpertScores scores;
    scores.rowsTotal = static_cast<std::int64_t>(run.data().rows.size());
    scores.rowsDone = static_cast<std::int64_t>(run.run(&collector, {}, job));
    int block = 0;
    for (const Sums& sums : collector.blocks()) {
        const auto add = [&](auto& table, std::vector<double> row) { table.push_back(std::move(row)); };
        if (!sums.chosen_E.defined()) {
            for (auto* table : {&scores.load, &scores.loadError, &scores.mass, &scores.gate, &scores.gateChosen, &scores.saliency, &scores.coActivation, &scores.similarity})
                table->emplace_back();
            ++block;
            continue;
        }
        scores.tokens = std::max(scores.tokens, static_cast<std::int64_t>(sums.tokens));
        add(scores.load, numbers(sums.chosen_E / sums.tokens));
        add(scores.mass, numbers(sums.mass_E / sums.tokens));
        add(scores.gate, numbers(sums.gate_E / sums.tokens));
        add(scores.gateChosen, numbers(sums.gate_E / sums.chosen_E));
        add(scores.saliency, numbers(sums.salience_E / sums.chosen_E.clamp_min(1)));
        requireFinite(scores.mass.back(), block, "router's probability");
        requireFinite(scores.saliency.back(), block, "output");
        const auto chosen = numbers(sums.chosen_E), squares = numbers(sums.rowSquares_E), timesCount = numbers(sums.rowTimesCount_E);
        std::vector<double> errors;
        for (std::size_t e = 0; e < chosen.size(); ++e) errors.push_back(clusteredMean(ClusterTotals{chosen[e], squares[e], timesCount[e]}, sums.counts).error);
        add(scores.loadError, std::move(errors));
        add(scores.coActivation, numbers(sums.pairs_EE / sums.tokens));
        const auto norm_E = sums.logits_EE.diagonal().sqrt();
        add(scores.similarity, numbers(sums.logits_EE / (norm_E.unsqueeze(1) * norm_E.unsqueeze(0))));
        ++block;
    }
    return scores;
}

}  // namespace resect
