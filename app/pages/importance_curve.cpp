#include "app/pages/channel_plots.h"

#include "widgets/plots/marks.h"

#include <QKeyEvent>
#include <QMouseEvent>

#include <algorithm>
#include <cmath>

namespace resect::ui {

int snappedWidth(double width, int grid, int full) {
    if (full <= 0) return 0;
    if (grid > 0) {  // the nearest grid line, or the full width when that is nearer
        const double line = std::round(width / grid) * grid;
        width = std::abs(width - full) <= std::abs(width - line) ? full : line;
    }
    const int least = std::min(full, std::max(1, grid));
    return std::clamp(int(std::lround(width)), least, full);
}

/// The handle and what lies beyond it, on the selection layer, so that dragging redraws no curve.
class KeptHandle final : public QCPLayerable {
public:
    explicit KeptHandle(ImportanceCurve* curve) : QCPLayerable(curve, QStringLiteral("selection")), m_curve(curve) {}

protected:
    void applyDefaultAntialiasingHint(QCPPainter* painter) const override { painter->setAntialiasing(false); }
    void draw(QCPPainter* painter) override {
        if (m_curve->m_values.empty()) return;
        const Theme& theme = currentTheme();
        const QRect area = m_curve->axisRect()->rect();
        const double at = std::clamp(m_curve->xAxis->coordToPixel(m_curve->m_kept), double(area.left()), double(area.right()));
        painter->fillRect(QRectF(at, area.top(), area.right() - at, area.height()), QBrush(theme.droppedHatch, Qt::BDiagPattern));
        painter->setPen(QPen(theme.accent, 2));
        painter->drawLine(QLineF(at, area.top(), at, area.bottom()));
        const double size = m_curve->fontMetrics().height() * 0.4;
        painter->setBrush(theme.accent);
        painter->drawPolygon(QPolygonF({{at, area.top() + size}, {at - size, double(area.top()) - size / 2}, {at + size, double(area.top()) - size / 2}}));
        painter->setBrush(Qt::NoBrush);
        const int line = m_curve->fontMetrics().height(), width = m_curve->fontMetrics().horizontalAdvance(m_curve->m_caption) + 8;
        const bool left = at - width - 6 > area.left();
        const QRectF box(left ? at - width - 4 : at + 4, area.top() + line, width, line + 2);
        painter->fillRect(box, theme.surface);
        painter->setPen(theme.text);
        painter->setFont(m_curve->font());
        painter->drawText(box, Qt::AlignCenter, m_curve->m_caption);
    }

private:
    ImportanceCurve* m_curve;
};

ImportanceCurve::ImportanceCurve(QWidget* parent) : PlotCanvas(parent) {
    m_graph = addGraph();
    m_graph->setSelectable(QCP::stNone);
    new KeptHandle(this);
    axisRect()->setMinimumMargins(QMargins(0, fontMetrics().height() / 2, fontMetrics().averageCharWidth() * 2, 0));
    xAxis->setLabel(tr("channels from most to least important"));
    yAxis->setNumberFormat(QStringLiteral("gb"));
    yAxis->setNumberPrecision(3);
    setAccessibleName(tr("Channel importance of a block"));
    ImportanceCurve::restyle(currentTheme());
}

void ImportanceCurve::restyle(const Theme& theme) {
    PlotCanvas::restyle(theme);
    m_graph->setPen(QPen(theme.seriesColour(4), 2));
}

void ImportanceCurve::setValues(std::vector<double> descending, const QString& label) {
    m_values = std::move(descending);
    QVector<double> keys, values;
    bool positive = false;
    for (std::size_t i = 0; i < m_values.size(); ++i) {
        keys << double(i) + 1;
        values << m_values[i];
        positive = positive || m_values[i] > 0;
    }
    m_graph->setData(keys, values, true);
    yAxis->setScaleType(positive ? QCPAxis::stLogarithmic : QCPAxis::stLinear);
    yAxis->setTicker(positive ? QSharedPointer<QCPAxisTicker>(new QCPAxisTickerLog) : QSharedPointer<QCPAxisTicker>::create());
    yAxis->setLabel(label);
    m_kept = std::min(m_kept, full());
    resetZoom();
}

void ImportanceCurve::clearValues() {
    m_values.clear();
    m_graph->data()->clear();
    redraw();
}

void ImportanceCurve::setKept(int kept) {
    m_kept = kept;
    selectionLayer()->replot();
}

void ImportanceCurve::setCaption(const QString& caption) {
    m_caption = caption;
    setAccessibleDescription(caption);
    selectionLayer()->replot();
}

void ImportanceCurve::resetZoom() {
    xAxis->setRange(0, std::max(1, full()));
    double low = std::numeric_limits<double>::infinity(), high = 0;
    for (const double value : m_values)
        if (value > 0 && std::isfinite(value)) {
            low = std::min(low, value);
            high = std::max(high, value);
        }
    if (high > 0) yAxis->setRange(std::max(low, high * 1e-8) / 1.5, high * 1.5);
    else m_graph->rescaleValueAxis();
    redraw();
}

bool ImportanceCurve::nearHandle(QPointF position) const {
    return !m_values.empty() && std::abs(xAxis->coordToPixel(m_kept) - position.x()) <= fontMetrics().height() / 2.0 + 1;
}

void ImportanceCurve::moveTo(double width) {
    const int next = snappedWidth(width, m_grid, full());
    if (next == m_kept) return;
    setKept(next);
    Q_EMIT keptMoved(next);
}

void ImportanceCurve::mousePressEvent(QMouseEvent* event) {
    if (event->button() != Qt::LeftButton || !nearHandle(event->position())) return PlotCanvas::mousePressEvent(event);
    m_dragging = true;
    event->accept();
}

void ImportanceCurve::mouseMoveEvent(QMouseEvent* event) {
    if (m_dragging) return moveTo(xAxis->pixelToCoord(event->position().x()));
    PlotCanvas::mouseMoveEvent(event);
    if (event->buttons() == Qt::NoButton) setCursor(nearHandle(event->position()) ? Qt::SizeHorCursor : Qt::ArrowCursor);
}

void ImportanceCurve::mouseReleaseEvent(QMouseEvent* event) {
    if (!m_dragging) return PlotCanvas::mouseReleaseEvent(event);
    m_dragging = false;
    Q_EMIT dragFinished();
}

void ImportanceCurve::keyPressEvent(QKeyEvent* event) {
    const int direction = event->key() == Qt::Key_Right ? 1 : event->key() == Qt::Key_Left ? -1 : 0;
    if (!direction || m_values.empty()) return PlotCanvas::keyPressEvent(event);
    const int step = std::max(1, m_grid) * (event->modifiers().testFlag(Qt::ShiftModifier) ? 10 : 1);
    // From an odd full width the first step down goes to the grid line below it.
    const double from = m_grid > 0 && direction < 0 ? std::ceil(double(m_kept) / m_grid) * m_grid : m_kept;
    const int next = snappedWidth(from + direction * step, m_grid, full());
    if (next != m_kept) {
        setKept(next);
        Q_EMIT keptMoved(next);
        Q_EMIT dragFinished();
    }
    event->accept();
}

PlotTable ImportanceCurve::table() const {
    PlotTable table;
    table.corner = tr("rank");
    table.columns << yAxis->label();
    for (std::size_t i = 0; i < m_values.size(); ++i) table.rows << QString::number(i + 1);
    table.values = m_values;
    return table;
}

}  // namespace resect::ui
