#include "app/pages/channel_plots.h"
#include "widgets/plots/axis_tickers.h"
#include "widgets/plots/marks.h"

#include <QKeyEvent>
#include <QMouseEvent>

#include <algorithm>
#include <cmath>

namespace resect::ui {

WidthBars::WidthBars(Document& document, QWidget* parent) : PartCanvas(document, parent) {
    setAccessibleName(tr("Kept MLP width of every block"));
    for (QCPBars** bars : {&m_gone, &m_bars}) {
        *bars = new QCPBars(xAxis, yAxis);
        (*bars)->setPen(Qt::NoPen);
        (*bars)->setAntialiased(false);
        (*bars)->setAntialiasedFill(false);
        (*bars)->setWidth(0.8);
        (*bars)->setSelectable(QCP::stNone);
    }
    xAxis->setTickLengthIn(0);
    xAxis->setLabel(tr("block"));
    yAxis->setLabel(tr("channels kept"));
    yAxis->setNumberFormat(QStringLiteral("f"));
    yAxis->setNumberPrecision(0);
    connect(&document, &Document::modelChanged, this, [this] {
        refresh();
        resetZoom();
    });
    WidthBars::restyle(currentTheme());
    refresh();
    resetZoom();
}

void WidthBars::restyle(const Theme& theme) {
    PartCanvas::restyle(theme);
    m_bars->setBrush(theme.seriesColour(2));
    m_gone->setBrush(QBrush(theme.nan));
}

void WidthBars::refresh() {
    m_ids.clear();
    m_kept.clear();
    m_full.clear();
    QVector<double> keys, kept, full;
    std::vector<std::int64_t> ids;
    if (const auto* model = document().model())
        for (const auto& block : model->blocks) {
            m_ids.push_back(block.index);
            m_full.push_back(block.ffnSize);
            m_kept.push_back(document().drops().empty() ? block.ffnSize : document().drops().keptChannels(block.index));
            ids.push_back(block.index);
            keys << double(m_ids.size() - 1);
            kept << m_kept.back();
            full << m_full.back();
        }
    m_widest = m_full.empty() ? 1 : std::max(1, *std::max_element(m_full.begin(), m_full.end()));
    m_bars->setData(keys, kept, true);
    m_gone->setData(keys, full, true);
    xAxis->setTicker(QSharedPointer<IdTicker>::create(ids, blocks()));
    redraw();
}

void WidthBars::resetZoom() {
    xAxis->setRange(-0.5, std::max(1, blocks()) - 0.5);
    yAxis->setRange(0, m_widest * 1.08);
    redraw();
}

std::optional<int> WidthBars::positionAt(QPointF position) const {
    if (!axisRect()->rect().contains(position.toPoint())) return std::nullopt;
    const int at = int(std::floor(xAxis->pixelToCoord(position.x()) + 0.5));
    return at >= 0 && at < blocks() ? std::optional(at) : std::nullopt;
}

QRectF WidthBars::columnRect(int position) const {
    const double left = xAxis->coordToPixel(position - 0.5), right = xAxis->coordToPixel(position + 0.5);
    return QRectF(left, axisRect()->top(), right - left, axisRect()->height());
}

QPointF WidthBars::topOf(int position) const { return {xAxis->coordToPixel(position), yAxis->coordToPixel(m_kept[std::size_t(position)])}; }

std::optional<ComponentRef> WidthBars::partAt(QPointF position) const {
    const auto at = positionAt(position);
    return at ? std::optional(mlpRef(m_ids[std::size_t(*at)])) : std::nullopt;
}

std::vector<ComponentRef> WidthBars::partsIn(const QRectF& rectangle) const {
    std::vector<ComponentRef> parts;
    for (int position = 0; position < blocks(); ++position)
        if (columnRect(position).intersects(rectangle)) parts.push_back(mlpRef(m_ids[std::size_t(position)]));
    return parts;
}

std::optional<ComponentRef> WidthBars::neighbour(const std::optional<ComponentRef>& from, int dx, int) const {
    if (m_ids.empty()) return std::nullopt;
    const auto found = from ? std::find(m_ids.begin(), m_ids.end(), from->block) : m_ids.end();
    if (found == m_ids.end()) return mlpRef(m_ids.front());
    return mlpRef(m_ids[std::size_t(std::clamp(int(found - m_ids.begin()) + dx, 0, blocks() - 1))]);
}

bool WidthBars::reveal(const ComponentRef& part) { return std::find(m_ids.begin(), m_ids.end(), part.block) != m_ids.end(); }

PlotTable WidthBars::table() const {
    PlotTable table;
    table.corner = tr("block");
    table.columns = {tr("channels kept"), tr("of")};
    for (int position = 0; position < blocks(); ++position) {
        table.rows << QString::number(m_ids[std::size_t(position)]);
        table.values.push_back(m_kept[std::size_t(position)]);
        table.values.push_back(m_full[std::size_t(position)]);
    }
    return table;
}

std::vector<int> WidthBars::moved(int position, bool all) const {
    const int block = m_ids[std::size_t(position)];
    std::vector<int> chosen = all ? selection().blocks() : std::vector<int>();
    if (std::find(chosen.begin(), chosen.end(), block) == chosen.end()) chosen.push_back(block);
    return chosen;
}

bool WidthBars::pressHandle(QMouseEvent& event) {
    const auto at = positionAt(event.position());
    if (!at || std::abs(event.position().y() - topOf(*at).y()) > fontMetrics().height() * 0.4) return false;
    m_dragged = at;
    return true;
}

void WidthBars::moveHandle(QMouseEvent& event) {
    const int full = m_full[std::size_t(*m_dragged)];
    const int width = snappedWidth(yAxis->pixelToCoord(event.position().y()), m_grid, full);
    Q_EMIT widthMoved(moved(*m_dragged, event.modifiers().testFlag(Qt::ShiftModifier)), width);
}

void WidthBars::releaseHandle(QMouseEvent&) {
    m_dragged.reset();
    Q_EMIT dragFinished();
}

void WidthBars::mouseMoveEvent(QMouseEvent* event) {
    PartCanvas::mouseMoveEvent(event);
    if (event->buttons() != Qt::NoButton) return;
    const auto at = positionAt(event->position());
    setCursor(at && std::abs(event->position().y() - topOf(*at).y()) <= fontMetrics().height() * 0.4 ? Qt::SizeVerCursor : Qt::ArrowCursor);
}

void WidthBars::keyPressEvent(QKeyEvent* event) {
    const int direction = event->key() == Qt::Key_Up ? 1 : event->key() == Qt::Key_Down ? -1 : 0;
    const auto& part = cursorPart();
    if (!direction || !part) return PartCanvas::keyPressEvent(event);
    const auto found = std::find(m_ids.begin(), m_ids.end(), part->block);
    if (found == m_ids.end()) return;
    const int position = int(found - m_ids.begin());
    const int width = snappedWidth(m_kept[std::size_t(position)] + direction * std::max(1, m_grid), m_grid, m_full[std::size_t(position)]);
    Q_EMIT widthMoved(moved(position, event->modifiers().testFlag(Qt::ShiftModifier)), width);
    Q_EMIT dragFinished();
    event->accept();
}

void WidthBars::drawSelection(QCPPainter& painter) const {
    const Theme& theme = currentTheme();
    painter.setClipRect(axisRect()->rect());
    for (int position = 0; position < blocks(); ++position) {
        const ComponentRef part = mlpRef(m_ids[std::size_t(position)]);
        const double left = xAxis->coordToPixel(position - 0.4), right = xAxis->coordToPixel(position + 0.4);
        const double top = yAxis->coordToPixel(m_full[std::size_t(position)]), kept = yAxis->coordToPixel(m_kept[std::size_t(position)]);
        painter.fillRect(QRectF(left, top, right - left, kept - top), QBrush(theme.droppedHatch, Qt::BDiagPattern));
        painter.fillRect(QRectF(left, kept - 1, right - left, 2), theme.text);
        if (selection().covers(part)) drawSelectedFrame(painter, columnRect(position), theme);
    }
}

void WidthBars::drawHover(QCPPainter& painter) const {
    const auto& hover = selection().hover();
    for (int position = 0; hover && position < blocks(); ++position)
        if (m_ids[std::size_t(position)] == hover->block && hover->kind != PartKind::Attention && hover->kind != PartKind::Head && hover->kind != PartKind::KvGroup)
            drawHoverOutline(painter, columnRect(position), currentTheme());
}

}  // namespace resect::ui
