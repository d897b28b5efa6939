// A whole method in one file: it looks at the residual stream before and after every block, says how much longer each block makes it, and proposes to drop
// the blocks that hardly change its length.
#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/measure/statistics.h"
#include "core/method/method.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace {

using namespace resect;

/// Sums of log(length after / length before) over the real tokens of each row. Everything that flows past is shown batch by batch; nothing may be changed.
class Growth final : public ModelRun::BatchObserver {
public:
    explicit Growth(const ModelRun& run) : m_run(run), m_totals(run.shape().blocks.size()), m_counts(run.shape().blocks.size()) {}
    bool wants(TapPoint point, int) const override { return point == TapPoint::BlockInput || point == TapPoint::BlockOutput; }
    void observe(TapPoint point, int block, const torch::Tensor& x_BTD) override {
        const auto length_BT = x_BTD.to(torch::kFloat64).norm(2, -1).log().to(torch::kCPU);
        if (point == TapPoint::BlockInput) {
            m_before_BT = length_BT;
            return;
        }
        const auto growth_BT = length_BT - m_before_BT;
        const auto spans = m_run.rowSpans(m_batch);   // where padding is not
        for (std::size_t b = 0; b < spans.size(); ++b) {
            const auto count = spans[b].end - spans[b].begin;
            const double sum = growth_BT[static_cast<std::int64_t>(b)].narrow(0, spans[b].begin, count).sum().item<double>();
            m_totals[static_cast<std::size_t>(block)].add(sum, static_cast<double>(count));
            m_counts[static_cast<std::size_t>(block)].add(static_cast<double>(count));
        }
    }
    /// Mean over tokens, with its standard error over rows.
    MeanError of(std::size_t block) const { return clusteredMean(m_totals[block], m_counts[block]); }

private:
    const ModelRun& m_run;
    std::vector<ClusterTotals> m_totals;
    std::vector<ClusterCounts> m_counts;
    torch::Tensor m_before_BT;
};

class StreamGrowth final : public Method {
public:
    StreamGrowth() {
        m_info.id = "stream-growth";
        m_info.title = "Growth of the residual stream";
        m_info.summary = "Shows how much longer every block makes the residual stream, and drops those that hardly change its length.";
        m_info.paper = "An example of a plugin, not a published method";
        // The form in the window, --set on the command line and the checks of values all come from these lines.
        m_info.planParameters = {{"count", "How many", "Number of blocks to drop.", ParameterType::Integer, "blocks", 1, 0, 10000, {}, false}};
    }
    const MethodInfo& info() const noexcept override { return m_info; }

    Report analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const override {
        Report report = startReport(*this, run, parameters);
        Growth growth(run);
        report.samplesDone = static_cast<std::int64_t>(run.run(&growth, {}, job));   // reports progress, ends early when the job is stopped
        ReportDataset dataset;
        dataset.name = "growth/block";
        dataset.kind = DatasetKind::Bars;
        dataset.title = "Growth of the residual stream";
        dataset.unit = "log ratio";
        dataset.help = "Mean of log(length after the block / length before it); near 0 means that the length stays.";
        dataset.axes = {{"block", "block", {}}};   // the second "block" makes a bar select the block
        dataset.shape = {run.shape().numBlocks()};
        dataset.samples = report.samplesDone;
        for (int block = 0; block < run.shape().numBlocks(); ++block) {
            const MeanError mean = growth.of(static_cast<std::size_t>(block));
            dataset.values.push_back(mean.mean);
            dataset.errors.push_back(mean.error);
        }
        report.datasets.push_back(std::move(dataset));
        return report;
    }

    EditPlan plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const override {
        const std::vector<double>& growth = report.dataset("growth/block").values;
        const auto count = static_cast<std::size_t>(parameters.integer("count"));
        if (static_cast<int>(growth.size()) != anatomy.shape().numBlocks()) throw Error(ErrorCode::Mismatch, "measurement", "is of a model with another number of blocks");
        if (count >= growth.size()) throw Error(ErrorCode::Usage, "count", "expected less than the " + std::to_string(growth.size()) + " blocks of the model, found " + std::to_string(count));
        std::vector<int> order(growth.size());
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return std::abs(growth[static_cast<std::size_t>(a)]) < std::abs(growth[static_cast<std::size_t>(b)]); });
        order.resize(count);
        std::sort(order.begin(), order.end());
        EditPlan plan;
        plan.fingerprint = report.modelFingerprint;
        if (!order.empty()) plan.edits.push_back(dropBlocks(order));
        return plan;
    }

private:
    MethodInfo m_info;
};

}  // namespace

// What a plugin exports: the version of the interface that it was built with, asked first, and its methods.
extern "C" int resectPluginAbi() { return kPluginAbi; }
extern "C" void resectRegister(MethodRegistry& registry) { registry.add(std::make_unique<StreamGrowth>()); }
