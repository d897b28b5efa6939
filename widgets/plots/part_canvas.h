#pragma once
#include "widgets/models/document.h"
#include "widgets/plots/plot_canvas.h"

#include <functional>
#include <optional>

namespace resect::ui {

class PartOverlay;

/// A plot whose marks are parts of the model: the gestures that all canvases share, linked hover, keyboard cursor, and overlays
/// for what is selected, hovered and dropped.
///
/// Click selects one, Ctrl toggles, Shift extends from the anchor; dragging a rectangle replaces, with Ctrl adds, with Alt
/// removes, live and as one history step; double click opens; Esc clears. Arrows move the cursor (and the hover with it), with
/// Shift extend the selection, Space toggles, Return opens.
class PartCanvas : public PlotCanvas {
    Q_OBJECT
public:
    explicit PartCanvas(Document& document, QWidget* parent = nullptr);

    /// The part that is drawn at a position of the widget.
    virtual std::optional<ComponentRef> partAt(QPointF position) const = 0;
    /// Everything that the rectangle touches.
    virtual std::vector<ComponentRef> partsIn(const QRectF& rectangle) const = 0;
    /// The part beside another as seen on screen; the first part when `from` is not on show. nullopt = there is none.
    virtual std::optional<ComponentRef> neighbour(const std::optional<ComponentRef>& from, int dx, int dy) const = 0;
    /// Scrolls so that the part can be seen. False when it is not among the parts on show.
    virtual bool reveal(const ComponentRef& part) = 0;

    /// The part behind a cell of table(), for the table twin.
    virtual std::optional<ComponentRef> partOfTableCell(int, int) const { return std::nullopt; }

    Document& document() const noexcept { return m_document; }
    SelectionModel& selection() const noexcept { return m_document.selection(); }
    const std::optional<ComponentRef>& cursorPart() const noexcept { return m_cursor; }
    /// What the hover card says about a part; also the tool tip when `toolTips` is set.
    std::function<QString(const ComponentRef&)> describe;
    bool toolTips = false;

Q_SIGNALS:
    void partOpened(const resect::ui::ComponentRef& part);

protected:
    virtual void drawSelection(QCPPainter& painter) const = 0;
    virtual void drawHover(QCPPainter& painter) const = 0;
    /// A click on a part; the base follows SelectionModel::click.
    virtual void clickPart(const ComponentRef& part, Qt::KeyboardModifiers modifiers);
    /// Called when the plan changed, before the selection layer is drawn anew.
    virtual void planChanged() {}
    /// A handle takes the press before any selection gesture; then moveHandle and releaseHandle follow.
    virtual bool pressHandle(QMouseEvent&) { return false; }
    virtual void moveHandle(QMouseEvent&) {}
    virtual void releaseHandle(QMouseEvent&) {}
    /// The parts that a drag from `from` to `to` selects; a rectangle unless a canvas knows better.
    virtual std::vector<ComponentRef> partsOfDrag(QPointF from, QPointF to) const;
    virtual bool showsRubberBand() const { return true; }
    /// Where the click that clickPart handles was.
    QPointF clickPosition() const { return m_clickPosition; }

    void mousePressEvent(QMouseEvent* event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void mouseReleaseEvent(QMouseEvent* event) override;
    void mouseDoubleClickEvent(QMouseEvent* event) override;
    void leaveEvent(QEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;
    void focusInEvent(QFocusEvent* event) override;
    void focusOutEvent(QFocusEvent* event) override;

private:
    friend class PartOverlay;
    void moveCursor(int dx, int dy, bool extend);
    void drag(QPointF to);
    void endDrag(bool keep);
    Document& m_document;
    std::optional<ComponentRef> m_cursor;
    std::optional<QPointF> m_pressed;
    QPointF m_dragEnd, m_clickPosition;
    Qt::KeyboardModifiers m_pressModifiers;
    RefSet m_base;
    bool m_dragging = false, m_onHandle = false;
};

}  // namespace resect::ui
