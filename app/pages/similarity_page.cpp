#include "app/pages/similarity_page.h"

#include "widgets/plots/canvas_with_table.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QSplitter>
#include <QVBoxLayout>

#include <algorithm>
#include <cmath>

namespace resect::ui {

SimilarityPage::SimilarityPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent)
    : MeasuredPage(document, selection, client, "llm-drop", tr("similarity of blocks"), parent) {
    m_matrix = new SpanMatrix(document);
    m_curve = new DatasetPlot(document);
    m_curve->setAccessibleName(tr("Best span of each length"));
    auto* layout = new QVBoxLayout(this);
    auto* bar = new QHBoxLayout;
    bar->addWidget(new QLabel(tr("Spans of blocks by"), this));
    bar->addWidget(m_choice);
    bar->addStretch(1);
    bar->addWidget(m_state);
    layout->addLayout(bar);
    m_splitter = new QSplitter(Qt::Horizontal, this);
    m_splitter->addWidget(new CanvasWithTable(m_matrix));
    m_splitter->addWidget(new CanvasWithTable(m_curve));
    m_splitter->setStretchFactor(0, 3);
    m_splitter->setStretchFactor(1, 2);
    m_splitter->setChildrenCollapsible(false);
    layout->addWidget(m_splitter, 1);
    layout->addWidget(m_card);
    for (PlotCanvas* canvas : {static_cast<PlotCanvas*>(m_matrix), static_cast<PlotCanvas*>(m_curve)})
        canvas->setMinimumSize(fontMetrics().averageCharWidth() * 30, fontMetrics().height() * 10);
    connect(m_matrix, &SpanMatrix::cellHovered, this, [this](int row, int column) {
        m_curve->setMarked(column);
        if (row >= 0) explain(row, column);
        else explainSelection();
    });
    connect(m_matrix, &PartCanvas::partOpened, this, [this](const ComponentRef& part) { Q_EMIT openRequested(QString(), part); });
    connect(m_curve, &DatasetPlot::pointHovered, this, [this](int index) {
        const int row = index >= 0 ? m_matrix->bestFirst(index) : -1;
        if (row >= 0) explain(row, index);
        else explainSelection();
    });
    connect(m_curve, &DatasetPlot::pointClicked, this, [this](int index) {
        const int row = m_matrix->bestFirst(index);
        if (row >= 0) m_selection.select(m_matrix->partsOf(m_matrix->spanOf({row, index})));
    });
    connect(&selection, &SelectionModel::selectionChanged, this, &SimilarityPage::explainSelection);
    begin();
}

bool SimilarityPage::shows(const protocol::DatasetMessage& info) const {
    return info.kind == "matrix" && info.shape.size() == 2 && info.axes.size() == 2 && info.axes[0].component == "block" &&
           info.axes[1].component.empty() && info.axes[1].name.find("span") != std::string::npos;
}

void SimilarityPage::showChosen(const MeasuredDataset& dataset) {
    if (!dataset.info) {
        m_matrix->clearMatrix();
        m_curve->clearDataset();
        return m_card->say({});
    }
    fetchAll(dataset, [this, info = *dataset.info](const DatasetValues& values) {
        m_matrix->setMatrix(info, values.values, values.errors);
        m_matrix->setAccessibleDescription(QString::fromStdString(info.help));
        showCurve();
        explainSelection();
    });
}

/// The best value of each column is the curve; the file's own similarity/best_span agrees for the default window measure.
void SimilarityPage::showCurve() {
    protocol::DatasetMessage info = m_matrix->info();
    std::vector<double> values, errors;
    for (int column = 0; column < m_matrix->columns(); ++column) {
        const int row = m_matrix->bestFirst(column);
        values.push_back(row >= 0 ? m_matrix->value({row, column}) : std::nan(""));
        errors.push_back(row >= 0 ? m_matrix->error({row, column}) : std::nan(""));
    }
    protocol::AxisMessage axis = info.axes[1];
    if (axis.ids.empty())
        for (int column = 0; column < m_matrix->columns(); ++column) axis.ids.push_back(column + 1);
    info.kind = "curve";
    info.title = tr("Best span of each length").toStdString();
    info.axes = {axis};
    info.shape = {m_matrix->columns()};
    if (std::none_of(errors.begin(), errors.end(), [](double one) { return std::isfinite(one); })) errors.clear();
    m_curve->setDataset(info, std::move(values), std::move(errors));
}

void SimilarityPage::explain(int row, int column) {
    const auto* model = m_document.model();
    const BlockSpan span = m_matrix->spanOf({row, column});
    const auto parts = m_matrix->partsOf(span);
    if (!model || parts.empty()) return;
    double parameters = 0;
    for (const ComponentRef& part : parts) parameters += parametersOf(*model, part);
    std::vector<double> sameLength;
    for (int other = 0; other < m_matrix->rows(); ++other)
        if (std::isfinite(m_matrix->value({other, column}))) sameLength.push_back(m_matrix->value({other, column}));
    const double value = m_matrix->value({row, column});
    const int rank = int(std::count_if(sameLength.begin(), sameLength.end(), [&](double other) { return other < value; })) + 1;
    QString words = parts.size() == 1 ? tr("Block %1").arg(parts.front().block)
                                      : tr("Blocks %1-%2 (%3 blocks)").arg(parts.front().block).arg(parts.back().block).arg(parts.size());
    words += QStringLiteral(": %1 %2").arg(QString::fromStdString(m_matrix->info().title), shortNumber(value, 3));
    if (const double error = m_matrix->error({row, column}); std::isfinite(error)) words += QStringLiteral(" ± %1").arg(shortNumber(error, 2));
    if (!m_matrix->info().unit.empty()) words += QStringLiteral(" [%1]").arg(QString::fromStdString(m_matrix->info().unit));
    words += tr(" (%1, among spans of this length), %2 samples; %3 of the parameters")
                 .arg(rankWords(rank, int(sameLength.size())))
                 .arg(m_matrix->info().samples)
                 .arg(percent(parameters / double(std::max<std::int64_t>(1, model->parameters))));
    m_card->say(words, QString::fromStdString(m_matrix->info().help));
}

void SimilarityPage::explainSelection() {
    if (m_matrix->empty()) return;
    const auto span = m_matrix->selectedSpan();
    for (int column = 0; span && column < m_matrix->columns(); ++column)
        if (m_matrix->spanOf({span->first, column}) == *span && std::isfinite(m_matrix->value({span->first, column}))) {
            m_curve->setMarked(column);
            return explain(span->first, column);
        }
    m_card->say(tr("Click a cell to select its span of blocks; drag along a row for longer spans. Dots mark the best span of each length."),
                QString::fromStdString(m_matrix->info().help));
}

bool SimilarityPage::reveal(const ComponentRef& part) { return part.kind == PartKind::Block && m_matrix->reveal(part); }

void SimilarityPage::zoom(double factor) {
    if (factor == 0) return m_matrix->resetZoom();
    for (auto type : {QCPAxis::atBottom, QCPAxis::atLeft}) m_matrix->axisRect()->axis(type)->scaleRange(1 / factor);
    m_matrix->redraw();
}

void SimilarityPage::resizeEvent(QResizeEvent* event) {
    MeasuredPage::resizeEvent(event);
    m_splitter->setOrientation(width() < fontMetrics().averageCharWidth() * 90 ? Qt::Vertical : Qt::Horizontal);
}

}  // namespace resect::ui
