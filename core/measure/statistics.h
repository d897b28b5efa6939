#pragma once
#include <cstdint>
#include <span>

namespace resect {

/// A mean with the standard error of it. Both NaN when there is nothing to average; the error is NaN for a single row.
struct MeanError {
    double mean, error;
};

/// The mean over all tokens of all rows, from the sum and the token count of each row. Tokens of one row depend on each other, so the standard
/// error treats rows as the independent samples: sqrt(n/(n-1) sum_r (s_r - mean c_r)^2) / sum_r c_r (ratio estimator). Rows of count 0 do not count.
MeanError clusteredMean(std::span<const double> sums, std::span<const double> counts);

/// The same from running totals, for quantities with too many units to keep every row.
struct ClusterTotals {
    double sum = 0, sumSquares = 0, sumTimesCount = 0;   ///< over rows: s, s^2, s c
    void add(double rowSum, double rowCount) noexcept {
        sum += rowSum;
        sumSquares += rowSum * rowSum;
        sumTimesCount += rowSum * rowCount;
    }
};
struct ClusterCounts {
    double rows = 0, count = 0, countSquares = 0;        ///< over rows: 1, c, c^2
    void add(double rowCount) noexcept {
        rows += 1;
        count += rowCount;
        countSquares += rowCount * rowCount;
    }
};
MeanError clusteredMean(const ClusterTotals& totals, const ClusterCounts& counts);

/// A share of `total` with Wilson's 95 % score interval (E. B. Wilson, 1927), which stays within [0, 1] and is of use near its ends. NaN when total is 0.
struct Proportion {
    std::int64_t right = 0, total = 0;
    double share = 0, low = 0, high = 0;
};
Proportion proportion(std::int64_t right, std::int64_t total);

/// Half the width of the 95 % interval of a mean, in standard errors: Student's t for `rows` - 1 degrees of freedom, 1.96 for many rows.
double halfWidth95(std::int64_t rows);

/// Rank correlations of two lists of equal length, in [-1, 1]; NaN below 2 entries or when one list is constant. Pairs with a NaN are left out.
/// Spearman's rho, ties at their mean rank.
double spearman(std::span<const double> a, std::span<const double> b);
/// Kendall's tau-b in O(n log n) (Knight 1966).
double kendall(std::span<const double> a, std::span<const double> b);

}  // namespace resect
