#include "core/workspace/report_file.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/workspace/hdf5.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <limits>
#include <unistd.h>

namespace resect {

namespace fs = std::filesystem;
using hdf5::Handle;
using hdf5::Object;

namespace {

constexpr const char* kErrorsGroup = "standard_errors/";

std::string partialText(const Report& report) {
    return report.partial() ? std::to_string(report.samplesDone) + " of " + std::to_string(report.samplesTotal) : "";
}

// ---- writing

void checkName(const std::string& name, const std::string& subject) {
    const bool bad = name.empty() || name.front() == '/' || name.back() == '/' || name.find("//") != std::string::npos || name.find("./") != std::string::npos ||
                     name.rfind(kErrorsGroup, 0) == 0;
    if (bad) throw Error(ErrorCode::BadInput, subject, "\"" + name + "\" cannot be the name of a dataset");
}

/// Objects carry no times, so that the same report gives the same bytes.
Handle plainProperties(hid_t kind) {
    Handle properties(H5Pcreate(kind), H5Pclose);
    H5Pset_obj_track_times(properties.id(), false);
    return properties;
}

void createParentGroups(hid_t file, const std::string& name) {
    const Handle properties = plainProperties(H5P_GROUP_CREATE);
    for (std::size_t slash = name.find('/'); slash != std::string::npos; slash = name.find('/', slash + 1)) {
        const std::string group = name.substr(0, slash);
        if (H5Lexists(file, group.c_str(), H5P_DEFAULT) > 0) continue;
        Handle created(H5Gcreate2(file, group.c_str(), H5P_DEFAULT, properties.id(), H5P_DEFAULT), H5Gclose);
        if (!created) throw Error(ErrorCode::DiskFull, group, "the group could not be created");
    }
}

Handle writeArray(hid_t file, const std::string& subject, const std::string& name, const std::vector<std::int64_t>& shape, const std::vector<double>& values) {
    createParentGroups(file, name);
    const std::vector<hsize_t> extents(shape.begin(), shape.end());
    const Handle space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr), H5Sclose);
    const Handle properties = plainProperties(H5P_DATASET_CREATE);
    H5Pset_fill_time(properties.id(), H5D_FILL_TIME_NEVER);
    Handle dataset(H5Dcreate2(file, name.c_str(), H5T_IEEE_F64LE, space.id(), H5P_DEFAULT, properties.id(), H5P_DEFAULT), H5Dclose);
    if (!dataset) throw Error(ErrorCode::BadInput, subject, "the dataset could not be created; is its name repeated or the name of a group?");
    if (!values.empty() && H5Dwrite(dataset.id(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
        throw Error(ErrorCode::DiskFull, subject, "the values could not be written");
    return dataset;
}

void writeDataset(hid_t file, const std::string& path, const ReportDataset& dataset, const std::string& partial) {
    const std::string subject = path + ": " + dataset.name;
    checkName(dataset.name, path);
    checkDataset(dataset, subject);
    const Handle handle = writeArray(file, subject, dataset.name, dataset.shape, dataset.values);
    const Object object{handle.id(), subject};
    hdf5::writeText(object, "kind", name(dataset.kind));
    hdf5::writeText(object, "title", dataset.title);
    hdf5::writeText(object, "unit", dataset.unit);
    hdf5::writeText(object, "help", dataset.help);
    hdf5::writeText(object, "higher", name(dataset.higher));
    std::vector<std::string> names, components;
    for (const auto& axis : dataset.axes) names.push_back(axis.name), components.push_back(axis.component);
    hdf5::writeTexts(object, "axes", names);
    hdf5::writeTexts(object, "components", components);
    for (std::size_t axis = 0; axis < dataset.axes.size(); ++axis)
        if (!dataset.axes[axis].ids.empty()) hdf5::writeIntegers(object, ("ids_" + std::to_string(axis)).c_str(), dataset.axes[axis].ids);
    hdf5::writeInteger(object, "samples", dataset.samples);
    hdf5::writeText(object, "partial", partial);
    hdf5::writeNumber(object, "minimum", dataset.minimum());
    hdf5::writeNumber(object, "maximum", dataset.maximum());
    if (dataset.errors.empty()) return;
    const std::string errorsName = kErrorsGroup + dataset.name;
    const Handle errors = writeArray(file, subject, errorsName, dataset.shape, dataset.errors);
    hdf5::writeText({errors.id(), subject}, "standard_errors_of", "/" + dataset.name);
    hdf5::writeText(object, "standard_errors", "/" + errorsName);
}

void writeFileAttributes(hid_t file, const std::string& path, const Report& report) {
    const Object object{file, path};
    hdf5::writeInteger(object, "resect_report", 1);
    hdf5::writeText(object, "method", report.method);
    hdf5::writeText(object, "parameters", report.parameters.dump());
    hdf5::writeText(object, "model_fingerprint", report.modelFingerprint);
    hdf5::writeText(object, "data_fingerprint", report.dataFingerprint);
    hdf5::writeText(object, "data", report.dataDescription);
    hdf5::writeText(object, "dtype", report.dtype);
    hdf5::writeUnsigned(object, "seed", report.seed);
    hdf5::writeText(object, "version", report.version);
    hdf5::writeInteger(object, "samples_done", report.samplesDone);
    hdf5::writeInteger(object, "samples_total", report.samplesTotal);
    hdf5::writeText(object, "partial", partialText(report));
    Json notes = Json::array();
    for (const auto& note : report.notes) notes.push_back(toMessage(note));
    hdf5::writeText(object, "notes", notes.dump(-1, ' ', false, Json::error_handler_t::replace));
    std::vector<std::string> names;
    for (const auto& dataset : report.datasets) names.push_back(dataset.name);
    hdf5::writeTexts(object, "datasets", names);
}

void writeTo(const fs::path& temporary, const fs::path& target, const Report& report) {
    const std::lock_guard lock(hdf5::mutex());
    const hdf5::Quiet quiet;
    const Handle creation = plainProperties(H5P_FILE_CREATE);
    const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    H5Pset_libver_bounds(access.id(), H5F_LIBVER_V18, H5F_LIBVER_V18);  // attributes over 64 KB
    Handle file(H5Fcreate(temporary.c_str(), H5F_ACC_TRUNC, creation.id(), access.id()), H5Fclose);
    if (!file) throw Error(ErrorCode::NoPermission, target.string(), "the file cannot be created in this folder");
    writeFileAttributes(file.id(), target.string(), report);
    for (const auto& dataset : report.datasets) writeDataset(file.id(), target.string(), dataset, partialText(report));
    if (!file.reset()) throw Error(ErrorCode::DiskFull, target.string(), "the file could not be completed");
}

std::uint64_t sizeOf(const Report& report) {
    std::uint64_t bytes = 1u << 16;
    for (const auto& dataset : report.datasets) bytes += 8 * (dataset.values.size() + dataset.errors.size()) + 4096;
    return bytes;
}

// ---- reading

Handle openFile(const fs::path& path) {
    std::error_code failed;
    if (!fs::exists(path, failed)) throw Error(ErrorCode::NotFound, path.string(), "there is no such file");
    const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(access.id(), false, true);  // our files never change, and locks fail on some shared file systems
#endif
    Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()), H5Fclose);
    if (file) return file;
    if (::access(path.c_str(), R_OK) != 0) throw Error(ErrorCode::NoPermission, path.string(), "the file cannot be read");
    throw Error(ErrorCode::Corrupt, path.string(), "expected a complete HDF5 file, found something else or a truncated one");
}

Json parsedAttribute(const Object& object, const char* attribute) {
    return parseJson(hdf5::readText(object, attribute), object.subject + ": " + attribute);
}

std::vector<std::int64_t> shapeOf(hid_t dataset, const std::string& subject) {
    const Handle space(H5Dget_space(dataset), H5Sclose);
    const int rank = space ? H5Sget_simple_extent_ndims(space.id()) : -1;
    if (rank < 1 || rank > 4) throw Error(ErrorCode::BadInput, subject, "expected 1 to 4 dimensions");
    std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
    H5Sget_simple_extent_dims(space.id(), extents.data(), nullptr);
    hsize_t count = 1;
    for (const hsize_t extent : extents) {
        if (extent > 0 && count > (hsize_t{1} << 32) / extent) throw Error(ErrorCode::BadInput, subject, "the dataset is far larger than any result of Resect");
        count *= extent;
    }
    return {extents.begin(), extents.end()};
}

Handle openDataset(hid_t file, const std::string& name, const std::string& subject) {
    Handle dataset(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose);
    if (!dataset) throw Error(ErrorCode::BadInput, subject, "the dataset is missing or damaged");
    const Handle type(H5Dget_type(dataset.id()), H5Tclose);
    if (!type || H5Tget_class(type.id()) != H5T_FLOAT) throw Error(ErrorCode::BadInput, subject, "expected floating-point values");
    return dataset;
}

std::vector<double> readRange(hid_t dataset, const std::string& subject, const std::vector<std::int64_t>& first, const std::vector<std::int64_t>& count) {
    const std::vector<hsize_t> start(first.begin(), first.end()), extents(count.begin(), count.end());
    hsize_t total = 1;
    for (const hsize_t extent : extents) total *= extent;
    std::vector<double> values(total);
    if (total == 0) return values;
    const Handle fileSpace(H5Dget_space(dataset), H5Sclose);
    const Handle memorySpace(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr), H5Sclose);
    const bool selected = H5Sselect_hyperslab(fileSpace.id(), H5S_SELECT_SET, start.data(), nullptr, extents.data(), nullptr) >= 0;
    if (!selected || H5Dread(dataset, H5T_NATIVE_DOUBLE, memorySpace.id(), fileSpace.id(), H5P_DEFAULT, values.data()) < 0)
        throw Error(ErrorCode::Corrupt, subject, "the values cannot be read; the file is truncated or damaged");
    return values;
}

