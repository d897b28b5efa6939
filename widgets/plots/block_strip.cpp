#include "widgets/plots/block_strip.h"

#include "widgets/plots/axis_tickers.h"
#include "widgets/plots/colour_maps.h"
#include "widgets/plots/marks.h"

#include <QKeyEvent>
#include <QMouseEvent>

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::array kRows = {BlockStrip::Attention, BlockStrip::Mlp, BlockStrip::Width, BlockStrip::Redundancy};
/// Beyond this ratio of largest to median value the small bars could not be told apart: logarithmic axis.
constexpr double kLogRatio = 5;

double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

}  // namespace

BlockStrip::BlockStrip(Document& document, QWidget* parent) : PartCanvas(document, parent) {
    toolTips = true;
    describe = [this](const ComponentRef& part) { return sentence(part); };
    setAccessibleName(tr("Block strip"));
    plotLayout()->clear();
    plotLayout()->setRowSpacing(0);
    const std::array labels = {tr("attention"), tr("MLP"), tr("width kept"), tr("like next")};
    for (const Row row : kRows) {
        Track& one = track(row);
        one.label = labels[std::size_t(row)];
        one.rect = new QCPAxisRect(this, true);
        one.rect->setMinimumSize(40, 5);
        one.rect->setAutoMargins(QCP::msNone);
        QCPAxis* x = one.rect->axis(QCPAxis::atBottom);
        for (QCPAxis* axis : one.rect->axes()) {
            axis->setLayer(QStringLiteral("axes"));
            axis->grid()->setVisible(false);
            axis->setTicks(axis == x && row == Redundancy);
            axis->setTickLabels(axis == x && row == Redundancy);
            axis->setVisible(axis == x || axis == one.rect->axis(QCPAxis::atLeft));
        }
        x->setTickLengthIn(0);
        x->setTickLengthOut(2);
        plotLayout()->addElement(row, 0, one.rect);
        connect(x, qOverload<const QCPRange&>(&QCPAxis::rangeChanged), this, [this](const QCPRange& range) {
            for (Track& other : m_tracks) {
                QCPAxis* axis = other.rect->axis(QCPAxis::atBottom);
                const QSignalBlocker blocked(axis);
                const double low = -0.5, high = std::max(1, blocks()) - 0.5, size = std::min(range.size(), high - low);
                const double start = std::clamp(range.lower, low, high - size);
                axis->setRange(start, start + size);
            }
        });
        if (row == Redundancy) continue;
        one.bars = new QCPBars(x, one.rect->axis(QCPAxis::atLeft));
        one.bars->setPen(Qt::NoPen);
        one.bars->setAntialiased(false);
        one.bars->setAntialiasedFill(false);
        one.bars->setWidth(0.8);
        one.bars->setSelectable(QCP::stNone);
        one.intervals = new QCPErrorBars(x, one.rect->axis(QCPAxis::atLeft));
        one.intervals->setDataPlottable(one.bars);
        one.intervals->setAntialiased(false);
        one.intervals->setWhiskerWidth(0);
        one.intervals->setSymbolGap(0);
        one.intervals->setSelectable(QCP::stNone);
    }
    QCPAxisRect* last = track(Redundancy).rect;
    m_redundancy = new QCPColorMap(last->axis(QCPAxis::atBottom), last->axis(QCPAxis::atLeft));
    m_redundancy->setInterpolate(false);
    m_redundancy->setSelectable(QCP::stNone);
    last->axis(QCPAxis::atLeft)->setRange(-0.5, 0.5);
    connect(&document, &Document::modelChanged, this, &BlockStrip::setModel);
    connect(&selection(), &SelectionModel::selectionChanged, this, [this] {
        // A threshold stands for the selection that it made; another selection sends the handle home.
        for (const Row row : {Attention, Mlp})
            if (m_dragged != row && std::isfinite(track(row).threshold) && normalised(belowThreshold(row, track(row).threshold)) != selection().refs())
                track(row).threshold = kNone;
        selectionLayer()->replot();
    });
    BlockStrip::restyle(currentTheme());
    setModel();
}

QSize BlockStrip::minimumSizeHint() const { return {fontMetrics().averageCharWidth() * 40, fontMetrics().height() * 2 + 8}; }

QSize BlockStrip::sizeHint() const { return {fontMetrics().averageCharWidth() * 80, fontMetrics().height() * 10}; }

