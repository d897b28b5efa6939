#include "core/measure/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

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

namespace {

using Pairs = std::vector<std::pair<double, double>>;

Pairs pairsOf(std::span<const double> a, std::span<const double> b) {
    Pairs pairs;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
        if (!std::isnan(a[i]) && !std::isnan(b[i])) pairs.emplace_back(a[i], b[i]);
    return pairs;
}

/// Ranks from 0, equal values at the mean of theirs.
std::vector<double> meanRanks(const std::vector<double>& values) {
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) { return values[x] < values[y]; });
    std::vector<double> ranks(values.size());
    for (std::size_t first = 0; first < order.size();) {
        std::size_t last = first;
        while (last < order.size() && values[order[last]] == values[order[first]]) ++last;
        for (std::size_t i = first; i < last; ++i) ranks[order[i]] = static_cast<double>(first + last - 1) / 2;
        first = last;
    }
    return ranks;
}

/// Pairs of equal neighbours in a sorted sequence.
template <class Same> double tiedPairs(std::size_t size, Same same) {
    double pairs = 0;
    for (std::size_t first = 0; first < size;) {
        std::size_t last = first + 1;
        while (last < size && same(first, last)) ++last;
        const auto run = static_cast<double>(last - first);
        pairs += run * (run - 1) / 2;
        first = last;
    }
    return pairs;
}

/// Sorts ascending and counts the pairs that stood in the wrong order.
double sortCountingSwaps(std::vector<double>& values, std::vector<double>& scratch, std::size_t begin, std::size_t end) {
    if (end - begin < 2) return 0;
    const std::size_t middle = begin + (end - begin) / 2;
    double swaps = sortCountingSwaps(values, scratch, begin, middle) + sortCountingSwaps(values, scratch, middle, end);
    std::size_t left = begin, right = middle, out = begin;
    while (left < middle && right < end) {
        if (values[right] < values[left]) {
            swaps += static_cast<double>(middle - left);
            scratch[out++] = values[right++];
        } else {
            scratch[out++] = values[left++];
        }
    }
    std::copy(values.begin() + static_cast<std::ptrdiff_t>(left), values.begin() + static_cast<std::ptrdiff_t>(middle), scratch.begin() + static_cast<std::ptrdiff_t>(out));
    out += middle - left;
    std::copy(values.begin() + static_cast<std::ptrdiff_t>(right), values.begin() + static_cast<std::ptrdiff_t>(end), scratch.begin() + static_cast<std::ptrdiff_t>(out));
    std::copy(scratch.begin() + static_cast<std::ptrdiff_t>(begin), scratch.begin() + static_cast<std::ptrdiff_t>(end), values.begin() + static_cast<std::ptrdiff_t>(begin));
    return swaps;
}

}  // namespace

double spearman(std::span<const double> a, std::span<const double> b) {
    std::vector<double> x, y;
    for (const auto& [first, second] : pairsOf(a, b)) x.push_back(first), y.push_back(second);
    if (x.size() < 2) return kNaN;
    const auto rx = meanRanks(x), ry = meanRanks(y);
    const double mean = static_cast<double>(x.size() - 1) / 2;
    double xx = 0, yy = 0, xy = 0;
    for (std::size_t i = 0; i < rx.size(); ++i) {
        xx += (rx[i] - mean) * (rx[i] - mean);
        yy += (ry[i] - mean) * (ry[i] - mean);
        xy += (rx[i] - mean) * (ry[i] - mean);
    }
    return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : kNaN;
}

double kendall(std::span<const double> a, std::span<const double> b) {
    Pairs pairs = pairsOf(a, b);
    if (pairs.size() < 2) return kNaN;
    std::sort(pairs.begin(), pairs.end());
    const auto count = static_cast<double>(pairs.size());
    const double all = count * (count - 1) / 2;
    const double tiedA = tiedPairs(pairs.size(), [&](std::size_t i, std::size_t j) { return pairs[i].first == pairs[j].first; });
    const double tiedBoth = tiedPairs(pairs.size(), [&](std::size_t i, std::size_t j) { return pairs[i] == pairs[j]; });
    std::vector<double> second, scratch(pairs.size());
    for (const auto& pair : pairs) second.push_back(pair.second);
    const double discordant = sortCountingSwaps(second, scratch, 0, second.size());
    const double tiedB = tiedPairs(second.size(), [&](std::size_t i, std::size_t j) { return second[i] == second[j]; });
    const double scale = std::sqrt((all - tiedA) * (all - tiedB));
    return scale > 0 ? (all - tiedA - tiedB + tiedBoth - 2 * discordant) / scale : kNaN;
}

}  // namespace resect