std::vector<double> readAll(hid_t file, const std::string& name, const std::string& subject, const std::vector<std::int64_t>& shape) {
    const Handle dataset = openDataset(file, name, subject);
    if (shapeOf(dataset.id(), subject) != shape) throw Error(ErrorCode::BadInput, subject, "values and standard errors differ in shape");
    return readRange(dataset.id(), subject, std::vector<std::int64_t>(shape.size(), 0), shape);
}

struct DatasetHeader {
    ReportDataset dataset;
    std::string errors;   ///< path of the standard errors, "" = none
    double minimum = 0, maximum = 0;
};

DatasetHeader readHeader(hid_t file, const std::string& path, const std::string& name) {
    const std::string subject = path + ": " + name;
    const Handle handle = openDataset(file, name, subject);
    const Object object{handle.id(), subject};
    DatasetHeader header;
    ReportDataset& dataset = header.dataset;
    dataset.name = name;
    dataset.kind = datasetKind(hdf5::readText(object, "kind"), subject + ": kind");
    dataset.title = hdf5::readText(object, "title");
    dataset.unit = hdf5::readText(object, "unit");
    dataset.help = hdf5::has(object, "help") ? hdf5::readText(object, "help") : "";
    dataset.higher = direction(hdf5::readText(object, "higher"), subject + ": higher");
    dataset.shape = shapeOf(handle.id(), subject);
    const auto axes = hdf5::readTexts(object, "axes"), components = hdf5::readTexts(object, "components");
    if (axes.size() != dataset.shape.size() || components.size() != axes.size())
        throw Error(ErrorCode::BadInput, subject, "expected one entry per dimension in axes and components");
    for (std::size_t k = 0; k < axes.size(); ++k) {
        const std::string attribute = "ids_" + std::to_string(k);
        dataset.axes.push_back({axes[k], components[k], hdf5::has(object, attribute.c_str()) ? hdf5::readIntegers(object, attribute.c_str()) : std::vector<std::int64_t>{}});
    }
    dataset.samples = hdf5::readInteger(object, "samples");
    header.minimum = hdf5::readNumber(object, "minimum");
    header.maximum = hdf5::readNumber(object, "maximum");
    if (hdf5::has(object, "standard_errors")) header.errors = hdf5::readText(object, "standard_errors");
    return header;
}

