#include "core/train/batches.h"

#include "core/base/error.h"
#include "core/measure/image_batch.h"

#include <torch/types.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>

namespace resect {

namespace {

/// Document number of padding: equal to no real one, so that no token attends to it.
constexpr std::int64_t kPaddingDocument = -1;

}  // namespace

TrainBatch TrainBatch::to(torch::Device device) const { return {tokens.to(device), targets_BT.to(device), counted, realTokens}; }

namespace {

TrainBatch imageBatch(std::span<const TokenRow* const> rows) {
    TrainBatch batch;
    batch.tokens.pixels_BCHW = imagePixels(rows);
    std::vector<std::int64_t> labels;
    for (const auto* row : rows) labels.push_back(row->targets.front());
    batch.targets_BT = torch::tensor(labels, torch::kInt64).unsqueeze(1);
    batch.realTokens = std::ssize(labels);
    batch.counted = batch.realTokens - std::ranges::count(labels, kIgnoredTarget);
    return batch;
}

}  // namespace

TrainBatch makeBatch(std::span<const TokenRow* const> rows) {
    if (!rows.empty() && rows.front()->image.set) return imageBatch(rows);
    std::size_t longest = 0;
    bool unequal = false, documents = false;
    for (const auto* row : rows) {
        unequal |= longest != 0 && row->ids.size() != longest;
        longest = std::max(longest, row->ids.size());
        documents |= !row->documents.empty();
    }
    const auto B = static_cast<std::int64_t>(rows.size()), T = static_cast<std::int64_t>(longest);
    TrainBatch batch;
    batch.tokens.ids_BT = torch::zeros({B, T}, torch::kInt64);
    batch.targets_BT = torch::full({B, T}, kIgnoredTarget, torch::kInt64);
    if (unequal) batch.tokens.mask_BT = torch::zeros({B, T}, torch::kBool);
    if (documents) batch.tokens.documents_BT = torch::full({B, T}, kPaddingDocument, torch::kInt64);
    for (std::int64_t b = 0; b < B; ++b) {
        const auto& row = *rows[static_cast<std::size_t>(b)];
        const auto length = static_cast<std::int64_t>(row.ids.size());
        std::ranges::copy(row.ids, batch.tokens.ids_BT.data_ptr<std::int64_t>() + b * T);
        std::ranges::copy(row.targets, batch.targets_BT.data_ptr<std::int64_t>() + b * T);
        if (unequal) std::fill_n(batch.tokens.mask_BT.data_ptr<bool>() + b * T, length, true);
        if (documents) {
            auto* out = batch.tokens.documents_BT.data_ptr<std::int64_t>() + b * T;
            if (row.documents.empty()) std::fill_n(out, length, 0);
            else std::ranges::copy(row.documents, out);
        }
        batch.counted += length - std::ranges::count(row.targets, kIgnoredTarget);
        batch.realTokens += length;
    }
    return batch;
}

std::vector<TrainBatch> makeBatches(std::span<const TokenRow> rows, int batchRows) {
    std::vector<TrainBatch> batches;
    std::vector<const TokenRow*> group;
    for (const auto& row : rows) {
        group.push_back(&row);
        if (group.size() < static_cast<std::size_t>(batchRows)) continue;
        batches.push_back(makeBatch(group));
        group.clear();
    }
    if (!group.empty()) batches.push_back(makeBatch(group));
    return batches;
}

DataOrder::DataOrder(std::size_t numRows, std::uint64_t seed) : m_order(numRows), m_seed(seed) {
    if (numRows == 0 || numRows > std::numeric_limits<std::uint32_t>::max()) throw Error(ErrorCode::BadInput, "training data", "holds no rows, or too many");
    shuffle(0);
}

void DataOrder::shuffle(std::uint64_t epoch) {
    std::iota(m_order.begin(), m_order.end(), 0u);
    std::mt19937_64 random(mixSeed(m_seed, epoch));
    // Fisher-Yates by hand: std::shuffle differs between standard libraries.
    for (std::size_t i = m_order.size() - 1; i > 0; --i) std::swap(m_order[i], m_order[random() % (i + 1)]);
    m_epoch = epoch;
}

std::size_t DataOrder::rowAt(std::uint64_t position) {
    const auto epoch = position / m_order.size();
    if (epoch != m_epoch) shuffle(epoch);
    return m_order[position % m_order.size()];
}

std::uint64_t mixSeed(std::uint64_t a, std::uint64_t b) noexcept {
    std::uint64_t z = a + 0x9e3779b97f4a7c15u * (b + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

}  // namespace resect
