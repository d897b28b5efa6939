#include "core/anatomy/cost.h"

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

Count attentionCount(const ModelShape& shape, const BlockShape& block) {
    if (!block.hasAttention) return {};
    const std::int64_t d = shape.hiddenSize, q = std::int64_t{block.numHeads} * block.headDim, kv = std::int64_t{block.numKvHeads} * block.headDim;
    Count count;
    count.matrix = 2 * d * q + 2 * d * kv;
    count.all = count.matrix + d;
    if (shape.qkvBias) count.all += q + 2 * kv;
    if (shape.outputBias) count.all += d;
    if (shape.qkNorm) count.all += 2 * std::int64_t{block.headDim};
    count.active = count.all;
    return count;
}

Count ffnCount(const ModelShape& shape, const BlockShape& block) {
    if (!block.hasFfn) return {};
    const std::int64_t d = shape.hiddenSize, f = block.ffnSize, expert = 3 * d * f;
    Count count;
    if (block.numExperts > 0) {
        const std::int64_t chosen = std::min(shape.numExpertsPerToken, block.numExperts);
        const std::int64_t shared = 3 * d * std::int64_t{block.sharedFfnSize}, router = d * std::int64_t{block.numExperts};
        count.matrix = chosen * expert + shared + router;
        count.all = block.numExperts * expert + shared + router + d;
        count.active = count.matrix + d;
        return count;
    }
    count.matrix = expert;
    count.all = expert + d + (shape.mlpBias ? 2 * f + d : 0);
    count.active = count.all;
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
    const std::int64_t embedding = shape.vocabSize * shape.hiddenSize;
    Count total{embedding + shape.hiddenSize, embedding + shape.hiddenSize, 0};
    if (!shape.tiedEmbeddings) {
        total.all += embedding;
        total.active += embedding;
    }
    Cost cost;
    double decodeScores = 0, prefillScores = 0;
    for (const BlockShape& block : shape.blocks) {
        total += attentionCount(shape, block);
        total += ffnCount(shape, block);
        if (block.hasAttention) cost.kvElementsPerToken += 2 * std::int64_t{block.numKvHeads} * block.headDim;
        decodeScores += scoreFlops(block, seenByOne(block, context));
        prefillScores += scoreFlops(block, seenByAll(block, context));
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
    for (const BlockShape& block : shape.blocks) counts.push_back(attentionCount(shape, block).all + ffnCount(shape, block).all);
    return counts;
}

}  // namespace resect
