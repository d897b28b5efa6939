#pragma once
#include <gtest/gtest.h>
#include <torch/types.h>

namespace resect::test {

/// Largest absolute difference; infinite when shapes differ or an entry is not finite.
inline double distance(const torch::Tensor& a, const torch::Tensor& b) {
    if (!a.defined() || !b.defined() || a.sizes() != b.sizes()) {
        return std::numeric_limits<double>::infinity();
    }
    if (a.numel() == 0) {
        return 0;
    }
    const auto difference = (a.detach().to(torch::kFloat64) - b.detach().to(torch::kFloat64)).abs().max().item<double>();
    return std::isfinite(difference) ? difference : std::numeric_limits<double>::infinity();
}

/// Largest absolute difference over the largest entry of `expected`.
inline double relativeDistance(const torch::Tensor& actual, const torch::Tensor& expected) {
    const double size = expected.detach().abs().max().item<double>();
    return distance(actual, expected) / std::max(size, 1e-12);
}

}  // namespace resect::test

#define EXPECT_TENSOR_NEAR(actual, expected, tolerance) \
    EXPECT_LE(::resect::test::distance(actual, expected), tolerance) << #actual " against " #expected
#define EXPECT_TENSOR_CLOSE(actual, expected, tolerance) \
    EXPECT_LE(::resect::test::relativeDistance(actual, expected), tolerance) << #actual " against " #expected
