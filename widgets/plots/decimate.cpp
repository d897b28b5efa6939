#include "widgets/plots/decimate.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace resect::ui {

std::vector<double> smoothByHalfLife(std::span<const double> xs, std::span<const double> values, double halfLife) {
    std::vector<double> smoothed(values.begin(), values.end());
    if (halfLife <= 0) return smoothed;
    double sum = 0, weight = 0, last = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (!std::isfinite(values[i])) continue;
        const double decay = weight > 0 ? std::exp2(-(xs[i] - last) / halfLife) : 0.0;
        // The weight of a new value grows with the distance that it stands for, so that thinning the series changes little.
        const double fresh = weight > 0 ? 1.0 - decay : 1.0;
        sum = sum * decay + values[i] * fresh;
        weight = weight * decay + fresh;
        last = xs[i];
        smoothed[i] = weight > 0 ? sum / weight : values[i];
    }
    return smoothed;
}

Envelope minMaxPerColumn(std::span<const double> xs, std::span<const double> values, double from, double to, int columns) {
    Envelope envelope;
    if (columns <= 0 || !(to > from)) return envelope;
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    const double width = (to - from) / columns;
    const auto begin = std::size_t(std::lower_bound(xs.begin(), xs.end(), from) - xs.begin());
    bool gap = false;
    for (std::size_t i = begin; i < xs.size() && xs[i] <= to;) {
        const int column = std::min(columns - 1, int((xs[i] - from) / width));
        const double end = column == columns - 1 ? to : from + (column + 1) * width;
        double low = kNone, high = kNone;
        const std::size_t first = i;
        for (; i < xs.size() && (xs[i] < end || (column == columns - 1 && xs[i] <= to) || i == first); ++i) {
            if (!std::isfinite(values[i])) continue;
            low = std::isnan(low) ? values[i] : std::min(low, values[i]);
            high = std::isnan(high) ? values[i] : std::max(high, values[i]);
        }
        if (std::isnan(low)) {
            gap = !envelope.x.empty();
            continue;
        }
        const double x = (xs[first] + xs[i - 1]) / 2;
        if (gap) {
            envelope.x.push_back(xs[first]);
            envelope.low.push_back(kNone);
            envelope.high.push_back(kNone);
            gap = false;
        }
        envelope.x.push_back(x);
        envelope.low.push_back(low);
        envelope.high.push_back(high);
    }
    return envelope;
}

}  // namespace resect::ui
