#include "widgets/plots/curve_canvas.h"

#include "widgets/plots/decimate.h"

#include <QMouseEvent>
#include <QToolTip>

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kFollowShare = 0.1;

QSharedPointer<QCPGraphDataContainer> container(std::span<const double> xs, std::span<const double> ys) {
    auto data = QSharedPointer<QCPGraphDataContainer>::create();
    QVector<QCPGraphData> points;
    points.reserve(qsizetype(xs.size()));
    for (std::size_t i = 0; i < xs.size(); ++i) points.push_back({xs[i], ys[i]});
    data->set(points, true);
    return data;
}

/// The same hue, closer to the background: for raw values and envelopes, opaque because translucent lines are slow.
QColor faded(const QColor& colour, const QColor& background) {
    const auto mix = [](int a, int b) { return (a * 45 + b * 55) / 100; };
    return QColor(mix(colour.red(), background.red()), mix(colour.green(), background.green()), mix(colour.blue(), background.blue()));
}

}  // namespace

CurveCanvas::CurveCanvas(QWidget* parent) : PlotCanvas(parent) {
    plotLayout()->clear();
    plotLayout()->setRowSpacing(0);
    m_margins = new QCPMarginGroup(this);
    m_marks = new CurveMarks(this, CurveMarks::Events, QStringLiteral("overlay"));
    m_crosshair = new CurveMarks(this, CurveMarks::Crosshair, QStringLiteral("hover"));
    restyle(currentTheme());
}

CurveCanvas::~CurveCanvas() {
    // Axis rects outside the layout belong to nobody who would delete them before the plot's own members are gone.
    for (const auto& panel : panels)
        if (!panel->shown) delete panel->rect;
}

void CurveCanvas::addPanel(const CurvePanelInfo& info) {
    auto panel = std::make_unique<Panel>();
    panel->info = info;
    auto* rect = new QCPAxisRect(this, true);
    panel->rect = rect;
    rect->setMarginGroup(QCP::msLeft | QCP::msRight, m_margins);
    rect->setMinimumSize(80, 30);
    rect->axis(QCPAxis::atTop)->setVisible(false);
    rect->axis(QCPAxis::atRight)->setVisible(true);
    rect->axis(QCPAxis::atRight)->setTicks(false);
    rect->axis(QCPAxis::atRight)->setTickLabels(false);
    rect->axis(QCPAxis::atLeft)->setNumberPrecision(3);
    for (QCPAxis* axis : rect->axes()) axis->setLayer(QStringLiteral("axes"));
    for (QCPAxis* axis : rect->axes()) axis->grid()->setLayer(QStringLiteral("grid"));
    connect(rect->axis(QCPAxis::atBottom), qOverload<const QCPRange&>(&QCPAxis::rangeChanged), this, [this](const QCPRange& range) {
        if (m_syncing) return;
        m_syncing = true;
        for (const auto& other : panels) xAxisOf(*other)->setRange(range);
        m_syncing = false;
    });
    plotLayout()->addElement(plotLayout()->rowCount(), 0, rect);
    panel->shown = true;
    panels.push_back(std::move(panel));
    restyle(currentTheme());
}

void CurveCanvas::addSeries(const CurveSeriesInfo& info) {
    Panel* panel = findPanel(info.panel);
    if (!panel || findSeries(info.id)) return;
    auto added = std::make_unique<Series>();
    added->info = info;
    if (added->info.group.isEmpty()) added->info.group = info.title;
    const auto graph = [&] {
        auto* made = addGraph(panel->rect->axis(QCPAxis::atBottom), panel->rect->axis(QCPAxis::atLeft));
        made->setSelectable(QCP::stNone);
        made->setName(info.title);
        return made;
    };
    if (info.smoothed) {
        added->low = graph();
        added->high = graph();
    }
    added->main = graph();
    styleSeries(*added, currentTheme());
    series.push_back(std::move(added));
}

void CurveCanvas::removeGroup(const QString& group) {
    std::erase_if(series, [&](const std::unique_ptr<Series>& one) {
        if (one->info.group != group) return false;
        for (QCPGraph* graph : {one->main, one->low, one->high})
            if (graph) removeGraph(graph);
        return true;
    });
    std::erase_if(events, [&](const CurveEvent& event) { return event.group == group; });
}

