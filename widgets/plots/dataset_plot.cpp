#include "widgets/plots/dataset_plot.h"

#include "widgets/plots/axis_tickers.h"
#include "widgets/plots/marks.h"

#include <QMouseEvent>
#include <QToolTip>

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

}  // namespace

DatasetPlot::DatasetPlot(Document& document, QWidget* parent) : PartCanvas(document, parent) {
    xAxis->setTickLengthIn(0);
    xAxis->setTickLengthOut(3);
    yAxis->setNumberFormat(QStringLiteral("gb"));
    yAxis->setNumberPrecision(4);
    // A label that is longer than its axis would be cut at both ends.
    connect(this, &QCustomPlot::beforeReplot, this, [this] {
        const QString words = m_points == 0 ? QString() : QString::fromStdString(m_info.unit.empty() ? m_info.title : m_info.unit);
        yAxis->setLabel(fontMetrics().horizontalAdvance(words) < height() - 3 * fontMetrics().height() ? words : QString());
        if (!m_logarithmic) yAxis->ticker()->setTickCount(height() < 12 * fontMetrics().height() ? 3 : 5);
    });
    DatasetPlot::restyle(currentTheme());
}

void DatasetPlot::clearDataset() {
    clearPlottables();
    m_info = {};
    m_values.clear();
    m_errors.clear();
    m_series = m_points = 0;
    m_hovered = m_marked = -1;
    redraw();
}

void DatasetPlot::setDataset(const protocol::DatasetMessage& info, std::vector<double> values, std::vector<double> errors) {
    m_info = info;
    m_values = std::move(values);
    m_errors = std::move(errors);
    m_hovered = m_marked = -1;
    const bool scatter = info.kind == "scatter";
    m_points = info.shape.empty() ? 0 : int(scatter ? info.shape.front() : info.shape.back());
    m_series = m_points > 0 ? int(m_values.size() / std::size_t(m_points)) : 0;
    build();
    resetZoom();
}

void DatasetPlot::setLogarithmic(bool logarithmic) {
    m_logarithmic = logarithmic;
    yAxis->setScaleType(logarithmic ? QCPAxis::stLogarithmic : QCPAxis::stLinear);
    yAxis->setTicker(logarithmic ? QSharedPointer<QCPAxisTicker>(new QCPAxisTickerLog) : QSharedPointer<QCPAxisTicker>::create());
    resetZoom();
}

double DatasetPlot::x(int index) const {
    if (m_info.kind == "scatter") return m_values[std::size_t(index) * std::size_t(m_series)];
    if (m_info.axes.empty()) return index;
    const auto& ids = m_info.axes.back().ids;
    return m_info.axes.back().component.empty() && std::size_t(index) < ids.size() ? double(ids[std::size_t(index)]) : index;
}

void DatasetPlot::build() {
    clearPlottables();
    if (m_points == 0) return;
    const bool scatter = m_info.kind == "scatter";
    QVector<double> keys;
    for (int i = 0; i < m_points; ++i) keys << x(i);
    const auto valuesOf = [&](const std::vector<double>& source, int series) {
        QVector<double> values;
        for (int i = 0; i < m_points; ++i)
            values << source[scatter ? std::size_t(i) * std::size_t(m_series) + 1 : std::size_t(series) * std::size_t(m_points) + std::size_t(i)];
        return values;
    };
    const int drawn = scatter ? (m_series >= 2 ? 1 : 0) : std::min(m_series, 16);
    for (int series = 0; series < drawn; ++series) {
        QCPAbstractPlottable* made = nullptr;
        if (isBars()) {
            auto* bars = new QCPBars(xAxis, yAxis);
            bars->setData(keys, valuesOf(m_values, series));
            bars->setWidth(m_info.kind == "histogram" ? 1.0 : 0.8);
            bars->setAntialiased(false);
            bars->setAntialiasedFill(false);
            made = bars;
        } else {
            auto* graph = addGraph();
            graph->setData(keys, valuesOf(m_values, series));
            if (scatter) graph->setLineStyle(QCPGraph::lsNone);
            made = graph;
        }
        made->setSelectable(QCP::stNone);
        if (m_errors.size() != m_values.size() || scatter || m_points > 400) continue;
        auto* intervals = new QCPErrorBars(xAxis, yAxis);
        intervals->setDataPlottable(made);
        intervals->setData(valuesOf(m_errors, series));
        intervals->setAntialiased(false);
        intervals->setWhiskerWidth(0);
        intervals->setSymbolGap(0);
        intervals->setSelectable(QCP::stNone);
    }
    const bool named = !m_info.axes.empty() && !m_info.axes.back().component.empty();
    if (named || isBars()) xAxis->setTicker(QSharedPointer<IdTicker>::create(m_info.axes.empty() ? std::vector<std::int64_t>() : m_info.axes.back().ids, m_points));
    else if (!scatter && m_points <= 2000) xAxis->setTicker(QSharedPointer<IdTicker>::create());  // whole numbers: steps, lengths
    else xAxis->setTicker(QSharedPointer<QCPAxisTicker>::create());
    xAxis->setLabel(m_info.axes.empty() ? QString() : QString::fromStdString(m_info.axes[scatter ? 0 : m_info.axes.size() - 1].name));
    restyle(currentTheme());
}

