#include "widgets/plots/interval_bars.h"

#include "widgets/plots/plot_table.h"
#include "widgets/plots/theme.h"

#include <QPainter>

#include <algorithm>
#include <cmath>

namespace resect::ui {

IntervalBars::IntervalBars(QWidget* parent) : QWidget(parent) {
    setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, qOverload<>(&QWidget::update));
}

void IntervalBars::setRows(std::vector<IntervalRow> rows, const QString& unit) {
    m_rows = std::move(rows);
    m_unit = unit;
    QStringList words;
    for (const IntervalRow& row : m_rows) {
        words << QStringLiteral("%1: %2").arg(row.label, shortNumber(row.value));
        if (std::isfinite(row.low)) words.back() += tr(" (%1 to %2)").arg(shortNumber(row.low), shortNumber(row.high));
    }
    setAccessibleDescription(words.join(QStringLiteral("; ")));
    updateGeometry();
    update();
}

QSize IntervalBars::minimumSizeHint() const {
    return {fontMetrics().averageCharWidth() * 24, int(m_rows.size()) * fontMetrics().height() * 3 / 2 + 4};
}

QSize IntervalBars::sizeHint() const { return minimumSizeHint() + QSize(fontMetrics().averageCharWidth() * 16, 0); }

void IntervalBars::paintEvent(QPaintEvent*) {
    QPainter painter(this);
    const Theme& theme = currentTheme();
    double low = std::numeric_limits<double>::infinity(), high = -low;
    int label = 0, number = 0;
    for (const IntervalRow& row : m_rows) {
        label = std::max(label, fontMetrics().horizontalAdvance(row.label));
        number = std::max(number, fontMetrics().horizontalAdvance(shortNumber(row.value) + QLatin1Char(' ') + m_unit));
        for (const double value : {row.value, row.low, row.high})
            if (std::isfinite(value)) {
                low = std::min(low, value);
                high = std::max(high, value);
            }
    }
    const double line = fontMetrics().height() * 1.5, gap = fontMetrics().averageCharWidth();
    const double from = label + 2 * gap, to = width() - number - 2 * gap;
    const auto at = [&](double value) { return high > low ? from + (to - from) * (value - low) / (high - low) : (from + to) / 2; };
    for (std::size_t i = 0; i < m_rows.size(); ++i) {
        const IntervalRow& row = m_rows[i];
        const QRectF strip(0, 2 + double(i) * line, width(), line);
        painter.setPen(theme.text);
        painter.drawText(QRectF(gap, strip.top(), label + 2, line), Qt::AlignLeft | Qt::AlignVCenter, row.label);
        painter.drawText(QRectF(to + gap, strip.top(), number + gap, line), Qt::AlignRight | Qt::AlignVCenter,
                         shortNumber(row.value) + (m_unit.isEmpty() ? QString() : QLatin1Char(' ') + m_unit));
        const double middle = std::round(strip.center().y());
        painter.fillRect(QRectF(from, middle, std::max(0.0, to - from), 1), theme.grid);
        if (!std::isfinite(row.value)) continue;
        const QColor ink = theme.seriesColour(row.colour);
        if (std::isfinite(row.low) && std::isfinite(row.high)) painter.fillRect(QRectF(at(row.low), middle - 1, std::max(1.0, at(row.high) - at(row.low)), 3), ink);
        painter.fillRect(QRectF(at(row.value) - 2, middle - line * 0.25, 4, line * 0.5), ink);
    }
}

}  // namespace resect::ui