void CurveCanvas::setReference(const QString& panel, const QString& id, double value, const QString& label, Qt::PenStyle pen) {
    const QString key = panel + QLatin1Char('/') + id;
    Panel* target = findPanel(panel);
    auto found = references.find(key);
    if (!target || !std::isfinite(value)) {
        if (found == references.end()) return;
        removeItem(found->second.line);
        references.erase(found);
        return;
    }
    if (found == references.end()) {
        Reference added{panel, value, new QCPItemStraightLine(this), label};
        added.line->setClipAxisRect(target->rect);
        added.line->setSelectable(false);
        for (QCPItemPosition* position : added.line->positions()) {
            position->setAxisRect(target->rect);
            position->setAxes(target->rect->axis(QCPAxis::atBottom), target->rect->axis(QCPAxis::atLeft));
            position->setTypeX(QCPItemPosition::ptAxisRectRatio);
        }
        found = references.emplace(key, added).first;
    }
    Reference& reference = found->second;
    reference.value = value;
    reference.label = label;
    reference.line->point1->setCoords(0, value);
    reference.line->point2->setCoords(1, value);
    reference.line->setPen(QPen(currentTheme().text, 0, pen));
}

void CurveCanvas::styleSeries(Series& one, const Theme& theme) {
    const QColor colour = theme.seriesColour(one.info.colour);
    QPen pen(colour, one.info.smoothed ? 2 : 1, one.info.smoothed ? Qt::SolidLine : one.info.pen);
    if (one.info.smoothed && one.info.pen != Qt::SolidLine) pen = QPen(colour, 1, one.info.pen);  // fast wide lines must be solid
    one.main->setPen(pen);
    const bool marks = !one.info.smoothed && one.values.size() <= 300;  // more marks than that would be a slow blur
    one.main->setScatterStyle(marks ? QCPScatterStyle(QCPScatterStyle::ssDisc, QPen(colour, 0), QBrush(colour), 6) : QCPScatterStyle());
    for (QCPGraph* graph : {one.low, one.high})
        if (graph) graph->setPen(QPen(faded(colour, theme.background), 0));
}

void CurveCanvas::restyle(const Theme& theme) {
    PlotCanvas::restyle(theme);
    for (const auto& one : series) styleSeries(*one, theme);
    for (auto& [key, reference] : references) reference.line->setPen(QPen(theme.text, 0, reference.line->pen().style()));
    for (const auto& panel : panels)  // hidden rects are not among axisRects()
        if (!panel->shown)
            for (QCPAxis* axis : panel->rect->axes()) axis->setTickLabelColor(theme.mutedText);
}

CurveCanvas::Panel* CurveCanvas::findPanel(const QString& id) {
    const auto found = std::find_if(panels.begin(), panels.end(), [&](const auto& panel) { return panel->info.id == id; });
    return found == panels.end() ? nullptr : found->get();
}

CurveCanvas::Series* CurveCanvas::findSeries(const QString& id) {
    const auto found = std::find_if(series.begin(), series.end(), [&](const auto& one) { return one->info.id == id; });
    return found == series.end() ? nullptr : found->get();
}

const std::vector<double>& CurveCanvas::xOf(const Series& one) const {
    return x == CurveX::Steps ? one.steps : x == CurveX::Tokens ? one.tokens : one.seconds;
}

double CurveCanvas::xOf(const CurveEvent& event) const {
    return x == CurveX::Steps ? event.step : x == CurveX::Tokens ? event.tokens : event.seconds;
}

QString CurveCanvas::xText(double at) const {
    if (x == CurveX::Steps) return tr("step %1").arg(at, 0, 'f', 0);
    if (x == CurveX::Tokens) return QStringLiteral("%1 %2").arg(at, 0, 'f', 0).arg(tokenWord);
    const auto seconds = std::int64_t(at);
    return QStringLiteral("%1:%2:%3").arg(seconds / 3600).arg(seconds / 60 % 60, 2, 10, QLatin1Char('0')).arg(seconds % 60, 2, 10, QLatin1Char('0'));
}

void CurveCanvas::markAllDirty() {
    for (const auto& one : series) one->dirty = true;
}

