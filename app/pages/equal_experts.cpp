#include "app/pages/equal_experts.h"

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

/// Experts of a block that neither the plan nor `picked` takes; empty for a block whose MLP goes as a whole.
std::vector<ComponentRef> remaining(const Document& document, const protocol::BlockMessage& block, const RefSet& picked) {
    std::vector<ComponentRef> left;
    for (const ComponentRef& expert : partsOfBlock(*document.model(), PartKind::Expert, block.index))
        if (!document.isDropped(expert) && !contains(picked, expert)) left.push_back(expert);
    return left;
}

bool hasExperts(const Document& document, const protocol::BlockMessage& block) {
    return block.hasFfn && block.numExperts > 0 && !document.isDropped(mlpRef(block.index));
}

RefSet common(const RefSet& a, const RefSet& b) { return subtracted(a, subtracted(a, b)); }

}  // namespace

ExpertsLeft expertsLeft(const Document& document, const RefSet& picked) {
    ExpertsLeft left;
    bool first = true;
    if (!document.model()) return left;
    for (const auto& block : document.model()->blocks) {
        if (!hasExperts(document, block)) continue;
        const int count = int(remaining(document, block, picked).size());
        left.least = first ? count : std::min(left.least, count);
        left.most = first ? count : std::max(left.most, count);
        first = false;
    }
    return left;
}

RefSet equalProposal(const Document& document, const RefSet& picked, const RefSet& refused, const std::function<double(const ComponentRef&)>& score) {
    RefSet proposal;
    if (picked.empty() || !document.model()) return proposal;
    const int target = expertsLeft(document, picked).least;
    for (const auto& block : document.model()->blocks) {
        if (!hasExperts(document, block)) continue;
        auto left = remaining(document, block, picked);
        const int surplus = int(left.size()) - target;
        std::erase_if(left, [&](const ComponentRef& expert) { return contains(refused, expert) || !std::isfinite(score(expert)); });
        std::stable_sort(left.begin(), left.end(), [&](const ComponentRef& a, const ComponentRef& b) { return score(a) < score(b); });
        left.resize(std::min(left.size(), std::size_t(std::max(0, surplus))));
        proposal.insert(proposal.end(), left.begin(), left.end());
    }
    return normalised(std::move(proposal));
}

RefSet EqualCountLock::extended(const Document& document, const RefSet& refs, const Score& score) {
    if (refs == m_last) return refs;
    const bool experts = std::all_of(refs.begin(), refs.end(), [](const ComponentRef& ref) { return ref.kind == PartKind::Expert; });
    if (refs.empty() || !experts) {
        reset();
        return refs;
    }
    const RefSet added = subtracted(refs, m_last), removed = subtracted(m_last, refs), stillPicked = common(m_picked, refs);
    const bool onlyProposalsLeft = !m_proposed.empty() && refs == m_proposed;
    const bool replaced = stillPicked.empty() || refs.size() == 1 || (m_proposed.size() > 1 && common(m_proposed, refs).empty());
    if (onlyProposalsLeft) {  // what they were proposed for is gone
        reset();
        return {};
    }
    m_refused = replaced ? RefSet() : subtracted(united(m_refused, common(removed, m_proposed)), added);
    m_picked = replaced ? refs : united(stillPicked, added);
    m_proposed = equalProposal(document, m_picked, m_refused, score);
    return m_last = united(m_picked, m_proposed);
}

}  // namespace resect::ui
