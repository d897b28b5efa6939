#include "app/pages/heads_page.h"

#include <QMouseEvent>
#include <QPainter>
#include <QToolTip>

#include <algorithm>
#include <cmath>
#include <set>

namespace resect::ui {

HeadsMap::HeadsMap(Document& document, QWidget* parent) : HeatmapView(document, parent) {
    setAccessibleName(HeadsMap::tr("Importance of heads"));
    connect(&selection(), &SelectionModel::selectionChanged, this, &HeadsMap::updateGroups);
    connect(&document, &Document::planChanged, this, &HeadsMap::updateGroups);
}

void HeadsMap::clickPart(const ComponentRef& part, Qt::KeyboardModifiers modifiers) {
    const auto* block = document().model() ? findBlock(*document().model(), part.block) : nullptr;
    if (part.kind != PartKind::Head || !modifiers.testFlag(Qt::ShiftModifier) || !block) return HeatmapView::clickPart(part, modifiers);
    std::vector<ComponentRef> group;
    for (const int head : headsOf(*block, kvGroupOf(*block, part.index))) group.push_back(headRef(part.block, head));
    if (group.empty()) group.push_back(part);
    selection().setAnchor(part);
    selection().select(group, modifiers.testFlag(Qt::ControlModifier) ? SelectionModel::Gesture::Add : SelectionModel::Gesture::Replace);
}

QString HeadsMap::unequalGroups(const protocol::BlockMessage& block) const {
    std::set<int> sizes;
    for (int group = 0; group < block.numKvHeads; ++group) {
        int left = 0;
        for (const int head : headsOf(block, group)) {
            const ComponentRef part = headRef(block.index, head);
            left += !document().isDropped(part) && !selection().covers(part);
        }
        if (left > 0) sizes.insert(left);
    }
    if (sizes.size() < 2) return {};
    QStringList words;
    for (const int size : sizes) words << QString::number(size);
    const QString last = words.takeLast();
    return tr("Block %1 would have %2 and %3 query heads per key head. Removing whole groups (press G) keeps it loadable everywhere; "
              "otherwise export pads %4 zero head(s).")
        .arg(block.index)
        .arg(words.join(QStringLiteral(", ")), last)
        .arg([&] {
            int padding = 0;
            for (int group = 0; group < block.numKvHeads; ++group) {
                int left = 0;
                for (const int head : headsOf(block, group)) left += !document().isDropped(headRef(block.index, head)) && !selection().covers(headRef(block.index, head));
                if (left > 0) padding += *sizes.rbegin() - left;
            }
            return padding;
        }());
}

void HeadsMap::updateGroups() {
    const auto* model = document().model();
    if (empty() || !model) return;
    const bool heads = info().axes.size() > 1 && info().axes[1].component == "head";
    std::vector<std::vector<int>> borders(static_cast<std::size_t>(rows()));
    QHash<int, QString> warnings;
    for (int row = 0; row < rows() && heads; ++row) {
        const auto part = partOf({row, 0});
        const auto* block = part ? findBlock(*model, part->block) : nullptr;
        if (!block || block->numKvHeads == block->numHeads || block->numKvHeads == 0) continue;
        for (int column = 1; column < columns(); ++column) {
            const auto left = partOf({row, column - 1}), right = partOf({row, column});
            if (left && right && kvGroupOf(*block, left->index) != kvGroupOf(*block, right->index)) borders[std::size_t(row)].push_back(column);
        }
        const QString warning = unequalGroups(*block);
        if (!warning.isEmpty()) warnings.insert(row, warning);
    }
    setGroupBorders(std::move(borders));
    setRowWarnings(std::move(warnings));
}

AttentionTile::AttentionTile(QWidget* parent) : QWidget(parent) {
    setMouseTracking(true);
    setAccessibleName(tr("Attention weights of a head"));
    QSizePolicy policy(QSizePolicy::Preferred, QSizePolicy::Preferred);
    policy.setHeightForWidth(true);
    setSizePolicy(policy);
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, [this] {
        if (!m_weights.empty()) setWeights(m_tokens, m_weights);
    });
}

QSize AttentionTile::sizeHint() const { return QSize(1, 1) * fontMetrics().averageCharWidth() * 34; }

void AttentionTile::setMessage(const QString& text) {
    m_tokens.clear();
    m_weights.clear();
    m_image = {};
    m_message = text;
    update();
}

void AttentionTile::setWeights(QStringList tokens, std::vector<double> weights) {
    const int count = int(tokens.size());
    m_message.clear();
    m_tokens = std::move(tokens);
    m_weights = std::move(weights);
    m_image = QImage(std::max(1, count), std::max(1, count), QImage::Format_RGB32);
    m_image.fill(currentTheme().nan);
    // The square root brings out small weights: rows sum to one, and most of it often lies on the first token.
    for (int row = 0; row < count; ++row)
        for (int column = 0; column <= row; ++column)
            m_image.setPixelColor(column, row, colourAt(sequentialMap(), currentTheme(), std::sqrt(std::max(0.0, m_weights[std::size_t(row) * std::size_t(count) + std::size_t(column)]))));
    setAccessibleDescription(tr("%n token(s)", nullptr, count));
    update();
}

QRect AttentionTile::square() const {
    const int side = std::min(width(), height());
    return QRect((width() - side) / 2, 0, side, side);
}

void AttentionTile::paintEvent(QPaintEvent*) {
    QPainter painter(this);
    const QRect area = square();
    painter.fillRect(area, currentTheme().background);
    if (!m_image.isNull()) return painter.drawImage(area, m_image);
    painter.setPen(currentTheme().mutedText);
    const int margin = fontMetrics().height();
    painter.drawText(area.adjusted(margin, margin, -margin, -margin), Qt::AlignCenter | Qt::TextWordWrap, m_message);
    painter.setPen(QPen(currentTheme().grid, 0));
    painter.drawRect(area.adjusted(0, 0, -1, -1));
}

void AttentionTile::mouseMoveEvent(QMouseEvent* event) {
    const int count = int(m_tokens.size());
    const QRect area = square();
    if (count == 0 || !area.contains(event->position().toPoint())) return QToolTip::hideText();
    const int column = std::clamp(int((event->position().x() - area.left()) * count / area.width()), 0, count - 1);
    const int row = std::clamp(int((event->position().y() - area.top()) * count / area.height()), 0, count - 1);
    const QString words = column > row ? tr("\"%1\" comes before \"%2\" and cannot see it").arg(m_tokens[row], m_tokens[column])
                                       : tr("\"%1\" attends to \"%2\" with %3 %").arg(m_tokens[row], m_tokens[column]).arg(100 * m_weights[std::size_t(row) * std::size_t(count) + std::size_t(column)], 0, 'f', 1);
    QToolTip::showText(event->globalPosition().toPoint() + QPoint(fontMetrics().height(), 0), words, this);
}

}  // namespace resect::ui
