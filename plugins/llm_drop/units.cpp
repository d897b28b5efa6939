#include "plugins/llm_drop/units.h"

#include <algorithm>

namespace resect {

const char* unitName(DropKind kind) { return kind == DropKind::Block ? "block" : kind == DropKind::Attention ? "attention" : "mlp"; }

std::vector<DropKind> dropKindsOf(const std::string& target) {
    if (target == "block") return {DropKind::Block};
    if (target == "attn") return {DropKind::Attention};
    if (target == "mlp") return {DropKind::Mlp};
    return {DropKind::Attention, DropKind::Mlp};
}

bool exists(const BlockShape& shape, DropKind kind) {
    if (kind == DropKind::Attention) return shape.hasAttention;
    if (kind == DropKind::Mlp) return shape.hasFfn;
    return shape.hasAttention || shape.hasFfn;
}

void sortByScore(std::vector<Candidate>& candidates) {
    std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return a.score < b.score; });
}

EditPlan planOf(const std::vector<DropUnit>& units) {
    EditPlan plan;
    for (const DropKind kind : {DropKind::Block, DropKind::Attention, DropKind::Mlp}) {
        std::vector<int> blocks;
        for (const DropUnit& unit : units)
            if (unit.kind == kind) blocks.push_back(unit.block);
        if (blocks.empty()) continue;
        std::sort(blocks.begin(), blocks.end());
        plan.edits.push_back(kind == DropKind::Block ? dropBlocks(blocks) : kind == DropKind::Attention ? dropAttention(blocks) : dropMlp(blocks));
    }
    return plan;
}

void drop(Cut& cut, const DropUnit& unit) {
    BlockCut& block = cut.blocks.at(static_cast<std::size_t>(unit.block));
    (unit.kind == DropKind::Block ? block.block : unit.kind == DropKind::Attention ? block.attention : block.ffn) = true;
}

int unitNumber(const DropUnit& unit, int numBlocks) { return unit.block + (unit.kind == DropKind::Mlp ? numBlocks : 0); }

DropUnit unitOf(int number, int numBlocks, const std::string& target) {
    if (number >= numBlocks) return {DropKind::Mlp, number - numBlocks};
    return {target == "block" ? DropKind::Block : DropKind::Attention, number};
}

}  // namespace resect
