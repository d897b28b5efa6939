#pragma once
#include "core/protocol/json.h"

#include <QAbstractTableModel>
#include <QHash>
#include <QTimer>

#include <functional>
#include <set>
#include <vector>

namespace resect::ui {

using resect::Json;

struct TensorRow {
    QString name, dtype, shape, file;
    qint64 elements = 0, bytes = 0;
};

/// All tensors of the open checkpoint, as many as there may be: the worker sorts and filters, and only the parts on screen are asked for.
class TensorTableModel final : public QAbstractTableModel {
    Q_OBJECT
public:
    enum Column { Name, Type, Shape, Elements, Bytes, File, ColumnCount };
    /// Sends a `tensors` request and calls back with its result, or with null when it failed.
    using Ask = std::function<void(const Json& args, std::function<void(const Json& result)> done)>;

    explicit TensorTableModel(Ask ask, QObject* parent = nullptr);
    /// Forgets everything and asks anew; with `on` false the table is empty.
    void reload(bool on);
    void setFilter(const QString& filter);
    const QString& filter() const noexcept { return m_filter; }
    /// Null while the row is not known yet.
    const TensorRow* row(int index) const;
    bool waiting() const noexcept { return m_underWay > 0 || m_waitsForFirst; }

    int rowCount(const QModelIndex& parent = {}) const override { return parent.isValid() ? 0 : m_total; }
    int columnCount(const QModelIndex& parent = {}) const override { return parent.isValid() ? 0 : int(ColumnCount); }
    QVariant data(const QModelIndex& index, int role) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role) const override;
    void sort(int column, Qt::SortOrder order) override;

Q_SIGNALS:
    void loaded();   ///< the first part of a new order, filter or model is there

private:
    void restart();
    void askFor(int part);
    void askWanted();
    Ask m_ask;
    bool m_on = false, m_waitsForFirst = false;
    QString m_filter;
    int m_column = Name;
    Qt::SortOrder m_order = Qt::AscendingOrder;
    int m_total = 0, m_generation = 0, m_underWay = 0;
    mutable std::set<int> m_wanted, m_asked;
    mutable QTimer m_timer;
    QHash<int, std::vector<TensorRow>> m_parts;
};

}  // namespace resect::ui