void BlockStrip::setModel() {
    m_ids.clear();
    if (const auto* model = document().model())
        for (const auto& block : model->blocks) m_ids.push_back(block.index);
    const std::vector<std::int64_t> ids(m_ids.begin(), m_ids.end());
    track(Redundancy).rect->axis(QCPAxis::atBottom)->setTicker(QSharedPointer<IdTicker>::create(ids, blocks()));
    for (const Row row : kRows) clearScores(row);
    planChanged();
    resetZoom();
    setAccessibleDescription(tr("%n block(s). Scores of attention and MLP, MLP width kept, likeness to the next block.", nullptr, blocks()));
}

void BlockStrip::clearScores(Row row) {
    Track& one = track(row);
    one.measured = false;
    one.threshold = kNone;
    one.errors.clear();
    one.info = {};
    if (row == Redundancy) {
        one.values.assign(m_ids.size(), kNone);
        fillRedundancy();
    } else if (row != Width) {
        showParameterShares(row);
    }
    redraw();
}

void BlockStrip::showParameterShares(Row row) {
    Track& one = track(row);
    one.values.clear();
    if (const auto* model = document().model())
        for (const auto& block : model->blocks)
            one.values.push_back(share(double(row == Attention ? block.attentionParameters : block.ffnParameters), double(model->parameters)));
    fillBars(one);
}

void BlockStrip::setScores(Row row, const protocol::DatasetMessage& info, std::vector<double> values, std::vector<double> errors) {
    Track& one = track(row);
    one.info = info;
    one.values.assign(m_ids.size(), kNone);
    one.errors.clear();
    if (!errors.empty()) one.errors.assign(m_ids.size(), kNone);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const bool named = !info.axes.empty() && i < info.axes[0].ids.size();
        const int position = positionOf(named ? int(info.axes[0].ids[i]) : int(i));
        if (position < 0) continue;
        one.values[std::size_t(position)] = values[i];
        if (i < errors.size()) one.errors[std::size_t(position)] = errors[i];
    }
    one.measured = true;
    one.removableAbove = info.higher == "removable";
    one.threshold = kNone;
    if (row == Redundancy) fillRedundancy();
    else fillBars(one);
    redraw();
}

void BlockStrip::fillBars(Track& one) {
    QVector<double> keys, values, errors;
    std::vector<double> finite;
    double high = 0, low = 0;
    for (std::size_t i = 0; i < one.values.size(); ++i) {
        const double value = one.values[i];
        if (!std::isfinite(value)) continue;
        keys << double(i);
        values << value;
        errors << (i < one.errors.size() ? one.errors[i] : kNone);
        finite.push_back(value);
        high = std::max(high, value);
        low = std::min(low, value);
    }
    std::sort(finite.begin(), finite.end());
    const bool log = &one != &track(Width) && one.measured && !finite.empty() && finite.front() > 0 && high > kLogRatio * finite[finite.size() / 2];
    QCPAxis* axis = one.rect->axis(QCPAxis::atLeft);
    axis->setScaleType(log ? QCPAxis::stLogarithmic : QCPAxis::stLinear);
    one.logarithmic = log;
    one.bars->setBaseValue(log ? finite.front() / 4 : 0);
    one.bars->setData(keys, values, true);
    one.intervals->setData(one.errors.empty() ? QVector<double>() : errors);
    if (log) axis->setRange(finite.front() / 2, high * 1.3);
    else axis->setRange(low * 1.1, high > low ? high * 1.1 : low + 1);
}

void BlockStrip::fillRedundancy() {
    const auto& values = track(Redundancy).values;
    const int count = std::max(1, int(values.size()));
    m_redundancy->data()->setSize(count, 1);
    m_redundancy->data()->setRange(count > 1 ? QCPRange(0, count - 1) : QCPRange(-0.5, 0.5), QCPRange(-0.5, 0.5));
    m_redundancy->data()->fill(kNone);
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (!std::isfinite(values[i])) continue;
        // Logarithm of the distance: the interesting blocks lie within a per cent of each other, the first far away.
        const double shown = track(Redundancy).removableAbove ? values[i] : -std::log10(std::max(values[i], 1e-6));
        m_redundancy->data()->setCell(int(i), 0, shown);
        low = std::min(low, shown);
        high = std::max(high, shown);
    }
    m_redundancy->setDataRange(high > low ? QCPRange(low, high) : QCPRange(0, 1));
}

