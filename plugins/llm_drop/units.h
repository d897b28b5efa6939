#pragma once
#include "core/surgery/edit_plan.h"

#include <set>
#include <string>
#include <vector>

namespace resect {

/// What LLM-Drop drops.
enum class DropKind { Block, Attention, Mlp };
const char* unitName(DropKind kind);                        ///< "block", "attention", "mlp": dataset names
std::vector<DropKind> dropKindsOf(const std::string& target);   ///< "block", "attn", "mlp", "joint" = attention, then MLP

struct DropUnit {
    DropKind kind = DropKind::Block;
    int block = 0;
    bool operator==(const DropUnit&) const = default;
};

/// Something that can be dropped, and its score: low goes first.
struct Candidate {
    DropUnit unit;
    double score = 0;
};

bool exists(const BlockShape& shape, DropKind kind);
/// Of the kinds that exist, are not protected and have a score; attention before MLP, then lower blocks first, which settles ties.
void sortByScore(std::vector<Candidate>& candidates);

/// One entry per kind, blocks ascending.
EditPlan planOf(const std::vector<DropUnit>& units);
void drop(Cut& cut, const DropUnit& unit);

/// A unit as one number, as reserved_layers.json counts: attention (or block) i, MLP L + i.
int unitNumber(const DropUnit& unit, int numBlocks);
DropUnit unitOf(int number, int numBlocks, const std::string& target);

}  // namespace resect
