#include "core/surgery/index_set.h"

#include <algorithm>
#include <numeric>

namespace resect {

void IndexSet::insert(std::span<const int> indices) {
    const auto middle = static_cast<std::ptrdiff_t>(m_indices.size());
    const bool ascends = std::is_sorted(indices.begin(), indices.end());
    const bool after = !indices.empty() && (m_indices.empty() || m_indices.back() < indices.front());
    m_indices.insert(m_indices.end(), indices.begin(), indices.end());
    if (!ascends) std::sort(m_indices.begin() + middle, m_indices.end());
    if (!ascends || !after) std::inplace_merge(m_indices.begin(), m_indices.begin() + middle, m_indices.end());
    m_indices.erase(std::unique(m_indices.begin(), m_indices.end()), m_indices.end());
}

void IndexSet::insert(const IndexSet& other) {
    if (m_indices.empty())
        m_indices = other.m_indices;
    else
        insert(std::span<const int>(other.m_indices));
}

void IndexSet::insertRange(int begin, int end) {
    if (end <= begin) return;
    std::vector<int> range(static_cast<std::size_t>(end - begin));
    std::iota(range.begin(), range.end(), begin);
    insert(range);
}

bool IndexSet::contains(int index) const noexcept { return std::binary_search(m_indices.begin(), m_indices.end(), index); }

}  // namespace resect
