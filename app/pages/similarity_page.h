#pragma once
#include "app/pages/measured_page.h"
#include "app/pages/span_matrix.h"
#include "widgets/plots/dataset_plot.h"

class QSplitter;

namespace resect::ui {

/// How alike the residual stream is before and after each span of blocks, and the best span of each length.
class SimilarityPage final : public MeasuredPage {
    Q_OBJECT
public:
    SimilarityPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr);
    QString title() const override { return tr("Similarity"); }
    QString id() const override { return QStringLiteral("similarity"); }
    bool reveal(const ComponentRef& part) override;
    void zoom(double factor) override;
    SpanMatrix& matrix() const noexcept { return *m_matrix; }
    DatasetPlot& curve() const noexcept { return *m_curve; }

protected:
    bool shows(const protocol::DatasetMessage& info) const override;
    void showChosen(const MeasuredDataset& dataset) override;
    PlotCanvas& mainCanvas() const override { return *m_matrix; }
    void resizeEvent(QResizeEvent* event) override;

private:
    void showCurve();
    void explain(int row, int column);
    void explainSelection();
    SpanMatrix* m_matrix = nullptr;
    DatasetPlot* m_curve = nullptr;
    QSplitter* m_splitter = nullptr;
};

}  // namespace resect::ui
