#include "app/pages/dataset_view.h"

#include "widgets/plots/canvas_with_table.h"

#include <QLabel>
#include <QStackedWidget>
#include <QVBoxLayout>

namespace resect::ui {

bool drawable(const protocol::DatasetMessage& info) {
    if (info.shape.empty() || info.shape.size() > 2) return false;
    for (const std::int64_t one : info.shape)
        if (one <= 0) return false;
    return info.shape.size() == 1 || info.shape[0] * info.shape[1] <= 4'000'000;
}

DatasetView::DatasetView(Document& document, QWidget* parent) : QWidget(parent) {
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, 0);
    m_title = new QLabel(this);
    QFont bold = font();
    bold.setBold(true);
    m_title->setFont(bold);
    m_help = new QLabel(this);
    m_help->setWordWrap(true);
    m_stack = new QStackedWidget(this);
    m_heatmap = new HeatmapView(document, m_stack);
    m_plot = new DatasetPlot(document, m_stack);
    m_stack->addWidget(new CanvasWithTable(m_plot, m_stack));
    m_stack->addWidget(new CanvasWithTable(m_heatmap, m_stack));
    layout->addWidget(m_title);
    layout->addWidget(m_help);
    layout->addWidget(m_stack, 1);
    m_plot->setMinimumHeight(fontMetrics().height() * 12);
    clear(tr("Choose a result to see it."));
}

PlotCanvas& DatasetView::canvas() const { return m_stack->currentIndex() == 1 ? static_cast<PlotCanvas&>(*m_heatmap) : *m_plot; }

void DatasetView::clear(const QString& why) {
    m_stack->setCurrentIndex(0);
    m_plot->clearDataset();
    m_plot->setNotice({CanvasNotice::Empty, why, {}});
    m_title->clear();
    m_help->clear();
}

void DatasetView::show(const protocol::DatasetMessage& info, const std::vector<double>& values, const std::vector<double>& errors) {
    m_title->setText(QString::fromStdString(info.title));
    QString help = QString::fromStdString(info.help);
    if (info.higher == "keep") help += tr(" Higher means: keep.");
    if (info.higher == "removable") help += tr(" Higher means: removable.");
    if (info.samples > 0) help += tr(" Measured on %n sample(s).", nullptr, int(info.samples));
    m_help->setText(help.trimmed());
    m_plot->setNotice({});
    const bool matrix = info.shape.size() == 2 && info.kind != "curve" && info.kind != "scatter";
    m_stack->setCurrentIndex(matrix ? 1 : 0);
    if (matrix) m_heatmap->setMatrix(info, values, errors);
    else m_plot->setDataset(info, values, errors);
    canvas().setAccessibleName(m_title->text());
    canvas().setAccessibleDescription(m_help->text());
}

}  // namespace resect::ui
