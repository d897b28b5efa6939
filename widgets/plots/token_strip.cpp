#include "widgets/plots/token_strip.h"

#include <QApplication>
#include <QClipboard>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QScrollBar>
#include <QToolTip>

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

/// What stands on screen for a token: line ends and tabs are shown, not obeyed (the strip breaks the line after an end itself).
QString shown(const QString& text) {
    QString visible = text;
    visible.replace(QLatin1Char('\n'), QChar(0x21b5));
    visible.replace(QLatin1Char('\t'), QChar(0x21e5));
    visible.remove(QLatin1Char('\r'));
    return visible.isEmpty() ? QStringLiteral("\u00b7") : visible;
}

}  // namespace

TokenStrip::TokenStrip(QWidget* parent) : QAbstractScrollArea(parent) {
    setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    setFocusPolicy(Qt::StrongFocus);
    viewport()->setMouseTracking(true);
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, viewport(), qOverload<>(&QWidget::update));
}

void TokenStrip::setTokens(std::vector<StripToken> tokens) {
    m_tokens = std::move(tokens);
    m_hovered = -1;
    m_noted = std::any_of(m_tokens.begin(), m_tokens.end(), [](const StripToken& token) { return !token.note.isEmpty(); });
    layOutFrom(0);
    viewport()->update();
}

void TokenStrip::appendToken(StripToken token) {
    const bool atEnd = verticalScrollBar()->value() >= verticalScrollBar()->maximum();
    m_tokens.push_back(std::move(token));
    layOutFrom(int(m_tokens.size()) - 1);
    if (atEnd) verticalScrollBar()->setValue(verticalScrollBar()->maximum());
    viewport()->update();
}

void TokenStrip::setMarked(std::vector<bool> marked) {
    for (std::size_t i = 0; i < m_tokens.size(); ++i) m_tokens[i].marked = i < marked.size() && marked[i];
    viewport()->update();
}

void TokenStrip::setColoured(bool coloured, double low, double high) {
    m_coloured = coloured;
    m_low = low;
    m_high = high;
    viewport()->update();
}

void TokenStrip::setPlaceholder(const QString& text) {
    m_placeholder = text;
    viewport()->update();
}

QString TokenStrip::plainText() const {
    QString text;
    for (const StripToken& token : m_tokens) text += token.text;
    return text;
}

int TokenStrip::lineHeight() const { return m_noted ? fontMetrics().height() * 9 / 4 : fontMetrics().height() * 3 / 2; }

QFont TokenStrip::noteFont() const {
    QFont small = font();
    small.setPointSizeF(small.pointSizeF() * 0.75);
    return small;
}

void TokenStrip::layOutFrom(int first) {
    const int margin = fontMetrics().averageCharWidth(), width = std::max(8 * margin, viewport()->width() - margin);
    m_places.resize(m_tokens.size());
    int line = 0, x = margin;
    if (first == 0) m_lines.clear();
    else {
        const Place& last = m_places[std::size_t(first) - 1];
        line = last.line;
        x = last.x + last.width;
        if (m_tokens[std::size_t(first) - 1].text.contains(QLatin1Char('\n'))) {
            ++line;
            x = margin;
        }
    }
    for (std::size_t i = std::size_t(first); i < m_tokens.size(); ++i) {
        int advance = fontMetrics().horizontalAdvance(shown(m_tokens[i].text));
        if (m_noted) advance = std::max(advance, QFontMetrics(noteFont()).horizontalAdvance(m_tokens[i].note) + margin / 2);
        if (x + advance > width && x > margin) {
            ++line;
            x = margin;
        }
        m_places[i] = {line, x, advance};
        if (int(m_lines.size()) <= line) m_lines.push_back(int(i));
        x += advance;
        if (m_tokens[i].text.contains(QLatin1Char('\n'))) {
            ++line;
            x = margin;
        }
    }
    updateScrollBar();
}

void TokenStrip::updateScrollBar() {
    verticalScrollBar()->setPageStep(viewport()->height());
    verticalScrollBar()->setSingleStep(lineHeight());
    verticalScrollBar()->setRange(0, std::max(0, lineCount() * lineHeight() + fontMetrics().height() / 2 - viewport()->height()));
}

void TokenStrip::resizeEvent(QResizeEvent* event) {
    QAbstractScrollArea::resizeEvent(event);
    layOutFrom(0);
}

void TokenStrip::changeEvent(QEvent* event) {
    QAbstractScrollArea::changeEvent(event);
    if (event->type() == QEvent::FontChange) layOutFrom(0);
}

QRect TokenStrip::tokenRect(int index) const {
    const Place& place = m_places[std::size_t(index)];
    const int top = place.line * lineHeight() - verticalScrollBar()->value() + fontMetrics().height() / 4;
    return QRect(place.x, top, place.width, fontMetrics().height() + 2);
}

int TokenStrip::tokenAt(QPoint position) const {
    const int line = (position.y() + verticalScrollBar()->value() - fontMetrics().height() / 4) / lineHeight();
    if (line < 0 || line >= lineCount()) return -1;
    for (int i = m_lines[std::size_t(line)]; i < int(m_tokens.size()) && m_places[std::size_t(i)].line == line; ++i)
        if (tokenRect(i).contains(position)) return i;
    return -1;
}

