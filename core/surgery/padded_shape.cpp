#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/surgery/slice_plan.h"

#include <algorithm>

namespace resect {

namespace {

/// Group count and group size that every block of the padded shape gets.
struct HeadSizes {
    int groups = 1, headsPerGroup = 1;
    int heads() const noexcept { return groups * headsPerGroup; }
};

/// Does the stock class of the family build attention of this many heads from the configuration?
bool stockAccepts(const Family& family, const ModelShape& source, int headDim, int heads) {
    if (family.needsHiddenDivisibleByHeads && source.hiddenSize % heads != 0) return false;
    return family.stockReadsHeadDim || std::int64_t{headDim} * heads == source.hiddenSize;
}

HeadSizes largestKept(const ModelShape& after) {
    HeadSizes sizes;
    for (const BlockShape& block : after.blocks) {
        sizes.groups = std::max(sizes.groups, block.numKvHeads);
        for (int heads : block.headsPerKv) sizes.headsPerGroup = std::max(sizes.headsPerGroup, heads);
    }
    return sizes;
}

/// The cheapest sizes that hold `least` and that stock classes accept; `least` when the source itself has none.
HeadSizes acceptedSizes(const ModelShape& source, const HeadSizes& least) {
    const Family& family = *findFamily(source.modelType);
    const HeadSizes most = largestKept(source);
    const int headDim = source.blocks.front().headDim;
    HeadSizes best = least;
    int cheapest = 0;
    for (int groups = least.groups; groups <= std::max(most.groups, least.groups); ++groups)
        for (int perGroup = least.headsPerGroup; perGroup <= std::max(most.headsPerGroup, least.headsPerGroup); ++perGroup) {
            const int cost = groups * (perGroup + 1);  // q and o rows per head, k and v rows per group
            if ((cheapest != 0 && cost >= cheapest) || !stockAccepts(family, source, headDim, groups * perGroup)) continue;
            cheapest = cost;
            best = {groups, perGroup};
        }
    return best;
}

}  // namespace

ModelShape paddedShape(const ModelShape& source, const ModelShape& after) {
    const HeadSizes heads = acceptedSizes(source, largestKept(after));
    int channels = 0, experts = 0;
    for (std::size_t b = 0; b < after.blocks.size(); ++b) {
        const BlockShape& block = after.blocks[b];
        channels = std::max(channels, block.ffnSize);
        if (block.hasFfn && experts != 0 && block.numExperts != experts)
            throw Error(ErrorCode::Unsupported, "block " + toText(static_cast<std::int64_t>(b)),
                        "it keeps " + toText(std::int64_t{block.numExperts}) + " experts, an earlier block " +
                            toText(std::int64_t{experts}) +
                            "; a padded expert could be chosen by the router, so every block must keep as many");
        if (block.hasFfn) experts = block.numExperts;
    }
    int sourceExperts = 0;
    for (const BlockShape& block : source.blocks) sourceExperts = std::max(sourceExperts, block.numExperts);
    if (experts == 0) experts = sourceExperts;
    constexpr int kSmallestMlp = 256;
    if (channels == 0)
        for (const BlockShape& block : source.blocks) channels = std::max(channels, std::min(block.ffnSize, kSmallestMlp));

    ModelShape result = after;
    for (BlockShape& block : result.blocks) {
        block.hasAttention = block.hasFfn = true;
        block.numKvHeads = heads.groups;
        block.numHeads = heads.heads();
        block.headsPerKv.assign(static_cast<std::size_t>(heads.groups), heads.headsPerGroup);
        block.ffnSize = channels;
        block.numExperts = experts;
    }
    return result;
}

}  // namespace resect
