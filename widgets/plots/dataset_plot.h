#pragma once
#include "widgets/plots/part_canvas.h"

namespace resect::ui {

/// Draws a self-describing dataset of one dimension (bars, curve, histogram, scatter; several curves as [series, x]).
///
/// Bars with a component axis are parts of the model and take part in selection. A tracer follows the mouse along curves.
class DatasetPlot : public PartCanvas {
    Q_OBJECT
public:
    explicit DatasetPlot(Document& document, QWidget* parent = nullptr);

    /// `values` row-major over `info.shape`; `errors` (standard errors) the same size or empty.
    void setDataset(const protocol::DatasetMessage& info, std::vector<double> values, std::vector<double> errors = {});
    void clearDataset();
    const protocol::DatasetMessage& info() const noexcept { return m_info; }
    void setLogarithmic(bool logarithmic);
    /// Marks a position on the x axis (index into the last axis); -1 = none.
    void setMarked(int index);
    int points() const noexcept { return m_points; }
    double x(int index) const;

    std::optional<ComponentRef> partAt(QPointF position) const override;
    std::vector<ComponentRef> partsIn(const QRectF& rectangle) const override;
    std::optional<ComponentRef> neighbour(const std::optional<ComponentRef>& from, int dx, int dy) const override;
    bool reveal(const ComponentRef& part) override;
    PlotTable table() const override;
    std::optional<ComponentRef> partOfTableCell(int row, int column) const override;
    void resetZoom() override;

Q_SIGNALS:
    void pointHovered(int index);   ///< -1 when the mouse leaves
    void pointClicked(int index);

protected:
    void drawSelection(QCPPainter& painter) const override;
    void drawHover(QCPPainter& painter) const override;
    void restyle(const Theme& theme) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void mouseReleaseEvent(QMouseEvent* event) override;
    void leaveEvent(QEvent* event) override;

private:
    int indexAt(QPointF position) const;
    bool isBars() const { return m_info.kind == "bars" || m_info.kind == "histogram"; }
    std::optional<ComponentRef> partOf(int index) const;
    QRectF barRect(int index) const;
    void build();
    protocol::DatasetMessage m_info;
    std::vector<double> m_values, m_errors;
    int m_series = 0, m_points = 0, m_hovered = -1, m_marked = -1;
    bool m_logarithmic = false;
};

}  // namespace resect::ui