void BlockStrip::planChanged() {
    Track& one = track(Width);
    one.values.clear();
    if (const auto* model = document().model()) {
        int widest = 1;
        for (const auto& block : model->blocks) widest = std::max(widest, block.ffnSize);
        for (const auto& block : model->blocks)
            one.values.push_back(double(document().drops().empty() ? block.ffnSize : document().drops().keptChannels(block.index)) / widest);
    }
    fillBars(one);
    one.rect->axis(QCPAxis::atLeft)->setRange(0, 1.05);
    redraw();
}

void BlockStrip::restyle(const Theme& theme) {
    PartCanvas::restyle(theme);
    const std::array colours = {theme.series[4], theme.series[2], theme.axis};
    for (const Row row : {Attention, Mlp, Width}) {
        track(row).bars->setBrush(colours[std::size_t(row)]);
        track(row).intervals->setPen(QPen(theme.text, 0));
    }
    m_redundancy->setGradient(gradientOf(sequentialMap(), theme));
    layOut();
}

void BlockStrip::layOut() {
    const int line = fontMetrics().height();
    int label = 0;
    for (const Track& one : m_tracks) label = std::max(label, fontMetrics().horizontalAdvance(&one == &track(Attention) ? tr("%1 (log)").arg(one.label) : one.label));
    const bool low = height() < line * 5;  // collapsed: the two score rows only
    for (const Row row : kRows) {
        Track& one = track(row);
        const bool shown = !low || row == Attention || row == Mlp;
        one.rect->setVisible(shown);
        const bool ticks = row == Redundancy && !low;
        one.rect->setMargins(QMargins(label + 12, shown ? 3 : 0, line * 3 / 4, ticks ? line + 5 : 0));
        one.rect->setMaximumSize(QWIDGETSIZE_MAX, shown ? QWIDGETSIZE_MAX : 0);
        plotLayout()->setRowStretchFactor(row, !shown ? 0.001 : row == Redundancy ? 1.1 : row == Width ? 0.8 : 1.6);
    }
}

void BlockStrip::resizeEvent(QResizeEvent* event) {
    layOut();
    PartCanvas::resizeEvent(event);
}

void BlockStrip::resetZoom() {
    track(Attention).rect->axis(QCPAxis::atBottom)->setRange(-0.5, std::max(1, blocks()) - 0.5);
    redraw();
}

QList<QCPAxis*> BlockStrip::navigableAxes(QPointF) const { return {track(Attention).rect->axis(QCPAxis::atBottom)}; }

int BlockStrip::positionOf(int block) const {
    const auto found = std::find(m_ids.begin(), m_ids.end(), block);
    return found == m_ids.end() ? -1 : int(found - m_ids.begin());
}

std::optional<int> BlockStrip::positionAt(QPointF point) const {
    const QCPAxisRect* rect = track(Attention).rect;
    if (point.x() < rect->left() || point.x() > rect->right()) return std::nullopt;
    const int position = int(std::floor(rect->axis(QCPAxis::atBottom)->pixelToCoord(point.x()) + 0.5));
    return position >= 0 && position < blocks() ? std::optional(position) : std::nullopt;
}

std::optional<BlockStrip::Row> BlockStrip::rowAt(QPointF position) const {
    for (const Row row : kRows) {
        const QCPAxisRect* rect = track(row).rect;
        if (rect->visible() && position.y() >= rect->outerRect().top() && position.y() <= rect->outerRect().bottom()) return row;
    }
    return std::nullopt;
}

QRectF BlockStrip::columnRect(Row row, int position) const {
    const QCPAxisRect* rect = track(row).rect;
    const QCPAxis* x = rect->axis(QCPAxis::atBottom);
    const double left = x->coordToPixel(position - 0.5), right = x->coordToPixel(position + 0.5);
    return QRectF(left, rect->top(), right - left, rect->height());
}

ComponentRef BlockStrip::partOf(Row row, int position) const {
    const int block = m_ids[std::size_t(position)];
    return row == Attention ? attentionRef(block) : row == Redundancy ? blockRef(block) : mlpRef(block);
}

std::optional<ComponentRef> BlockStrip::partAt(QPointF position) const {
    const auto row = rowAt(position);
    const auto column = positionAt(position);
    return row && column ? std::optional(partOf(*row, *column)) : std::nullopt;
}

