#include "core/anatomy/cost.h"

#include "core/anatomy/family.h"

#include <algorithm>
#include <functional>
#include <numeric>

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
        const std::int64_t stored = expert ? block.numExperts : 1, used = expert ? std::min(shape.of(b).numExpertsPerToken, block.numExperts) : 1;
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

/// Each token of text as the language tower costs; a whole input has one picture too.
Cost costOfTowers(const ModelShape& shape, std::int64_t context) {
    Cost cost;
    std::int64_t own = 0;
    for (int tower = 0; tower < static_cast<int>(shape.towers.size()); ++tower) {
        const Cost one = costOf(towerShape(shape, tower), context);
        const double prefill = cost.prefillFlops + one.prefillFlops;
        const std::int64_t parameters = cost.parameters + one.parameters, active = cost.activeParameters + one.activeParameters;
        cost = one;
        cost.prefillFlops = prefill;
        cost.parameters = parameters;
        cost.activeParameters = active;
    }
    for (const ExpectedTensor& tensor : outerTensors(shape))
        if (tensor.tower < 0) own += std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::int64_t{1}, std::multiplies<>());
    cost.parameters += own;
    cost.activeParameters += own;
    return cost;
}

}  // namespace

Cost costOf(const ModelShape& shape, std::int64_t context) {
    if (!shape.towers.empty()) return costOfTowers(shape, context);
    context = std::max<std::int64_t>(context, 1);
    const bool picture = shape.image.has_value();
    if (picture) context = shape.image->tokens();
    const std::int64_t embedding = familyOf(shape).headless ? 0 : shape.vocabSize * shape.hiddenSize;  // of an image family the classifier
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
