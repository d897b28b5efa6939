#include "plugins/importance/importance_method.h"

#include "core/base/error.h"
#include "core/method/budget_report.h"
#include "plugins/importance/lanes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace resect {

namespace {

constexpr std::size_t kShares = 1 << 16;   // steps between cutting nothing and all that may be cut

/// One bundle in the order in which the model loses them.
struct Step {
    std::size_t lane;
    double score;
    int units;
};

class Solver {
public:
    Solver(const Anatomy& anatomy, const Report& report, const Parameters& parameters)
        : m_anatomy(anatomy), m_report(report), m_parameters(parameters), m_rounding(static_cast<int>(parameters.integer("rounding"))) {
        const auto protectedBlocks = parameters.integers("protect");
        m_lanes = lanesOf(anatomy.shape(), report, kindsOf(parameters.text("target")), parameters.text("metric"), {protectedBlocks.begin(), protectedBlocks.end()});
        for (Lane& lane : m_lanes) {
            normalise(lane, parameters.text("normalise"));
            for (const Bundle& bundle : lane.bundles) m_units += static_cast<double>(bundle.units.size());
        }
    }
    EditPlan solve();

private:
    using Counts = std::vector<int>;
    Counts uniform(double share) const;
    Counts byCount() const;
    Counts globally(std::size_t steps, const std::vector<Step>& order) const;
    Counts isomorphic(double share);
    Counts greedily(std::size_t steps) const;
    std::vector<Step> ranked(std::optional<ComponentKind> kind = {}) const;
    std::size_t prefixFor(const std::vector<Step>& order, double units) const;
    double unitsOf(const Counts& counts) const;
    EditPlan forBudget();
    EditPlan forUnits();
    const ReportDataset& greedy(const char* name) const;
    std::size_t greedySteps() const { return static_cast<std::size_t>(greedy("block").shape.at(0)); }

