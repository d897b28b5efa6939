#include "core/measure/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace resect {

namespace {
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
}

MeanError clusteredMean(std::span<const double> sums, std::span<const double> counts) {
    double sum = 0, count = 0, rows = 0;
    for (std::size_t r = 0; r < sums.size(); ++r) {
        if (counts[r] <= 0) continue;
        sum += sums[r];
        count += counts[r];
        rows += 1;
    }
    if (count <= 0) return {kNaN, kNaN};
    const double mean = sum / count;
    double squares = 0;
    for (std::size_t r = 0; r < sums.size(); ++r) {
        if (counts[r] <= 0) continue;
        const double deviation = sums[r] - mean * counts[r];
        squares += deviation * deviation;
    }
    return {mean, rows > 1 ? std::sqrt(rows / (rows - 1) * squares) / count : kNaN};
}

MeanError clusteredMean(const ClusterTotals& totals, const ClusterCounts& counts) {
    if (counts.count <= 0) return {kNaN, kNaN};
    const double mean = totals.sum / counts.count;
    const double squares = totals.sumSquares - 2 * mean * totals.sumTimesCount + mean * mean * counts.countSquares;
    return {mean, counts.rows > 1 ? std::sqrt(counts.rows / (counts.rows - 1) * std::max(0.0, squares)) / counts.count : kNaN};
}

Proportion proportion(std::int64_t right, std::int64_t total) {
    if (total <= 0) return {right, total, kNaN, kNaN, kNaN};
    constexpr double z = 1.959964;
    const double n = static_cast<double>(total), p = static_cast<double>(right) / n;
    const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
    const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    return {right, total, p, std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

double halfWidth95(std::int64_t rows) {
    static constexpr std::array<double, 10> kStudent{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228};
    const std::int64_t freedom = rows - 1;
    if (freedom < 1) return kNaN;
    if (freedom <= static_cast<std::int64_t>(kStudent.size())) return kStudent[static_cast<std::size_t>(freedom - 1)];
    const double z = 1.959964, n = static_cast<double>(freedom);  // Cornish-Fisher; within 0.003 from 11 on
    return z + (std::pow(z, 3) + z) / (4 * n) + (5 * std::pow(z, 5) + 16 * std::pow(z, 3) + 3 * z) / (96 * n * n);
}

}  // namespace resect
