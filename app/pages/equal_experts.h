#pragma once
#include "widgets/models/document.h"

#include <functional>

namespace resect::ui {

/// So many experts of the other blocks that every block keeps as many as the one that loses most to the plan and `picked`: stock runtimes read
/// one number of experts for all blocks. Within a block the lowest `score` goes first; experts in `refused` or without a finite score are not
/// proposed. Empty when nothing is picked.
RefSet equalProposal(const Document& document, const RefSet& picked, const RefSet& refused, const std::function<double(const ComponentRef&)>& score);

/// Least and most experts that a block would keep after the plan and dropping `picked`; blocks without experts do not count.
struct ExpertsLeft {
    int least = 0, most = 0;
};
ExpertsLeft expertsLeft(const Document& document, const RefSet& picked);

/// Which experts of a selection were picked by the user and which the lock added, kept up to date as the selection changes.
class EqualCountLock {
public:
    using Score = std::function<double(const ComponentRef&)>;
    /// The selection that should stand instead of `refs`; `refs` itself when it needs no addition or holds other parts than experts.
    RefSet extended(const Document& document, const RefSet& refs, const Score& score);
    const RefSet& proposed() const noexcept { return m_proposed; }
    void reset() { *this = {}; }

private:
    RefSet m_picked, m_proposed, m_refused, m_last;
};

}  // namespace resect::ui
