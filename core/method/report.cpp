#include "core/method/report.h"

#include "core/base/error.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace resect {

namespace {

constexpr std::array<std::string_view, 6> kKinds{"bars", "matrix", "curve", "histogram", "tokens", "scatter"};
constexpr std::array<std::string_view, 3> kDirections{"keep", "removable", "neutral"};

template <std::size_t N> std::size_t find(const std::array<std::string_view, N>& words, std::string_view text, const std::string& subject) {
    const auto it = std::find(words.begin(), words.end(), text);
    if (it != words.end()) return static_cast<std::size_t>(it - words.begin());
    std::string all;
    for (const auto word : words) all += (all.empty() ? "" : ", ") + std::string(word);
    throw Error(ErrorCode::BadInput, subject, "expected one of " + all + ", found \"" + std::string(text) + "\"");
}

template <class Pick> double extreme(const std::vector<double>& values, Pick better) noexcept {
    double best = std::numeric_limits<double>::quiet_NaN();
    for (const double value : values)
        if (std::isfinite(value) && (std::isnan(best) || better(value, best))) best = value;
    return best;
}

Json numbersToJson(const std::vector<double>& values) {
    Json json = Json::array();
    for (const double value : values) json.push_back(std::isfinite(value) ? Json(value) : Json());
    return json;
}

std::vector<double> numbersFromJson(const Json& json, const std::string& subject) {
    if (!json.is_array()) throw Error(ErrorCode::BadInput, subject, "expected an array of numbers");
    std::vector<double> values;
    values.reserve(json.size());
    for (const Json& entry : json) {
        if (!entry.is_number() && !entry.is_null()) throw Error(ErrorCode::BadInput, subject, "expected a number or null, found " + std::string(entry.type_name()));
        values.push_back(entry.is_null() ? std::numeric_limits<double>::quiet_NaN() : entry.get<double>());
    }
    return values;
}

std::vector<std::int64_t> integersFromJson(const Json& object, const char* field, const std::string& subject) {
    const auto it = object.find(field);
    if (it == object.end() || it->is_null()) return {};
    const bool fits = it->is_array() && std::all_of(it->begin(), it->end(), [](const Json& entry) { return entry.is_number_integer(); });
    if (!fits) throw Error(ErrorCode::BadInput, subject + ": " + field, "expected an array of whole numbers");
    return it->get<std::vector<std::int64_t>>();
}

const Json& arrayField(const Json& object, const char* field, const std::string& subject) {
    static const Json kEmpty = Json::array();
    const auto it = object.find(field);
    if (it == object.end() || it->is_null()) return kEmpty;
    if (!it->is_array()) throw Error(ErrorCode::BadInput, subject + ": " + field, "expected an array");
    return *it;
}

Json datasetToJson(const ReportDataset& dataset) {
    Json json = toMessage(dataset);
    json["values"] = numbersToJson(dataset.values);
    if (!dataset.errors.empty()) json["errors"] = numbersToJson(dataset.errors);
    return json;
}

ReportDataset datasetFromJson(const Json& json, const std::string& file) {
    if (!json.is_object()) throw Error(ErrorCode::BadInput, file + ": datasets", "expected objects");
    ReportDataset dataset;
    dataset.name = stringField(json, "name", file + ": datasets");
    const std::string subject = file + ": " + dataset.name;
    dataset.kind = datasetKind(stringField(json, "kind", subject), subject + ": kind");
    dataset.title = stringField(json, "title", subject, "");
    dataset.unit = stringField(json, "unit", subject, "");
    dataset.help = stringField(json, "help", subject, "");
    dataset.higher = direction(stringField(json, "higher", subject, "neutral"), subject + ": higher");
    for (const Json& axis : arrayField(json, "axes", subject))
        dataset.axes.push_back({stringField(axis, "name", subject, ""), stringField(axis, "component", subject, ""), integersFromJson(axis, "ids", subject)});
    dataset.shape = integersFromJson(json, "shape", subject);
    dataset.samples = intField(json, "samples", subject, 0);
    dataset.values = numbersFromJson(arrayField(json, "values", subject), subject + ": values");
    dataset.errors = numbersFromJson(arrayField(json, "errors", subject), subject + ": errors");
    checkDataset(dataset, subject);
    return dataset;
}

Severity severity(const std::string& text) {
    return text == "error" ? Severity::Error : text == "warning" ? Severity::Warning : Severity::Note;
}

}  // namespace

std::string_view name(DatasetKind kind) noexcept { return kKinds[static_cast<std::size_t>(kind)]; }
std::string_view name(Direction direction) noexcept { return kDirections[static_cast<std::size_t>(direction)]; }
DatasetKind datasetKind(std::string_view text, const std::string& subject) { return static_cast<DatasetKind>(find(kKinds, text, subject)); }
Direction direction(std::string_view text, const std::string& subject) { return static_cast<Direction>(find(kDirections, text, subject)); }

double ReportDataset::minimum() const noexcept { return extreme(values, [](double a, double b) { return a < b; }); }
double ReportDataset::maximum() const noexcept { return extreme(values, [](double a, double b) { return a > b; }); }

double ReportDataset::at(std::initializer_list<std::int64_t> index) const {
    bool inside = index.size() == shape.size();
    std::int64_t offset = 0;
    for (std::size_t axis = 0; inside && axis < shape.size(); ++axis) {
        const std::int64_t i = index.begin()[axis];
        inside = i >= 0 && i < shape[axis];
        offset = offset * shape[axis] + i;
    }
    if (!inside || offset >= static_cast<std::int64_t>(values.size())) throw Error(ErrorCode::Internal, name, "index outside the dataset");
    return values[static_cast<std::size_t>(offset)];
}

