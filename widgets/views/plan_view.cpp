#include "widgets/views/plan_view.h"

#include "widgets/views/flow_layout.h"
#include "widgets/views/style.h"

#include <QAction>
#include <QApplication>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QInputDialog>
#include <QKeyEvent>
#include <QListView>
#include <QMenu>
#include <QMouseEvent>
#include <QPainter>
#include <QProgressBar>
#include <QPushButton>
#include <QScrollArea>
#include <QSplitter>
#include <QStackedWidget>
#include <QTableView>
#include <QToolButton>
#include <QVBoxLayout>

namespace resect::ui {
namespace {

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

QRect checkRect(const QStyleOptionViewItem& option) {
    const QStyle* style = option.widget ? option.widget->style() : QApplication::style();
    const int width = style->pixelMetric(QStyle::PM_IndicatorWidth), height = style->pixelMetric(QStyle::PM_IndicatorHeight);
    return {option.rect.left() + 6, option.rect.top() + (option.fontMetrics.height() + 8 - height) / 2, width, height};
}

}  // namespace

QSize PlanDelegate::sizeHint(const QStyleOptionViewItem& option, const QModelIndex&) const {
    return {100, static_cast<int>(option.fontMetrics.height() * 1.9) + 8};
}

void PlanDelegate::paint(QPainter* painter, const QStyleOptionViewItem& given, const QModelIndex& index) const {
    QStyleOptionViewItem option = given;
    initStyleOption(&option, index);
    const QStyle* style = option.widget ? option.widget->style() : QApplication::style();
    const Theme& theme = currentTheme();
    const bool selected = option.state & QStyle::State_Selected, on = index.data(PlanModel::EnabledRole).toBool();
    painter->save();
    style->drawPrimitive(QStyle::PE_PanelItemViewItem, &option, painter, option.widget);
    const QRect box = checkRect(option);
    drawCheckBox(*painter, box, on ? Qt::Checked : Qt::Unchecked);

    const int left = box.right() + 7, lineHeight = option.fontMetrics.height();
    int right = option.rect.right() - 6;
    const QString severity = index.data(PlanModel::SeverityRole).toString();
    if (!severity.isEmpty()) {
        const QRect place(right - lineHeight, option.rect.top() + 4, lineHeight, lineHeight);
        severityIcon(severity).paint(painter, place);
        right = place.left() - 4;
    }
    const QPalette::ColorGroup group = option.state & QStyle::State_Active ? QPalette::Active : QPalette::Inactive;
    painter->setPen(selected ? option.palette.color(group, QPalette::HighlightedText) : on ? theme.text : theme.mutedText);
    QFont font = option.font;
    font.setStrikeOut(!on);
    painter->setFont(font);
    const QString title = QStringLiteral("%1  %2").arg(index.row() + 1).arg(index.data(Qt::DisplayRole).toString());
    const QRect first(left, option.rect.top() + 4, right - left, lineHeight);
    painter->drawText(first, Qt::AlignLeft | Qt::AlignVCenter, option.fontMetrics.elidedText(title, Qt::ElideRight, first.width()));
    QFont small = option.font;
    small.setPointSizeF(small.pointSizeF() * 0.88);
    painter->setFont(small);
    if (!selected) painter->setPen(theme.mutedText);
    const QString note = index.data(PlanModel::NoteRole).toString(), origin = index.data(PlanModel::OriginRole).toString();
    const QRect second(left, first.bottom() + 1, option.rect.right() - 6 - left, option.rect.bottom() - first.bottom() - 3);
    const QString words = note.isEmpty() ? origin : QStringLiteral("%1: %2").arg(origin, note);
    painter->drawText(second, Qt::AlignLeft | Qt::AlignVCenter, QFontMetrics(small).elidedText(words, Qt::ElideRight, second.width()));
    painter->restore();
}

bool PlanDelegate::editorEvent(QEvent* event, QAbstractItemModel* model, const QStyleOptionViewItem& option, const QModelIndex& index) {
    const auto toggle = [&] {
        return model->setData(index, index.data(PlanModel::EnabledRole).toBool() ? Qt::Unchecked : Qt::Checked, Qt::CheckStateRole);
    };
    if (event->type() == QEvent::MouseButtonRelease) {
        const auto* mouse = static_cast<QMouseEvent*>(event);
        return mouse->button() == Qt::LeftButton && checkRect(option).adjusted(-4, -4, 4, 4).contains(mouse->position().toPoint()) && toggle();
    }
    if (event->type() == QEvent::KeyPress && static_cast<QKeyEvent*>(event)->key() == Qt::Key_Space) return toggle();
    return false;
}

PlanView::PlanView(Document& document, QWidget* parent) : QWidget(parent), m_document(document), m_model(new PlanModel(document, this)), m_costs(new CostModel(document, this)) {
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(4, 4, 4, 4);
    auto* splitter = new QSplitter(Qt::Vertical, this);
    splitter->setChildrenCollapsible(false);
    layout->addWidget(splitter);

    m_stack = new QStackedWidget(splitter);
    auto* empty = new QWidget(m_stack);
    auto* emptyLayout = new QVBoxLayout(empty);
    emptyLayout->addStretch();
    auto* words = makeLabel(tr("No edits yet. Select parts and press Delete. Nothing is written before Recover or Export, so nothing can be lost by trying."), "muted", empty);
    words->setAlignment(Qt::AlignCenter);
    emptyLayout->addWidget(words);
    m_suggest = new QPushButton(tr("Suggest..."), empty);
    m_suggest->setToolTip(tr("Let a method propose edits from a measurement"));
    emptyLayout->addWidget(m_suggest, 0, Qt::AlignHCenter);
    emptyLayout->addStretch();
    m_stack->addWidget(empty);
    m_list = new QListView(m_stack);
    m_list->setModel(m_model);
    m_list->setItemDelegate(new PlanDelegate(m_list));
    m_list->setSelectionMode(QAbstractItemView::ExtendedSelection);
    m_list->setDragDropMode(QAbstractItemView::InternalMove);
    m_list->setDefaultDropAction(Qt::MoveAction);
    m_list->setFrameShape(QFrame::NoFrame);
    m_list->setContextMenuPolicy(Qt::CustomContextMenu);
    m_list->setAccessibleName(tr("Edits of the plan"));
    m_list->setEditTriggers(QAbstractItemView::NoEditTriggers);
    m_stack->addWidget(m_list);

    auto* below = new QWidget;
    auto* belowLayout = new QVBoxLayout(below);
    belowLayout->setContentsMargins(0, 2, 0, 0);
    m_problems = new QWidget(below);
    m_problemLayout = new QVBoxLayout(m_problems);
    m_problemLayout->setContentsMargins(0, 0, 0, 0);
    belowLayout->addWidget(m_problems);
    m_table = new QTableView(below);
    m_table->setModel(m_costs);
    m_table->setAccessibleName(tr("Cost before and after the plan"));
    m_table->setFrameShape(QFrame::NoFrame);
    m_table->setShowGrid(false);
    m_table->setSelectionMode(QAbstractItemView::NoSelection);
    m_table->setFocusPolicy(Qt::TabFocus);
    m_table->setWordWrap(false);
    m_table->verticalHeader()->hide();
    m_table->verticalHeader()->setSectionResizeMode(QHeaderView::Fixed);
    m_table->verticalHeader()->setDefaultSectionSize(fontMetrics().height() + 6);
    m_table->horizontalHeader()->setSectionResizeMode(QHeaderView::ResizeToContents);
    m_table->horizontalHeader()->setSectionResizeMode(CostModel::What, QHeaderView::Stretch);
    m_table->horizontalHeader()->setMinimumSectionSize(10);
    m_table->setVerticalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    belowLayout->addWidget(m_table);

    auto* previewRow = new QHBoxLayout;
    m_previewButton = new QToolButton(below);
    m_previewButton->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    m_previewWords = makeLabel(QString(), "muted", below);
    m_previewBar = new QProgressBar(below);
    m_previewBar->setTextVisible(false);
    m_previewBar->setMaximumHeight(fontMetrics().height() / 2);
    m_previewCancel = new QPushButton(tr("Stop"), below);
    previewRow->addWidget(m_previewButton);
    previewRow->addWidget(m_previewWords, 1);
    previewRow->addWidget(m_previewCancel);
    belowLayout->addLayout(previewRow);
    belowLayout->addWidget(m_previewBar);
    m_chipTitle = makeLabel(tr("Opens in"), "heading", below);
    belowLayout->addWidget(m_chipTitle);
    m_chips = new QWidget(below);
    m_chipLayout = new FlowLayout(m_chips);
    belowLayout->addWidget(m_chips);
    belowLayout->addStretch();
    auto* scroll = new QScrollArea(splitter);
    scroll->setWidget(below);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    splitter->setStretchFactor(0, 1);
    splitter->setStretchFactor(1, 2);
    splitter->setSizes({fontMetrics().height() * 14, fontMetrics().height() * 28});

    connect(m_previewCancel, &QPushButton::clicked, this, &PlanView::cancelPreviewRequested);
    connect(m_costs, &QAbstractItemModel::modelReset, this, &PlanView::refresh);
    connect(&document, &Document::planChanged, this, &PlanView::refresh);
    connect(&document, &Document::checkChanged, this, [this] { rebuildProblems(), rebuildChips(); });
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, m_list->viewport(), qOverload<>(&QWidget::update));
    connect(m_list->selectionModel(), &QItemSelectionModel::selectionChanged, this, &PlanView::selectRowParts);
    connect(m_list, &QListView::customContextMenuRequested, this, [this](const QPoint& position) {
        const QModelIndex index = m_list->indexAt(position);
        if (!index.isValid()) return;
        QMenu menu;
        menu.addAction(tr("Delete this edit"), this, &PlanView::removeSelectedRows);
        menu.addAction(tr("Note..."), this, [this, row = index.row(), old = index.data(PlanModel::NoteRole).toString()] {
            bool ok = false;
            const QString note = QInputDialog::getText(this, tr("Note"), tr("Note on this edit:"), QLineEdit::Normal, old, &ok);
            if (ok) m_document.setEntryNote(row, note);
        });
        if (index.row() > 0) menu.addAction(tr("Move up"), this, [this, row = index.row()] { m_document.moveEntry(row, row - 1); });
        if (index.row() + 1 < m_model->rowCount()) menu.addAction(tr("Move down"), this, [this, row = index.row()] { m_document.moveEntry(row, row + 1); });
        menu.exec(m_list->viewport()->mapToGlobal(position));
    });
    setPreviewState(QString(), -1);
    refresh();
}

