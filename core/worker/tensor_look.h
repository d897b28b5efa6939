#pragma once
#include "core/base/job.h"
#include "core/checkpoint/checkpoint.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace resect {

class OpenedCheckpoint;

/// What the numbers of one stored tensor look like. Values that are not finite count as such and go into nothing else.
struct TensorLook {
    std::int64_t count = 0, zeros = 0, nonFinite = 0;
    double minimum = 0, maximum = 0, mean = 0, deviation = 0;   ///< NaN when no value is finite
    /// Equal bins from `low` to `high`: all values, or those within 5 deviations of the mean with the rest in `below` and `above`.
    double low = 0, high = 0;
    std::vector<std::int64_t> bins;
    std::int64_t below = 0, above = 0;
    /// Mean |value| of rectangles of the tensor as a matrix [product of the other axes, last axis], row-major; NaN where none is finite.
    std::int64_t rows = 0, columns = 0;                         ///< of the tensor as that matrix
    std::vector<std::int64_t> cellRows, cellColumns;            ///< the first row (column) of each cell
    std::vector<double> cells;
};

/// Reads the tensor twice in pieces; memory does not grow with it. At most `mostCells` cells along each axis.
/// Throws NotFound, Stopped.
TensorLook lookAtTensor(const Checkpoint& checkpoint, const std::string& name, int mostCells, const JobContext& job);
Json toJson(const TensorLook& look);

/// The tensors of a checkpoint in an order of the user's, given out in parts. Keeps the last order, since a table asks for one part after another.
class TensorList {
public:
    /// args: filter (words that name, dtype or file must all hold, case does not matter), sort ("name", "dtype", "elements", "bytes", "file"),
    /// descending, offset, count. Answer: {total, rows}.
    Json rows(const std::shared_ptr<OpenedCheckpoint>& opened, const Json& args);

private:
    std::weak_ptr<OpenedCheckpoint> m_of;
    std::string m_key;
    std::vector<std::uint32_t> m_order;
};

}  // namespace resect
