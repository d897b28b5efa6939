#include "plugins/importance/importance_method.h"

#include "core/measure/statistics.h"

#include <algorithm>
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

/// Of each block; NaN where either was not measured.
std::vector<double> byBlock(const ReportDataset& a, const ReportDataset& b, double (*correlation)(std::span<const double>, std::span<const double>)) {
    const auto blocks = static_cast<std::size_t>(a.shape[0]), width = a.values.size() / std::max<std::size_t>(1, blocks);
    std::vector<double> correlations;
    for (std::size_t block = 0; block < blocks; ++block)
        correlations.push_back(correlation(std::span(a.values).subspan(block * width, width), std::span(b.values).subspan(block * width, width)));
    return correlations;
}

double meanOverBlocks(const ReportDataset& a, const ReportDataset& b, double (*correlation)(std::span<const double>, std::span<const double>)) {
    double sum = 0, count = 0;
    for (const double one : byBlock(a, b, correlation))
        if (one == one) sum += one, count += 1;
    return count > 0 ? sum / count : std::numeric_limits<double>::quiet_NaN();
}

/// How well each criterion foretells what leaving a unit out does, block by block.
void addAgreementWithLoss(std::vector<ReportDataset>& matrices, const std::string& kind, const std::vector<const ReportDataset*>& criteria, const std::string& names) {
    const auto loo = std::find_if(criteria.begin(), criteria.end(), [&](const auto* one) { return one->name == kind + "/loo"; });
    if (loo == criteria.end()) return;
    ReportDataset dataset;
    dataset.name = "agreement/" + kind + "_with_loo";
    dataset.kind = DatasetKind::Matrix;
    dataset.title = "Agreement with leaving out, " + kind;
    dataset.unit = "rank correlation";
    dataset.help = "Spearman's rho between each criterion and the rise of the loss without the unit, block by block. Criteria: " + names + ".";
    dataset.axes = {{"block", "block", {}}, {"criterion", "", {}}};
    dataset.shape = {(*loo)->shape[0], static_cast<std::int64_t>(criteria.size())};
    dataset.values.resize(static_cast<std::size_t>(dataset.shape[0] * dataset.shape[1]));
    for (std::size_t i = 0; i < criteria.size(); ++i) {
        const auto rho = byBlock(*criteria[i], **loo, spearman);
        for (std::size_t block = 0; block < rho.size(); ++block) dataset.values[block * criteria.size() + i] = rho[block];
    }
    dataset.samples = (*loo)->samples;
    matrices.push_back(std::move(dataset));
}

}  // namespace

void addAgreement(Report& report) {
    std::vector<ReportDataset> matrices;
    for (const std::string kind : {"head", "kv_group", "channel", "expert_channel", "expert"}) {
        const auto criteria = criteriaOf(report, kind);
        if (criteria.size() < 2) continue;
        std::string names;
        for (std::size_t i = 0; i < criteria.size(); ++i) names += (i ? ", " : "") + std::to_string(i) + " " + criteria[i]->name.substr(kind.size() + 1);
        addAgreementWithLoss(matrices, kind, criteria, names);
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