void TokenStrip::paintEvent(QPaintEvent*) {
    QPainter painter(viewport());
    const Theme& theme = currentTheme();
    painter.fillRect(viewport()->rect(), theme.background);
    if (m_tokens.empty()) {
        painter.setPen(theme.mutedText);
        const int margin = fontMetrics().height();
        painter.drawText(viewport()->rect().adjusted(margin, margin, -margin, -margin), Qt::AlignCenter | Qt::TextWordWrap, m_placeholder);
        return;
    }
    const int first = std::max(0, verticalScrollBar()->value() / lineHeight());
    for (int line = first; line < lineCount() && line * lineHeight() - verticalScrollBar()->value() < viewport()->height(); ++line)
        for (int i = m_lines[std::size_t(line)]; i < int(m_tokens.size()) && m_places[std::size_t(i)].line == line; ++i) paintToken(painter, i);
}

void TokenStrip::paintToken(QPainter& painter, int index) const {
    const Theme& theme = currentTheme();
    const StripToken& token = m_tokens[std::size_t(index)];
    const QRect rect = tokenRect(index);
    QColor back = token.fill;
    if (!back.isValid() && m_coloured && std::isfinite(token.value)) back = colourAt(sequentialMap(), theme, (token.value - m_low) / std::max(1e-12, m_high - m_low));
    if (back.isValid()) painter.fillRect(token.fill.isValid() ? rect.adjusted(0, 0, -1, 0) : rect, back);
    painter.setPen(!back.isValid() ? theme.text : contrastRatio(back, Qt::black) > contrastRatio(back, Qt::white) ? QColor(Qt::black) : QColor(Qt::white));
    painter.drawText(rect, Qt::AlignLeft | Qt::AlignVCenter | Qt::TextSingleLine | Qt::TextDontClip, shown(token.text));
    if (!token.note.isEmpty()) {
        painter.setFont(noteFont());
        painter.setPen(theme.mutedText);
        painter.drawText(QRect(rect.left(), rect.bottom() + 4, rect.width(), lineHeight() - rect.height()), Qt::AlignHCenter | Qt::AlignTop | Qt::TextSingleLine | Qt::TextDontClip, token.note);
        painter.setFont(font());
    }
    // On a background of its own any series colour may vanish.
    if (token.marked) painter.fillRect(QRect(rect.left(), rect.bottom() + (token.fill.isValid() ? 1 : 0), rect.width() - 1, 2), token.fill.isValid() ? theme.text : theme.seriesColour(5));
    if (index == m_hovered) {
        painter.setPen(QPen(theme.hover, 0));
        painter.drawRect(rect.adjusted(0, 0, -1, 0));
    }
}

void TokenStrip::setHovered(int index) {
    if (m_hovered == index) return;
    m_hovered = index;
    viewport()->update();
}

void TokenStrip::mouseMoveEvent(QMouseEvent* event) {
    const int index = tokenAt(event->position().toPoint());
    if (index != m_hovered) Q_EMIT tokenHovered(index);
    setHovered(index);
    if (index >= 0 && !m_tokens[std::size_t(index)].tip.isEmpty())
        QToolTip::showText(event->globalPosition().toPoint() + QPoint(0, fontMetrics().height()), m_tokens[std::size_t(index)].tip, this);
    else QToolTip::hideText();
}

void TokenStrip::leaveEvent(QEvent* event) {
    setHovered(-1);
    Q_EMIT tokenHovered(-1);
    QAbstractScrollArea::leaveEvent(event);
}

void TokenStrip::keyPressEvent(QKeyEvent* event) {
    if (event->matches(QKeySequence::Copy)) {
        QApplication::clipboard()->setText(plainText());
        return event->accept();
    }
    if ((event->key() == Qt::Key_Left || event->key() == Qt::Key_Right) && !m_tokens.empty()) {
        const int next = std::clamp(m_hovered + (event->key() == Qt::Key_Right ? 1 : -1), 0, int(m_tokens.size()) - 1);
        setHovered(next);
        Q_EMIT tokenHovered(next);
        const QRect rect = tokenRect(next);
        if (rect.top() < 0 || rect.bottom() > viewport()->height()) verticalScrollBar()->setValue(verticalScrollBar()->value() + rect.top());
        return event->accept();
    }
    QAbstractScrollArea::keyPressEvent(event);
}

TokenDifference tokenDifference(const std::vector<QString>& left, const std::vector<QString>& right) {
    const std::size_t n = left.size(), m = right.size();
    std::vector<std::vector<int>> length(n + 1, std::vector<int>(m + 1, 0));
    for (std::size_t i = n; i-- > 0;)
        for (std::size_t j = m; j-- > 0;)
            length[i][j] = left[i] == right[j] ? length[i + 1][j + 1] + 1 : std::max(length[i + 1][j], length[i][j + 1]);
    TokenDifference difference{std::vector<bool>(n, true), std::vector<bool>(m, true)};
    for (std::size_t i = 0, j = 0; i < n && j < m;) {
        if (left[i] == right[j]) {
            difference.left[i++] = false;
            difference.right[j++] = false;
        } else if (length[i + 1][j] >= length[i][j + 1]) {
            ++i;
        } else {
            ++j;
        }
    }
    return difference;
}

}  // namespace resect::ui