void DatasetPlot::restyle(const Theme& theme) {
    PartCanvas::restyle(theme);
    int colour = 4;
    for (int i = 0; i < plottableCount(); ++i) {
        const QColor ink = theme.seriesColour(colour);
        if (auto* bars = qobject_cast<QCPBars*>(plottable(i))) {
            bars->setPen(m_info.kind == "histogram" && m_points < 120 ? QPen(theme.background, 0) : QPen(Qt::NoPen));
            bars->setBrush(ink);
            ++colour;
        } else if (auto* graph = qobject_cast<QCPGraph*>(plottable(i))) {
            graph->setPen(QPen(ink, m_points > 2000 ? 0 : 2));
            const bool marks = m_info.kind == "scatter" || m_points <= 128;
            graph->setScatterStyle(marks ? QCPScatterStyle(QCPScatterStyle::ssDisc, QPen(ink, 0), QBrush(ink), 6) : QCPScatterStyle());
            ++colour;
        } else if (auto* intervals = qobject_cast<QCPErrorBars*>(plottable(i))) {
            intervals->setPen(QPen(theme.text, 0));
        }
    }
}

void DatasetPlot::resetZoom() {
    if (m_points == 0) return redraw();
    rescaleAxes(true);
    if (isBars()) xAxis->setRange(-0.6, m_points - 0.4);
    else xAxis->scaleRange(1.04);
    if (!m_logarithmic) {
        const QCPRange range = yAxis->range();
        const double room = 0.06 * std::max(range.size(), 1e-12);
        yAxis->setRange(isBars() && range.lower >= 0 ? 0 : range.lower - room, range.upper + room);
    }
    redraw();
}

int DatasetPlot::indexAt(QPointF position) const {
    if (m_points == 0 || !axisRect()->rect().contains(position.toPoint())) return -1;
    int best = -1;
    double distance = std::numeric_limits<double>::infinity();
    for (int i = 0; i < m_points; ++i) {
        double away = std::abs(xAxis->coordToPixel(x(i)) - position.x());
        if (m_info.kind == "scatter" && m_series >= 2)
            away += std::abs(yAxis->coordToPixel(m_values[std::size_t(i) * std::size_t(m_series) + 1]) - position.y());
        if (away < distance) {
            distance = away;
            best = i;
        }
    }
    return best;
}

std::optional<ComponentRef> DatasetPlot::partOf(int index) const {
    if (index < 0 || index >= m_points) return std::nullopt;
    std::vector<qint64> cell(m_info.shape.size(), 0);
    if (cell.empty()) return std::nullopt;
    (m_info.kind == "scatter" ? cell.front() : cell.back()) = index;
    return cellRef(m_info, cell);
}

QRectF DatasetPlot::barRect(int index) const {
    const double left = xAxis->coordToPixel(x(index) - 0.5), right = xAxis->coordToPixel(x(index) + 0.5);
    return QRectF(left, axisRect()->top(), right - left, axisRect()->height());
}

std::optional<ComponentRef> DatasetPlot::partAt(QPointF position) const { return partOf(indexAt(position)); }

std::vector<ComponentRef> DatasetPlot::partsIn(const QRectF& rectangle) const {
    std::vector<ComponentRef> parts;
    for (int i = 0; i < m_points; ++i)
        if (rectangle.intersects(barRect(i)))
            if (const auto part = partOf(i)) parts.push_back(*part);
    return parts;
}

std::optional<ComponentRef> DatasetPlot::neighbour(const std::optional<ComponentRef>& from, int dx, int) const {
    for (int i = 0; from && i < m_points; ++i)
        if (partOf(i) == from) return partOf(std::clamp(i + dx, 0, m_points - 1));
    return partOf(0);
}

bool DatasetPlot::reveal(const ComponentRef& part) {
    for (int i = 0; i < m_points; ++i)
        if (partOf(i) == part) return true;
    return false;
}

