#include "widgets/plots/part_canvas.h"

#include <QApplication>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QToolTip>

namespace resect::ui {

/// Draws the canvas's own marks on one of the two buffered layers.
class PartOverlay final : public QCPLayerable {
public:
    PartOverlay(PartCanvas* canvas, const QString& layer, bool hover) : QCPLayerable(canvas, layer), m_canvas(canvas), m_hover(hover) {}

protected:
    void applyDefaultAntialiasingHint(QCPPainter* painter) const override { painter->setAntialiasing(false); }
    void draw(QCPPainter* painter) override {
        painter->setClipping(false);
        if (!m_hover) return m_canvas->drawSelection(*painter);
        m_canvas->drawHover(*painter);
        if (!m_canvas->m_dragging || !m_canvas->showsRubberBand()) return;
        painter->setClipping(false);
        painter->setBrush(Qt::NoBrush);
        painter->setPen(QPen(currentTheme().text, 0, Qt::DashLine));
        painter->drawRect(QRectF(*m_canvas->m_pressed, m_canvas->m_dragEnd).normalized());
    }

private:
    PartCanvas* m_canvas;
    bool m_hover;
};

PartCanvas::PartCanvas(Document& document, QWidget* parent) : PlotCanvas(parent), m_document(document) {
    new PartOverlay(this, QStringLiteral("selection"), false);  // the plot owns its layerables
    new PartOverlay(this, QStringLiteral("hover"), true);
    connect(&selection(), &SelectionModel::selectionChanged, this, [this] { selectionLayer()->replot(); });
    connect(&selection(), &SelectionModel::hoverChanged, this, [this] { hoverLayer()->replot(); });
    connect(&m_document, &Document::planChanged, this, [this] {
        planChanged();
        selectionLayer()->replot();
    });
}

void PartCanvas::clickPart(const ComponentRef& part, Qt::KeyboardModifiers modifiers) { selection().click(part, modifiers); }

std::vector<ComponentRef> PartCanvas::partsOfDrag(QPointF from, QPointF to) const { return partsIn(QRectF(from, to).normalized().adjusted(-0.5, -0.5, 0.5, 0.5)); }

void PartCanvas::mousePressEvent(QMouseEvent* event) {
    if (event->button() != Qt::LeftButton) return PlotCanvas::mousePressEvent(event);
    event->accept();
    if (pressHandle(*event)) {
        m_onHandle = true;
        return;
    }
    m_pressed = event->position();
    m_pressModifiers = event->modifiers();
    m_dragging = false;
}

void PartCanvas::mouseMoveEvent(QMouseEvent* event) {
    if (m_onHandle) return moveHandle(*event);
    if (m_pressed && event->buttons().testFlag(Qt::LeftButton)) return drag(event->position());
    PlotCanvas::mouseMoveEvent(event);
    if (event->buttons() != Qt::NoButton) return;
    const auto part = partAt(event->position());
    selection().setHover(part);
    if (!toolTips) return;
    if (part && describe) QToolTip::showText(event->globalPosition().toPoint() + QPoint(fontMetrics().height(), fontMetrics().height()), describe(*part), this);
    else QToolTip::hideText();
}

void PartCanvas::drag(QPointF to) {
    if (!m_dragging) {
        if ((to - *m_pressed).manhattanLength() < QApplication::startDragDistance()) return;
        m_dragging = true;
        m_base = selection().refs();
        selection().beginLiveGesture();
    }
    m_dragEnd = to;
    const RefSet found = normalised(partsOfDrag(*m_pressed, to));
    switch (SelectionModel::rectangleGesture(m_pressModifiers)) {
    case SelectionModel::Gesture::Add: selection().select(united(m_base, found)); break;
    case SelectionModel::Gesture::Remove: selection().select(subtracted(m_base, found)); break;
    default: selection().select(found); break;
    }
    hoverLayer()->replot();
}

void PartCanvas::endDrag(bool keep) {
    if (!m_dragging) return;
    m_dragging = false;
    if (!keep) selection().select(m_base);
    selection().endLiveGesture();
    m_pressed.reset();
    hoverLayer()->replot();
}

void PartCanvas::mouseReleaseEvent(QMouseEvent* event) {
    if (event->button() != Qt::LeftButton) return PlotCanvas::mouseReleaseEvent(event);
    event->accept();
    if (m_onHandle) {
        m_onHandle = false;
        return releaseHandle(*event);
    }
    if (m_dragging) return endDrag(true);
    if (!m_pressed) return;
    m_pressed.reset();
    if (const auto part = partAt(event->position())) {
        m_cursor = part;
        m_clickPosition = event->position();
        clickPart(*part, m_pressModifiers);
    } else if (m_pressModifiers == Qt::NoModifier) {
        selection().clear();
    }
}

void PartCanvas::mouseDoubleClickEvent(QMouseEvent* event) {
    if (const auto part = partAt(event->position())) Q_EMIT partOpened(*part);
    event->accept();
}

void PartCanvas::leaveEvent(QEvent* event) {
    selection().setHover(std::nullopt);
    PlotCanvas::leaveEvent(event);
}

void PartCanvas::focusInEvent(QFocusEvent* event) {
    PlotCanvas::focusInEvent(event);
    if (event->reason() != Qt::TabFocusReason && event->reason() != Qt::BacktabFocusReason) return;
    if (!m_cursor) m_cursor = neighbour(std::nullopt, 0, 0);
    selection().setHover(m_cursor);
}

void PartCanvas::focusOutEvent(QFocusEvent* event) {
    PlotCanvas::focusOutEvent(event);
    if (m_dragging) endDrag(false);
}

void PartCanvas::moveCursor(int dx, int dy, bool extend) {
    const auto next = neighbour(m_cursor, dx, dy);
    if (!next) return;
    m_cursor = next;
    reveal(*next);
    selection().setHover(next);
    if (extend) selection().selectRange(*next);
    else selection().setAnchor(next);
}

void PartCanvas::keyPressEvent(QKeyEvent* event) {
    const bool shift = event->modifiers().testFlag(Qt::ShiftModifier);
    if (event->modifiers() & (Qt::AltModifier | Qt::ControlModifier)) return PlotCanvas::keyPressEvent(event);
    switch (event->key()) {
    case Qt::Key_Left: moveCursor(-1, 0, shift); break;
    case Qt::Key_Right: moveCursor(1, 0, shift); break;
    case Qt::Key_Up: moveCursor(0, -1, shift); break;
    case Qt::Key_Down: moveCursor(0, 1, shift); break;
    case Qt::Key_Home: moveCursor(-1 << 20, 0, shift); break;
    case Qt::Key_End: moveCursor(1 << 20, 0, shift); break;
    case Qt::Key_Space:
        if (m_cursor) selection().toggle(*m_cursor);
        break;
    case Qt::Key_Return:
    case Qt::Key_Enter:
        if (m_cursor) Q_EMIT partOpened(*m_cursor);
        break;
    case Qt::Key_Escape:
        if (m_dragging) endDrag(false);
        else if (!selection().isEmpty()) selection().clear();
        else return PlotCanvas::keyPressEvent(event);  // a second Esc leaves the tool
        break;
    default: return PlotCanvas::keyPressEvent(event);
    }
    event->accept();
}

}  // namespace resect::ui
