#include "widgets/views/flow_layout.h"

#include <QWidget>

#include <algorithm>

namespace resect::ui {

FlowLayout::FlowLayout(QWidget* parent, int spacing) : QLayout(parent) {
    setSpacing(spacing);
    setContentsMargins(0, 0, 0, 0);
}

FlowLayout::~FlowLayout() {
    for (QLayoutItem* item : m_items) delete item;
}

void FlowLayout::clear() {
    for (QLayoutItem* item : std::exchange(m_items, {})) {
        if (QWidget* widget = item->widget()) {
            widget->hide();   // a deleted-later widget would still be painted once
            widget->deleteLater();
        }
        delete item;
    }
    invalidate();
}

QLayoutItem* FlowLayout::itemAt(int index) const { return index >= 0 && index < count() ? m_items[static_cast<size_t>(index)] : nullptr; }

QLayoutItem* FlowLayout::takeAt(int index) {
    QLayoutItem* item = itemAt(index);
    if (item) m_items.erase(m_items.begin() + index);
    return item;
}

QSize FlowLayout::minimumSize() const {
    QSize size;
    for (const QLayoutItem* item : m_items) size = size.expandedTo(item->minimumSize());
    const QMargins margins = contentsMargins();
    return size + QSize(margins.left() + margins.right(), margins.top() + margins.bottom());
}

void FlowLayout::setGeometry(const QRect& rect) {
    QLayout::setGeometry(rect);
    constexpr Move move = Move::Yes;
    place(rect, &move);
}

int FlowLayout::place(const QRect& rect, const Move* move) const {
    const QMargins margins = contentsMargins();
    const QRect area = rect.marginsRemoved(margins);
    int x = area.x(), y = area.y(), lineHeight = 0;
    for (QLayoutItem* item : m_items) {
        const QSize size = item->sizeHint();
        if (x > area.x() && x + size.width() > area.right() + 1) {
            x = area.x();
            y += lineHeight + spacing();
            lineHeight = 0;
        }
        if (move) item->setGeometry(QRect(QPoint(x, y), size.boundedTo(QSize(std::max(area.width(), 1), size.height()))));
        x += size.width() + spacing();
        lineHeight = std::max(lineHeight, size.height());
    }
    return y + lineHeight - rect.y() + margins.bottom();
}

}  // namespace resect::ui
