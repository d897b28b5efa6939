#include "widgets/plots/heatmap_view.h"

#include "widgets/plots/axis_tickers.h"

#include <QMouseEvent>

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

QString rowName(const protocol::DatasetMessage& info, std::size_t axis, int position) {
    if (axis >= info.axes.size()) return QString::number(position);
    const auto& ids = info.axes[axis].ids;
    return QString::number(std::size_t(position) < ids.size() ? ids[std::size_t(position)] : position);
}

}  // namespace

HeatmapView::HeatmapView(Document& document, QWidget* parent) : PartCanvas(document, parent) {
    auto* rect = plotRect();
    rect->setupFullAxesBox();
    rect->setMinimumMargins(QMargins(0, 4, fontMetrics().height() * 3 / 2, 0));  // on the right: warning marks of rows
    rect->axis(QCPAxis::atTop)->setTicks(false);
    rect->axis(QCPAxis::atRight)->setTicks(false);
    rect->axis(QCPAxis::atLeft)->setRangeReversed(true);
    for (QCPAxis* axis : rect->axes()) {
        axis->grid()->setVisible(false);
        axis->setTickLengthIn(0);
        axis->setTickLengthOut(3);
    }
    m_colourMap = new QCPColorMap(rect->axis(QCPAxis::atBottom), rect->axis(QCPAxis::atLeft));
    m_colourMap->setInterpolate(false);
    m_colourMap->setTightBoundary(false);
    m_colourMap->setSelectable(QCP::stNone);
    m_scale = new QCPColorScale(this);
    m_scale->setType(QCPAxis::atRight);
    m_scale->setBarWidth(fontMetrics().height());
    m_scale->setRangeDrag(true);
    m_scale->setRangeZoom(false);
    m_scale->axis()->setNumberPrecision(3);
    plotLayout()->addElement(0, 1, m_scale);
    m_colourMap->setColorScale(m_scale);
    auto* margins = new QCPMarginGroup(this);
    rect->setMarginGroup(QCP::msBottom | QCP::msTop, margins);
    m_scale->setMarginGroup(QCP::msBottom | QCP::msTop, margins);
    setInteraction(QCP::iRangeDrag, true);  // of the colour scale only
    rect->setRangeDrag({});
    rect->setRangeZoom({});
    connect(m_scale, &QCPColorScale::dataRangeChanged, this, &HeatmapView::colourRangeChanged);
    // A label that is longer than its axis would be cut at both ends.
    connect(this, &QCustomPlot::beforeReplot, this, [this] {
        const QString unit = QString::fromStdString(m_info.unit);
        m_scale->setLabel(fontMetrics().horizontalAdvance(unit) < height() - 3 * fontMetrics().height() ? unit : QString());
        m_scale->axis()->ticker()->setTickCount(height() < 12 * fontMetrics().height() ? 3 : 5);
    });
    for (QCPAxis* axis : {rect->axis(QCPAxis::atBottom), rect->axis(QCPAxis::atLeft)})
        connect(axis, qOverload<const QCPRange&>(&QCPAxis::rangeChanged), this, [this] { clampRanges(); });
    HeatmapView::restyle(currentTheme());
    clearMatrix();
}

void HeatmapView::setMatrix(const protocol::DatasetMessage& info, std::vector<double> values, std::vector<double> errors) {
    const bool sameShape = m_info.shape == info.shape && !empty();
    m_info = info;
    m_rows = int(info.shape.at(0));
    m_columns = int(info.shape.at(1));
    m_values = std::move(values);
    m_errors = std::move(errors);
    m_sorted.clear();
    std::copy_if(m_values.begin(), m_values.end(), std::back_inserter(m_sorted), [](double value) { return std::isfinite(value); });
    std::sort(m_sorted.begin(), m_sorted.end());
    m_colourMap->data()->setSize(m_columns, m_rows);
    // With one row or column there is no distance to take the cell size from: the range is the cell itself.
    const auto extent = [](int count) { return count > 1 ? QCPRange(0, count - 1) : QCPRange(-0.5, 0.5); };
    m_colourMap->data()->setRange(extent(m_columns), extent(m_rows));
    for (int row = 0; row < m_rows; ++row)
        for (int column = 0; column < m_columns; ++column) m_colourMap->data()->setCell(column, row, value({row, column}));
    m_cellOfPart.clear();
    for (int row = 0; row < m_rows; ++row)
        for (int column = 0; column < m_columns; ++column)
            if (const auto part = partOf({row, column})) m_cellOfPart.insert(*part, {row, column});
    QCPAxis *x = plotRect()->axis(QCPAxis::atBottom), *y = plotRect()->axis(QCPAxis::atLeft);
    const auto ids = [&](std::size_t axis) { return axis < info.axes.size() ? info.axes[axis].ids : std::vector<std::int64_t>(); };
    x->setTicker(QSharedPointer<IdTicker>::create(ids(1), m_columns));
    y->setTicker(QSharedPointer<IdTicker>::create(ids(0), m_rows));
    if (info.axes.size() > 1) {
        y->setLabel(QString::fromStdString(info.axes[0].name));
        x->setLabel(QString::fromStdString(info.axes[1].name));
    }
    setColourRange(m_sorted.empty() ? QCPRange(0, 1) : QCPRange(m_sorted.front(), m_sorted.back()));
    planChanged();
    if (!sameShape) resetZoom();
    redraw();
}

