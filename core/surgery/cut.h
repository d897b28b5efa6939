#pragma once
#include "core/anatomy/model_shape.h"
#include "core/surgery/index_set.h"

#include <map>
#include <vector>

namespace resect {

/// What a plan removes from one block, in the source's numbering.
struct BlockCut {
    bool block = false, attention = false, ffn = false;
    IndexSet heads{};     ///< query heads
    IndexSet kvGroups{};  ///< their query heads go too
    IndexSet channels{};  ///< of a dense MLP
    IndexSet experts{};
    std::map<int, IndexSet> expertChannels{};  ///< by expert of a mixture
    IndexSet sharedChannels{};                 ///< of its shared expert
    bool empty() const noexcept;
    bool operator==(const BlockCut&) const = default;
};

/// The union of all edits of a plan: a set of removed components of the source. Edits only add to it, so they commute.
struct Cut {
    std::vector<BlockCut> blocks;  ///< one per source block
    IndexSet hidden{};             ///< hidden channels: of the residual stream, and so of every tensor that reads or writes it
    bool empty() const noexcept;
    bool operator==(const Cut&) const = default;
};

/// A cut that removes nothing.
Cut emptyCut(const ModelShape& source);

/// The kv group that a query head belongs to, and the query heads [first, first + count) of a group. Heads are numbered group
/// by group.
int groupOfHead(const BlockShape& block, int head);
int firstHeadOfGroup(const BlockShape& block, int group);

/// Query heads of a block that stay, ascending: neither dropped themselves nor in a dropped kv group. Empty when the attention
/// is dropped.
std::vector<int> keptHeads(const BlockShape& source, const BlockCut& cut);
std::vector<int> keptKvGroups(const BlockShape& source, const BlockCut& cut);  ///< a group without heads left does not stay
/// Of a dense MLP, or of one expert of a mixture.
std::vector<int> keptChannels(const BlockShape& source, const BlockCut& cut, int expert = -1);
/// Their number alone, without listing them. Of a mixture: the most that a remaining expert keeps, as the others are filled up with zeros.
int numKeptChannels(const BlockShape& source, const BlockCut& cut);
std::vector<int> keptSharedChannels(const BlockShape& source, const BlockCut& cut);
std::vector<int> keptHidden(const ModelShape& source, const Cut& cut);
std::vector<int> keptExperts(const BlockShape& source, const BlockCut& cut);
std::vector<int> keptBlocks(const Cut& cut);

/// The shape after the cut: blocks renumbered, absent layers marked absent (their counts 0; headDim and slidingWindow stay). A
/// layer without heads or channels left counts as absent. Without hidden channels the epsilon of the norms grows as they get narrower.
ModelShape shapeAfter(const ModelShape& source, const Cut& cut);

}  // namespace resect