void PlanView::setPreviewAction(QAction* action) { m_previewButton->setDefaultAction(action); }

void PlanView::setSuggestMenu(QMenu* menu) { m_suggest->setMenu(menu); }

void PlanView::setPreviewState(const QString& words, double progress) {
    m_previewWords->setText(words);
    m_previewBar->setVisible(progress >= 0);
    m_previewCancel->setVisible(progress >= 0);
    m_previewButton->setVisible(progress < 0);
    m_previewBar->setRange(0, progress > 0 ? 1000 : 0);
    m_previewBar->setValue(static_cast<int>(1000 * progress));
}

void PlanView::removeSelectedRows() {
    std::vector<int> rows;
    for (const QModelIndex& index : m_list->selectionModel()->selectedRows()) rows.push_back(index.row());
    if (!rows.empty()) m_document.removeEntries(rows);
}

void PlanView::selectRowParts() {
    if (!m_list->hasFocus()) return;   // a reset of the model is no choice of the user
    std::vector<ComponentRef> refs;
    for (const QModelIndex& index : m_list->selectionModel()->selectedRows())
        for (const auto& ref : refsOf(m_document.plan()[static_cast<size_t>(index.row())]->edit)) refs.push_back(ref);
    if (!refs.empty()) m_document.selection().select(std::move(refs));
}

