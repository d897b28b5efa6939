#include "app/pages/block_strip_panel.h"

#include "widgets/plots/canvas_with_table.h"

#include <QHBoxLayout>
#include <QPushButton>
#include <QVBoxLayout>

#include <algorithm>

namespace resect::ui {
namespace {

struct Source {
    BlockStrip::Row row;
    const char* dataset;
};
constexpr std::array kSources = {Source{BlockStrip::Attention, "similarity/attention"}, Source{BlockStrip::Mlp, "similarity/mlp"},
                                 Source{BlockStrip::Redundancy, "similarity/block"}};

}  // namespace

BlockStripPanel::BlockStripPanel(Document& document, SelectionModel&, WorkerClient& client, QWidget* parent)
    : QWidget(parent), m_document(document), m_source(client), m_starter(document, client, "llm-drop", tr("block scores")) {
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, 0);
    m_strip = new BlockStrip(document, this);
    layout->addWidget(new CanvasWithTable(m_strip, this));
    m_measure = new QPushButton(this);
    m_measure->setAutoDefault(false);
    connect(m_measure, &QPushButton::clicked, &m_starter, &MeasureStarter::act);
    connect(&m_starter, &MeasureStarter::changed, this, &BlockStripPanel::updateButton);
    connect(&m_starter, &MeasureStarter::failed, this, &BlockStripPanel::message);
    connect(&document, &Document::measuresChanged, this, &BlockStripPanel::refresh);
    connect(&document, &Document::modelChanged, this, [this] {
        m_shown.clear();
        refresh();
    });
    connect(m_strip, &PartCanvas::partOpened, this, [this](const ComponentRef& part) { Q_EMIT openRequested(QString(), part); });
    refresh();
}

void BlockStripPanel::refresh() {
    for (const Source& source : kSources) {
        const auto* measure = m_document.model() ? m_document.findMeasure(source.dataset) : nullptr;
        const QString file = measure ? QString::fromStdString(measure->file) : QString();
        if (m_shown.value(source.row) == file) continue;
        m_shown[source.row] = file;
        if (!measure) {
            m_strip->clearScores(source.row);
            continue;
        }
        const auto info = std::find_if(measure->datasets.begin(), measure->datasets.end(), [&](const auto& one) { return one.name == source.dataset; });
        ++m_pending;
        m_source.fetch(
            measure->file, *info, this,
            [this, row = source.row, info = *info, file](std::shared_ptr<const DatasetValues> values) {
                --m_pending;
                if (m_shown.value(row) == file) m_strip->setScores(row, info, values->values, values->errors);
            },
            [this, row = source.row](const WorkerError& error) {
                --m_pending;
                m_shown.remove(row);
                Q_EMIT message({"error", error.subject.toStdString(), error.message.toStdString(), ""});
            });
    }
    updateButton();
}

void BlockStripPanel::updateButton() {
    const CanvasNotice notice = m_starter.notice(m_document.model() ? m_document.findMeasure("similarity/attention") : nullptr);
    const bool wanted = !notice.action.isEmpty() && m_document.model();
    m_measure->setVisible(wanted);
    m_measure->setText(m_starter.running() ? notice.text + QStringLiteral(" - ") + notice.action
                       : notice.kind == CanvasNotice::Empty ? tr("Measure how redundant each block is")
                                                            : notice.action);
    m_measure->setToolTip(notice.text);
    m_measure->adjustSize();
    resizeEvent(nullptr);
}

void BlockStripPanel::resizeEvent(QResizeEvent* event) {
    if (event) QWidget::resizeEvent(event);
    m_measure->move(width() - m_measure->width() - fontMetrics().height(), 2);
    m_measure->raise();
}

}  // namespace resect::ui
