#pragma once
#include <initializer_list>
#include <span>
#include <vector>

namespace resect {

/// A set of indices as a sorted vector: a plan may name a million channels, and every legality check builds their union.
class IndexSet {
public:
    IndexSet() = default;
    IndexSet(std::initializer_list<int> indices) : IndexSet(std::span<const int>(indices.begin(), indices.size())) {}
    explicit IndexSet(std::span<const int> indices) { insert(indices); }

    void insert(int index) { insert(std::span<const int>(&index, 1)); }
    void insert(std::span<const int> indices);  ///< in any order, repeats allowed; linear when they ascend
    void insert(const IndexSet& other);
    void insertRange(int begin, int end);  ///< begin .. end - 1
    bool contains(int index) const noexcept;
    std::size_t count(int index) const noexcept { return contains(index) ? 1 : 0; }
    std::size_t size() const noexcept { return m_indices.size(); }
    bool empty() const noexcept { return m_indices.empty(); }
    void clear() noexcept { m_indices.clear(); }
    auto begin() const noexcept { return m_indices.begin(); }  ///< ascending
    auto end() const noexcept { return m_indices.end(); }
    const std::vector<int>& values() const noexcept { return m_indices; }
    bool operator==(const IndexSet&) const = default;

private:
    std::vector<int> m_indices;
};

}  // namespace resect
