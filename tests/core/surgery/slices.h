#pragma once
#include "core/surgery/slice_plan.h"
#include "tests/support/tiny_checkpoint.h"

#include <map>
#include <stdexcept>

namespace resect::test {

/// A slice plan carried out in memory: every result tensor as numbers, by its new name.
inline std::map<std::string, TinyTensor> materialised(const Checkpoint& source, const SlicePlan& plan,
                                                      std::optional<DType> dtype = {}) {
    std::map<std::string, TinyTensor> tensors;
    for (const SlicedTensor& tensor : plan.tensors) {
        const TensorSource stream = streamSlice(source, tensor, dtype.value_or(tensor.dtype));
        std::vector<std::byte> bytes;
        stream.produce([&](std::span<const std::byte> piece) { bytes.insert(bytes.end(), piece.begin(), piece.end()); });
        if (bytes.size() != stream.bytes()) throw std::logic_error(tensor.name + ": wrong number of bytes");
        tensors[tensor.name] = {stream.dtype, stream.shape, decode(bytes, stream.dtype)};
    }
    return tensors;
}

/// Rows and columns of a matrix (or entries of a vector) picked by hand; -1 = zeros, an empty list = all.
inline TinyTensor picked(const TinyTensor& from, std::vector<int> rows, std::vector<int> columns = {}) {
    const bool vector = from.shape.size() == 1;
    const int height = static_cast<int>(from.shape[0]), width = vector ? 1 : static_cast<int>(from.shape[1]);
    const auto all = [](std::vector<int>& list, int count) {
        for (int i = 0; list.empty() && i < count; ++i)
            for (int k = 0; k < count; ++k) list.push_back(k);
    };
    all(rows, height);
    all(columns, width);
    TinyTensor result{from.dtype, {static_cast<std::int64_t>(rows.size())}, {}};
    if (!vector) result.shape.push_back(static_cast<std::int64_t>(columns.size()));
    for (int r : rows)
        for (int c : columns)
            result.values.push_back(r < 0 || c < 0 ? 0 : from.values[static_cast<std::size_t>(r * width + c)]);
    return result;
}

/// Rows of whole heads: {1, -1} with headDim 3 -> 3, 4, 5, -1, -1, -1.
inline std::vector<int> rowsOf(const std::vector<int>& units, int headDim) {
    std::vector<int> rows;
    for (int unit : units)
        for (int i = 0; i < headDim; ++i) rows.push_back(unit < 0 ? -1 : unit * headDim + i);
    return rows;
}

inline std::string blockName(int block, const std::string& rest) {
    return "model.layers." + std::to_string(block) + "." + rest;
}

}  // namespace resect::test
