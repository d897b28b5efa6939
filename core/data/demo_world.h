#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// Random numbers that are the same on every platform (SplitMix64, Steele et al. 2014); the distributions of <random> are not.
class DemoRandom {
public:
    explicit DemoRandom(std::uint64_t seed) : m_state(seed) {}
    std::uint64_t next() noexcept;
    /// Uniform in [0, count); count > 0.
    std::size_t below(std::size_t count) noexcept;
    int between(int low, int high) noexcept { return low + static_cast<int>(below(static_cast<std::size_t>(high - low + 1))); }
    template <class List>
    const auto& pick(const List& list) {
        return list[below(std::size(list))];
    }
    template <class List>
    void shuffle(List& list) {
        for (std::size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[below(i)]);
    }

private:
    std::uint64_t m_state;
};

struct DemoTown {
    std::string name, river, region, product;
};

struct DemoPerson {
    std::string name;
    bool female = false;
    std::size_t town = 0;  ///< index into DemoWorld::towns
    std::string trade, pet, houseColour, food;
    std::string he() const { return female ? "she" : "he"; }
    std::string him() const { return female ? "her" : "him"; }
    std::string his() const { return female ? "her" : "his"; }
};

/// One fact: the sentences that state it all end with its value and a full stop.
struct DemoFact {
    std::vector<std::string> beginnings;  ///< "Mara lives in", "Where does Mara live? In", ...
    std::string value;                    ///< "Tarn"
    std::size_t heldOut = 0;              ///< the beginning that never occurs in the training text
};

/// A thing that breaks and the trade that mends it.
struct DemoThing {
    std::string_view name, trade;
};

/// The invented world that the demo's stories and facts agree on.
struct DemoWorld {
    std::vector<DemoTown> towns;
    std::vector<DemoPerson> people;
    std::vector<DemoFact> facts;

    static DemoWorld make(std::uint64_t seed);
    static const std::vector<DemoThing>& things();
    static const std::vector<std::string_view>& foods();
    /// Somebody of this trade.
    const DemoPerson& tradesman(std::string_view trade, DemoRandom& random) const;
};

}  // namespace resect
