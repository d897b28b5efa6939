#include "plugins/router_tuning/router_method.h"

#include "core/base/error.h"
#include "core/train/run.h"
#include "plugins/router_tuning/router_files.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace resect::router {

namespace fs = std::filesystem;

namespace {

constexpr double kNoBound = 1e300;
constexpr std::array<const char*, 3> kTargetNames{"attn", "mlp", "block"};   // in the order of Target
constexpr std::int64_t kMostTokens = 512;                                   // of the row that is shown token by token

MethodInfo describe() {
    MethodInfo info;
    info.id = "router-tuning";
    info.title = "Routers: what they skip";
    info.summary = "Shows for which inputs trained routers run a layer, and drops layers that they keep closed.";
    info.paper = "Router-Tuning: A Simple and Effective Approach for Enabling Dynamic-Depth in Transformers (arXiv 2410.13184, 2024)";
    info.measureParameters = {
        {"adapter", "Routers", "Folder of trained routers, or of the run that trained them; empty: those in the checkpoint.", ParameterType::Text, "", "", -kNoBound, kNoBound, {}, false},
    };
    info.planParameters = {
        {"closed", "Closed for", "Layers are dropped that are closed for at least this share of the samples; 1 = always.", ParameterType::Real, "share", 1.0, 0.01, 1, {}, false},
    };
    return info;
}

/// The routers that are measured; takes those of an adapter off again.
class Measured {
public:
    Measured(ModelRun& run, const std::string& adapter) : m_model(run.model()) {
        m_routing = findRouting(m_model);
        if (adapter.empty()) {
            if (!m_routing) throw Error(ErrorCode::Usage, "adapter", "the checkpoint has no routers; give the folder of trained ones, or of the run that trained them");
            return;
        }
        if (m_routing) throw Error(ErrorCode::Usage, "adapter", "the checkpoint has routers of its own; measure them without an adapter, or open the checkpoint that the adapter was trained on");
        const fs::path folder = fs::exists(fs::path(adapter) / "job.json") ? runResult(adapter) : fs::path(adapter);
        if (!isRouterAdapter(folder)) throw Error(ErrorCode::NotFound, folder.string(), "expected router_config.json and routers.safetensors, found no such files");
        const auto routers = readRouterAdapter(folder);
        checkFits(routers, run.shape(), folder.string());
        m_routing = attachRouters(m_model, routers.gate, routers.weights);
        m_attached = true;
    }
    ~Measured() {
        m_routing->onDecision = {};
        m_routing->promptTokens_B = torch::Tensor();
        if (m_attached) detachRouters(m_model);
    }
    Measured(const Measured&) = delete;
    Measured& operator=(const Measured&) = delete;
    Routing& routing() { return *m_routing; }

private:
    LanguageModel& m_model;
    std::shared_ptr<Routing> m_routing;
    bool m_attached = false;
};

/// Scores and decisions of every row, as far as rows went through all blocks.
class Collector final : public ModelRun::BatchObserver {
public:
    struct Row {
        double score = 0, executed = 0, tokens = 1;   ///< means over the row's tokens
    };
    Collector(ModelRun& run, Routing& routing) : m_run(run), m_routing(routing) {
        routing.onDecision = [this](const Routing::Decision& decision) { take(decision); };
    }
    bool wants(TapPoint, int) const override { return false; }
    void observe(TapPoint, int, const torch::Tensor&) override {}
    void setBatch(std::size_t index) override {
        m_batch = index;
        m_current.clear();
        const bool looksAtPrompt = m_routing.gate.granularity == Granularity::Sequence && m_routing.gate.pool == Pool::Prompt;
        m_routing.promptTokens_B = looksAtPrompt ? promptsOf(m_run.targets(index), m_routing.gate.promptTokens) : torch::Tensor();
    }
    void batchFinished(std::size_t) override {
        for (auto& [block, rows] : m_current) std::ranges::move(rows, std::back_inserter(m_rows[block]));
        if (m_firstRow.empty()) m_firstRow = std::move(m_currentFirst);
        m_current.clear();
    }
    const std::map<int, std::vector<Row>>& rows() const { return m_rows; }
    const std::map<int, std::vector<double>>& firstRow() const { return m_firstRow; }   ///< of token routers: the scores of its tokens

private:
    void take(const Routing::Decision& decision) {
        const auto scores = decision.scores.detach().to(torch::kCPU, torch::kFloat64), gates = decision.gates.detach().to(torch::kCPU, torch::kFloat64);
        const auto spans = m_run.rowSpans(m_batch);
        auto& rows = m_current[decision.block];
        for (std::size_t b = 0; b < spans.size(); ++b) {
            auto score = scores[static_cast<std::int64_t>(b)], gate = gates[static_cast<std::int64_t>(b)];
            const std::int64_t length = spans[b].end - spans[b].begin;
            if (score.dim() == 0) {
                rows.push_back({score.item<double>(), gate.item<double>(), 1});
                continue;
            }
            score = score.narrow(0, spans[b].begin, length).contiguous();
            gate = gate.narrow(0, spans[b].begin, length);
            rows.push_back({score.mean().item<double>(), gate.mean().item<double>(), static_cast<double>(length)});
            const auto* values = score.data_ptr<double>();
            if (spans[b].row == 0) m_currentFirst[decision.block] = {values, values + std::min(length, kMostTokens)};
        }
    }

