#pragma once
#include <QAbstractTableModel>
#include <QStringList>

#include <vector>

namespace resect::ui {

/// The numbers behind a plot as rows and columns. NaN = no value.
struct PlotTable {
    QString corner;             ///< what the row names are: "block"
    QStringList columns, rows;
    std::vector<double> values; ///< row-major, rows.size() x columns.size()

    double at(int row, int column) const { return values[std::size_t(row) * std::size_t(columns.size()) + std::size_t(column)]; }
    bool empty() const { return values.empty(); }
};

/// RFC 4180 with a header row; numbers with '.', six significant digits or more, empty where there is no value.
QString toCsv(const PlotTable& table, QChar separator = QLatin1Char(','));

/// `digits` significant digits without trailing zeros, the same in every locale; "-" for no value.
QString shortNumber(double value, int digits = 4);

class PlotTableModel final : public QAbstractTableModel {
    Q_OBJECT
public:
    using QAbstractTableModel::QAbstractTableModel;
    void setTable(PlotTable table);  ///< model reset
    const PlotTable& table() const noexcept { return m_table; }
    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

private:
    PlotTable m_table;
};

}  // namespace resect::ui
