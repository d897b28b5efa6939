#include "widgets/plots/cell_matrix.h"

#include <QKeyEvent>
#include <QMouseEvent>

#include <algorithm>

namespace resect::ui {

void CellMatrix::setCurrent(std::optional<Cell> cell) {
    if (cell == m_current) return;
    m_current = cell;
    hoverLayer()->replot();
    Q_EMIT cellHovered(cell ? cell->row : -1, cell ? cell->column : -1);
}

void CellMatrix::drawHover(QCPPainter& painter) const {
    if (!isShown(m_current)) return;
    painter.setClipRect(plotRect()->rect());
    drawHoverOutline(painter, cellRect(*m_current), currentTheme());
}

void CellMatrix::mouseMoveEvent(QMouseEvent* event) {
    HeatmapView::mouseMoveEvent(event);
    if (event->buttons() == Qt::NoButton) setCurrent(cellAt(event->position()));
}

void CellMatrix::mouseReleaseEvent(QMouseEvent* event) {
    HeatmapView::mouseReleaseEvent(event);
    const auto cell = event->button() == Qt::LeftButton ? cellAt(event->position()) : std::nullopt;
    if (cell) Q_EMIT cellChosen(cell->row, cell->column, event->modifiers());
}

void CellMatrix::leaveEvent(QEvent* event) {
    HeatmapView::leaveEvent(event);
    setCurrent(std::nullopt);
}

void CellMatrix::keyPressEvent(QKeyEvent* event) {
    if (empty() || event->modifiers() & (Qt::AltModifier | Qt::ControlModifier)) return HeatmapView::keyPressEvent(event);
    int down = 0, right = 0;
    switch (event->key()) {
    case Qt::Key_Left: right = -1; break;
    case Qt::Key_Right: right = 1; break;
    case Qt::Key_Up: down = -1; break;
    case Qt::Key_Down: down = 1; break;
    case Qt::Key_Home: right = -columns(); break;
    case Qt::Key_End: right = columns(); break;
    case Qt::Key_Space:
    case Qt::Key_Return:
    case Qt::Key_Enter:
        if (isShown(m_current)) Q_EMIT cellChosen(m_current->row, m_current->column, event->modifiers());
        return event->accept();
    default: return HeatmapView::keyPressEvent(event);
    }
    event->accept();
    if (!isShown(m_current)) return setCurrent(Cell{0, 0});
    setCurrent(Cell{std::clamp(m_current->row + down, 0, rows() - 1), std::clamp(m_current->column + right, 0, columns() - 1)});
}

}  // namespace resect::ui