    const Anatomy& m_anatomy;
    const Report& m_report;
    const Parameters& m_parameters;
    int m_rounding;
    std::vector<Lane> m_lanes;
    std::map<ComponentKind, std::vector<Step>> m_orders;
    double m_units = 0;
};

/// The same share of every lane.
Solver::Counts Solver::uniform(double share) const {
    Counts counts;
    for (const Lane& lane : m_lanes) counts.push_back(share <= 0 ? 0 : snapped(lane, share * static_cast<double>(lane.bundles.size()), m_rounding));
    return counts;
}

Solver::Counts Solver::byCount() const {
    const auto count = m_parameters.integer("count");
    Counts counts;
    for (const Lane& lane : m_lanes) {
        const auto units = static_cast<std::int64_t>(lane.bundles.size()) * lane.perCount;
        if (count >= units)
            throw Error(ErrorCode::Usage, "count", "asks for " + std::to_string(count) + " units, but a block has " + std::to_string(units) + "; at least one stays");
        if (count % lane.perCount != 0)
            throw Error(ErrorCode::Usage, "count", "expected a multiple of the " + std::to_string(lane.perCount) + (lane.kind == ComponentKind::Head ? " kv groups" : " groups of experts") +
                                                       ", so that each loses as many, found " + std::to_string(count));
        const auto bundles = count / lane.perCount;
        if (bundles > lane.most())
            throw Error(ErrorCode::Usage, "count", lane.kind == ComponentKind::Head ? "asks for all heads of a kv group; at least one stays"
                                                                                   : "leaves fewer than the " + std::to_string(lane.leastKept * lane.perCount) + " that must stay in a block");
        counts.push_back(snapped(lane, static_cast<double>(bundles), m_rounding));
    }
    return counts;
}

/// All bundles that may be cut, lowest first; ties in order of kind, block and place.
std::vector<Step> Solver::ranked(std::optional<ComponentKind> kind) const {
    std::vector<Step> order;
    for (std::size_t i = 0; i < m_lanes.size(); ++i)
        for (int n = 0; (!kind || m_lanes[i].kind == *kind) && n < m_lanes[i].most(); ++n) {
            const Bundle& bundle = m_lanes[i].bundles[static_cast<std::size_t>(n)];
            order.push_back({i, bundle.score, static_cast<int>(bundle.units.size())});
        }
    std::stable_sort(order.begin(), order.end(), [](const Step& a, const Step& b) { return a.score < b.score; });
    return order;
}

Solver::Counts Solver::globally(std::size_t steps, const std::vector<Step>& order) const {
    Counts counts(m_lanes.size(), 0);
    for (std::size_t i = 0; i < steps; ++i) ++counts[order[i].lane];
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = counts[i] == 0 ? 0 : snapped(m_lanes[i], counts[i], m_rounding);
    return counts;
}

/// Each kind ranked by itself over all blocks, and the same share of each.
Solver::Counts Solver::isomorphic(double share) {
    Counts counts(m_lanes.size(), 0);
    for (const ComponentKind kind : kindsOf(m_parameters.text("target"))) {
        auto& order = m_orders[kind];   // ranked once: a bisection asks often, and there may be millions
        if (order.empty()) order = ranked(kind);
        double units = 0;
        for (const Lane& lane : m_lanes)
            for (const Bundle& bundle : lane.bundles) units += lane.kind == kind ? static_cast<double>(bundle.units.size()) : 0;
        const Counts own = globally(prefixFor(order, share * units), order);
        for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += own[i];
    }
    return counts;
}

/// The steps after which the number of units is nearest to `units`.
std::size_t Solver::prefixFor(const std::vector<Step>& order, double units) const {
    std::size_t steps = 0;
    double cut = 0;
    while (steps < order.size() && cut + order[steps].units / 2.0 <= units) cut += order[steps++].units;
    return steps;
}

const ReportDataset& Solver::greedy(const char* name) const {
    const Json& measured = m_report.parameters;
    const std::string target = measured.value("greedy", "off"), metric = measured.value("greedy_metric", "");
    if (target == "off") throw Error(ErrorCode::NotFound, "measurement of importance", "it holds no greedy order; measure with greedy = " + m_parameters.text("target"));
    if (target != m_parameters.text("target") || metric != m_parameters.text("metric"))
        throw Error(ErrorCode::Usage, "scope", "the greedy order was measured for " + target + " by " + metric + ", asked for is " + m_parameters.text("target") + " by " + m_parameters.text("metric"));
    return m_report.dataset(std::string("greedy/") + name);
}

Solver::Counts Solver::greedily(std::size_t steps) const {
    const ReportDataset &blocks = greedy("block"), &cut = greedy("cut");
    Counts counts(m_lanes.size(), 0);
    for (std::size_t step = 0; step < steps; ++step)
        for (std::size_t i = 0; i < m_lanes.size(); ++i)
            if (m_lanes[i].block == static_cast<int>(blocks.values[step])) counts[i] = static_cast<int>(cut.values[step]);
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = counts[i] == 0 ? 0 : snapped(m_lanes[i], counts[i], m_rounding);
    return counts;
}

double Solver::unitsOf(const Counts& counts) const {
    double units = 0;
    for (std::size_t i = 0; i < counts.size(); ++i)
        for (int n = 0; n < counts[i]; ++n) units += static_cast<double>(m_lanes[i].bundles[static_cast<std::size_t>(n)].units.size());
    return units;
}

EditPlan Solver::forUnits() {
    const std::string scope = m_parameters.text("scope");
    const std::int64_t count = m_parameters.integer("count");
    const double ratio = m_parameters.real("ratio");
    if (scope == "per_block") return planOf(m_lanes, count > 0 ? byCount() : uniform(ratio));
    const double wanted = count > 0 ? static_cast<double>(count) * m_anatomy.shape().numBlocks() : ratio * m_units;
    if (scope == "global") {
        const auto order = ranked();
        return planOf(m_lanes, globally(prefixFor(order, wanted), order));
    }
    if (scope == "isomorphic") return planOf(m_lanes, isomorphic(m_units > 0 ? wanted / m_units : 0));
    const std::size_t steps = smallestThat(greedySteps(), [&](std::size_t n) { return unitsOf(greedily(n)) >= wanted; });
    if (steps > greedySteps())
        throw Error(ErrorCode::Usage, "ratio", "the greedy order was measured up to " + std::to_string(static_cast<std::int64_t>(unitsOf(greedily(greedySteps())))) + " units, asked for are " +
                                                   std::to_string(static_cast<std::int64_t>(wanted)) + "; measure with a larger greedy_ratio");
    return planOf(m_lanes, greedily(steps));
}

/// The least cut that meets the budget, by each way of sharing it out.
EditPlan Solver::forBudget() {
    const std::string scope = m_parameters.text("scope");
    const BudgetTarget target(m_anatomy, m_report, m_parameters);
    const auto order = scope == "global" ? ranked() : std::vector<Step>{};
    std::size_t most = kShares;
    std::function<Counts(std::size_t)> countsAt = [&](std::size_t n) { return uniform(static_cast<double>(n) / kShares); };
    std::string limit = "one unit stays in every layer";
    if (scope == "global") {
        most = order.size();
        countsAt = [&](std::size_t n) { return globally(n, order); };
    } else if (scope == "isomorphic") {
        countsAt = [&](std::size_t n) { return isomorphic(static_cast<double>(n) / kShares); };
    } else if (scope == "greedy") {
        most = greedySteps();
        countsAt = [&](std::size_t n) { return greedily(n); };
        limit = "the greedy order was measured this far";
    }
    const std::size_t n = smallestThat(most, [&](std::size_t step) { return target.metBy(planOf(m_lanes, countsAt(step))); });
    if (n > most) target.refuse(planOf(m_lanes, countsAt(most)), limit);
    EditPlan plan = planOf(m_lanes, countsAt(n));
    plan.notes = Json{{"budget", target.note(plan)}};
    return plan;
}

EditPlan Solver::solve() {
    EditPlan plan = m_parameters.text("budget") == "units" ? forUnits() : forBudget();
    plan.fingerprint = m_report.modelFingerprint;
    Json notes{{"method", "importance"}, {"parameters", m_parameters.json()}};
    if (plan.notes.is_object()) notes.update(plan.notes);
    plan.notes = std::move(notes);
    return plan;
}

}  // namespace

EditPlan planImportance(const Anatomy& anatomy, const Report& report, const Parameters& parameters) { return Solver(anatomy, report, parameters).solve(); }

}  // namespace resect
