#include "widgets/views/structure_view.h"

#include "widgets/views/style.h"

#include <QApplication>
#include <QHeaderView>
#include <QKeyEvent>
#include <QLineEdit>
#include <QMouseEvent>
#include <QPainter>
#include <QTimer>
#include <QTreeView>
#include <QVBoxLayout>

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

QRect boxRect(const QStyleOptionViewItem& option, const QWidget* widget) {
    const QStyle* style = widget ? widget->style() : QApplication::style();
    const QSize size(style->pixelMetric(QStyle::PM_IndicatorWidth, nullptr, widget), style->pixelMetric(QStyle::PM_IndicatorHeight, nullptr, widget));
    return QStyle::alignedRect(option.direction, Qt::AlignCenter, size, option.rect);
}

}  // namespace

void StructureDelegate::paint(QPainter* painter, const QStyleOptionViewItem& given, const QModelIndex& index) const {
    QStyleOptionViewItem option = given;
    initStyleOption(&option, index);
    const QStyle* style = option.widget ? option.widget->style() : QApplication::style();
    const Theme& theme = currentTheme();
    const auto drop = static_cast<DropState>(index.data(StructureModel::DropStateRole).toInt());
    painter->save();
    painter->setClipRect(option.rect);
    if (index.column() == StructureModel::Keep) {
        style->drawPrimitive(QStyle::PE_PanelItemViewItem, &option, painter, option.widget);
        const QVariant check = index.data(Qt::CheckStateRole);
        if (check.isValid()) {
            drawCheckBox(*painter, boxRect(option, option.widget), static_cast<Qt::CheckState>(check.toInt()));
        }
    } else {
        const QVariant score = index.column() == StructureModel::Score ? index.data(StructureModel::ScoreRole) : QVariant();
        if (score.isValid() && std::isfinite(score.toDouble()) && m_high > m_low && !(option.state & QStyle::State_Selected)) {
            const double share = std::clamp((score.toDouble() - m_low) / (m_high - m_low), 0.0, 1.0);
            QRect bar = option.rect.adjusted(2, 3, -2, -3);
            bar.setLeft(bar.right() - static_cast<int>(share * bar.width()));
            QColor colour = theme.series[1];
            colour.setAlpha(90);
            painter->fillRect(bar, colour);
        }
        if (drop == DropState::Dropped && !(option.state & QStyle::State_Selected)) option.palette.setColor(QPalette::Text, theme.mutedText);
        if (drop == DropState::Dropped && index.column() == StructureModel::Name) option.font.setStrikeOut(true);
        style->drawControl(QStyle::CE_ItemViewItem, &option, painter, option.widget);
    }
    if (drop == DropState::Dropped) {
        QColor hatch = theme.droppedHatch;
        hatch.setAlpha(110);
        painter->fillRect(option.rect, QBrush(hatch, Qt::BDiagPattern));
    }
    const ComponentRef ref = StructureModel::refAt(index);
    if (m_selection.hover() && ref.kind != PartKind::Model && *m_selection.hover() == ref) {
        painter->setPen(QPen(theme.hover, 1));
        painter->drawLine(option.rect.topLeft(), option.rect.topRight());
        painter->drawLine(option.rect.bottomLeft(), option.rect.bottomRight());
    }
    painter->restore();
}

bool StructureDelegate::editorEvent(QEvent* event, QAbstractItemModel* model, const QStyleOptionViewItem& option, const QModelIndex& index) {
    if (index.column() != StructureModel::Keep) return QStyledItemDelegate::editorEvent(event, model, option, index);
    const QVariant check = index.data(Qt::CheckStateRole);
    if (!check.isValid()) return false;
    if (event->type() == QEvent::MouseButtonRelease) {
        const auto* mouse = static_cast<QMouseEvent*>(event);
        if (mouse->button() != Qt::LeftButton || !boxRect(option, option.widget).adjusted(-3, -3, 3, 3).contains(mouse->position().toPoint())) return false;
    } else if (event->type() == QEvent::KeyPress) {
        if (static_cast<QKeyEvent*>(event)->key() != Qt::Key_Space) return false;
    } else {
        return event->type() == QEvent::MouseButtonDblClick;
    }
    const auto state = static_cast<Qt::CheckState>(check.toInt()) == Qt::Checked ? Qt::Unchecked : Qt::Checked;
    return model->setData(index, state, Qt::CheckStateRole);
}