Report readFileAttributes(hid_t file, const std::string& path) {
    const Object object{file, path};
    if (!hdf5::has(object, "resect_report") || hdf5::readInteger(object, "resect_report") != 1)
        throw Error(ErrorCode::BadInput, path, "expected a measurement of Resect (resect_report = 1)");
    Report report;
    report.method = hdf5::readText(object, "method");
    report.parameters = parsedAttribute(object, "parameters");
    report.modelFingerprint = hdf5::readText(object, "model_fingerprint");
    report.dataFingerprint = hdf5::readText(object, "data_fingerprint");
    report.dataDescription = hdf5::readText(object, "data");
    report.dtype = hdf5::readText(object, "dtype");
    report.seed = hdf5::readUnsigned(object, "seed");
    report.version = hdf5::readText(object, "version");
    report.samplesDone = hdf5::readInteger(object, "samples_done");
    report.samplesTotal = hdf5::readInteger(object, "samples_total");
    for (const Json& note : parsedAttribute(object, "notes")) {
        const auto message = note.get<protocol::ProblemMessage>();
        const Severity severity = message.severity == "error" ? Severity::Error : message.severity == "warning" ? Severity::Warning : Severity::Note;
        report.notes.push_back({severity, message.subject, message.message, message.advice});
    }
    return report;
}

enum class Content { Headers, Values };