void CurveCanvas::layOut() {
    bool changed = false, any = false;
    const auto hasData = [this](const Panel& panel) {
        return std::any_of(series.begin(), series.end(), [&](const auto& one) {
            return one->visible && one->info.panel == panel.info.id &&
                   std::any_of(one->values.begin(), one->values.end(), [](double value) { return std::isfinite(value); });
        });
    };
    std::vector<bool> wanted;
    int room = std::max(1, height() / (fontMetrics().height() * 5));  // later panels give way in a low dock
    for (const auto& panel : panels) {
        wanted.push_back(room > 0 && !panel->info.collapsed && hasData(*panel));
        room -= wanted.back() ? 1 : 0;
        any = any || wanted.back();
    }
    if (!any)
        for (std::size_t i = 0; i < panels.size(); ++i)
            if (!panels[i]->info.collapsed) {  // an empty plot still has axes
                wanted[i] = true;
                break;
            }
    for (std::size_t i = 0; i < panels.size(); ++i) changed = changed || wanted[i] != panels[i]->shown;
    if (changed) {
        for (const auto& panel : panels)
            if (panel->shown) plotLayout()->take(panel->rect);
        plotLayout()->simplify();
        for (std::size_t i = 0; i < panels.size(); ++i) {
            panels[i]->shown = wanted[i];
            panels[i]->rect->setVisible(wanted[i]);
            if (wanted[i]) plotLayout()->addElement(plotLayout()->rowCount(), 0, panels[i]->rect);
        }
        PlotCanvas::restyle(currentTheme());
        markAllDirty();
    }
    Panel* last = nullptr;
    int row = 0;
    for (const auto& panel : panels) {
        for (const auto& [key, reference] : references)
            if (reference.panel == panel->info.id) reference.line->setVisible(panel->shown);
        if (!panel->shown) continue;
        plotLayout()->setRowStretchFactor(row++, panel->info.height);
        last = panel.get();
    }
    for (const auto& panel : panels) {
        QCPAxis* axis = xAxisOf(*panel);
        axis->setTickLabels(panel.get() == last);
        axis->setLabel(panel.get() != last ? QString() : x == CurveX::Steps ? tr("step") : x == CurveX::Tokens ? tokenWord : tr("time without pauses"));
        QSharedPointer<QCPAxisTicker> ticker;
        if (x == CurveX::Time) {
            auto time = QSharedPointer<QCPAxisTickerTime>::create();
            time->setTimeFormat(QStringLiteral("%h:%m:%s"));
            ticker = time;
        } else {
            ticker = QSharedPointer<QCPAxisTicker>::create();
        }
        axis->setTicker(ticker);
        const bool log = logarithmic && panel->info.logarithmic;
        QCPAxis* value = panel->rect->axis(QCPAxis::atLeft);
        if (log != (value->scaleType() == QCPAxis::stLogarithmic)) {
            value->setScaleType(log ? QCPAxis::stLogarithmic : QCPAxis::stLinear);
            value->setTicker(log ? QSharedPointer<QCPAxisTicker>(new QCPAxisTickerLog) : QSharedPointer<QCPAxisTicker>::create());
        }
        value->setNumberFormat(QStringLiteral("gb"));
        value->setNumberPrecision(4);
    }
}

void CurveCanvas::fill(Series& one) {
    const auto& xs = xOf(one);
    for (QCPGraph* graph : {one.main, one.low, one.high})
        if (graph) graph->setVisible(one.visible && findPanel(one.info.panel)->shown);
    if (!one.visible) return;
    if (!one.info.smoothed) {
        one.main->setData(container(xs, one.values));
        styleSeries(one, currentTheme());
        return;
    }
    one.main->setData(container(xs, smoothByHalfLife(one.steps, one.values, halfLife)));
    if (raw) {
        one.low->setData(container(xs, one.values));
        one.high->data()->clear();
        return;
    }
    Panel* panel = findPanel(one.info.panel);
    const QCPRange range = xAxisOf(*panel)->range();
    const Envelope envelope = minMaxPerColumn(xs, one.values, range.lower, range.upper, std::max(40, panel->rect->width() / 4));
    one.low->setData(container(envelope.x, envelope.low));
    one.high->setData(container(envelope.x, envelope.high));
}

void CurveCanvas::updateXRange() {
    if (follow == CurveFollow::Free || panels.empty()) return;
    double first = kNone, last = kNone;
    for (const auto& one : series) {
        const auto& xs = xOf(*one);
        if (!one->visible || xs.empty()) continue;
        first = std::isnan(first) ? xs.front() : std::min(first, xs.front());
        last = std::isnan(last) ? xs.back() : std::max(last, xs.back());
    }
    if (std::isnan(first)) return;
    const double span = std::max(last - first, 1.0);
    const double lower = follow == CurveFollow::Latest ? last - kFollowShare * span : first;
    xAxisOf(*panels.front())->setRange(lower, std::max(last, lower + 1e-9) + 0.02 * (last - lower) + (last == lower ? 1.0 : 0.0));
}

