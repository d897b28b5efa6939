#pragma once
#include "widgets/plots/colour_maps.h"
#include "widgets/plots/marks.h"
#include "widgets/plots/part_canvas.h"

#include <QHash>

namespace resect::ui {

/// Cell (row, column) of a matrix on show.
struct Cell {
    int row = 0, column = 0;
    bool operator==(const Cell&) const = default;
};

/// A matrix as a heatmap: rows downwards, columns to the right, colour scale at the side whose range can be dragged.
///
/// A cell names a part when the dataset's axes do; cells without a value (NaN) take the no-value colour and, like the others,
/// can be selected when they name a part.
class HeatmapView : public PartCanvas {
    Q_OBJECT
public:
    explicit HeatmapView(Document& document, QWidget* parent = nullptr);

    /// `info.shape` must be [rows, columns] and `values` hold rows x columns, row-major; `errors` may be empty.
    void setMatrix(const protocol::DatasetMessage& info, std::vector<double> values, std::vector<double> errors = {});
    void clearMatrix();
    const protocol::DatasetMessage& info() const noexcept { return m_info; }
    bool empty() const noexcept { return m_values.empty(); }
    int rows() const noexcept { return m_rows; }
    int columns() const noexcept { return m_columns; }
    double value(Cell cell) const { return m_values[std::size_t(cell.row) * std::size_t(m_columns) + std::size_t(cell.column)]; }
    double error(Cell cell) const;  ///< NaN when there is none

    QCPRange colourRange() const;
    void setColourRange(const QCPRange& range);
    /// Vertical lines before these columns, per row: the borders of kv groups.
    void setGroupBorders(std::vector<std::vector<int>> bordersOfRow);
    /// Rows with a warning mark at their right end.
    void setRowWarnings(QHash<int, QString> warnings);
    const QHash<int, QString>& rowWarnings() const noexcept { return m_warnings; }

    std::optional<Cell> cellAt(QPointF position) const;
    QRectF cellRect(Cell cell) const;
    /// The part of a cell, nullopt when the axes name none.
    virtual std::optional<ComponentRef> partOf(Cell cell) const;
    std::optional<Cell> cellOf(const ComponentRef& part) const;
    /// 1 = the lowest value of the matrix; 0 without a value.
    int rankOf(Cell cell) const;
    int finiteCount() const noexcept { return int(m_sorted.size()); }

    std::optional<ComponentRef> partAt(QPointF position) const override;
    std::vector<ComponentRef> partsIn(const QRectF& rectangle) const override;
    std::optional<ComponentRef> neighbour(const std::optional<ComponentRef>& from, int dx, int dy) const override;
    bool reveal(const ComponentRef& part) override;
    PlotTable table() const override;
    std::optional<ComponentRef> partOfTableCell(int row, int column) const override { return partOf({row, column}); }
    void resetZoom() override;

Q_SIGNALS:
    void colourRangeChanged(const QCPRange& range);

protected:
    void drawSelection(QCPPainter& painter) const override;
    void drawHover(QCPPainter& painter) const override;
    void planChanged() override;
    void restyle(const Theme& theme) override;
    QList<QCPAxis*> navigableAxes(QPointF position) const override;
    void mousePressEvent(QMouseEvent* event) override;
    void mouseDoubleClickEvent(QMouseEvent* event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void mouseReleaseEvent(QMouseEvent* event) override;
    /// Which cells to frame; the base asks partOf and SelectionModel::covers.
    virtual CellMask selectedCells() const;
    QCPAxisRect* plotRect() const { return axisRect(0); }

private:
    bool onColourScale(QPointF position) const;
    void clampRanges();
    protocol::DatasetMessage m_info;
    std::vector<double> m_values, m_errors, m_sorted;
    int m_rows = 0, m_columns = 0;
    QCPColorMap* m_colourMap = nullptr;
    QCPColorScale* m_scale = nullptr;
    std::vector<std::vector<int>> m_borders;
    QHash<int, QString> m_warnings;
    QHash<ComponentRef, Cell> m_cellOfPart;
    CellMask m_dropped, m_partly;
    bool m_scaleDrag = false;
};

inline size_t qHash(const Cell& cell, size_t seed = 0) noexcept { return qHashMulti(seed, cell.row, cell.column); }

}  // namespace resect::ui