std::vector<ComponentRef> BlockStrip::partsIn(const QRectF& rectangle) const {
    std::vector<ComponentRef> parts;
    if (blocks() == 0) return parts;
    const QCPAxis* x = track(Attention).rect->axis(QCPAxis::atBottom);
    const int first = std::max(0, int(std::floor(x->pixelToCoord(rectangle.left()) + 0.5)));
    const int last = std::min(blocks() - 1, int(std::floor(x->pixelToCoord(rectangle.right()) + 0.5)));
    bool attention = false, mlp = false, whole = false;
    for (const Row row : kRows) {
        const QCPAxisRect* rect = track(row).rect;
        if (!rect->visible() || rectangle.bottom() < rect->outerRect().top() || rectangle.top() > rect->outerRect().bottom()) continue;
        (row == Attention ? attention : row == Redundancy ? whole : mlp) = true;
    }
    for (int position = first; position <= last; ++position) {
        if (whole || (attention && mlp)) parts.push_back(partOf(Redundancy, position));
        else parts.push_back(partOf(attention ? Attention : Mlp, position));
    }
    return parts;
}

std::optional<ComponentRef> BlockStrip::neighbour(const std::optional<ComponentRef>& from, int dx, int dy) const {
    if (blocks() == 0) return std::nullopt;
    const int position = from ? positionOf(from->block) : -1;
    if (position < 0) return partOf(Attention, 0);
    constexpr std::array order = {Attention, Mlp, Redundancy};
    const int row = from->kind == PartKind::Attention ? 0 : from->kind == PartKind::Mlp ? 1 : 2;
    return partOf(order[std::size_t(std::clamp(row + dy, 0, 2))], std::clamp(position + dx, 0, blocks() - 1));
}

bool BlockStrip::reveal(const ComponentRef& part) {
    const int position = positionOf(part.block);
    if (position < 0) return false;
    QCPAxis* x = track(Attention).rect->axis(QCPAxis::atBottom);
    const QCPRange range = x->range();
    if (position - 0.5 < range.lower || position + 0.5 > range.upper) x->setRange(position - range.size() / 2, position + range.size() / 2);
    redraw();
    return true;
}

PlotTable BlockStrip::table() const {
    PlotTable table;
    table.corner = tr("block");
    for (const Track& one : m_tracks) table.columns << (one.measured ? QString::fromStdString(one.info.title) : one.label);
    for (int position = 0; position < blocks(); ++position) {
        table.rows << QString::number(m_ids[std::size_t(position)]);
        for (const Track& one : m_tracks)
            table.values.push_back(std::size_t(position) < one.values.size() ? one.values[std::size_t(position)] : kNone);
    }
    return table;
}

QString BlockStrip::sentence(const ComponentRef& part) const {
    const int position = positionOf(part.block);
    const auto* model = document().model();
    if (position < 0 || !model) return {};
    const Row row = part.kind == PartKind::Attention ? Attention : part.kind == PartKind::Mlp ? Mlp : Redundancy;
    const Track& one = track(row);
    const double value = one.values[std::size_t(position)];
    QString words = text(part);
    if (!words.isEmpty()) words[0] = words[0].toUpper();
    if (one.measured && std::isfinite(value)) {
        const auto lower = std::count_if(one.values.begin(), one.values.end(), [&](double other) { return other < value; });
        words += tr(": %1 %2").arg(QString::fromStdString(one.info.title), shortNumber(value, 3));
        if (!one.errors.empty() && std::isfinite(one.errors[std::size_t(position)])) words += tr(" ± %1").arg(shortNumber(one.errors[std::size_t(position)], 2));
        words += tr(" (%1 lowest of %2, %3 samples)").arg(lower + 1).arg(blocks()).arg(one.info.samples);
    } else {
        words += tr(": not measured yet");
    }
    words += tr("; %1 % of the parameters").arg(100 * share(parametersOf(*model, part), double(model->parameters)), 0, 'f', 2);
    if (document().isDropped(part)) words += tr("; dropped by the plan");
    return words;
}

std::vector<ComponentRef> BlockStrip::belowThreshold(Row row, double value) const {
    std::vector<ComponentRef> parts;
    const Track& one = track(row);
    for (int position = 0; position < blocks(); ++position) {
        const double at = one.values[std::size_t(position)];
        if (std::isfinite(at) && (one.removableAbove ? at > value : at < value)) parts.push_back(partOf(row, position));
    }
    return parts;
}