void CurveCanvas::updateYRange(Panel& panel) {
    const QCPRange shown = xAxisOf(panel)->range();
    QCPAxis* axis = panel.rect->axis(QCPAxis::atLeft);
    const bool log = axis->scaleType() == QCPAxis::stLogarithmic;
    double low = kNone, high = kNone;
    const auto take = [&](double value) {
        if (!std::isfinite(value) || (log && value <= 0)) return;
        low = std::isnan(low) ? value : std::min(low, value);
        high = std::isnan(high) ? value : std::max(high, value);
    };
    for (const auto& one : series) {
        if (!one->visible || one->info.panel != panel.info.id) continue;
        for (const QCPGraph* graph : {one->main, one->low, one->high}) {
            if (!graph) continue;
            const auto data = graph->data();
            for (auto it = data->findBegin(shown.lower, false); it != data->constEnd() && it->key <= shown.upper; ++it) take(it->value);
        }
    }
    for (const auto& [key, reference] : references)
        if (reference.panel == panel.info.id) take(reference.value);
    if (std::isnan(low)) return;
    low = std::max(low, panel.info.clipLow);
    high = std::min(high, panel.info.clipHigh);
    if (!(high > low)) {
        const double margin = std::max(std::abs(low) * 0.05, 1e-9);
        low -= margin;
        high = low + 2 * margin;
    }
    if (log) axis->setRange(low / std::pow(high / low, 0.06), high * std::pow(high / low, 0.06));
    else axis->setRange(low - 0.06 * (high - low), high + 0.06 * (high - low));
}

void CurveCanvas::update() {
    layOut();
    int labelWidth = 0;
    for (const auto& [key, reference] : references)
        if (findPanel(reference.panel)->shown) labelWidth = std::max(labelWidth, fontMetrics().horizontalAdvance(reference.label) + 8);
    for (const auto& panel : panels)
        panel->rect->setMinimumMargins(QMargins(0, fontMetrics().height() + 4, std::max(labelWidth, fontMetrics().averageCharWidth() * 2), 4));
    updateXRange();
    for (const auto& one : series) {
        if (!one->dirty && !(one->info.smoothed && !raw)) continue;  // the envelope follows the visible range
        fill(*one);
        one->dirty = false;
    }
    for (const auto& panel : panels)
        if (panel->shown) updateYRange(*panel);
    redraw();
}

void CurveCanvas::resetZoom() {
    follow = CurveFollow::All;
    markAllDirty();
    update();
    Q_EMIT zoomed();
}

QList<QCPAxis*> CurveCanvas::navigableAxes(QPointF) const {
    for (const auto& panel : panels)
        if (panel->shown) return {xAxisOf(*panel)};
    return {};
}

void CurveCanvas::wheelEvent(QWheelEvent* event) {
    follow = CurveFollow::Free;
    PlotCanvas::wheelEvent(event);
    update();
    Q_EMIT zoomed();
}

void CurveCanvas::mouseMoveEvent(QMouseEvent* event) {
    if (event->buttons().testFlag(Qt::MiddleButton)) {
        follow = CurveFollow::Free;
        PlotCanvas::mouseMoveEvent(event);
        update();
        Q_EMIT zoomed();
        return;
    }
    PlotCanvas::mouseMoveEvent(event);
    const QCPAxisRect* rect = axisRectAt(event->position());
    const bool inside = rect && rect->rect().contains(event->position().toPoint());
    hoverX = inside ? rect->axis(QCPAxis::atBottom)->pixelToCoord(event->position().x()) : kNone;
    hoverLayer()->replot();
    const QString text = inside ? hoverText(hoverX) : QString();
    if (text.isEmpty()) QToolTip::hideText();
    else QToolTip::showText(event->globalPosition().toPoint() + QPoint(fontMetrics().height(), fontMetrics().height()), text, this);
}

void CurveCanvas::leaveEvent(QEvent* event) {
    hoverX = kNone;
    hoverLayer()->replot();
    PlotCanvas::leaveEvent(event);
}

void CurveCanvas::resizeEvent(QResizeEvent* event) {
    PlotCanvas::resizeEvent(event);
    if (!panels.empty()) update();
}

