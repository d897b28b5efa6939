#include "app/pages/dataset_source.h"

#include <limits>

namespace resect::ui {
namespace {

constexpr std::size_t kMostHeld = 8u << 20;  // numbers: 64 MB

void appendNumbers(const Json& json, std::vector<double>& numbers) {
    if (json.is_array()) {
        for (const Json& one : json) appendNumbers(one, numbers);
    } else if (json.is_number()) {
        numbers.push_back(json.get<double>());
    } else {
        numbers.push_back(std::numeric_limits<double>::quiet_NaN());
    }
}

}  // namespace

std::vector<double> numbersFrom(const Json& json) {
    std::vector<double> numbers;
    if (json.is_array()) appendNumbers(json, numbers);
    return numbers;
}

void DatasetSource::fetch(const std::string& file, const protocol::DatasetMessage& info, QObject* context, Done done, Failed failed) {
    fetchRectangle(file, info.name, std::vector<std::int64_t>(info.shape.size(), 0), info.shape, context, std::move(done), std::move(failed));
}

void DatasetSource::fetchRows(const std::string& file, const protocol::DatasetMessage& info, std::int64_t first, std::int64_t count, QObject* context,
                              Done done, Failed failed) {
    std::vector<std::int64_t> begin(info.shape.size(), 0), size = info.shape;
    begin.at(0) = first;
    size.at(0) = count;
    fetchRectangle(file, info.name, std::move(begin), std::move(size), context, std::move(done), std::move(failed));
}

void DatasetSource::fetchRectangle(const std::string& file, const std::string& name, std::vector<std::int64_t> first, std::vector<std::int64_t> count,
                                   QObject* context, Done done, Failed failed) {
    const QString key = QString::fromStdString(file + '\n' + name + '\n' + Json(first).dump() + Json(count).dump());
    if (const auto held = m_held.constFind(key); held != m_held.constEnd()) return done(held.value());
    std::size_t expected = 1;
    for (const std::int64_t one : count) expected *= std::size_t(one);
    const Json args = {{"file", file}, {"name", name}, {"first", first}, {"count", count}};
    WorkerCallbacks callbacks;
    callbacks.result = [this, key, expected, name, done, failed, self = QPointer(this)](const Json& result) {
        if (!self) return;
        auto values = std::make_shared<DatasetValues>();
        values->values = numbersFrom(result.value("values", Json::array()));
        values->errors = numbersFrom(result.value("errors", Json::array()));
        if (values->errors.size() != values->values.size()) values->errors.clear();
        if (values->values.size() != expected) {
            if (failed)
                failed({QStringLiteral("Internal"), QString::fromStdString(name),
                        tr("The worker sent %1 numbers instead of %2.").arg(values->values.size()).arg(expected)});
            return;
        }
        if (m_heldNumbers + expected > kMostHeld) {
            m_held.clear();
            m_heldNumbers = 0;
        }
        m_held.insert(key, values);
        m_heldNumbers += expected;
        done(values);
    };
    callbacks.error = failed;
    m_client.request(QStringLiteral("dataset"), args, context, std::move(callbacks));
}

}  // namespace resect::ui
