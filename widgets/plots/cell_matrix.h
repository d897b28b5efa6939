#pragma once
#include "widgets/plots/heatmap_view.h"

namespace resect::ui {

/// A heatmap whose cells are no parts of the model: pairs of experts, pieces of a tensor. One cell is current, under the mouse or moved with the
/// arrow keys; a click, Space or Return chooses it.
class CellMatrix : public HeatmapView {
    Q_OBJECT
public:
    explicit CellMatrix(Document& document, QWidget* parent = nullptr) : HeatmapView(document, parent) {}
    const std::optional<Cell>& current() const noexcept { return m_current; }

Q_SIGNALS:
    void cellHovered(int row, int column);   ///< of the current cell; -1, -1 = none
    void cellChosen(int row, int column, Qt::KeyboardModifiers modifiers);

protected:
    void drawHover(QCPPainter& painter) const override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void mouseReleaseEvent(QMouseEvent* event) override;
    void leaveEvent(QEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;

private:
    void setCurrent(std::optional<Cell> cell);
    bool isShown(const std::optional<Cell>& cell) const { return cell && cell->row < rows() && cell->column < columns(); }
    std::optional<Cell> m_current;
};

}  // namespace resect::ui