QSize StructureDelegate::sizeHint(const QStyleOptionViewItem& option, const QModelIndex& index) const {
    QSize size = QStyledItemDelegate::sizeHint(option, index);
    size.setHeight(std::max(size.height(), option.fontMetrics.height() + 6));
    return size;
}

StructureView::StructureView(Document& document, SelectionModel& selection, QWidget* parent)
    : QWidget(parent), m_document(document), m_selection(selection), m_model(new StructureModel(document, this)), m_filter(new StructureFilter(document, this)),
      m_delegate(new StructureDelegate(selection, this)), m_filterLine(new QLineEdit(this)), m_filterProblem(makeLabel(QString(), "error", this)), m_tree(new QTreeView(this)) {
    m_filter->setSourceModel(m_model);
    m_filterLine->setPlaceholderText(tr("Filter: words, score<0.2, block>=10, dropped"));
    m_filterLine->setClearButtonEnabled(true);
    m_filterLine->setAccessibleName(tr("Filter of the structure tree"));
    m_filterProblem->hide();
    m_tree->setModel(m_filter);
    m_tree->setItemDelegate(m_delegate);
    m_tree->setUniformRowHeights(true);
    m_tree->setSelectionMode(QAbstractItemView::ExtendedSelection);
    m_tree->setSelectionBehavior(QAbstractItemView::SelectRows);
    m_tree->setAllColumnsShowFocus(true);
    m_tree->setMouseTracking(true);
    m_tree->setContextMenuPolicy(Qt::CustomContextMenu);
    m_tree->setExpandsOnDoubleClick(false);
    m_tree->setAccessibleName(tr("Structure of the model"));
    m_tree->setFrameShape(QFrame::NoFrame);
    auto* header = m_tree->header();
    header->setStretchLastSection(false);
    header->setSectionResizeMode(StructureModel::Name, QHeaderView::Stretch);
    header->setMinimumSectionSize(fontMetrics().horizontalAdvance(QStringLiteral("00.0 %")));
    for (int column = StructureModel::Keep; column < StructureModel::ColumnCount; ++column) header->setSectionResizeMode(column, QHeaderView::ResizeToContents);
    header->setSectionHidden(StructureModel::Score, true);
    m_tree->setIndentation(fontMetrics().height() * 4 / 5);

    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(4, 4, 4, 0);
    layout->setSpacing(4);
    layout->addWidget(m_filterLine);
    layout->addWidget(m_filterProblem);
    layout->addWidget(m_tree);

    connect(m_filterLine, &QLineEdit::textChanged, this, &StructureView::applyFilter);
    connect(m_tree->selectionModel(), &QItemSelectionModel::selectionChanged, this, &StructureView::takeTreeSelection);
    connect(&m_selection, &SelectionModel::selectionChanged, this, &StructureView::showSelection);
    connect(&m_selection, &SelectionModel::hoverChanged, m_tree->viewport(), qOverload<>(&QWidget::update));
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, m_tree->viewport(), qOverload<>(&QWidget::update));
    connect(m_tree, &QTreeView::entered, this, [this](const QModelIndex& index) {
        const ComponentRef ref = StructureModel::refAt(index);
        m_selection.setHover(ref.block >= 0 ? std::optional(ref) : std::nullopt);
    });
    connect(m_tree, &QTreeView::doubleClicked, this, [this](const QModelIndex& index) {
        if (index.column() != StructureModel::Keep) Q_EMIT opened(StructureModel::refAt(index));
    });
    connect(m_tree, &QTreeView::customContextMenuRequested, this, [this](const QPoint& position) { Q_EMIT menuRequested(m_tree->viewport()->mapToGlobal(position)); });
    connect(m_model, &QAbstractItemModel::modelReset, this, &StructureView::expandAtFirst);
    connect(&document, &Document::modelChanged, this, [this] { m_tree->header()->setSectionHidden(StructureModel::Score, true); });
    expandAtFirst();
}

