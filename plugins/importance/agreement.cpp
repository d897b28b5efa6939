#include "plugins/importance/importance_method.h"

#include "core/measure/statistics.h"

#include <limits>
#include <span>

namespace resect {

namespace {

/// The datasets of one kind that score its units.
std::vector<const ReportDataset*> criteriaOf(const Report& report, const std::string& kind) {
    std::vector<const ReportDataset*> found;
    for (const auto& dataset : report.datasets)
        if (dataset.name.starts_with(kind + "/") && dataset.higher == Direction::Keep && (found.empty() || dataset.shape == found.front()->shape)) found.push_back(&dataset);
    return found;
}

double meanOverBlocks(const ReportDataset& a, const ReportDataset& b, double (*correlation)(std::span<const double>, std::span<const double>)) {
    const auto blocks = static_cast<std::size_t>(a.shape[0]), width = a.values.size() / std::max<std::size_t>(1, blocks);
    double sum = 0, count = 0;
    for (std::size_t block = 0; block < blocks; ++block) {
        const double one = correlation(std::span(a.values).subspan(block * width, width), std::span(b.values).subspan(block * width, width));
        if (one == one) sum += one, count += 1;
    }
    return count > 0 ? sum / count : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

void addAgreement(Report& report) {
    std::vector<ReportDataset> matrices;
    for (const std::string kind : {"head", "kv_group", "channel", "expert_channel", "expert"}) {
        const auto criteria = criteriaOf(report, kind);
        if (criteria.size() < 2) continue;
        std::string names;
        for (std::size_t i = 0; i < criteria.size(); ++i) names += (i ? ", " : "") + std::to_string(i) + " " + criteria[i]->name.substr(kind.size() + 1);
        for (const bool rho : {true, false}) {
            ReportDataset dataset;
            dataset.name = "agreement/" + kind + (rho ? "_spearman" : "_kendall");
            dataset.kind = DatasetKind::Matrix;
            dataset.title = "Agreement of the criteria on " + kind + (rho ? " ranks (Spearman's rho)" : " ranks (Kendall's tau-b)");
            dataset.unit = "rank correlation";
            dataset.help = "Mean over blocks of the rank correlation between two criteria; 1 means the same order. Criteria: " + names + ".";
            dataset.axes = {{"criterion", "", {}}, {"other criterion", "", {}}};
            dataset.shape = {static_cast<std::int64_t>(criteria.size()), static_cast<std::int64_t>(criteria.size())};
            for (const auto* a : criteria)
                for (const auto* b : criteria) dataset.values.push_back(meanOverBlocks(*a, *b, rho ? spearman : kendall));
            dataset.samples = report.samplesDone;
            matrices.push_back(std::move(dataset));
        }
    }
    for (auto& matrix : matrices) report.datasets.push_back(std::move(matrix));
}

}  // namespace resect
