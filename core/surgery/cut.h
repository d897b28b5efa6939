#pragma once
#include "core/anatomy/model_shape.h"

#include <set>
#include <vector>

namespace resect {

/// What a plan removes from one block, in the source's numbering.
struct BlockCut {
    bool block = false, attention = false, ffn = false;
    std::set<int> heads;       ///< query heads
    std::set<int> kvGroups;    ///< their query heads go too
    std::set<int> channels;
    std::set<int> experts;
    bool empty() const noexcept;
    bool operator==(const BlockCut&) const = default;
};

/// The union of all edits of a plan: a set of removed components of the source. Edits only add to it, so they commute.
struct Cut {
    std::vector<BlockCut> blocks;  ///< one per source block
    bool empty() const noexcept;
    bool operator==(const Cut&) const = default;
};

/// Query heads of a block that stay, ascending: neither dropped themselves nor in a dropped kv group. Empty when the attention is dropped.
std::vector<int> keptHeads(const BlockShape& source, const BlockCut& cut);
std::vector<int> keptKvGroups(const BlockShape& source, const BlockCut& cut);  ///< a group without heads left does not stay
std::vector<int> keptChannels(const BlockShape& source, const BlockCut& cut);
std::vector<int> keptExperts(const BlockShape& source, const BlockCut& cut);
std::vector<int> keptBlocks(const Cut& cut);

/// The shape after the cut: blocks renumbered, absent layers marked absent.
ModelShape shapeAfter(const ModelShape& source, const Cut& cut);

}  // namespace resect