void HeatmapView::clearMatrix() {
    m_info = {};
    m_rows = m_columns = 0;
    m_values.clear();
    m_errors.clear();
    m_sorted.clear();
    m_cellOfPart.clear();
    m_borders.clear();
    m_warnings.clear();
    m_dropped = m_partly = {};
    m_colourMap->data()->clear();
    redraw();
}

double HeatmapView::error(Cell cell) const {
    const std::size_t index = std::size_t(cell.row) * std::size_t(m_columns) + std::size_t(cell.column);
    return index < m_errors.size() ? m_errors[index] : kNone;
}

QCPRange HeatmapView::colourRange() const { return m_scale->dataRange(); }

void HeatmapView::setColourRange(const QCPRange& wanted) {
    QCPRange range = wanted;
    if (!(range.upper > range.lower)) range = QCPRange(range.lower - 0.5, range.lower + 0.5);
    m_scale->setDataRange(range);
    redraw();
}

void HeatmapView::setGroupBorders(std::vector<std::vector<int>> bordersOfRow) {
    m_borders = std::move(bordersOfRow);
    selectionLayer()->replot();
}

void HeatmapView::setRowWarnings(QHash<int, QString> warnings) {
    if (m_warnings == warnings) return;
    m_warnings = std::move(warnings);
    selectionLayer()->replot();
}

void HeatmapView::restyle(const Theme& theme) {
    PartCanvas::restyle(theme);
    m_colourMap->setGradient(gradientOf(sequentialMap(), theme));
    m_scale->setGradient(gradientOf(sequentialMap(), theme));
    plotRect()->setBackground(theme.nan);
}

QList<QCPAxis*> HeatmapView::navigableAxes(QPointF position) const {
    if (empty() || onColourScale(position)) return {};
    return {plotRect()->axis(QCPAxis::atBottom), plotRect()->axis(QCPAxis::atLeft)};
}

void HeatmapView::clampRanges() {
    if (empty()) return;
    const auto clamp = [](QCPAxis* axis, int count) {
        const double low = -0.5, high = count - 0.5;
        QCPRange range = axis->range();
        if (range.size() >= high - low) range = QCPRange(low, high);
        else if (range.lower < low) range = QCPRange(low, low + range.size());
        else if (range.upper > high) range = QCPRange(high - range.size(), high);
        const QSignalBlocker blocked(axis);
        axis->setRange(range);
    };
    clamp(plotRect()->axis(QCPAxis::atBottom), m_columns);
    clamp(plotRect()->axis(QCPAxis::atLeft), m_rows);
}

void HeatmapView::resetZoom() {
    plotRect()->axis(QCPAxis::atBottom)->setRange(-0.5, std::max(1, m_columns) - 0.5);
    plotRect()->axis(QCPAxis::atLeft)->setRange(-0.5, std::max(1, m_rows) - 0.5);
    redraw();
}

std::optional<Cell> HeatmapView::cellAt(QPointF position) const {
    if (empty() || !plotRect()->rect().contains(position.toPoint())) return std::nullopt;
    const int column = int(std::floor(plotRect()->axis(QCPAxis::atBottom)->pixelToCoord(position.x()) + 0.5));
    const int row = int(std::floor(plotRect()->axis(QCPAxis::atLeft)->pixelToCoord(position.y()) + 0.5));
    if (row < 0 || column < 0 || row >= m_rows || column >= m_columns) return std::nullopt;
    return Cell{row, column};
}