QString CurveCanvas::hoverText(double at) const {
    QStringList lines;
    for (const auto& one : series) {
        const auto& xs = xOf(*one);
        if (!one->visible || xs.empty()) continue;
        auto after = std::lower_bound(xs.begin(), xs.end(), at);
        if (after == xs.end() || (after != xs.begin() && at - *(after - 1) < *after - at)) --after;
        const auto index = std::size_t(after - xs.begin());
        const double value = one->values[index];
        const QString name = one->info.group == one->info.title ? one->info.title : one->info.group + QStringLiteral(" ") + one->info.title;
        lines << QStringLiteral("<tr><td style='color:%1'>&#9632;</td><td>%2&nbsp;</td><td align='right'>%3</td><td>&nbsp;(%4)</td></tr>")
                     .arg(currentTheme().seriesColour(one->info.colour).name(), name.toHtmlEscaped(),
                          std::isfinite(value) ? shortNumber(value, 5) : tr("not a number"), xText(xs[index]));
    }
    QStringList notes;
    const double reach = panels.empty() ? 0 : xAxisOf(*panels.front())->range().size() * 0.01;
    for (const CurveEvent& event : events)
        if (std::abs(xOf(event) - at) <= reach) notes << (event.text.isEmpty() ? event.kind : event.text).toHtmlEscaped();
    if (lines.isEmpty() && notes.isEmpty()) return {};
    notes.removeDuplicates();
    return QStringLiteral("<table>%1</table>%2").arg(lines.join(QString()), notes.join(QStringLiteral("<br>")));
}

PlotTable CurveCanvas::table() const {
    PlotTable table;
    table.corner = x == CurveX::Steps ? tr("step") : x == CurveX::Tokens ? tokenWord : tr("seconds");
    std::map<double, std::vector<double>> rows;
    std::vector<const Series*> shown;
    for (const auto& one : series)
        if (one->visible && !one->values.empty()) shown.push_back(one.get());
    for (std::size_t column = 0; column < shown.size(); ++column) {
        const Series& one = *shown[column];
        table.columns << (one.info.group == one.info.title ? one.info.title : one.info.group + QLatin1Char(' ') + one.info.title);
        const auto& xs = xOf(one);
        for (std::size_t i = 0; i < xs.size(); ++i) {
            auto& row = rows[xs[i]];
            row.resize(shown.size(), kNone);
            row[column] = one.values[i];
        }
    }
    for (const auto& [at, row] : rows) {
        table.rows << QString::number(at, 'g', 12);
        table.values.insert(table.values.end(), row.begin(), row.end());
    }
    return table;
}

void CurveMarks::draw(QCPPainter* painter) {
    if (m_kind == Crosshair) return drawCrosshair(painter);
    bool first = true;
    for (const auto& panel : m_canvas->panels) {
        if (!panel->shown) continue;
        drawNaNTicks(painter, *panel);
        if (first) drawEvents(painter, *panel);
        drawHeading(painter, *panel, first);
        drawReferenceLabels(painter, *panel);
        first = false;
    }
}

void CurveMarks::drawCrosshair(QCPPainter* painter) const {
    if (!std::isfinite(m_canvas->hoverX)) return;
    painter->setPen(QPen(currentTheme().hover, 0));
    for (const auto& panel : m_canvas->panels) {
        if (!panel->shown) continue;
        const QRect area = panel->rect->rect();
        const double at = m_canvas->xAxisOf(*panel)->coordToPixel(m_canvas->hoverX);
        if (at >= area.left() && at <= area.right()) painter->drawLine(QLineF(at, area.top(), at, area.bottom()));
    }
}

void CurveMarks::drawNaNTicks(QCPPainter* painter, const CurveCanvas::Panel& panel) const {
    const QRect area = panel.rect->rect();
    const double size = m_canvas->fontMetrics().height() * 0.5;
    painter->setPen(QPen(currentTheme().error, 1));
    for (const auto& one : m_canvas->series) {
        if (!one->visible || one->info.panel != panel.info.id) continue;
        const auto& xs = m_canvas->xOf(*one);
        double last = -1e9;
        for (std::size_t i = 0; i < xs.size(); ++i) {
            if (std::isfinite(one->values[i])) continue;
            const double at = m_canvas->xAxisOf(panel)->coordToPixel(xs[i]);
            if (at - last < 1 || at < area.left() || at > area.right()) continue;
            last = at;
            painter->drawLine(QLineF(at, area.bottom() - size, at, area.bottom()));
        }
    }
}