    ModelRun& m_run;
    Routing& m_routing;
    std::map<int, std::vector<Row>> m_current, m_rows;
    std::map<int, std::vector<double>> m_currentFirst, m_firstRow;
};

struct Title {
    const char *title, *unit, *help;
    Direction higher = Direction::Neutral;
};

class Writer {
public:
    Writer(Report& report, const Collector& collected, Target target) : m_report(report), m_rows(collected.rows()) {
        for (const auto& [block, rows] : m_rows) m_blocks.push_back(block);
        m_component = target == Target::Attention ? "attention" : target == Target::Mlp ? "ffn" : "block";
    }
    void bars(const std::string& name, const Title& title, const std::function<double(const std::vector<Collector::Row>&)>& of, const std::function<double(const std::vector<Collector::Row>&)>& errorOf = {}) {
        ReportDataset& dataset = add(name, title, DatasetKind::Bars);
        dataset.shape = {static_cast<std::int64_t>(m_blocks.size())};
        for (const auto& [block, rows] : m_rows) {
            dataset.values.push_back(of(rows));
            if (errorOf) dataset.errors.push_back(errorOf(rows));
        }
    }
    void matrix(const std::string& name, const Title& title, double Collector::Row::*field) {
        ReportDataset& dataset = add(name, title, DatasetKind::Matrix);
        dataset.axes.push_back({"sample", "", {}});
        dataset.shape = {static_cast<std::int64_t>(m_blocks.size()), m_report.samplesDone};
        for (const auto& [block, rows] : m_rows)
            for (const auto& row : rows) dataset.values.push_back(row.*field);
    }
    void tokens(const std::string& name, const Title& title, const std::map<int, std::vector<double>>& scores) {
        ReportDataset& dataset = add(name, title, DatasetKind::Tokens);
        dataset.samples = 1;
        dataset.axes.push_back({"token", "", {}});
        dataset.shape = {static_cast<std::int64_t>(m_blocks.size()), static_cast<std::int64_t>(scores.begin()->second.size())};
        for (const auto& [block, values] : scores) dataset.values.insert(dataset.values.end(), values.begin(), values.end());
    }

private:
    ReportDataset& add(const std::string& name, const Title& title, DatasetKind kind) {
        ReportDataset dataset;
        dataset.name = name;
        dataset.kind = kind;
        dataset.title = title.title;
        dataset.unit = title.unit;
        dataset.help = title.help;
        dataset.higher = title.higher;
        dataset.axes = {{"block", m_component, m_blocks}};
        dataset.samples = m_report.samplesDone;
        m_report.datasets.push_back(std::move(dataset));
        return m_report.datasets.back();
    }
    Report& m_report;
    const std::map<int, std::vector<Collector::Row>>& m_rows;
    std::vector<std::int64_t> m_blocks;
    std::string m_component;
};

/// Executed share over all sequences, or over all tokens.
double executedShare(const std::vector<Collector::Row>& rows) {
    double executed = 0, tokens = 0;
    for (const auto& row : rows) executed += row.executed * row.tokens, tokens += row.tokens;
    return executed / tokens;
}

double variance(const std::vector<Collector::Row>& rows) {
    double sum = 0, squares = 0;
    for (const auto& row : rows) sum += row.executed, squares += row.executed * row.executed;
    const auto n = static_cast<double>(rows.size());
    return std::max(0.0, squares / n - sum / n * (sum / n));
}

double standardError(const std::vector<Collector::Row>& rows) { return std::sqrt(variance(rows) / static_cast<double>(rows.size())); }

/// Of a coin that comes up as often as the layer runs, in bits.
double entropy(const std::vector<Collector::Row>& rows) {
    const double p = executedShare(rows);
    return p <= 0 || p >= 1 ? 0 : -(p * std::log2(p) + (1 - p) * std::log2(1 - p));
}

void noteStaticLayers(Report& report, const Collector& collected) {
    int still = 0;
    double overall = 0;
    for (const auto& [block, rows] : collected.rows()) {
        still += variance(rows) == 0;
        overall += executedShare(rows) / static_cast<double>(collected.rows().size());
    }
    char text[64];
    std::snprintf(text, sizeof text, "%.1f", 100 * overall);
    report.notes.push_back({Severity::Note, "capacity", "routed layers run for " + std::string(text) + " % of this data", ""});
    if (still > 0)
        report.notes.push_back({Severity::Note, "routers", std::to_string(still) + " of " + std::to_string(collected.rows().size()) + " decide alike for every sample of this data",
                                "Layers that are always closed can be dropped for good: plan router-tuning."});
}

}  // namespace

