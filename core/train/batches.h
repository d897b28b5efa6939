#pragma once
#include "core/data/dataset.h"
#include "core/models/model.h"

#include <torch/types.h>

#include <cstdint>
#include <span>
#include <vector>

namespace resect {

/// Rows put together for one forward pass, on the CPU.
struct TrainBatch {
    TokenBatch tokens;             ///< rows of unequal length are right-padded and masked
    torch::Tensor targets_BT;      ///< int64, kIgnoredTarget where no loss is taken; of images [B,1], the label
    std::int64_t counted = 0;      ///< positions with a target
    std::int64_t realTokens = 0;   ///< without padding; of images the images
    TrainBatch to(torch::Device device) const;
};

/// All rows are text, or all are images.
TrainBatch makeBatch(std::span<const TokenRow* const> rows);
/// The rows in order, `batchRows` at a time.
std::vector<TrainBatch> makeBatches(std::span<const TokenRow> rows, int batchRows);

/// Which row comes when: every epoch is a permutation of all rows that depends on the seed and the epoch alone, so a position is all
/// that a resumed run needs to know.
class DataOrder {
public:
    DataOrder(std::size_t numRows, std::uint64_t seed);
    /// The row at a position of the endless sequence of epochs.
    std::size_t rowAt(std::uint64_t position);

private:
    void shuffle(std::uint64_t epoch);
    std::vector<std::uint32_t> m_order;
    std::uint64_t m_seed, m_epoch = 0;
};

/// Mixes numbers into one seed (SplitMix64), for random streams that depend on what is computed and not on what ran before.
std::uint64_t mixSeed(std::uint64_t a, std::uint64_t b) noexcept;

}  // namespace resect
