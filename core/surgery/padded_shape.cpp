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
bool stockAccepts(const Family& family, std::int64_t hidden, int headDim, int heads) {
    if (family.needsHiddenDivisibleByHeads && hidden % heads != 0) return false;
    return family.stockReadsHeadDim || std::int64_t{headDim} * heads == hidden;
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
HeadSizes acceptedSizes(const ModelShape& source, std::int64_t hidden, const HeadSizes& least) {
    const Family& family = familyOf(source);
    const HeadSizes most = largestKept(source);
    const int headDim = source.blocks.front().headDim;
    HeadSizes best = least;
    int cheapest = 0;
    for (int groups = least.groups; groups <= std::max(most.groups, least.groups); ++groups)
        for (int perGroup = least.headsPerGroup; perGroup <= std::max(most.headsPerGroup, least.headsPerGroup); ++perGroup) {
            const int cost = groups * (perGroup + 1);  // q and o rows per head, k and v rows per group
            if ((cheapest != 0 && cost >= cheapest) || !stockAccepts(family, hidden, headDim, groups * perGroup)) continue;
            cheapest = cost;
            best = {groups, perGroup};
        }
    return best;
}

/// The FFN that every block of one kind gets, dense or mixture.
struct FfnSizes {
    int channels = 0, experts = 0, shared = 0;
};

/// Where the shared expert is counted in routed widths: the cheapest sizes that hold both and fit.
FfnSizes countedInWidths(const FfnSizes& least) {
    FfnSizes best;
    std::int64_t cheapest = 0;
    for (int channels = least.channels; channels <= std::max(least.channels, least.shared); ++channels) {
        const int shared = (least.shared + channels - 1) / channels * channels;
        const std::int64_t cost = std::int64_t{least.experts} * channels + shared;
        if (cheapest != 0 && cost >= cheapest) continue;
        cheapest = cost;
        best = {channels, least.experts, shared};
    }
    return best;
}

FfnSizes largestFfn(const ModelShape& source, const ModelShape& after, const std::vector<int>& kept, bool mixture) {
    FfnSizes sizes;
    for (std::size_t i = 0; i < kept.size(); ++i) {
        const BlockShape& block = after.blocks[i];
        if (!block.hasFfn || (block.numExperts > 0) != mixture) continue;
        sizes.channels = std::max(sizes.channels, block.ffnSize);
        sizes.shared = std::max(sizes.shared, block.sharedFfnSize);
        if (sizes.experts != 0 && block.numExperts != sizes.experts)
            throw Error(ErrorCode::Unsupported, "block " + toText(static_cast<std::int64_t>(i)),
                        "it keeps " + toText(std::int64_t{block.numExperts}) + " experts, an earlier block " +
                            toText(std::int64_t{sizes.experts}) +
                            "; a padded expert could be chosen by the router, so every block must keep as many");
        sizes.experts = block.numExperts;
    }
    const MoeFields* moe = familyOf(source).moe;
    if (mixture && moe && moe->sharedCount && sizes.channels > 0 && sizes.shared % sizes.channels != 0) sizes = countedInWidths(sizes);
    if (sizes.channels > 0) return sizes;
    constexpr int kSmallestMlp = 256;  // none of this kind is left: layers of zeros, as small as they can be
    for (const BlockShape& block : source.blocks) {
        if (!block.hasFfn || (block.numExperts > 0) != mixture) continue;
        sizes.channels = std::max(sizes.channels, std::min(block.ffnSize, kSmallestMlp));
        sizes.experts = std::max(sizes.experts, block.numExperts);
        sizes.shared = std::max(sizes.shared, block.sharedFfnSize);
    }
    return sizes;
}

/// Is block `b` of the source a mixture? One whose FFN is absent already counts as the model's first FFN does.
bool isMixture(const ModelShape& source, int b) {
    const BlockShape& own = source.blocks[static_cast<std::size_t>(b)];
    if (own.hasFfn) return own.numExperts > 0;
    const auto first = std::find_if(source.blocks.begin(), source.blocks.end(), [](const BlockShape& block) { return block.hasFfn; });
    return first != source.blocks.end() && first->numExperts > 0;
}

}  // namespace

ModelShape paddedShape(const ModelShape& source, const Cut& cut) {
    ModelShape result = shapeAfter(source, cut);
    if (!source.towers.empty()) {
        result.blocks.clear();
        for (int tower = 0; tower < static_cast<int>(source.towers.size()); ++tower) {
            const BlockSpan span = blocksOf(source, tower);
            for (BlockShape& block : paddedShape(towerShape(source, tower), Cut{{cut.blocks.begin() + span.first, cut.blocks.begin() + span.last}, {}}).blocks) {
                block.tower = tower;
                result.blocks.push_back(std::move(block));
            }
        }
        return result;
    }
    const std::vector<int> kept = keptBlocks(cut);
    const HeadSizes heads = acceptedSizes(source, result.hiddenSize, largestKept(result));
    const FfnSizes dense = largestFfn(source, result, kept, false), mixture = largestFfn(source, result, kept, true);
    for (std::size_t i = 0; i < kept.size(); ++i) {
        BlockShape& block = result.blocks[i];
        const FfnSizes& ffn = isMixture(source, kept[i]) ? mixture : dense;
        block.hasAttention = block.hasFfn = true;
        block.numKvHeads = heads.groups;
        block.numHeads = heads.heads();
        block.headsPerKv.assign(static_cast<std::size_t>(heads.groups), heads.headsPerGroup);
        block.ffnSize = ffn.channels;
        block.numExperts = ffn.experts;
        block.sharedFfnSize = ffn.shared;
    }
    return result;
}

}  // namespace resect
