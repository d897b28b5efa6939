#pragma once
#include "core/anatomy/model_shape.h"

#include <string>

namespace resect::test {

struct ShapeSizes {
    int numBlocks = 5, hiddenSize = 48, numKvHeads = 2, headsPerKv = 3, headDim = 10, ffnSize = 43, numExperts = 0;
};

/// A stock shape of a family, without a checkpoint.
inline ModelShape stockShape(const std::string& family = "llama", const ShapeSizes& sizes = {}) {
    ModelShape shape;
    shape.modelType = family;
    shape.vocabSize = 61;
    shape.hiddenSize = sizes.hiddenSize;
    shape.maxPositions = 128;
    shape.activation = "silu";
    BlockShape block;
    block.numKvHeads = sizes.numKvHeads;
    block.numHeads = sizes.numKvHeads * sizes.headsPerKv;
    block.headDim = sizes.headDim;
    block.headsPerKv.assign(static_cast<std::size_t>(sizes.numKvHeads), sizes.headsPerKv);
    block.ffnSize = sizes.ffnSize;
    block.numExperts = sizes.numExperts;
    shape.blocks.assign(static_cast<std::size_t>(sizes.numBlocks), block);
    return shape;
}

}  // namespace resect::test
