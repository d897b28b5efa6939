#pragma once
#include "core/base/problem.h"
#include "core/protocol/json.h"
#include "core/protocol/messages.h"

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// What a view draws a dataset as.
enum class DatasetKind { Bars, Matrix, Curve, Histogram, Tokens, Scatter };
/// What a high value means for surgery.
enum class Direction { Keep, Removable, Neutral };
std::string_view name(DatasetKind kind) noexcept;    ///< "bars", "matrix", "curve", "histogram", "tokens", "scatter"
std::string_view name(Direction direction) noexcept; ///< "keep", "removable", "neutral"
/// The inverse; throws BadInput with `subject` on another word.
DatasetKind datasetKind(std::string_view text, const std::string& subject);
Direction direction(std::string_view text, const std::string& subject);

/// One axis of a dataset. A component axis names what its entries are, so that selecting a cell selects a component.
struct DatasetAxis {
    std::string name;                 ///< "block", "head", "span length"
    std::string component;            ///< "block", "attention", "ffn", "head", "kv_group", "channel", "expert", or "" when it is none
    std::vector<std::int64_t> ids;    ///< component ids (or plain numbers) along the axis; empty = 0..n-1
};

/// A self-describing array of results. Row-major; NaN = no value.
struct ReportDataset {
    std::string name;                 ///< HDF5 path: "similarity/block"
    DatasetKind kind = DatasetKind::Bars;
    std::string title, unit, help;    ///< help: one plain sentence that explains the score
    Direction higher = Direction::Neutral;
    std::vector<DatasetAxis> axes;    ///< one per dimension
    std::vector<std::int64_t> shape;
    std::vector<double> values;
    std::vector<double> errors;       ///< standard errors, same shape; empty = none
    std::int64_t samples = 0;         ///< rows (sequences) behind it
    /// Smallest and largest finite value; NaN when there is none.
    double minimum() const noexcept;
    double maximum() const noexcept;
    /// Throws Internal when an index leaves the shape.
    double at(std::initializer_list<std::int64_t> index) const;
};

/// The result of a measurement. Written as one HDF5 file (see workspace/report_file.h) and as JSON.
struct Report {
    std::string method;               ///< "llm-drop"
    Json parameters;
    std::string modelFingerprint, dataFingerprint, dataDescription;
    std::string dtype;                ///< the model ran in: "f32", "bf16", ...; "" when it did not run
    std::uint64_t seed = 0;
    std::string version;              ///< of Resect
    std::int64_t samplesDone = 0, samplesTotal = 0;   ///< done < total: stopped early, partial
    std::vector<ReportDataset> datasets;
    std::vector<Problem> notes;       ///< warnings that belong to the result
    bool partial() const noexcept { return samplesDone < samplesTotal; }
    const ReportDataset* find(std::string_view name) const noexcept;
    /// Throws NotFound listing what there is.
    const ReportDataset& dataset(std::string_view name) const;
};

Json toJson(const Report& report);
/// Throws BadInput naming dataset and field: unknown words, a shape that does not fit the values or the axes.
Report reportFromJson(const Json& json, const std::string& subject);

/// The wire form of a dataset without its values.
protocol::DatasetMessage toMessage(const ReportDataset& dataset);
/// The wire form of a report; `file`, `created` and `cached` stay empty.
protocol::MeasureMessage toMessage(const Report& report);
protocol::ProblemMessage toMessage(const Problem& problem);

/// Throws BadInput with `subject` when values, errors, shape and axes of the dataset do not fit each other.
void checkDataset(const ReportDataset& dataset, const std::string& subject);

}  // namespace resect
