#include "core/surgery/cut.h"

#include <algorithm>
#include <numeric>

namespace resect {

namespace {

std::vector<int> remaining(int count, const IndexSet& removed) {
    std::vector<int> kept;
    kept.reserve(static_cast<std::size_t>(std::max(0, count)));
    auto next = removed.begin();
    for (int i = 0; i < count; ++i) {
        while (next != removed.end() && *next < i) ++next;
        if (next == removed.end() || *next != i) kept.push_back(i);
    }
    return kept;
}

BlockShape blockAfter(const BlockShape& source, const BlockCut& cut) {
    BlockShape result = source;
    result.headsPerKv.clear();
    int group = -1;
    for (int head : keptHeads(source, cut)) {
        const int owner = groupOfHead(source, head);
        if (owner != group) result.headsPerKv.push_back(0);
        group = owner;
        ++result.headsPerKv.back();
    }
    result.numKvHeads = static_cast<int>(result.headsPerKv.size());
    result.numHeads = std::accumulate(result.headsPerKv.begin(), result.headsPerKv.end(), 0);
    result.hasAttention = result.numHeads > 0;

    result.ffnSize = numKeptChannels(source, cut);
    result.numExperts = static_cast<int>(keptExperts(source, cut).size());
    result.hasFfn = result.ffnSize > 0 && (source.numExperts == 0 || result.numExperts > 0);
    result.sharedFfnSize = static_cast<int>(keptSharedChannels(source, cut).size());
    if (!result.hasFfn) result.ffnSize = result.numExperts = result.sharedFfnSize = 0;
    return result;
}

}  // namespace

bool BlockCut::empty() const noexcept {
    return !block && !attention && !ffn && heads.empty() && kvGroups.empty() && channels.empty() && experts.empty() && sharedChannels.empty() &&
           std::all_of(expertChannels.begin(), expertChannels.end(), [](const auto& entry) { return entry.second.empty(); });
}

bool Cut::empty() const noexcept {
    return hidden.empty() && std::all_of(blocks.begin(), blocks.end(), [](const BlockCut& block) { return block.empty(); });
}

Cut emptyCut(const ModelShape& source) { return Cut{std::vector<BlockCut>(source.blocks.size()), {}}; }

int groupOfHead(const BlockShape& block, int head) {
    int group = 0;
    for (int end = 0; group < static_cast<int>(block.headsPerKv.size()); ++group) {
        end += block.headsPerKv[static_cast<std::size_t>(group)];
        if (head < end) break;
    }
    return group;
}

int firstHeadOfGroup(const BlockShape& block, int group) {
    return std::accumulate(block.headsPerKv.begin(), block.headsPerKv.begin() + group, 0);
}

std::vector<int> keptHeads(const BlockShape& source, const BlockCut& cut) {
    if (cut.block || cut.attention || !source.hasAttention) return {};
    std::vector<int> kept = remaining(source.numHeads, cut.heads);
    if (!cut.kvGroups.empty()) std::erase_if(kept, [&](int head) { return cut.kvGroups.contains(groupOfHead(source, head)); });
    return kept;
}

std::vector<int> keptKvGroups(const BlockShape& source, const BlockCut& cut) {
    std::vector<int> kept;
    for (int head : keptHeads(source, cut)) {
        const int group = groupOfHead(source, head);
        if (kept.empty() || kept.back() != group) kept.push_back(group);
    }
    return kept;
}

std::vector<int> keptChannels(const BlockShape& source, const BlockCut& cut, int expert) {
    if (cut.block || cut.ffn || !source.hasFfn) return {};
    if (expert < 0) return remaining(source.ffnSize, cut.channels);
    const auto own = cut.expertChannels.find(expert);
    return remaining(source.ffnSize, own == cut.expertChannels.end() ? IndexSet() : own->second);
}

int numKeptChannels(const BlockShape& source, const BlockCut& cut) {
    if (cut.block || cut.ffn || !source.hasFfn) return 0;
    const auto left = [&](const IndexSet& removed) {
        const auto [first, last] = std::pair{std::lower_bound(removed.begin(), removed.end(), 0),
                                             std::lower_bound(removed.begin(), removed.end(), source.ffnSize)};
        return source.ffnSize - static_cast<int>(last - first);
    };
    if (source.numExperts == 0) return left(cut.channels);
    if (cut.expertChannels.empty()) return source.ffnSize;
    int most = 0;
    for (const int expert : keptExperts(source, cut)) {
        const auto own = cut.expertChannels.find(expert);
        most = std::max(most, own == cut.expertChannels.end() ? source.ffnSize : left(own->second));
    }
    return most;
}

std::vector<int> keptExperts(const BlockShape& source, const BlockCut& cut) {
    if (cut.block || cut.ffn || !source.hasFfn) return {};
    return remaining(source.numExperts, cut.experts);
}

std::vector<int> keptSharedChannels(const BlockShape& source, const BlockCut& cut) {
    if (cut.block || cut.ffn || !source.hasFfn) return {};
    return remaining(source.sharedFfnSize, cut.sharedChannels);
}

std::vector<int> keptHidden(const ModelShape& source, const Cut& cut) { return remaining(static_cast<int>(source.hiddenSize), cut.hidden); }

std::vector<int> keptBlocks(const Cut& cut) {
    std::vector<int> kept;
    for (std::size_t b = 0; b < cut.blocks.size(); ++b)
        if (!cut.blocks[b].block) kept.push_back(static_cast<int>(b));
    return kept;
}

ModelShape shapeAfter(const ModelShape& source, const Cut& cut) {
    ModelShape result = source;
    result.blocks.clear();
    for (int b : keptBlocks(cut)) {
        const auto i = static_cast<std::size_t>(b);
        result.blocks.push_back(blockAfter(source.blocks[i], cut.blocks[i]));
    }
    if (!cut.hidden.empty()) {
        result.hiddenSize = static_cast<std::int64_t>(keptHidden(source, cut).size());
        result.normEps = source.normEps * static_cast<double>(source.hiddenSize) / static_cast<double>(std::max<std::int64_t>(result.hiddenSize, 1));
    }
    for (int& end : result.link.featureBlocks) {  // the pictures' features still leave the same block
        const auto kept = keptBlocks(cut);
        end = static_cast<int>(std::lower_bound(kept.begin(), kept.end(), end) - kept.begin());
    }
    return result;
}

}  // namespace resect
