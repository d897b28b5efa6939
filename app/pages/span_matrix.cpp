#include "app/pages/span_matrix.h"

#include <QKeyEvent>
#include <QMouseEvent>

#include <algorithm>
#include <cmath>

namespace resect::ui {

SpanMatrix::SpanMatrix(Document& document, QWidget* parent) : HeatmapView(document, parent) {
    setAccessibleName(SpanMatrix::tr("Similarity of block spans"));
}

BlockSpan SpanMatrix::spanOf(Cell cell) const {
    const auto& axes = info().axes;
    const auto id = [&](std::size_t axis, int position, int fallback) {
        return axis < axes.size() && std::size_t(position) < axes[axis].ids.size() ? int(axes[axis].ids[std::size_t(position)]) : fallback;
    };
    return {cell.row, id(1, cell.column, cell.column + 1)};
}

std::vector<ComponentRef> SpanMatrix::partsOf(const BlockSpan& span) const {
    std::vector<ComponentRef> parts;
    const auto* model = document().model();
    for (int position = span.first; model && position < span.first + span.length && position < int(model->blocks.size()); ++position)
        parts.push_back(blockRef(model->blocks[std::size_t(position)].index));
    return parts;
}

std::optional<ComponentRef> SpanMatrix::partOf(Cell cell) const {
    const auto* model = document().model();
    if (!model || cell.row >= int(model->blocks.size()) || !std::isfinite(value(cell))) return std::nullopt;
    return blockRef(model->blocks[std::size_t(cell.row)].index);
}

std::optional<ComponentRef> SpanMatrix::partAt(QPointF position) const {
    const auto cell = cellAt(position);
    return cell ? partOf(*cell) : std::nullopt;
}

std::optional<BlockSpan> SpanMatrix::selectedSpan() const {
    const auto* model = document().model();
    const RefSet& refs = selection().refs();
    if (!model || refs.empty()) return std::nullopt;
    const auto found = std::find_if(model->blocks.begin(), model->blocks.end(), [&](const auto& block) { return block.index == refs.front().block; });
    const BlockSpan span{int(found - model->blocks.begin()), int(refs.size())};
    return found != model->blocks.end() && normalised(partsOf(span)) == refs ? std::optional(span) : std::nullopt;
}

std::optional<Cell> SpanMatrix::cellOfSpan(const BlockSpan& span) const {
    if (span.first >= rows()) return std::nullopt;
    for (int column = 0; column < columns(); ++column)
        if (spanOf({span.first, column}).length == span.length) return Cell{span.first, column};
    return std::nullopt;
}

int SpanMatrix::bestFirst(int column) const {
    int best = -1;
    const bool high = info().higher == "removable";
    for (int row = 0; row < rows() && column < columns(); ++row) {
        const double here = value({row, column});
        if (!std::isfinite(here)) continue;
        if (best < 0 || (high ? here > value({best, column}) : here < value({best, column}))) best = row;
    }
    return best;
}

void SpanMatrix::clickPart(const ComponentRef&, Qt::KeyboardModifiers modifiers) {
    const auto cell = cellAt(clickPosition());
    if (!cell) return;
    const auto parts = partsOf(spanOf(*cell));
    selection().setAnchor(parts.empty() ? std::nullopt : std::optional(parts.front()));
    selection().select(parts, SelectionModel::rectangleGesture(modifiers));
}

std::vector<ComponentRef> SpanMatrix::partsOfDrag(QPointF from, QPointF to) const {
    const auto cell = cellAt(to);
    if (cell && std::isfinite(value(*cell))) return partsOf(spanOf(*cell));
    // Outside the matrix or beyond the last block: the longest span that the start allows.
    const auto start = cellAt(from);
    if (!start || !document().model()) return {};
    int column = start->column;
    const int wanted = cell ? cell->column : to.x() > from.x() ? columns() - 1 : start->column;
    while (column < wanted && std::isfinite(value({start->row, column + 1}))) ++column;
    return partsOf(spanOf({start->row, column}));
}

CellMask SpanMatrix::selectedCells() const {
    CellMask mask(rows(), columns());
    if (const auto span = selectedSpan())
        if (const auto cell = cellOfSpan(*span)) mask.set(cell->row, cell->column);
    return mask;
}

void SpanMatrix::drawSelection(QCPPainter& painter) const {
    HeatmapView::drawSelection(painter);
    if (empty()) return;
    // The most redundant span of each length: a small ring, so that the best choice is found at a glance.
    painter.setClipRect(plotRect()->rect());
    painter.setAntialiasing(true);
    for (int column = 0; column < columns(); ++column) {
        const int row = bestFirst(column);
        if (row < 0) continue;
        const QRectF cell = cellRect({row, column});
        const double size = std::min({cell.width(), cell.height(), double(fontMetrics().height())}) * 0.28;
        if (size < 1.2) continue;
        painter.setPen(QPen(currentTheme().halo, 1));
        painter.setBrush(currentTheme().text);
        painter.drawEllipse(cell.center(), size, size);
    }
    painter.setBrush(Qt::NoBrush);
    painter.setAntialiasing(false);
}

void SpanMatrix::drawHover(QCPPainter& painter) const {
    if (empty()) return;
    painter.setClipRect(plotRect()->rect());
    if (m_hovered) return drawHoverOutline(painter, cellRect(*m_hovered), currentTheme());
    const auto& hover = selection().hover();
    if (!hover || hover->block < 0) return;
    for (int row = 0; row < rows(); ++row)
        if (const auto part = partOf({row, 0}); part && part->block == hover->block)
            drawHoverOutline(painter, cellRect({row, 0}).united(cellRect({row, std::max(0, columns() - 1 - row)})), currentTheme());
}

void SpanMatrix::mouseMoveEvent(QMouseEvent* event) {
    HeatmapView::mouseMoveEvent(event);
    auto cell = cellAt(event->position());
    if (cell && !std::isfinite(value(*cell))) cell.reset();
    if (cell == m_hovered) return;
    m_hovered = cell;
    hoverLayer()->replot();
    Q_EMIT cellHovered(cell ? cell->row : -1, cell ? cell->column : -1);
}

void SpanMatrix::leaveEvent(QEvent* event) {
    m_hovered.reset();
    HeatmapView::leaveEvent(event);
    Q_EMIT cellHovered(-1, -1);
}

// The keyboard moves among spans, not among blocks: arrows move the start and the length, and select.
void SpanMatrix::keyPressEvent(QKeyEvent* event) {
    const int dx = event->key() == Qt::Key_Right ? 1 : event->key() == Qt::Key_Left ? -1 : 0;
    const int dy = event->key() == Qt::Key_Down ? 1 : event->key() == Qt::Key_Up ? -1 : 0;
    if ((!dx && !dy) || empty() || (event->modifiers() & ~Qt::KeypadModifier)) return HeatmapView::keyPressEvent(event);
    const auto span = selectedSpan();
    Cell cell = span ? cellOfSpan(*span).value_or(Cell{0, 0}) : Cell{0, 0};
    if (span) cell = {std::clamp(cell.row + dy, 0, rows() - 1), std::clamp(cell.column + dx, 0, columns() - 1)};
    event->accept();
    if (!std::isfinite(value(cell))) return;
    selection().select(partsOf(spanOf(cell)));
    Q_EMIT cellHovered(cell.row, cell.column);
}

}  // namespace resect::ui