void StructureView::resizeEvent(QResizeEvent* event) {
    QWidget::resizeEvent(event);
    // In a narrow dock the names need the room; the share is in the tool tip as well.
    m_tree->header()->setSectionHidden(StructureModel::Share, width() < fontMetrics().height() * 26);
}

void StructureView::expandAtFirst() {
    if (m_filter->rowCount() == 0) return;
    const QModelIndex top = m_filter->index(0, 0);
    m_tree->expand(top);
    for (int row = 0; row < m_filter->rowCount(top); ++row) {
        const QModelIndex child = m_filter->index(row, 0, top);
        if (child.data(StructureModel::IsGroupRole).toBool()) m_tree->expand(child);
    }
}

void StructureView::applyFilter(const QString& text) {
    m_filter->setText(text);
    m_filterProblem->setText(m_filter->problem());
    m_filterProblem->setVisible(!m_filter->problem().isEmpty());
    if (text.trimmed().isEmpty()) m_tree->collapseAll(), expandAtFirst();
    else m_tree->expandAll();
}

void StructureView::focusFilter() {
    m_filterLine->setFocus();
    m_filterLine->selectAll();
}

void StructureView::setScores(const QHash<ComponentRef, double>& scores, const QString& title, const QString& help) {
    double low = 0, high = 0;
    for (const double score : scores)
        if (std::isfinite(score)) low = std::min(low, score), high = std::max(high, score);
    m_delegate->setScoreRange(low, high);
    m_model->setScores(scores, title, help);
    m_tree->header()->setSectionHidden(StructureModel::Score, scores.isEmpty());
}

void StructureView::takeTreeSelection() {
    if (m_showing) return;
    std::vector<ComponentRef> refs;
    const QModelIndexList rows = m_tree->selectionModel()->selectedRows();
    for (const QModelIndex& row : rows)
        for (const auto& ref : m_model->refsAt(m_filter->mapToSource(row))) refs.push_back(ref);
    m_fromTree = true;
    if (refs.size() == 1) m_selection.setAnchor(refs.front());
    m_selection.select(std::move(refs));
}

void StructureView::showSelection() {
    if (std::exchange(m_fromTree, false)) return;
    constexpr size_t kMostRows = 4000;   // beyond that the tree marks nothing rather than making rows for everything
    m_showing = true;
    QItemSelection rows;
    QModelIndex first;
    if (m_selection.refs().size() <= kMostRows) {
        for (const auto& ref : m_selection.refs()) {
            if (ref.kind == PartKind::Channel) continue;  // counted, not listed
            const QModelIndex row = m_filter->mapFromSource(m_model->indexOf(ref));
            if (!row.isValid()) continue;
            if (!first.isValid()) first = row;
            rows.select(row, row);
        }
    }
    m_tree->selectionModel()->select(rows, QItemSelectionModel::ClearAndSelect | QItemSelectionModel::Rows);
    if (first.isValid()) {
        if (m_selection.refs().size() == 1) m_tree->selectionModel()->setCurrentIndex(first, QItemSelectionModel::NoUpdate);
        // Only what is open already is scrolled to: hovering through a heatmap must not unfold the tree.
        bool visible = true;
        for (QModelIndex up = first.parent(); up.isValid(); up = up.parent()) visible = visible && m_tree->isExpanded(up);
        if (visible) m_tree->scrollTo(first);
    }
    m_showing = false;
}

}  // namespace resect::ui