QPointF BlockStrip::handlePosition(Row row) const {
    const Track& one = track(row);
    const QCPAxis* y = one.rect->axis(QCPAxis::atLeft);
    const double rest = one.removableAbove ? one.rect->top() : one.rect->bottom();
    return QPointF(one.rect->right(), std::isfinite(one.threshold) ? y->coordToPixel(one.threshold) : rest);
}

void BlockStrip::setThreshold(Row row, double value) {
    m_lastRow = row;
    const QCPRange range = track(row).rect->axis(QCPAxis::atLeft)->range();
    track(row).threshold = std::isfinite(value) ? std::clamp(value, range.lower, range.upper) : kNone;
    selectBelow(row);
    Q_EMIT thresholdMoved(row, track(row).threshold);
}

void BlockStrip::selectBelow(Row row) {
    const double at = track(row).threshold;
    selection().select(std::isfinite(at) ? belowThreshold(row, at) : std::vector<ComponentRef>());
    selectionLayer()->replot();
}

void BlockStrip::stepThreshold(int direction, int factor) {
    Track& one = track(m_lastRow);
    const QCPAxis* y = one.rect->axis(QCPAxis::atLeft);
    const double pixel = handlePosition(m_lastRow).y() - direction * factor * one.rect->height() / 100.0;
    setThreshold(m_lastRow, y->pixelToCoord(std::clamp(pixel, double(one.rect->top()), double(one.rect->bottom()))));
}

bool BlockStrip::pressHandle(QMouseEvent& event) {
    const int reach = fontMetrics().height() / 2 + 2;
    for (const Row row : {Attention, Mlp}) {
        if (!track(row).rect->visible() || blocks() == 0) continue;
        const QPointF handle = handlePosition(row);
        const bool grip = std::abs(event.position().x() - handle.x()) <= reach && std::abs(event.position().y() - handle.y()) <= reach;
        const bool line = std::isfinite(track(row).threshold) && std::abs(event.position().y() - handle.y()) <= 3 &&
                          event.position().x() >= track(row).rect->left() && event.position().x() <= handle.x();
        if (!grip && !line) continue;
        m_dragged = m_lastRow = row;
        selection().beginLiveGesture();
        return true;
    }
    return false;
}

void BlockStrip::moveHandle(QMouseEvent& event) {
    const QCPAxisRect* rect = track(*m_dragged).rect;
    const double pixel = std::clamp(event.position().y(), double(rect->top()), double(rect->bottom()));
    setThreshold(*m_dragged, rect->axis(QCPAxis::atLeft)->pixelToCoord(pixel));
}

void BlockStrip::releaseHandle(QMouseEvent&) {
    selection().endLiveGesture();
    Track& one = track(*m_dragged);
    const double rest = one.removableAbove ? one.rect->top() : one.rect->bottom();
    if (std::abs(handlePosition(*m_dragged).y() - rest) < 2) one.threshold = kNone;  // pushed back home
    m_dragged.reset();
    selectionLayer()->replot();
}

void BlockStrip::mouseMoveEvent(QMouseEvent* event) {
    PartCanvas::mouseMoveEvent(event);
    if (event->buttons() != Qt::NoButton) return;
    const int reach = fontMetrics().height() / 2 + 2;
    bool over = false;
    for (const Row row : {Attention, Mlp})
        over = over || (QPointF(event->position() - handlePosition(row)).manhattanLength() <= 2 * reach && track(row).rect->visible());
    setCursor(over && blocks() > 0 ? Qt::SizeVerCursor : Qt::ArrowCursor);
}

void BlockStrip::keyPressEvent(QKeyEvent* event) {
    const bool up = event->key() == Qt::Key_Plus || event->key() == Qt::Key_Equal, down = event->key() == Qt::Key_Minus || event->key() == Qt::Key_Underscore;
    if ((!up && !down) || event->modifiers().testFlag(Qt::ControlModifier)) return PartCanvas::keyPressEvent(event);
    if (cursorPart() && cursorPart()->kind == PartKind::Mlp) m_lastRow = Mlp;
    if (cursorPart() && cursorPart()->kind == PartKind::Attention) m_lastRow = Attention;
    const bool large = event->modifiers().testFlag(Qt::ShiftModifier) && event->key() != Qt::Key_Plus;
    stepThreshold(up ? 1 : -1, large ? 10 : 1);
    event->accept();
}

