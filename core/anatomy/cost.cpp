#include "core/anatomy/cost.h"

#include "core/anatomy/family.h"

#include <algorithm>

namespace resect {

namespace {

/// Parameters of a part, and those of them that take part in a matrix product for each token.
struct Count {
    std::int64_t all = 0, active = 0, matrix = 0;
    Count& operator+=(const Count& other) {
        all += other.all;
        active += other.active;
        matrix += other.matrix;
        return *this;
    }
};

/// From the tensors that the block is made of, so that only the tables of the family decide.
Count blockCount(const ModelShape& shape, int b) {
    const BlockShape& block = shape.blocks[static_cast<std::size_t>(b)];
    Count count;
    for (const ExpectedTensor& tensor : blockTensors(shape, b)) {
        std::int64_t elements = 1;
        for (const std::int64_t length : tensor.shape) elements *= length;
        const bool expert = isExpertRole(tensor.role), matrix = !isNormRole(tensor.role) && !isBiasRole(tensor.role);
        const std::int64_t stored = expert ? block.numExperts : 1, used = expert ? std::min(shape.numExpertsPerToken, block.numExperts) : 1;
        count += {stored * elements, used * elements, matrix ? used * elements : 0};
    }
    return count;
}

/// Products of scores and values: `attended` = positions seen, summed over the new tokens.
double scoreFlops(const BlockShape& block, double attended) { return block.hasAttention ? 4.0 * block.numHeads * block.headDim * attended : 0; }

double seenByOne(const BlockShape& block, std::int64_t context) {
    return static_cast<double>(block.slidingWindow > 0 ? std::min<std::int64_t>(context, block.slidingWindow) : context);
}
/// Sum over i = 1..context of what token i sees.
double seenByAll(const BlockShape& block, std::int64_t context) {
    const double window = seenByOne(block, context);
    return window * (window + 1) / 2 + (static_cast<double>(context) - window) * window;
}

}  // namespace

Cost costOf(const ModelShape& shape, std::int64_t context) {
    context = std::max<std::int64_t>(context, 1);
    const bool picture = shape.image.has_value();
    if (picture) context = shape.image->tokens();
    const std::int64_t embedding = shape.vocabSize * shape.hiddenSize;  // of an image family the classifier
    std::int64_t outer = 0;
    for (const ExpectedTensor& tensor : outerTensors(shape)) {
        std::int64_t elements = 1;
        for (const std::int64_t length : tensor.shape) elements *= length;
        outer += elements;
    }
    Count total{outer, outer, 0};
    Cost cost;
    double decodeScores = 0, prefillScores = 0;
    for (int b = 0; b < shape.numBlocks(); ++b) {
        const BlockShape& block = shape.blocks[static_cast<std::size_t>(b)];
        total += blockCount(shape, b);
        if (block.hasAttention && !picture) cost.kvElementsPerToken += 2 * std::int64_t{block.numKvHeads} * block.headDim;
        decodeScores += scoreFlops(block, seenByOne(block, context));
        prefillScores += scoreFlops(block, picture ? double(context) * double(context) : seenByAll(block, context));
    }
    const double head = 2.0 * static_cast<double>(embedding), blocks = 2.0 * static_cast<double>(total.matrix);
    cost.parameters = total.all;
    cost.activeParameters = total.active;
    cost.linearFlopsPerToken = blocks + head;
    cost.prefillFlops = blocks * static_cast<double>(context) + head + prefillScores;
    cost.decodeFlops = cost.linearFlopsPerToken + decodeScores;
    return cost;
}

std::vector<std::int64_t> blockParameters(const ModelShape& shape) {
    std::vector<std::int64_t> counts;
    for (int b = 0; b < shape.numBlocks(); ++b) counts.push_back(blockCount(shape, b).all);
    return counts;
}

}  // namespace resect
