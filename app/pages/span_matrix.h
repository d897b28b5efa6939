#pragma once
#include "widgets/plots/heatmap_view.h"

namespace resect::ui {

/// Consecutive blocks.
struct BlockSpan {
    int first = 0, length = 1;   ///< position among the blocks of the model
    bool operator==(const BlockSpan&) const = default;
};

/// The window matrix: row = first block, column = span length; NaN where the span would leave the model.
///
/// A cell stands for all blocks of its span: clicking selects them, dragging along a row (longer spans) or a diagonal (same end)
/// selects the span under the mouse, live.
class SpanMatrix final : public HeatmapView {
    Q_OBJECT
public:
    explicit SpanMatrix(Document& document, QWidget* parent = nullptr);

    BlockSpan spanOf(Cell cell) const;
    std::vector<ComponentRef> partsOf(const BlockSpan& span) const;
    /// The span that is selected now, when the selection is exactly that.
    std::optional<BlockSpan> selectedSpan() const;
    /// First block and value of the most redundant span of a length; -1 when none has a value.
    int bestFirst(int column) const;

    std::optional<ComponentRef> partAt(QPointF position) const override;
    std::optional<ComponentRef> partOf(Cell cell) const override;

Q_SIGNALS:
    void cellHovered(int row, int column);   ///< -1, -1 when none

protected:
    void clickPart(const ComponentRef& part, Qt::KeyboardModifiers modifiers) override;
    std::vector<ComponentRef> partsOfDrag(QPointF from, QPointF to) const override;
    bool showsRubberBand() const override { return false; }
    CellMask selectedCells() const override;
    void drawSelection(QCPPainter& painter) const override;
    void drawHover(QCPPainter& painter) const override;
    void planChanged() override {}
    void mouseMoveEvent(QMouseEvent* event) override;
    void leaveEvent(QEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;

private:
    std::optional<Cell> cellOfSpan(const BlockSpan& span) const;
    std::optional<Cell> m_hovered;
};

}  // namespace resect::ui
