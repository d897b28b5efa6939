#include "widgets/plots/marks.h"

#include <QPainter>

#include <algorithm>

namespace resect::ui {
namespace {

/// A frame out of four filled strips: many times faster than a wide pen in the software rasteriser.
void strips(QPainter& painter, const QRectF& rect, double width, const QColor& colour) {
    painter.fillRect(QRectF(rect.left(), rect.top(), rect.width(), width), colour);
    painter.fillRect(QRectF(rect.left(), rect.bottom() - width, rect.width(), width), colour);
    painter.fillRect(QRectF(rect.left(), rect.top() + width, width, rect.height() - 2 * width), colour);
    painter.fillRect(QRectF(rect.right() - width, rect.top() + width, width, rect.height() - 2 * width), colour);
}

}  // namespace

void drawSelectedFrame(QPainter& painter, const QRectF& rect, const Theme& theme) {
    const bool small = std::min(rect.width(), rect.height()) < 8;
    const double frame = small ? 1 : 2;
    if (!small) strips(painter, rect.adjusted(frame, frame, -frame, -frame), 1, theme.halo);
    strips(painter, rect, frame, theme.selection);
}

void drawDropped(QPainter& painter, const QRectF& rect, const Theme& theme) {
    painter.fillRect(rect, theme.nan);
    painter.fillRect(rect, QBrush(theme.droppedHatch, Qt::BDiagPattern));
}

void drawPartlyDropped(QPainter& painter, const QRectF& rect, const Theme& theme) {
    painter.fillRect(rect, QBrush(theme.droppedHatch, Qt::BDiagPattern));
}

void drawHoverOutline(QPainter& painter, const QRectF& rect, const Theme& theme) { strips(painter, rect, 1, theme.hover); }

bool CellMask::any() const {
    return std::any_of(on.begin(), on.end(), [](unsigned char one) { return one != 0; });
}

std::vector<CellEdge> outline(const CellMask& mask) {
    std::vector<CellEdge> edges;
    for (int row = 0; row <= mask.rows; ++row)  // horizontal borders: above `row`
        for (int column = 0; column < mask.columns;) {
            const auto border = [&](int c) { return mask.at(row - 1, c) != mask.at(row, c); };
            const int begin = column;
            while (column < mask.columns && border(column)) ++column;
            if (column > begin) edges.push_back({row, begin, row, column});
            else ++column;
        }
    for (int column = 0; column <= mask.columns; ++column)  // vertical borders: left of `column`
        for (int row = 0; row < mask.rows;) {
            const auto border = [&](int r) { return mask.at(r, column - 1) != mask.at(r, column); };
            const int begin = row;
            while (row < mask.rows && border(row)) ++row;
            if (row > begin) edges.push_back({begin, column, row, column});
            else ++row;
        }
    return edges;
}

std::vector<CellRun> runs(const CellMask& mask) {
    std::vector<CellRun> found;
    for (int row = 0; row < mask.rows; ++row)
        for (int column = 0; column < mask.columns;) {
            const int begin = column;
            while (column < mask.columns && mask.at(row, column)) ++column;
            if (column > begin) found.push_back({row, begin, column});
            else ++column;
        }
    return found;
}

void drawOutline(QPainter& painter, const std::vector<CellEdge>& edges, const std::function<QPointF(int, int)>& corner, const Theme& theme) {
    for (const bool halo : {true, false}) {
        const double reach = halo ? 2 : 1;
        const QColor& colour = halo ? theme.halo : theme.selection;
        for (const CellEdge& edge : edges) {
            const QRectF line = QRectF(corner(edge.row, edge.column), corner(edge.endRow, edge.endColumn)).normalized();
            painter.fillRect(line.adjusted(-reach, -reach, reach, reach), colour);
        }
    }
}

}  // namespace resect::ui