QRectF HeatmapView::cellRect(Cell cell) const {
    const QCPAxis *x = plotRect()->axis(QCPAxis::atBottom), *y = plotRect()->axis(QCPAxis::atLeft);
    return QRectF(QPointF(x->coordToPixel(cell.column - 0.5), y->coordToPixel(cell.row - 0.5)),
                  QPointF(x->coordToPixel(cell.column + 0.5), y->coordToPixel(cell.row + 0.5)))
        .normalized();
}

std::optional<ComponentRef> HeatmapView::partOf(Cell cell) const { return cellRef(m_info, {cell.row, cell.column}); }

std::optional<Cell> HeatmapView::cellOf(const ComponentRef& part) const {
    const auto found = m_cellOfPart.constFind(part);
    return found == m_cellOfPart.constEnd() ? std::nullopt : std::optional(found.value());
}

int HeatmapView::rankOf(Cell cell) const {
    const double at = value(cell);
    if (!std::isfinite(at)) return 0;
    return int(std::lower_bound(m_sorted.begin(), m_sorted.end(), at) - m_sorted.begin()) + 1;
}

std::optional<ComponentRef> HeatmapView::partAt(QPointF position) const {
    const auto cell = cellAt(position);
    return cell ? partOf(*cell) : std::nullopt;
}

std::vector<ComponentRef> HeatmapView::partsIn(const QRectF& rectangle) const {
    std::vector<ComponentRef> parts;
    const QRectF inside = rectangle.intersected(QRectF(plotRect()->rect()).adjusted(0, 0, -1, -1));
    const auto first = cellAt(inside.topLeft()), last = cellAt(inside.bottomRight());
    if (inside.isEmpty() || !first || !last) return parts;
    for (int row = first->row; row <= last->row; ++row)
        for (int column = first->column; column <= last->column; ++column)
            if (const auto part = partOf({row, column})) parts.push_back(*part);
    return parts;
}

std::optional<ComponentRef> HeatmapView::neighbour(const std::optional<ComponentRef>& from, int dx, int dy) const {
    if (empty()) return std::nullopt;
    const auto cell = from ? cellOf(*from) : std::nullopt;
    if (!cell) return partOf({0, 0});
    return partOf({std::clamp(cell->row + dy, 0, m_rows - 1), std::clamp(cell->column + dx, 0, m_columns - 1)});
}

bool HeatmapView::reveal(const ComponentRef& part) {
    const auto cell = cellOf(part);
    if (!cell) return false;
    const auto show = [](QCPAxis* axis, int at) {
        const QCPRange range = axis->range();
        if (range.lower <= at - 0.5 && range.upper >= at + 0.5) return;
        axis->setRange(at - range.size() / 2, at + range.size() / 2);
    };
    show(plotRect()->axis(QCPAxis::atBottom), cell->column);
    show(plotRect()->axis(QCPAxis::atLeft), cell->row);
    redraw();
    return true;
}

PlotTable HeatmapView::table() const {
    PlotTable table;
    if (empty()) return table;
    table.corner = plotRect()->axis(QCPAxis::atLeft)->label();
    const QString columnWord = plotRect()->axis(QCPAxis::atBottom)->label();
    for (int column = 0; column < m_columns; ++column) table.columns << columnWord + QLatin1Char(' ') + rowName(m_info, 1, column);
    for (int row = 0; row < m_rows; ++row) table.rows << rowName(m_info, 0, row);
    table.values = m_values;
    return table;
}

void HeatmapView::planChanged() {
    m_dropped = CellMask(m_rows, m_columns);
    m_partly = CellMask(m_rows, m_columns);
    if (document().drops().empty()) return;
    for (auto it = m_cellOfPart.cbegin(); it != m_cellOfPart.cend(); ++it) {
        const DropState state = document().dropState(it.key());
        if (state == DropState::Dropped) m_dropped.set(it->row, it->column);
        else if (state == DropState::Partly) m_partly.set(it->row, it->column);
    }
}