void BlockStrip::drawThreshold(QCPPainter& painter, Row row) const {
    const Theme& theme = currentTheme();
    const Track& one = track(row);
    const QPointF handle = handlePosition(row);
    const double size = fontMetrics().height() * 0.45;
    painter.setPen(QPen(theme.text, 0));
    painter.setBrush(theme.accent);
    painter.drawPolygon(QPolygonF({handle, handle + QPointF(size, -size), handle + QPointF(size, size)}));
    painter.setBrush(Qt::NoBrush);
    if (!std::isfinite(one.threshold)) return;
    painter.setPen(QPen(theme.accent, 0));
    painter.drawLine(QLineF(one.rect->left(), handle.y(), handle.x(), handle.y()));
    const auto parts = belowThreshold(row, one.threshold);
    double parameters = 0;
    const auto* model = document().model();
    for (const ComponentRef& part : parts) parameters += parametersOf(*model, part);
    const QString words = tr("%1 of %2, %3 % of the parameters").arg(parts.size()).arg(blocks()).arg(100 * share(parameters, double(model->parameters)), 0, 'f', 1);
    const int width = fontMetrics().horizontalAdvance(words) + 8, line = fontMetrics().height();
    const double top = handle.y() - line - 1 >= one.rect->top() - line / 2 ? handle.y() - line - 1 : handle.y() + 1;
    const QRectF box(handle.x() - width - size, top, width, line);
    painter.fillRect(box, theme.surface);
    painter.setPen(theme.text);
    painter.setFont(font());
    painter.drawText(box, Qt::AlignCenter, words);
}

void BlockStrip::drawSelection(QCPPainter& painter) const {
    const Theme& theme = currentTheme();
    const QRect area = track(Attention).rect->rect();
    painter.setFont(font());
    for (const Row row : kRows) {
        const Track& one = track(row);
        if (!one.rect->visible()) continue;
        painter.setPen(theme.mutedText);
        const QRect label(4, one.rect->top(), area.left() - 10, one.rect->height());
        painter.drawText(label.adjusted(0, -6, 0, 6), Qt::AlignRight | Qt::AlignVCenter, one.logarithmic ? tr("%1 (log)").arg(one.label) : one.label);
    }
    if (blocks() == 0) return;
    painter.setClipRect(QRect(area.left(), 0, area.width() + 1, height()));
    for (const Row row : kRows) {
        if (!track(row).rect->visible()) continue;
        CellMask selected(1, blocks());
        for (int position = 0; position < blocks(); ++position) {
            const ComponentRef part = partOf(row, position);
            const QRectF cell = columnRect(row, position).adjusted(0, 1, 0, 0);
            const DropState state = document().dropState(part);
            if (state == DropState::Dropped) drawDropped(painter, cell, theme);
            else if (state == DropState::Partly && row != Width && row != Redundancy) drawPartlyDropped(painter, cell, theme);
            if (row != Width && selection().covers(part)) selected.set(0, position);
        }
        const auto corner = [&](int r, int column) {
            const QRectF cell = columnRect(row, std::min(column, blocks() - 1));
            return QPointF(column == blocks() ? cell.right() : cell.left(), r == 0 ? cell.top() : cell.bottom());
        };
        drawOutline(painter, outline(selected), corner, theme);
    }
    painter.setClipping(false);
    for (const Row row : {Attention, Mlp})
        if (track(row).rect->visible()) drawThreshold(painter, row);
}

void BlockStrip::drawHover(QCPPainter& painter) const {
    const auto& hover = selection().hover();
    const int position = hover ? positionOf(hover->block) : -1;
    if (position < 0) return;
    const auto outlineRow = [&](Row row) {
        if (track(row).rect->visible()) drawHoverOutline(painter, columnRect(row, position), currentTheme());
    };
    switch (hover->kind) {
    case PartKind::Attention:
    case PartKind::Head:
    case PartKind::KvGroup: return outlineRow(Attention);
    case PartKind::Mlp: return outlineRow(Mlp);
    case PartKind::Channel: return outlineRow(Width);
    default: break;
    }
    for (const Row row : kRows) outlineRow(row);
}

}  // namespace resect::ui
