#pragma once
#include "core/base/problem.h"
#include "core/protocol/json.h"

#include <cstdint>
#include <string>
#include <vector>

namespace resect {

/// What a view draws a dataset as.
enum class DatasetKind { Bars, Matrix, Curve, Histogram, Tokens, Scatter };
/// What a high value means for surgery.
enum class Direction { Keep, Removable, Neutral };

/// One axis of a dataset. A component axis names what its entries are, so that selecting a cell selects a component.
struct DatasetAxis {
    std::string name;                 ///< "block", "head", "span length"
    std::string component;            ///< "block", "attention", "ffn", "head", "kv_group", "channel", "expert", or "" when it is none
    std::vector<std::int64_t> ids;    ///< component ids along the axis; empty = 0..n-1
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
    double at(std::initializer_list<std::int64_t> index) const;
};

/// The result of a measurement. Written as one HDF5 file (see workspace/report_file.h) and as JSON.
struct Report {
    std::string method;               ///< "llm-drop"
    Json parameters;
    std::string modelFingerprint, dataFingerprint, dataDescription;
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
Report reportFromJson(const Json& json, const std::string& subject);

}  // namespace resect
