#pragma once
#include "core/method/report.h"

#include <filesystem>

namespace resect {

/// Self-describing HDF5: datasets under their names with attributes kind, title, unit, higher, axes, components, samples, partial;
/// file attributes method, parameters, model_fingerprint, data_fingerprint, seed, version. Written under a temporary name, then renamed.
void writeReport(const std::filesystem::path& file, const Report& report);
/// Throws NotFound, Corrupt, BadInput naming file and dataset.
Report readReport(const std::filesystem::path& file);
/// Everything but the values (values and errors stay empty).
Report readReportHeader(const std::filesystem::path& file);

}  // namespace resect
