#pragma once
#include <span>
#include <vector>

namespace resect::ui {

/// Exponential smoothing with a half-life in units of `xs` (steps), so that the curve does not depend on how densely it is
/// sampled: after `halfLife` units an old value weighs half. NaN stays NaN at its place and does not touch its neighbours.
/// `xs` ascend. halfLife <= 0 returns the values.
std::vector<double> smoothByHalfLife(std::span<const double> xs, std::span<const double> values, double halfLife);

struct Envelope {
    std::vector<double> x, low, high;  ///< NaN in low and high where a column holds no finite value but lies between two that do
};

/// Smallest and largest finite value per column of equal width over [from, to]; empty columns at gaps become one NaN entry.
Envelope minMaxPerColumn(std::span<const double> xs, std::span<const double> values, double from, double to, int columns);

}  // namespace resect::ui
