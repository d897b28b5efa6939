#pragma once
#include "core/anatomy/model_shape.h"

#include <cstdint>
#include <vector>

namespace resect {

/// What a shape costs, summed over the actual sizes of every block (formulas: arXiv 2305.02440 and standard derivations; 1 multiply-add = 2 FLOPs).
/// Softmax, norms and rotation are left out of the FLOPs.
struct Cost {
    std::int64_t parameters = 0;         ///< a tied embedding counts once
    std::int64_t activeParameters = 0;   ///< per token: top-k experts only
    std::int64_t kvElementsPerToken = 0; ///< 2 x sum over attention layers of numKvHeads x headDim
    double linearFlopsPerToken = 0;      ///< 2 x active matrix parameters, head included, embedding look-up not
    double prefillFlops = 0;             ///< `context` tokens from an empty cache, logits of the last position only
    double decodeFlops = 0;              ///< one token with `context` - 1 cached, so that it attends to `context` positions
};

/// `context` tokens, >= 1. A sliding window bounds the scores. Of an image family the tokens of one picture count instead: prefill is one
/// picture without its patch projection, and nothing is cached.
Cost costOf(const ModelShape& shape, std::int64_t context);
/// Of each block; embedding, final norm and head are not in it.
std::vector<std::int64_t> blockParameters(const ModelShape& shape);

}  // namespace resect