Report readFile(const fs::path& path, Content content, std::vector<DatasetHeader>* headers) {
    const std::lock_guard lock(hdf5::mutex());
    const hdf5::Quiet quiet;
    const Handle file = openFile(path);
    Report report = readFileAttributes(file.id(), path.string());
    for (const auto& name : hdf5::readTexts({file.id(), path.string()}, "datasets")) {
        DatasetHeader header = readHeader(file.id(), path.string(), name);
        const std::string subject = path.string() + ": " + name;
        if (content == Content::Values) {
            header.dataset.values = readAll(file.id(), name, subject, header.dataset.shape);
            if (!header.errors.empty()) header.dataset.errors = readAll(file.id(), header.errors, subject, header.dataset.shape);
            checkDataset(header.dataset, subject);
        }
        report.datasets.push_back(header.dataset);
        if (headers) headers->push_back(std::move(header));
    }
    return report;
}

/// The time of writing in UTC; names and contents stay free of it.
std::string writtenAt(const fs::path& path) {
    std::error_code failed;
    const auto written = fs::last_write_time(path, failed);
    if (failed) return "";
    const std::time_t seconds = std::chrono::system_clock::to_time_t(std::chrono::file_clock::to_sys(written));
    std::tm utc{};
    gmtime_r(&seconds, &utc);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return text;
}

void checkRectangle(const std::string& subject, const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& first,
                    const std::vector<std::int64_t>& count, std::int64_t limit) {
    bool fits = first.size() == shape.size() && count.size() == shape.size();
    std::int64_t total = 1;
    for (std::size_t axis = 0; fits && axis < shape.size(); ++axis) {
        fits = first[axis] >= 0 && count[axis] >= 0 && first[axis] <= shape[axis] && count[axis] <= shape[axis] - first[axis];
        total *= count[axis];
    }
    if (!fits) throw Error(ErrorCode::Usage, subject, "the rectangle asked for leaves the dataset");
    if (total > limit) throw Error(ErrorCode::Usage, subject, "asked for " + std::to_string(total) + " values at once; at most " + std::to_string(limit) + " are given");
}

}  // namespace

void writeReport(const fs::path& file, const Report& report) {
    const fs::path temporary = file.string() + ".partial-" + std::to_string(getpid());
    requireFreeSpace(file.parent_path().empty() ? fs::path(".") : file.parent_path(), sizeOf(report));
    try {
        writeTo(temporary, file, report);
        syncToDisk(temporary);
        std::error_code failed;
        fs::rename(temporary, file, failed);
        if (failed) throw Error(ErrorCode::NoPermission, file.string(), "the finished file could not be given its name: " + failed.message());
    } catch (...) {
        std::error_code ignored;
        fs::remove(temporary, ignored);
        throw;
    }
    syncToDisk(file.parent_path().empty() ? fs::path(".") : file.parent_path());
}

Report readReport(const fs::path& file) { return readFile(file, Content::Values, nullptr); }
Report readReportHeader(const fs::path& file) { return readFile(file, Content::Headers, nullptr); }

protocol::MeasureMessage describeReport(const fs::path& file) {
    std::vector<DatasetHeader> headers;
    protocol::MeasureMessage message = toMessage(readFile(file, Content::Headers, &headers));
    message.file = file.string();
    message.created = writtenAt(file);
    for (std::size_t i = 0; i < headers.size(); ++i) {
        message.datasets[i].hasErrors = !headers[i].errors.empty();
        message.datasets[i].minimum = headers[i].minimum;
        message.datasets[i].maximum = headers[i].maximum;
    }
    return message;
}

ReportRectangle readRectangle(const fs::path& path, const std::string& dataset, const std::vector<std::int64_t>& first, const std::vector<std::int64_t>& count,
                              std::int64_t limit) {
    const std::lock_guard lock(hdf5::mutex());
    const hdf5::Quiet quiet;
    const Handle file = openFile(path);
    const std::string subject = path.string() + ": " + dataset;
    const auto names = hdf5::readTexts({file.id(), path.string()}, "datasets");
    if (std::find(names.begin(), names.end(), dataset) == names.end()) throw Error(ErrorCode::NotFound, subject, "the measurement holds no such dataset");
    const DatasetHeader header = readHeader(file.id(), path.string(), dataset);
    checkRectangle(subject, header.dataset.shape, first, count, limit);
    ReportRectangle rectangle{count, {}, {}};
    rectangle.values = readRange(openDataset(file.id(), dataset, subject).id(), subject, first, count);
    if (!header.errors.empty()) {
        const Handle errors = openDataset(file.id(), header.errors, subject);
        if (shapeOf(errors.id(), subject) != header.dataset.shape) throw Error(ErrorCode::BadInput, subject, "values and standard errors differ in shape");
        rectangle.errors = readRange(errors.id(), subject, first, count);
    }
    return rectangle;
}

}  // namespace resect