void CurveMarks::drawEvents(QCPPainter* painter, const CurveCanvas::Panel& panel) const {
    const Theme& theme = currentTheme();
    const QRect area = panel.rect->rect();
    const double size = m_canvas->fontMetrics().height() * 0.5;
    for (const CurveEvent& event : m_canvas->events) {
        const double at = m_canvas->xAxisOf(panel)->coordToPixel(m_canvas->xOf(event));
        if (at < area.left() || at > area.right()) continue;
        const QColor colour = event.kind == QLatin1String("nonfinite") || event.kind == QLatin1String("restart") ? theme.error : theme.mutedText;
        if (event.kind == QLatin1String("checkpoint")) {
            painter->setPen(QPen(colour, 0));
            painter->setBrush(colour);
            painter->drawPolygon(QPolygonF({{at - size / 2, double(area.bottom())}, {at + size / 2, double(area.bottom())}, {at, area.bottom() - size}}));
            painter->setBrush(Qt::NoBrush);
        } else {
            painter->setPen(QPen(colour, 0, event.kind == QLatin1String("pause") ? Qt::DotLine : Qt::DashLine));
            painter->drawLine(QLineF(at, area.top(), at, area.bottom()));
        }
    }
}

void CurveMarks::drawHeading(QCPPainter* painter, const CurveCanvas::Panel& panel, bool first) const {
    const Theme& theme = currentTheme();
    const QFontMetrics metrics = m_canvas->fontMetrics();
    const QRect area = panel.rect->rect();
    const QRect strip(area.left(), area.top() - metrics.height() - 3, area.width(), metrics.height());
    painter->setFont(m_canvas->font());
    painter->setPen(theme.text);
    painter->drawText(strip, Qt::AlignLeft | Qt::AlignVCenter, panel.info.title);
    if (!first) return;
    QStringList groups;
    for (const auto& one : m_canvas->series)
        if (one->visible && !groups.contains(one->info.group)) groups << one->info.group;
    // One run: what the two kinds of line are. Several: the colour names the run; lines with marks are evaluations everywhere.
    int right = strip.right();
    const int sample = metrics.height() * 2, left = strip.left() + metrics.horizontalAdvance(panel.info.title) + sample;
    for (auto it = m_canvas->series.rbegin(); it != m_canvas->series.rend(); ++it) {
        const auto& one = **it;
        if (!one.visible || one.info.panel != panel.info.id || (groups.size() > 1 && !one.info.smoothed)) continue;
        const QString name = groups.size() > 1 ? one.info.group : one.info.title;
        const int width = metrics.horizontalAdvance(name);
        if (right - width - sample - 6 < left) break;
        painter->setPen(theme.text);
        painter->drawText(QRect(right - width, strip.top(), width + 1, strip.height()), Qt::AlignLeft | Qt::AlignVCenter, name);
        const double middle = strip.center().y() + 0.5, end = right - width - 6;
        painter->setPen(one.main->pen());
        painter->drawLine(QLineF(end - sample, middle, end, middle));
        if (!one.info.smoothed) one.main->scatterStyle().applyTo(painter, one.main->pen()), one.main->scatterStyle().drawShape(painter, end - sample / 2.0, middle);
        right = int(end) - sample - metrics.height();
    }
}

void CurveMarks::drawReferenceLabels(QCPPainter* painter, const CurveCanvas::Panel& panel) const {
    std::vector<const CurveCanvas::Reference*> here;
    for (const auto& [key, reference] : m_canvas->references)
        if (reference.panel == panel.info.id) here.push_back(&reference);
    std::sort(here.begin(), here.end(), [](const auto* a, const auto* b) { return a->value > b->value; });
    const QRect area = panel.rect->rect();
    const int height = m_canvas->fontMetrics().height();
    painter->setPen(currentTheme().text);
    painter->setFont(m_canvas->font());
    int lowest = area.top() - height;
    for (const auto* reference : here) {
        const double at = panel.rect->axis(QCPAxis::atLeft)->coordToPixel(reference->value);
        if (at < area.top() - 1 || at > area.bottom() + 1) continue;
        const int top = std::max(int(at) - height / 2, lowest);  // pushed down rather than written over its neighbour
        painter->drawText(QRect(area.right() + 6, top, m_canvas->width() - area.right() - 6, height), Qt::AlignLeft | Qt::AlignVCenter, reference->label);
        lowest = top + height;
    }
}

}  // namespace resect::ui
