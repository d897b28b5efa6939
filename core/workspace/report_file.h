#pragma once
#include "core/method/report.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace resect {

/// One HDF5 file per measurement, readable by h5dump, HDFView and h5py alike:
///
/// - the file: `resect_report` = 1, `method`, `parameters` (JSON text), `model_fingerprint`, `data_fingerprint`, `data` (description), `dtype`, `seed`,
///   `version`, `samples_done`, `samples_total`, `partial` ("n of N" when stopped early, else ""), `notes` (JSON text);
/// - each dataset (f64, row-major, NaN = no value) under its name: `kind`, `title`, `unit`, `help`, `higher`, `axes` (name of each axis), `components`
///   (component kind of each axis, "" = none), `ids_K` (ids along axis K where they are not 0..n-1), `samples`, `partial`, `minimum`, `maximum` (of the
///   finite values, NaN when there is none) and, where there are standard errors, `standard_errors`: the path of a second dataset of the same shape.
///
/// Written under a temporary name, synced, renamed; never changed afterwards. The same report gives the same bytes.
/// Throws BadInput (the report contradicts itself), DiskFull, NoPermission.
void writeReport(const std::filesystem::path& file, const Report& report);
/// Throws NotFound, Corrupt (no HDF5 file, truncated), BadInput naming file and dataset.
Report readReport(const std::filesystem::path& file);
/// Everything but the values (values and errors stay empty).
Report readReportHeader(const std::filesystem::path& file);
/// What a list of measurements shows of a file, read without the values; `created` is the file's time of writing, `cached` false.
protocol::MeasureMessage describeReport(const std::filesystem::path& file);

/// A rectangle of one dataset.
struct ReportRectangle {
    std::vector<std::int64_t> shape;
    std::vector<double> values, errors;   ///< row-major; errors empty = none
};
/// Reads only the rectangle `first`..`first + count` of a dataset. Throws as readReport, NotFound when there is no such dataset,
/// Usage when the rectangle leaves it or has more than `limit` values.
ReportRectangle readRectangle(const std::filesystem::path& file, const std::string& dataset, const std::vector<std::int64_t>& first,
                              const std::vector<std::int64_t>& count, std::int64_t limit = 4'000'000);

}  // namespace resect
