#pragma once
#include "app/client/worker_client.h"

#include <QHash>
#include <QString>

#include <functional>
#include <memory>
#include <vector>

namespace resect::ui {

/// Values of a dataset or of a rectangle of one, row-major; NaN where the worker had no finite number.
struct DatasetValues {
    std::vector<double> values, errors;
};

/// Fetches datasets of measurements from the worker and keeps the latest ones (measurements never change once written).
class DatasetSource final : public QObject {
    Q_OBJECT
public:
    using Done = std::function<void(std::shared_ptr<const DatasetValues>)>;
    using Failed = std::function<void(const WorkerError&)>;

    explicit DatasetSource(WorkerClient& client, QObject* parent = nullptr) : QObject(parent), m_client(client) {}

    /// The whole dataset. Calls back at once when it is held. `context` owns the callbacks.
    void fetch(const std::string& file, const protocol::DatasetMessage& info, QObject* context, Done done, Failed failed = {});
    /// Rows [first, first + count) of a matrix.
    void fetchRows(const std::string& file, const protocol::DatasetMessage& info, std::int64_t first, std::int64_t count, QObject* context, Done done,
                   Failed failed = {});
    void clear() { m_held.clear(); }

private:
    void fetchRectangle(const std::string& file, const std::string& name, std::vector<std::int64_t> first, std::vector<std::int64_t> count,
                        QObject* context, Done done, Failed failed);
    WorkerClient& m_client;
    QHash<QString, std::shared_ptr<const DatasetValues>> m_held;
    std::size_t m_heldNumbers = 0;
};

/// Reads the worker's numbers, nested or flat; null becomes NaN.
std::vector<double> numbersFrom(const Json& json);

}  // namespace resect::ui