const ReportDataset* Report::find(std::string_view wanted) const noexcept {
    const auto it = std::find_if(datasets.begin(), datasets.end(), [&](const auto& dataset) { return dataset.name == wanted; });
    return it == datasets.end() ? nullptr : &*it;
}

const ReportDataset& Report::dataset(std::string_view wanted) const {
    if (const auto* found = find(wanted)) return *found;
    std::string all;
    for (const auto& dataset : datasets) all += (all.empty() ? "" : ", ") + dataset.name;
    throw Error(ErrorCode::NotFound, "measurement of " + method, "it holds no \"" + std::string(wanted) + "\"; it holds " + (all.empty() ? "nothing" : all));
}

void checkDataset(const ReportDataset& dataset, const std::string& subject) {
    const auto fail = [&](const std::string& message) { throw Error(ErrorCode::BadInput, subject, message); };
    if (dataset.shape.empty() || dataset.shape.size() > 4) fail("expected 1 to 4 dimensions, found " + std::to_string(dataset.shape.size()));
    std::int64_t count = 1;
    for (const std::int64_t extent : dataset.shape) {
        if (extent < 0 || (extent > 0 && count > (std::int64_t{1} << 40) / extent)) fail("the shape is negative or far too large");
        count *= extent;
    }
    if (dataset.axes.size() != dataset.shape.size()) fail("expected one axis per dimension, found " + std::to_string(dataset.axes.size()));
    if (static_cast<std::int64_t>(dataset.values.size()) != count)
        fail("the shape calls for " + std::to_string(count) + " values, found " + std::to_string(dataset.values.size()));
    if (!dataset.errors.empty() && dataset.errors.size() != dataset.values.size()) fail("expected as many standard errors as values");
    for (std::size_t i = 0; i < dataset.axes.size(); ++i)
        if (!dataset.axes[i].ids.empty() && static_cast<std::int64_t>(dataset.axes[i].ids.size()) != dataset.shape[i])
            fail("axis \"" + dataset.axes[i].name + "\" has " + std::to_string(dataset.axes[i].ids.size()) + " ids for " + std::to_string(dataset.shape[i]) + " entries");
}

protocol::ProblemMessage toMessage(const Problem& problem) { return {name(problem.severity), problem.subject, problem.message, problem.advice}; }

protocol::DatasetMessage toMessage(const ReportDataset& dataset) {
    protocol::DatasetMessage message;
    message.name = dataset.name;
    message.kind = name(dataset.kind);
    message.title = dataset.title;
    message.unit = dataset.unit;
    message.help = dataset.help;
    message.higher = name(dataset.higher);
    for (const auto& axis : dataset.axes) message.axes.push_back({axis.name, axis.component, axis.ids});
    message.shape = dataset.shape;
    message.samples = dataset.samples;
    message.hasErrors = !dataset.errors.empty();
    message.minimum = dataset.minimum();
    message.maximum = dataset.maximum();
    return message;
}

protocol::MeasureMessage toMessage(const Report& report) {
    protocol::MeasureMessage message;
    message.method = report.method;
    message.dataDescription = report.dataDescription;
    message.parameters = report.parameters;
    message.samplesDone = report.samplesDone;
    message.samplesTotal = report.samplesTotal;
    for (const auto& dataset : report.datasets) message.datasets.push_back(toMessage(dataset));
    for (const auto& note : report.notes) message.notes.push_back(toMessage(note));
    return message;
}

Json toJson(const Report& report) {
    Json json = Json::object();
    json["resect_report"] = 1;
    json["method"] = report.method;
    json["parameters"] = report.parameters;
    json["model_fingerprint"] = report.modelFingerprint;
    json["data_fingerprint"] = report.dataFingerprint;
    json["data"] = report.dataDescription;
    json["dtype"] = report.dtype;
    json["seed"] = report.seed;
    json["version"] = report.version;
    json["samples_done"] = report.samplesDone;
    json["samples_total"] = report.samplesTotal;
    json["partial"] = report.partial();
    json["datasets"] = Json::array();
    for (const auto& dataset : report.datasets) json["datasets"].push_back(datasetToJson(dataset));
    json["notes"] = Json::array();
    for (const auto& note : report.notes) json["notes"].push_back(toMessage(note));
    return json;
}

Report reportFromJson(const Json& json, const std::string& subject) {
    if (!json.is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object");
    if (intField(json, "resect_report", subject) != 1) throw Error(ErrorCode::BadInput, subject + ": resect_report", "expected version 1");
    Report report;
    report.method = stringField(json, "method", subject);
    readField(json, "parameters", report.parameters);
    report.modelFingerprint = stringField(json, "model_fingerprint", subject, "");
    report.dataFingerprint = stringField(json, "data_fingerprint", subject, "");
    report.dataDescription = stringField(json, "data", subject, "");
    report.dtype = stringField(json, "dtype", subject, "");
    report.seed = static_cast<std::uint64_t>(intField(json, "seed", subject, 0));
    report.version = stringField(json, "version", subject, "");
    report.samplesDone = intField(json, "samples_done", subject, 0);
    report.samplesTotal = intField(json, "samples_total", subject, 0);
    for (const Json& dataset : arrayField(json, "datasets", subject)) report.datasets.push_back(datasetFromJson(dataset, subject));
    for (const Json& note : arrayField(json, "notes", subject))
        report.notes.push_back({severity(stringField(note, "severity", subject, "note")), stringField(note, "subject", subject, ""),
                                stringField(note, "message", subject, ""), stringField(note, "advice", subject, "")});
    return report;
}


}  // namespace resect
