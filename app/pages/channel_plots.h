#pragma once
#include "widgets/plots/part_canvas.h"

namespace resect::ui {

/// Rounds a width to the grid of the export (0 = any), within [least, full]; the full width is always reachable.
int snappedWidth(double width, int grid, int full);

/// The channels of one block in order of importance, with a draggable handle at the width that is kept.
class ImportanceCurve final : public PlotCanvas {
    Q_OBJECT
public:
    explicit ImportanceCurve(QWidget* parent = nullptr);
    /// `descending`: importance of the channels from most to least; `unit` labels the axis.
    void setValues(std::vector<double> descending, const QString& label);
    void clearValues();
    void setKept(int kept);
    int kept() const noexcept { return m_kept; }
    int full() const noexcept { return int(m_values.size()); }
    void setGrid(int grid) { m_grid = grid; }
    /// What is written at the handle.
    void setCaption(const QString& caption);
    PlotTable table() const override;
    void resetZoom() override;

Q_SIGNALS:
    void keptMoved(int kept);
    void dragFinished();

protected:
    void restyle(const Theme& theme) override;
    void mousePressEvent(QMouseEvent* event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void mouseReleaseEvent(QMouseEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;
    QList<QCPAxis*> navigableAxes(QPointF position) const override { Q_UNUSED(position) return {xAxis}; }

private:
    friend class KeptHandle;
    bool nearHandle(QPointF position) const;
    void moveTo(double width);
    std::vector<double> m_values;
    QCPGraph* m_graph = nullptr;
    QString m_caption;
    int m_kept = 0, m_grid = 0;
    bool m_dragging = false;
};

/// The kept MLP width of every block as bars; their tops can be dragged. Shift drags all selected blocks.
class WidthBars final : public PartCanvas {
    Q_OBJECT
public:
    explicit WidthBars(Document& document, QWidget* parent = nullptr);
    void setGrid(int grid) { m_grid = grid; }
    /// Takes widths from the plan.
    void refresh();
    int kept(int position) const { return m_kept[std::size_t(position)]; }
    int blocks() const { return int(m_ids.size()); }
    QPointF topOf(int position) const;

    std::optional<ComponentRef> partAt(QPointF position) const override;
    std::vector<ComponentRef> partsIn(const QRectF& rectangle) const override;
    std::optional<ComponentRef> neighbour(const std::optional<ComponentRef>& from, int dx, int dy) const override;
    bool reveal(const ComponentRef& part) override;
    PlotTable table() const override;
    std::optional<ComponentRef> partOfTableCell(int row, int) const override { return mlpRef(m_ids[std::size_t(row)]); }
    void resetZoom() override;

Q_SIGNALS:
    /// `blocks` shall keep `width` channels each (or all they have, when that is less).
    void widthMoved(const std::vector<int>& blocks, int width);
    void dragFinished();

protected:
    void drawSelection(QCPPainter& painter) const override;
    void drawHover(QCPPainter& painter) const override;
    void planChanged() override { refresh(); }
    void restyle(const Theme& theme) override;
    bool pressHandle(QMouseEvent& event) override;
    void moveHandle(QMouseEvent& event) override;
    void releaseHandle(QMouseEvent& event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;
    QList<QCPAxis*> navigableAxes(QPointF position) const override { Q_UNUSED(position) return {xAxis}; }

private:
    std::optional<int> positionAt(QPointF position) const;
    QRectF columnRect(int position) const;
    std::vector<int> moved(int position, bool all) const;
    QCPBars *m_bars = nullptr, *m_gone = nullptr;
    std::vector<int> m_ids, m_kept, m_full;
    int m_grid = 0, m_widest = 1;
    std::optional<int> m_dragged;
};

}  // namespace resect::ui