CellMask HeatmapView::selectedCells() const {
    CellMask mask(m_rows, m_columns);
    if (selection().isEmpty()) return mask;
    bool larger = false;  // something selected that holds cells without being one
    for (const ComponentRef& ref : selection().refs()) {
        if (const auto cell = cellOf(ref)) mask.set(cell->row, cell->column);
        else larger = true;
    }
    if (!larger) return mask;
    for (auto it = m_cellOfPart.cbegin(); it != m_cellOfPart.cend(); ++it)
        if (selection().covers(it.key())) mask.set(it->row, it->column);
    return mask;
}

void HeatmapView::drawSelection(QCPPainter& painter) const {
    if (empty()) return;
    const Theme& theme = currentTheme();
    const QRect area = plotRect()->rect();
    painter.setClipRect(area);
    const auto run = [&](const CellRun& cells) { return cellRect({cells.row, cells.begin}).united(cellRect({cells.row, cells.end - 1})); };
    for (const CellRun& cells : runs(m_dropped)) drawDropped(painter, run(cells), theme);
    for (const CellRun& cells : runs(m_partly)) drawPartlyDropped(painter, run(cells), theme);
    painter.setPen(QPen(theme.background, 0));
    for (int row = 0; row < std::min(m_rows, int(m_borders.size())); ++row)
        for (const int column : m_borders[std::size_t(row)]) {
            const QRectF cell = cellRect({row, column});
            painter.drawLine(cell.topLeft(), cell.bottomLeft());
        }
    const QCPAxis *x = plotRect()->axis(QCPAxis::atBottom), *y = plotRect()->axis(QCPAxis::atLeft);
    const auto corner = [&](int row, int column) { return QPointF(x->coordToPixel(column - 0.5), y->coordToPixel(row - 0.5)); };
    drawOutline(painter, outline(selectedCells()), corner, theme);
    painter.setClipping(false);
    painter.setPen(theme.warning);
    painter.setFont(font());
    for (auto it = m_warnings.cbegin(); it != m_warnings.cend(); ++it) {
        const QRectF cell = cellRect({it.key(), m_columns - 1});
        painter.drawText(QRectF(area.right() + 2, cell.center().y() - 40, 30, 80), Qt::AlignLeft | Qt::AlignVCenter, QStringLiteral("\u26a0"));
    }
}

void HeatmapView::drawHover(QCPPainter& painter) const {
    const auto& hover = selection().hover();
    if (empty() || !hover) return;
    painter.setClipRect(plotRect()->rect());
    if (const auto cell = cellOf(*hover)) return drawHoverOutline(painter, cellRect(*cell), currentTheme());
    // A larger part hovered elsewhere: outline its rows here.
    for (int row = 0; row < m_rows; ++row) {
        const auto part = partOf({row, 0});
        if (part && hover->block == part->block && (hover->kind == PartKind::Block || hover->kind == PartKind::Attention || hover->kind == PartKind::Mlp))
            drawHoverOutline(painter, cellRect({row, 0}).united(cellRect({row, m_columns - 1})), currentTheme());
    }
}

bool HeatmapView::onColourScale(QPointF position) const { return m_scale->outerRect().contains(position.toPoint()); }

// The colour scale keeps QCustomPlot's own dragging; everything else follows PartCanvas.
void HeatmapView::mousePressEvent(QMouseEvent* event) {
    m_scaleDrag = event->button() == Qt::LeftButton && onColourScale(event->position());
    if (m_scaleDrag) QCustomPlot::mousePressEvent(event);
    else PartCanvas::mousePressEvent(event);
}

void HeatmapView::mouseMoveEvent(QMouseEvent* event) {
    if (m_scaleDrag) QCustomPlot::mouseMoveEvent(event);
    else PartCanvas::mouseMoveEvent(event);
}

void HeatmapView::mouseReleaseEvent(QMouseEvent* event) {
    if (m_scaleDrag) QCustomPlot::mouseReleaseEvent(event);
    else PartCanvas::mouseReleaseEvent(event);
    m_scaleDrag = false;
}

void HeatmapView::mouseDoubleClickEvent(QMouseEvent* event) {
    if (!onColourScale(event->position())) return PartCanvas::mouseDoubleClickEvent(event);
    if (!m_sorted.empty()) setColourRange(QCPRange(m_sorted.front(), m_sorted.back()));
    event->accept();
}

}  // namespace resect::ui
