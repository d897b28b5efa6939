#include "app/pages/tensor_table.h"

#include "core/base/numbers.h"

namespace resect::ui {
namespace {

constexpr int kPart = 256;        // rows of one request
constexpr int kMostParts = 64;    // held at a time

}  // namespace

TensorTableModel::TensorTableModel(Ask ask, QObject* parent) : QAbstractTableModel(parent), m_ask(std::move(ask)) {
    m_timer.setSingleShot(true);
    m_timer.setInterval(20);  // one question for what a repaint missed, not one per cell
    connect(&m_timer, &QTimer::timeout, this, &TensorTableModel::askWanted);
}

void TensorTableModel::reload(bool on) {
    m_on = on;
    restart();
}

void TensorTableModel::setFilter(const QString& filter) {
    if (filter == m_filter) return;
    m_filter = filter;
    restart();
}

void TensorTableModel::sort(int column, Qt::SortOrder order) {
    // Shapes have no order of their own; the number of elements is the nearest.
    if (column < 0 || (column == m_column && order == m_order)) return;
    m_column = column;
    m_order = order;
    restart();
}

void TensorTableModel::restart() {
    beginResetModel();
    ++m_generation;
    m_total = m_underWay = 0;
    m_parts.clear();
    m_wanted.clear();
    m_asked.clear();
    endResetModel();
    m_waitsForFirst = m_on;
    if (m_on) askFor(0);
}

void TensorTableModel::askFor(int part) {
    static const char* const kSorts[] = {"name", "dtype", "elements", "elements", "bytes", "file"};
    m_asked.insert(part);
    ++m_underWay;
    const Json args = {{"offset", part * kPart}, {"count", kPart}, {"filter", m_filter.toStdString()}, {"sort", kSorts[m_column]}, {"descending", m_order == Qt::DescendingOrder}};
    m_ask(args, [this, part, generation = m_generation](const Json& result) {
        if (generation != m_generation) return;
        --m_underWay;
        if (result.is_null()) {   // asked again when it is looked at again
            m_asked.erase(part);
            m_waitsForFirst = false;
            return;
        }
        std::vector<TensorRow> rows;
        for (const Json& one : result.value("rows", Json::array())) {
            TensorRow row;
            row.name = QString::fromStdString(one.value("name", std::string()));
            row.dtype = QString::fromStdString(one.value("dtype", std::string()));
            row.file = QString::fromStdString(one.value("file", std::string()));
            row.bytes = one.value("bytes", qint64(0));
            row.elements = 1;
            QStringList sizes;
            for (const Json& size : one.value("shape", Json::array())) {
                sizes << QString::number(size.get<qint64>());
                row.elements *= size.get<qint64>();
            }
            row.shape = sizes.isEmpty() ? tr("one number") : sizes.join(QStringLiteral(" \u00d7 "));
            rows.push_back(std::move(row));
        }
        if (m_parts.size() >= kMostParts) {
            m_parts.clear();
            m_asked.clear();
            m_asked.insert(part);
        }
        m_parts.insert(part, std::move(rows));
        if (m_waitsForFirst) {
            const int total = result.value("total", 0);
            if (total > 0) {
                beginInsertRows({}, 0, total - 1);
                m_total = total;
                endInsertRows();
            }
            m_waitsForFirst = false;
            Q_EMIT loaded();
        } else {
            Q_EMIT dataChanged(index(part * kPart, 0), index(std::min(m_total, (part + 1) * kPart) - 1, ColumnCount - 1));
        }
    });
}

void TensorTableModel::askWanted() {
    for (const int part : std::exchange(m_wanted, {}))
        if (!m_asked.contains(part)) askFor(part);
}

const TensorRow* TensorTableModel::row(int index) const {
    if (index < 0 || index >= m_total) return nullptr;
    const auto part = m_parts.constFind(index / kPart);
    if (part != m_parts.constEnd() && std::size_t(index % kPart) < part->size()) return &(*part)[std::size_t(index % kPart)];
    if (!m_asked.contains(index / kPart)) {
        m_wanted.insert(index / kPart);
        m_timer.start();
    }
    return nullptr;
}

QVariant TensorTableModel::data(const QModelIndex& index, int role) const {
    if (!index.isValid()) return {};
    if (role == Qt::TextAlignmentRole) return int((index.column() == Elements || index.column() == Bytes ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
    if (role != Qt::DisplayRole && role != Qt::ToolTipRole) return {};
    const TensorRow* tensor = row(index.row());
    if (!tensor) return role == Qt::DisplayRole && index.column() == Name ? QVariant(QStringLiteral("\u2026")) : QVariant();
    switch (index.column()) {
    case Name: return tensor->name;
    case Type: return tensor->dtype;
    case Shape: return tensor->shape;
    case Elements: return QString::fromStdString(formatThousands(tensor->elements));
    case Bytes: return QString::fromStdString(role == Qt::ToolTipRole ? formatThousands(tensor->bytes) + " B" : formatBytes(std::uint64_t(tensor->bytes)));
    case File: return tensor->file;
    default: return {};
    }
}

QVariant TensorTableModel::headerData(int section, Qt::Orientation orientation, int role) const {
    if (orientation != Qt::Horizontal || role != Qt::DisplayRole) return {};
    switch (section) {
    case Name: return tr("Tensor");
    case Type: return tr("Type");
    case Shape: return tr("Shape");
    case Elements: return tr("Numbers");
    case Bytes: return tr("Size");
    case File: return tr("File");
    default: return {};
    }
}

}  // namespace resect::ui
