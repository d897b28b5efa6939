#pragma once
#include "widgets/models/plan_model.h"

#include <QStyledItemDelegate>
#include <QWidget>

class QLabel;
class QListView;
class QMenu;
class QProgressBar;
class QPushButton;
class QStackedWidget;
class QTableView;
class QVBoxLayout;

namespace resect::ui {

/// A plan row in two lines: box, number and title; who proposed it; the severity of its worst problem at the right.
class PlanDelegate final : public QStyledItemDelegate {
    Q_OBJECT
public:
    using QStyledItemDelegate::QStyledItemDelegate;
    void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override;
    QSize sizeHint(const QStyleOptionViewItem& option, const QModelIndex& index) const override;
    bool editorEvent(QEvent* event, QAbstractItemModel* model, const QStyleOptionViewItem& option, const QModelIndex& index) override;
};

/// The plan dock: rows, problems with their nearest legal edits as buttons, before/after table, preview line, "Opens in" chips.
class PlanView final : public QWidget {
    Q_OBJECT
public:
    explicit PlanView(Document& document, QWidget* parent = nullptr);

    QListView& list() const { return *m_list; }
    /// Words for the preview line; progress in [0, 1], below 0 = nothing runs.
    void setPreviewState(const QString& words, double progress);
    void setPreviewAction(QAction* action);
    void setSuggestMenu(QMenu* menu);
    void removeSelectedRows();

Q_SIGNALS:
    void cancelPreviewRequested();

private:
    void refresh();
    void rebuildProblems();
    void rebuildChips();
    void selectRowParts();

    Document& m_document;
    PlanModel* m_model;
    CostModel* m_costs;
    QStackedWidget* m_stack;
    QListView* m_list;
    QWidget* m_problems;
    QVBoxLayout* m_problemLayout;
    QTableView* m_table;
    QLabel* m_previewWords;
    QProgressBar* m_previewBar;
    QPushButton *m_previewCancel, *m_suggest;
    class QToolButton* m_previewButton;
    QWidget* m_chips;
    class FlowLayout* m_chipLayout;
    QLabel* m_chipTitle;
};

}  // namespace resect::ui
