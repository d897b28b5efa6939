#include "widgets/plots/canvas_with_table.h"

#include "widgets/plots/part_canvas.h"

#include <QHeaderView>
#include <QPushButton>
#include <QShortcut>
#include <QTableView>
#include <QVBoxLayout>

namespace resect::ui {

CanvasWithTable::CanvasWithTable(PlotCanvas* canvas, QWidget* parent) : QStackedWidget(parent), m_canvas(canvas) {
    addWidget(canvas);
    auto* twin = new QWidget(this);
    auto* layout = new QVBoxLayout(twin);
    layout->setContentsMargins(0, 0, 0, 0);
    auto* bar = new QHBoxLayout;
    auto* back = new QPushButton(tr("Back to the picture"), twin);
    auto* copy = new QPushButton(tr("Copy values"), twin);
    bar->addWidget(back);
    bar->addWidget(copy);
    bar->addStretch(1);
    layout->addLayout(bar);
    m_table = new QTableView(twin);
    m_model = new PlotTableModel(m_table);
    m_table->setModel(m_model);
    m_table->setEditTriggers(QAbstractItemView::NoEditTriggers);
    m_table->verticalHeader()->setDefaultSectionSize(fontMetrics().height() * 3 / 2);
    m_table->setAccessibleName(tr("Values as a table"));
    layout->addWidget(m_table);
    addWidget(twin);
    connect(canvas, &PlotCanvas::tableRequested, this, [this] { showTable(true); });
    connect(back, &QPushButton::clicked, this, [this] { showTable(false); });
    connect(copy, &QPushButton::clicked, canvas, &PlotCanvas::copyValues);
    auto* leave = new QShortcut(Qt::Key_Escape, twin, nullptr, nullptr, Qt::WidgetWithChildrenShortcut);
    connect(leave, &QShortcut::activated, this, [this] { showTable(false); });
    auto* toggle = new QShortcut(QKeySequence(Qt::CTRL | Qt::Key_T), this, nullptr, nullptr, Qt::WidgetWithChildrenShortcut);
    connect(toggle, &QShortcut::activated, this, [this] { showTable(!tableShown()); });
    connect(m_table->selectionModel(), &QItemSelectionModel::selectionChanged, this, &CanvasWithTable::giveSelection);
    if (auto* parts = qobject_cast<PartCanvas*>(canvas))
        connect(&parts->selection(), &SelectionModel::selectionChanged, this, &CanvasWithTable::takeSelection);
}

void CanvasWithTable::showTable(bool on) {
    if (on) refresh();
    setCurrentIndex(on ? 1 : 0);
    (on ? static_cast<QWidget*>(m_table) : m_canvas)->setFocus();
}

void CanvasWithTable::refresh() {
    m_model->setTable(m_canvas->table());
    if (m_model->columnCount() <= 64) m_table->resizeColumnsToContents();
    takeSelection();
}

void CanvasWithTable::takeSelection() {
    auto* parts = qobject_cast<PartCanvas*>(m_canvas);
    if (!parts || m_syncing || !m_model->rowCount()) return;
    m_syncing = true;
    QItemSelection chosen;
    for (int row = 0; row < m_model->rowCount(); ++row)
        for (int column = 0; column < m_model->columnCount();) {
            const auto selected = [&](int c) {
                const auto part = parts->partOfTableCell(row, c);
                return part && parts->selection().covers(*part);
            };
            const int begin = column;
            while (column < m_model->columnCount() && selected(column)) ++column;
            if (column > begin) chosen.select(m_model->index(row, begin), m_model->index(row, column - 1));
            else ++column;
        }
    m_table->selectionModel()->select(chosen, QItemSelectionModel::ClearAndSelect);
    m_syncing = false;
}

void CanvasWithTable::giveSelection() {
    auto* parts = qobject_cast<PartCanvas*>(m_canvas);
    if (!parts || m_syncing) return;
    m_syncing = true;
    std::vector<ComponentRef> refs;
    const auto indexes = m_table->selectionModel()->selectedIndexes();
    for (const QModelIndex& index : indexes)
        if (const auto part = parts->partOfTableCell(index.row(), index.column())) refs.push_back(*part);
    parts->selection().select(std::move(refs));
    m_syncing = false;
}

}  // namespace resect::ui
