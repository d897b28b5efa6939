#pragma once
#include <QStackedWidget>

class QTableView;

namespace resect::ui {

class PlotCanvas;
class PlotTableModel;

/// A canvas and its twin: the same values as a table with the same selection, for screen readers, keyboards and copying.
class CanvasWithTable final : public QStackedWidget {
    Q_OBJECT
public:
    /// Takes the canvas over.
    explicit CanvasWithTable(PlotCanvas* canvas, QWidget* parent = nullptr);
    void showTable(bool on);
    bool tableShown() const { return currentIndex() == 1; }
    QTableView& table() const { return *m_table; }

private:
    void refresh();
    void takeSelection();  ///< from the shared selection into the table
    void giveSelection();
    PlotCanvas* m_canvas;
    QTableView* m_table;
    PlotTableModel* m_model;
    bool m_syncing = false;
};

}  // namespace resect::ui
