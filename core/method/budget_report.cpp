#include "core/method/budget_report.h"

#include "core/base/error.h"
#include "core/base/numbers.h"

#include <cmath>
#include <limits>

namespace resect {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void addCurves(Report& report, const std::string& layer, const std::string& what, const std::string& size, const std::vector<LatencyCurve>& curves) {
    std::size_t most = 0;
    for (const auto& curve : curves) most = std::max(most, curve.points.size());
    if (most == 0) return;
    const auto add = [&](const std::string& name, const std::string& title, const std::string& unit, const std::string& help, auto pick) {
        ReportDataset dataset;
        dataset.name = "latency/" + layer + "_" + name;
        dataset.kind = DatasetKind::Matrix;
        dataset.title = title;
        dataset.unit = unit;
        dataset.help = help;
        dataset.axes = {{"block", "block", {}}, {"size", "", {}}};
        dataset.shape = {static_cast<std::int64_t>(curves.size()), static_cast<std::int64_t>(most)};
        for (const auto& curve : curves)
            for (std::size_t i = 0; i < most; ++i) dataset.values.push_back(i < curve.points.size() ? pick(curve.points[i]) : kNaN);
        report.datasets.push_back(std::move(dataset));
    };
    if (what == "decode")
        add("size", "Sizes at which the " + layer + " layers were timed", size, "One column per timed size, ascending.", [](const auto& point) { return point.first; });
    add(what + "_seconds", "Time of the " + layer + " layers (" + what + ")", "s", "Measured on this machine, one row at a time, at the sizes beside it.",
        [](const auto& point) { return point.second; });
}

std::vector<LatencyCurve> curvesOf(const Report& report, const std::string& layer, const std::string& what, std::size_t blocks) {
    std::vector<LatencyCurve> curves(blocks);
    const ReportDataset* sizes = report.find("latency/" + layer + "_size");
    const ReportDataset* seconds = report.find("latency/" + layer + "_" + what + "_seconds");
    if (!sizes || !seconds || sizes->shape != seconds->shape || sizes->shape.at(0) != static_cast<std::int64_t>(blocks)) return curves;
    for (std::int64_t block = 0; block < sizes->shape[0]; ++block)
        for (std::int64_t i = 0; i < sizes->shape[1]; ++i)
            if (!std::isnan(sizes->at({block, i}))) curves[static_cast<std::size_t>(block)].points.emplace_back(sizes->at({block, i}), seconds->at({block, i}));
    return curves;
}

LatencyTable tableOf(const Report& report, const std::string& what, std::size_t blocks) {
    const ReportDataset* fixed = report.find("latency/fixed");
    if (!fixed) throw Error(ErrorCode::NotFound, "measurement of " + report.method, "it holds no latencies; measure with --set latency=true");
    return {static_cast<int>(fixed->at({1})), fixed->at({0}), curvesOf(report, "attention", what, blocks), curvesOf(report, "ffn", what, blocks)};
}

double kvElementBytes(const Report& report) { return report.dtype == "f64" ? 8 : report.dtype == "f32" ? 4 : 2; }

}  // namespace

void addLatencies(Report& report, const Latencies& latencies) {
    addCurves(report, "attention", "decode", "heads", latencies.decode.attention);
    addCurves(report, "attention", "prefill", "heads", latencies.prefill.attention);
    addCurves(report, "ffn", "decode", "channels", latencies.decode.ffn);
    addCurves(report, "ffn", "prefill", "channels", latencies.prefill.ffn);
    ReportDataset fixed;
    fixed.name = "latency/fixed";
    fixed.kind = DatasetKind::Bars;
    fixed.title = "Time of embedding and head, and the context that was timed";
    fixed.unit = "s; tokens";
    fixed.help = "Two numbers: seconds of embedding, final norm and head for one token; tokens of context that all times were taken at.";
    fixed.axes = {{"number", "", {}}};
    fixed.shape = {2};
    fixed.values = {latencies.decode.fixed, static_cast<double>(latencies.decode.context)};
    report.datasets.push_back(std::move(fixed));
}

std::vector<ParameterInfo> budgetParameters(const std::string& noBudget, const std::string& noBudgetHelp) {
    return {
        {"budget", "Budget", noBudgetHelp + " Otherwise the cheapest cut after which no more than the budget is left: parameters, stored bytes, KV cache per token, FLOPs per token, or time (estimated from layers that were timed on this machine).",
         ParameterType::Choice, "", noBudget, -1e300, 1e300, {noBudget, "parameters", "bytes", "kv_bytes", "flops", "latency", "prefill_latency"}, false},
        {"limit", "What may stay", "In the budget's unit: parameters, bytes, bytes per token, FLOPs per token, seconds per token, seconds; 0 = the share says it.", ParameterType::Real, "", 0.0, 0, 1e300, {}, true},
        {"context", "Context for FLOPs", "Positions that a token attends to when FLOPs are counted.", ParameterType::Integer, "tokens", 1024, 1, 1e7, {}, true},
    };
}

BudgetTarget::BudgetTarget(const Anatomy& anatomy, const Report& report, const Parameters& parameters) : m_shape(anatomy.shape()) {
    m_budget.kind = budgetKind(parameters.text("budget"), "budget");
    m_budget.context = static_cast<int>(parameters.integer("context"));
    m_budget.bytesPerElement = m_budget.kind == BudgetKind::KvBytes ? kvElementBytes(report)
                                                                    : static_cast<double>(anatomy.root().bytes) / static_cast<double>(std::max<std::int64_t>(1, anatomy.root().parameters));
    if (m_budget.kind == BudgetKind::Latency) m_budget.latency = tableOf(report, "decode", m_shape.blocks.size());
    if (m_budget.kind == BudgetKind::PrefillLatency) m_budget.latency = tableOf(report, "prefill", m_shape.blocks.size());
    m_before = m_budget.of(m_shape, m_shape.blocks);
    const double limit = parameters.real("limit");
    m_limit = limit > 0 ? limit : m_before * (1 - parameters.real("ratio"));
}

double BudgetTarget::of(const EditPlan& plan) const { return m_budget.of(m_shape, plan.edits.empty() ? m_shape.blocks : blocksAfter(m_shape, cutOf(plan, m_shape))); }

void BudgetTarget::refuse(const EditPlan& least, const std::string& why) const {
    throw Error(ErrorCode::Usage, "budget", std::string(name(m_budget.kind)) + ": " + toText(m_limit, 6) + " " + std::string(unitOf(m_budget.kind)) + " cannot be met: " + why + ", " +
                                                toText(of(least), 6) + " of " + toText(m_before, 6) + " stay");
}

Json BudgetTarget::note(const EditPlan& plan) const {
    const bool timed = m_budget.kind == BudgetKind::Latency || m_budget.kind == BudgetKind::PrefillLatency;
    return {{"kind", name(m_budget.kind)}, {"unit", unitOf(m_budget.kind)}, {"before", m_before}, {"limit", m_limit}, {"after", of(plan)},
            {"obtained", timed ? "estimated from measured layers" : "counted"}};
}

}  // namespace resect