void DatasetPlot::setMarked(int index) {
    if (m_marked == index) return;
    m_marked = index;
    hoverLayer()->replot();
}

void DatasetPlot::drawSelection(QCPPainter& painter) const {
    painter.setClipRect(axisRect()->rect());
    for (int i = 0; i < m_points; ++i) {
        const auto part = partOf(i);
        if (!part) return;
        const DropState state = document().dropState(*part);
        if (state == DropState::Dropped) drawDropped(painter, barRect(i), currentTheme());
        if (selection().covers(*part)) drawSelectedFrame(painter, barRect(i), currentTheme());
    }
}

void DatasetPlot::drawHover(QCPPainter& painter) const {
    painter.setClipRect(axisRect()->rect().adjusted(-4, -4, 4, 4));
    const auto& hover = selection().hover();
    for (int i = 0; hover && i < m_points; ++i)
        if (partOf(i) == hover) drawHoverOutline(painter, barRect(i), currentTheme());
    if (isBars()) return;
    const int index = m_hovered >= 0 ? m_hovered : m_marked;
    if (index < 0 || index >= m_points) return;
    painter.setPen(QPen(currentTheme().hover, 0));
    const double at = xAxis->coordToPixel(x(index));
    painter.drawLine(QLineF(at, axisRect()->top(), at, axisRect()->bottom()));
    painter.setBrush(currentTheme().hover);
    for (int series = 0; series < (m_info.kind == "scatter" ? 1 : std::min(m_series, 16)); ++series) {
        const std::size_t place = m_info.kind == "scatter" ? std::size_t(index) * std::size_t(m_series) + 1 : std::size_t(series) * std::size_t(m_points) + std::size_t(index);
        if (place < m_values.size() && std::isfinite(m_values[place])) painter.drawEllipse(QPointF(at, yAxis->coordToPixel(m_values[place])), 4, 4);
    }
    painter.setBrush(Qt::NoBrush);
}

void DatasetPlot::mouseMoveEvent(QMouseEvent* event) {
    PartCanvas::mouseMoveEvent(event);
    const int index = event->buttons() == Qt::NoButton ? indexAt(event->position()) : m_hovered;
    if (index == m_hovered) return;
    m_hovered = index;
    hoverLayer()->replot();
    Q_EMIT pointHovered(index);
    if (index < 0 || receivers(SIGNAL(pointHovered(int))) > 0) return;
    const double value = m_values[std::min(std::size_t(index), m_values.size() - 1)];
    QToolTip::showText(event->globalPosition().toPoint() + QPoint(16, 16), QStringLiteral("%1 %2: %3").arg(xAxis->label(), shortNumber(x(index)), shortNumber(value, 5)), this);
}

void DatasetPlot::mouseReleaseEvent(QMouseEvent* event) {
    PartCanvas::mouseReleaseEvent(event);
    if (event->button() == Qt::LeftButton && indexAt(event->position()) >= 0) Q_EMIT pointClicked(indexAt(event->position()));
}

void DatasetPlot::leaveEvent(QEvent* event) {
    PartCanvas::leaveEvent(event);
    if (m_hovered < 0) return;
    m_hovered = -1;
    hoverLayer()->replot();
    Q_EMIT pointHovered(-1);
}

PlotTable DatasetPlot::table() const {
    PlotTable table;
    if (m_points == 0) return table;
    const bool scatter = m_info.kind == "scatter";
    table.corner = xAxis->label();
    const bool errors = m_errors.size() == m_values.size() && m_series == 1;
    for (int series = 0; series < m_series; ++series)
        table.columns << (m_series == 1 || m_info.axes.size() < 2 ? QString::fromStdString(m_info.title) : QStringLiteral("%1 %2").arg(QString::fromStdString(m_info.axes[scatter ? 1 : 0].name)).arg(series));
    if (errors) table.columns << tr("standard error");
    for (int i = 0; i < m_points; ++i) {
        const auto part = partOf(i);
        table.rows << (part ? text(*part) : shortNumber(scatter ? i : x(i), 9));
        for (int series = 0; series < m_series; ++series)
            table.values.push_back(m_values[scatter ? std::size_t(i) * std::size_t(m_series) + std::size_t(series) : std::size_t(series) * std::size_t(m_points) + std::size_t(i)]);
        if (errors) table.values.push_back(m_errors[std::size_t(i)]);
    }
    return table;
}

std::optional<ComponentRef> DatasetPlot::partOfTableCell(int row, int) const { return partOf(row); }

}  // namespace resect::ui
