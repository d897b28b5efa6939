#include "widgets/plots/plot_table.h"

#include <cmath>

namespace resect::ui {
namespace {

QString quoted(const QString& text, QChar separator) {
    if (!text.contains(separator) && !text.contains(QLatin1Char('"')) && !text.contains(QLatin1Char('\n'))) return text;
    QString escaped = text;
    escaped.replace(QLatin1Char('"'), QLatin1String("\"\""));
    return QLatin1Char('"') + escaped + QLatin1Char('"');
}

}  // namespace

QString toCsv(const PlotTable& table, QChar separator) {
    QString csv = quoted(table.corner, separator);
    for (const QString& column : table.columns) csv += separator + quoted(column, separator);
    csv += QLatin1Char('\n');
    for (int row = 0; row < table.rows.size(); ++row) {
        csv += quoted(table.rows[row], separator);
        for (int column = 0; column < table.columns.size(); ++column) {
            const double value = table.at(row, column);
            csv += separator;
            if (std::isfinite(value)) csv += QString::number(value, 'g', 9);
        }
        csv += QLatin1Char('\n');
    }
    return csv;
}

QString shortNumber(double value, int digits) {
    if (!std::isfinite(value)) return QStringLiteral("-");
    const double size = std::abs(value);
    if (value == std::round(value) && size < 1e7) return QString::number(value, 'f', 0);
    return QString::number(value, 'g', digits);
}

void PlotTableModel::setTable(PlotTable table) {
    beginResetModel();
    m_table = std::move(table);
    endResetModel();
}

int PlotTableModel::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(m_table.rows.size()); }

int PlotTableModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(m_table.columns.size()); }

QVariant PlotTableModel::data(const QModelIndex& index, int role) const {
    if (!index.isValid()) return {};
    if (role == Qt::TextAlignmentRole) return int(Qt::AlignRight | Qt::AlignVCenter);
    if (role == Qt::DisplayRole) return shortNumber(m_table.at(index.row(), index.column()), 5);
    if (role == Qt::EditRole) return m_table.at(index.row(), index.column());
    return {};
}

QVariant PlotTableModel::headerData(int section, Qt::Orientation orientation, int role) const {
    if (role != Qt::DisplayRole) return {};
    const QStringList& names = orientation == Qt::Horizontal ? m_table.columns : m_table.rows;
    return section < names.size() ? names[section] : QVariant();
}

}  // namespace resect::ui
