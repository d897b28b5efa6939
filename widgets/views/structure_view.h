#pragma once
#include "widgets/models/structure_model.h"

#include <QStyledItemDelegate>
#include <QWidget>

class QLabel;
class QLineEdit;
class QTreeView;

namespace resect::ui {

/// Rows of the structure tree: a centred three-state box for keeping, a bar behind scores, a hatch over dropped parts, an outline around the hovered one.
class StructureDelegate final : public QStyledItemDelegate {
    Q_OBJECT
public:
    StructureDelegate(SelectionModel& selection, QObject* parent) : QStyledItemDelegate(parent), m_selection(selection) {}
    void setScoreRange(double low, double high) { m_low = low, m_high = high; }
    void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override;
    bool editorEvent(QEvent* event, QAbstractItemModel* model, const QStyleOptionViewItem& option, const QModelIndex& index) override;
    QSize sizeHint(const QStyleOptionViewItem& option, const QModelIndex& index) const override;

private:
    SelectionModel& m_selection;
    double m_low = 0, m_high = 0;
};

/// The structure dock: filter line over the tree; its selection and the shared selection follow each other.
class StructureView final : public QWidget {
    Q_OBJECT
public:
    StructureView(Document& document, SelectionModel& selection, QWidget* parent = nullptr);

    void setScores(const QHash<ComponentRef, double>& scores, const QString& title, const QString& help);
    void focusFilter();
    QTreeView& tree() const { return *m_tree; }
    QLineEdit& filterLine() const { return *m_filterLine; }

Q_SIGNALS:
    void opened(const resect::ui::ComponentRef& ref);        ///< double click
    void menuRequested(const QPoint& globalPosition);

protected:
    void resizeEvent(QResizeEvent* event) override;

private:
    void takeTreeSelection();
    void showSelection();
    void applyFilter(const QString& text);
    void expandAtFirst();

    Document& m_document;
    SelectionModel& m_selection;
    StructureModel* m_model;
    StructureFilter* m_filter;
    StructureDelegate* m_delegate;
    QLineEdit* m_filterLine;
    QLabel* m_filterProblem;
    QTreeView* m_tree;
    bool m_showing = false, m_fromTree = false;
};

}  // namespace resect::ui
