#include "plugins/s2ft/s2_measure.h"

#include "core/base/error.h"
#include "plugins/s2ft/s2_scores.h"

#include <algorithm>
#include <limits>

namespace resect::s2 {

namespace {

struct Kind {
    Part part;
    const char *component, *title;
};
constexpr std::array<Kind, 3> kKinds{{{Part::Output, "head", "head"}, {Part::Value, "kv_group", "kv group"}, {Part::Down, "channel", "channel"}}};

struct Words {
    Ranking ranking;
    const char *title, *unit, *help;
};
constexpr std::array<Words, 4> kRankings{{
    {Ranking::Weight, "weight", "norm", "Frobenius norm of the slice that S2FT would train."},
    {Ranking::Activation, "activation", "mean abs", "Mean magnitude of what the unit passes on; S2FT by default trains the smallest."},
    {Ranking::Product, "weight times activation", "score", "Norm of the slice times mean magnitude of what passes through it."},
    {Ranking::Gradient, "gradient", "norm", "Frobenius norm of the loss gradient over the slice that S2FT would train."},
}};

/// [blocks, most units], NaN where a block has fewer. Routed experts have no row.
ReportDataset datasetOf(const Kind& kind, const Words& words, const std::vector<Pool>& pools, const Scores& scores, int numBlocks, std::int64_t samples) {
    ReportDataset dataset;
    std::int64_t width = 0;
    for (const Pool& pool : pools) width = std::max<std::int64_t>(width, pool.units);
    dataset.name = std::string(kind.component) + "/s2_" + std::string(name(words.ranking));
    dataset.kind = DatasetKind::Matrix;
    dataset.title = std::string(kind.title) + ", " + words.title;
    dataset.unit = words.unit;
    dataset.help = words.help;
    dataset.higher = Direction::Neutral;
    dataset.axes = {{"block", "block", {}}, {kind.title, kind.component, {}}};
    dataset.shape = {numBlocks, width};
    dataset.values.assign(static_cast<std::size_t>(numBlocks * width), std::numeric_limits<double>::quiet_NaN());
    for (std::size_t i = 0; i < pools.size(); ++i)
        if (pools[i].expert < 0) std::ranges::copy(scores[i], dataset.values.begin() + pools[i].block * width);
    dataset.samples = words.ranking == Ranking::Weight ? 0 : samples;
    return dataset;
}

}  // namespace

S2Measure::S2Measure() {
    constexpr double kNoBound = 1e300;
    m_info.id = "s2ft";
    m_info.title = "What S2FT chooses from";
    m_info.summary = "Scores heads, kv groups and channels by the size of their weights, by what passes through them, and by the gradient of the loss.";
    m_info.paper = "S2FT: Efficient, Scalable and Generalizable LLM Fine-tuning by Structured Sparsity, arXiv 2412.06289, 2024";
    m_info.measureParameters = {{"gradient", "Gradient", "Also run backwards for the gradient of the loss; takes three times as long.", ParameterType::Boolean, "", true,
                                 -kNoBound, kNoBound, {}, false}};
}

Report S2Measure::analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const {
    constexpr int kBatchRows = 8;
    Report report = startReport(*this, run, parameters);
    std::map<Part, std::vector<Pool>> pools;
    for (const Kind& kind : kKinds)
        if (auto list = poolsOf(run.shape(), kind.part); !list.empty()) pools[kind.part] = std::move(list);
    const auto& rows = run.data().rows;
    for (const Words& words : kRankings) {
        if (words.ranking == Ranking::Gradient && !parameters.boolean("gradient")) continue;
        std::map<Part, Scores> scores;
        try {
            scores = measureScores(run.model(), pools, words.ranking, rows, kBatchRows, 0, job);
        } catch (const Error& error) {
            if (error.code() == ErrorCode::Stopped) return report;   // what is finished stays; samplesDone says that some is missing
            throw;
        }
        for (const Kind& kind : kKinds) {
            const auto found = pools.find(kind.part);
            if (found == pools.end() || std::ranges::all_of(found->second, [](const Pool& pool) { return pool.expert >= 0; })) continue;
            report.datasets.push_back(datasetOf(kind, words, found->second, scores.at(kind.part), run.shape().numBlocks(), static_cast<std::int64_t>(rows.size())));
        }
    }
    report.samplesDone = report.samplesTotal;
    return report;
}

EditPlan S2Measure::plan(const Anatomy&, const Report&, const Parameters&) const {
    throw Error(ErrorCode::Unsupported, "s2ft", "measures only; the recipe s2ft trains what its scores choose");
}

}  // namespace resect::s2
