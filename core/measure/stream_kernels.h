#pragma once
#include <torch/types.h>

#include <cstdint>
#include <vector>

// One pass over tensors of the residual stream, with sums in double. Each has a fast CPU version for f32, f64 and bf16 and a plain one in LibTorch
// operators for everything else; tests compare the two.

namespace resect::kernels {

/// What three states of one token have to do with each other: h before the block, m after the attention add, o after the block.
struct TokenSums {
    double hh = 0, mm = 0, oo = 0;      ///< squared norms
    double hm = 0, mo = 0, ho = 0;      ///< inner products
    double mh2 = 0, om2 = 0, oh2 = 0;   ///< squared norms of the updates m - h, o - m, o - h
};
/// h, m, o [M,D] -> M sums.
std::vector<TokenSums> tokenSums(const torch::Tensor& h_MD, const torch::Tensor& m_MD, const torch::Tensor& o_MD);
std::vector<TokenSums> plainTokenSums(const torch::Tensor& h_MD, const torch::Tensor& m_MD, const torch::Tensor& o_MD);

/// Squared norm and largest magnitude of each token.
struct TokenExtent {
    double squaredNorm = 0, largest = 0;
};
std::vector<TokenExtent> tokenExtents(const torch::Tensor& x_MD);
std::vector<TokenExtent> plainTokenExtents(const torch::Tensor& x_MD);

/// Cosines between all pairs of states of each token: states P x [M,D] -> f64 [M, P(P-1)/2], pair (i, j), i < j, at i(2P-i-1)/2 + j-i-1.
/// NaN where one of the two is zero or not finite. One small Gram matrix per token; the states are not copied.
torch::Tensor pairCosines(const std::vector<torch::Tensor>& states);
torch::Tensor plainPairCosines(const std::vector<torch::Tensor>& states);

/// Adds sum x, sum |x| and sum x^2 of each column over tokens [begin, end) of x_TC to f64 [C] tensors on the CPU.
void addColumnSums(const torch::Tensor& x_TC, std::int64_t begin, std::int64_t end, torch::Tensor& sums_C, torch::Tensor& absolute_C, torch::Tensor& squares_C);

}  // namespace resect::kernels
