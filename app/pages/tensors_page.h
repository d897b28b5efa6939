#pragma once
#include "app/pages/page.h"
#include "app/pages/tensor_table.h"
#include "widgets/plots/cell_matrix.h"
#include "widgets/plots/dataset_plot.h"

#include <QTimer>

class QLabel;
class QLineEdit;
class QPushButton;
class QTableView;

namespace resect::ui {

/// Every stored tensor, and of the one in focus its numbers, their distribution and a picture.
class TensorsPage final : public Page {
    Q_OBJECT
public:
    TensorsPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr);
    QString title() const override { return tr("Tensors"); }
    QString id() const override { return QStringLiteral("tensors"); }
    void rerun() override;
    bool busy() const override { return m_job != 0 || m_delay.isActive() || m_table->waiting(); }
    TensorTableModel& table() const noexcept { return *m_table; }
    QTableView& view() const noexcept { return *m_view; }
    QLineEdit& filterLine() const noexcept { return *m_filter; }
    CellMatrix& picture() const noexcept { return *m_picture; }
    DatasetPlot& histogram() const noexcept { return *m_histogram; }
    QLabel& numbers() const noexcept { return *m_numbers; }
    void choose(int row);

protected:
    void showEvent(QShowEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;

private:
    void build();
    void reload();
    void follow();
    void look();
    void stop();
    void show(const TensorRow& row, const Json& result);
    void showNumbers();
    void setNotice(const CanvasNotice& notice);
    void updateCount();
    void fitColumns();
    TensorTableModel* m_table = nullptr;
    QTableView* m_view = nullptr;
    QLineEdit* m_filter = nullptr;
    QLabel *m_count = nullptr, *m_name = nullptr, *m_numbers = nullptr, *m_cell = nullptr;
    CellMatrix* m_picture = nullptr;
    DatasetPlot* m_histogram = nullptr;
    QTimer m_delay, m_filterDelay;
    TensorRow m_focus;
    Json m_facts = Json::object();   ///< of the one in focus, once read; without picture and bins
    bool m_stale = true;   ///< another model was opened while the page was hidden
    qint64 m_job = 0;
};

}  // namespace resect::ui