void PlanView::refresh() {
    m_stack->setCurrentIndex(m_document.plan().empty() ? 0 : 1);
    m_suggest->setVisible(m_document.model() && m_document.model()->understood);
    int height = m_table->horizontalHeader()->sizeHint().height() + 2;
    for (int row = 0; row < m_costs->rowCount(); ++row) height += m_table->verticalHeader()->sectionSize(row);
    m_table->setFixedHeight(height);
    m_table->setVisible(m_costs->rowCount() > 0);
    rebuildProblems();
    rebuildChips();
}

void PlanView::rebuildProblems() {
    while (QLayoutItem* item = m_problemLayout->takeAt(0)) {
        if (QWidget* widget = item->widget()) widget->hide(), widget->deleteLater();
        delete item;
    }
    const auto* check = m_document.check();
    constexpr size_t kMost = 6;
    if (!check) return m_problems->hide();
    for (size_t i = 0; i < check->problems.size() && i < kMost; ++i) {
        const auto& problem = check->problems[i];
        auto* card = new QFrame(m_problems);
        card->setProperty("role", "card");
        card->setProperty("severity", fromStd(problem.problem.severity));
        auto* column = new QVBoxLayout(card);
        column->setContentsMargins(8, 6, 8, 6);
        QString text = fromStd(problem.problem.message);
        if (!problem.problem.subject.empty()) text = fromStd(problem.problem.subject) + QStringLiteral(": ") + text;
        if (!problem.problem.advice.empty()) text += QLatin1Char(' ') + fromStd(problem.problem.advice);
        column->addWidget(makeLabel(text, nullptr, card));
        for (size_t choice = 0; choice < problem.instead.size() && choice < 3; ++choice) {
            const QString title = choice < problem.insteadTitles.size() ? fromStd(problem.insteadTitles[choice]) : editTitle(problem.instead[choice]);
            auto* button = new QPushButton(tr("%1 instead").arg(title), card);
            connect(button, &QPushButton::clicked, this, [this, edit = problem.instead[choice], row = m_document.rowOfEdit(problem.edit), title] {
                if (row >= 0) m_document.replaceEntry(row, {edit}, title);
                else m_document.addEdits({edit}, title, QString());
            });
            column->addWidget(button, 0, Qt::AlignLeft);
        }
        m_problemLayout->addWidget(card);
    }
    if (check->problems.size() > kMost) m_problemLayout->addWidget(makeLabel(tr("and %1 more").arg(check->problems.size() - kMost), "muted", m_problems));
    m_problems->setVisible(!check->problems.empty());
}

void PlanView::rebuildChips() {
    m_chipLayout->clear();
    const auto* check = m_document.check();
    const bool any = check && !check->verdicts.empty();
    m_chipTitle->setVisible(any);
    m_chips->setVisible(any);
    if (!any) return;
    for (const auto& verdict : check->verdicts) {
        auto* chip = makeLabel(QStringLiteral("%1: %2").arg(fromStd(verdict.runtime), check->legal ? verdictWords(verdict.verdict) : tr("fix the plan first")), "chip", m_chips);
        if (check->legal) chip->setProperty("verdict", fromStd(verdict.verdict));
        QStringList reasons;
        for (const auto& reason : verdict.reasons) reasons << fromStd(reason);
        chip->setToolTip(reasons.isEmpty() ? chip->text() : reasons.join(QLatin1Char('\n')));
        m_chipLayout->addWidget(chip);
        chip->show();
    }
    m_chips->updateGeometry();
}

}  // namespace resect::ui