RouterMethod::RouterMethod() : m_info(describe()) {}

Report RouterMethod::analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const {
    if (run.streamsBlocks()) throw Error(ErrorCode::Unsupported, "router-tuning", "routers are measured on a resident model, not block by block");
    Report report = startReport(*this, run, parameters);
    Measured measured(run, parameters.text("adapter"));
    Collector collected(run, measured.routing());
    report.samplesTotal = static_cast<std::int64_t>(run.data().rows.size());
    report.samplesDone = static_cast<std::int64_t>(run.run(&collected, {}, job));
    if (report.samplesDone == 0) return report;
    const Target target = measured.routing().gate.target;
    const bool perToken = measured.routing().gate.granularity == Granularity::Token;
    Writer writer(report, collected, target);
    using Row = Collector::Row;
    writer.bars(std::string("capacity/") + kTargetNames[static_cast<std::size_t>(target)],
                {"Executed share", perToken ? "share of tokens" : "share of sequences", "How much of the data the router lets the layer run for; 0 means that it is never needed.", Direction::Keep},
                executedShare, standardError);
    writer.matrix("score/sample", {"Router's probability", "probability", "How strongly the router wants the layer for each sample; from the threshold on it runs.", Direction::Keep}, &Row::score);
    writer.matrix("decision/sample", {"Executed share of each sample", perToken ? "share of tokens" : "0 or 1", "1 where the layer runs, 0 where it is skipped.", Direction::Keep}, &Row::executed);
    writer.bars("dependence/variance", {"Variance over samples", "variance", "0 means that the router decides alike for every sample, so that dropping or keeping the layer for good is simpler."}, variance);
    writer.bars("dependence/entropy", {"Entropy of the decision", "bits", "1 means that the layer runs half of the time, 0 that it always or never does."}, entropy);
    if (!collected.firstRow().empty())
        writer.tokens("score/tokens", {"Router's probability, first sample", "probability", "How strongly the router wants the layer for each token of the first sample.", Direction::Keep}, collected.firstRow());
    noteStaticLayers(report, collected);
    return report;
}

EditPlan RouterMethod::plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const {
    const ReportDataset* capacity = nullptr;
    Target target = Target::Attention;
    for (std::size_t i = 0; i < kTargetNames.size() && !capacity; ++i) {
        capacity = report.find(std::string("capacity/") + kTargetNames[i]);
        target = static_cast<Target>(i);
    }
    if (!capacity) throw Error(ErrorCode::NotFound, "measurement", "holds no capacity/attn, capacity/mlp or capacity/block: measure router-tuning first");
    const double closed = parameters.real("closed");
    std::vector<int> blocks;
    for (std::size_t i = 0; i < capacity->values.size(); ++i) {
        const auto block = capacity->axes.at(0).ids.at(i);
        if (block < 0 || block >= anatomy.shape().numBlocks())
            throw Error(ErrorCode::Mismatch, "measurement", "has a router of block " + std::to_string(block) + ", the model has " + std::to_string(anatomy.shape().numBlocks()) + " blocks");
        if (1 - capacity->values[i] >= closed) blocks.push_back(static_cast<int>(block));
    }
    EditPlan plan;
    plan.fingerprint = report.modelFingerprint;
    if (!blocks.empty()) plan.edits.push_back(target == Target::Attention ? EditPointer(dropAttention(blocks)) : target == Target::Mlp ? EditPointer(dropMlp(blocks)) : EditPointer(dropBlocks(blocks)));
    plan.notes = Json{{"method", "router-tuning"}, {"parameters", parameters.json()}};
    return plan;
}

}  // namespace resect::router
