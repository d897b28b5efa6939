#pragma once
#include "widgets/plots/theme.h"

#include <QRectF>

#include <functional>
#include <vector>

class QPainter;

namespace resect::ui {

/// Solid frame in the text colour with a halo, inside the rectangle: "selected".
void drawSelectedFrame(QPainter& painter, const QRectF& rect, const Theme& theme);
/// No-value colour with a hatch: "the plan drops this".
void drawDropped(QPainter& painter, const QRectF& rect, const Theme& theme);
/// Hatch lines only over what stays visible: "the plan drops a part of this".
void drawPartlyDropped(QPainter& painter, const QRectF& rect, const Theme& theme);
/// Thin outline: "the mouse is over this part", here or in another view.
void drawHoverOutline(QPainter& painter, const QRectF& rect, const Theme& theme);

/// A yes or no per cell, row-major.
struct CellMask {
    int rows = 0, columns = 0;
    std::vector<unsigned char> on;
    CellMask() = default;
    CellMask(int rows, int columns) : rows(rows), columns(columns), on(std::size_t(rows) * std::size_t(columns)) {}
    bool at(int row, int column) const {
        return row >= 0 && column >= 0 && row < rows && column < columns && on[std::size_t(row) * std::size_t(columns) + std::size_t(column)];
    }
    void set(int row, int column) { on[std::size_t(row) * std::size_t(columns) + std::size_t(column)] = 1; }
    bool any() const;
};

/// A straight border piece between cells: from (row, column) to (row, column) of the corner grid.
struct CellEdge {
    int row = 0, column = 0, endRow = 0, endColumn = 0;
    bool operator==(const CellEdge&) const = default;
};

/// The outline of the marked cells, runs merged: at most one edge per straight piece.
std::vector<CellEdge> outline(const CellMask& mask);
/// Marked cells as horizontal runs: (row, first column, end column).
struct CellRun {
    int row = 0, begin = 0, end = 0;
};
std::vector<CellRun> runs(const CellMask& mask);

/// Draws the outline as `drawSelectedFrame` would; `corner` maps (row, column) of the corner grid to pixels.
void drawOutline(QPainter& painter, const std::vector<CellEdge>& edges, const std::function<QPointF(int row, int column)>& corner, const Theme& theme);

}  // namespace resect::ui
