#include "app/pages/measured_page.h"

#include <QComboBox>
#include <QPushButton>

#include <algorithm>

namespace resect::ui {

MeasuredPage::MeasuredPage(Document& document, SelectionModel& selection, WorkerClient& client, std::string method, QString wanted, QWidget* parent)
    : Page(document, selection, client, parent), m_source(client), m_starter(document, client, std::move(method), std::move(wanted)) {
    m_choice = new QComboBox(this);
    m_choice->setSizeAdjustPolicy(QComboBox::AdjustToContents);
    m_choice->setAccessibleName(tr("Result on show"));
    m_card = new HoverCard(this);
    m_state = new QPushButton(this);
    m_state->setFlat(true);
    m_state->hide();
    connect(m_state, &QPushButton::clicked, &m_starter, &MeasureStarter::act);
    connect(&m_starter, &MeasureStarter::failed, this, &Page::message);
    connect(&m_starter, &MeasureStarter::changed, this, &MeasuredPage::updateNotice);
}

void MeasuredPage::begin() {
    connect(m_choice, &QComboBox::currentIndexChanged, this, [this] {
        ++m_generation;
        showChosen(chosen());
        updateNotice();
    });
    connect(&m_document, &Document::measuresChanged, this, &MeasuredPage::refill);
    connect(&m_document, &Document::modelChanged, this, [this] {
        m_source.clear();
        refill();
    });
    connect(&mainCanvas(), &PlotCanvas::noticeActionTriggered, &m_starter, &MeasureStarter::act);
    refill();
}

std::vector<MeasuredDataset> MeasuredPage::datasets() const {
    std::vector<MeasuredDataset> found;
    if (!m_document.model()) return found;
    for (const auto& measure : m_document.measures())
        for (const auto& info : measure.datasets) {
            const bool known = std::any_of(found.begin(), found.end(), [&](const auto& one) { return one.info->name == info.name; });
            if (!known && shows(info)) found.push_back({&measure, &info});
        }
    return found;
}

MeasuredDataset MeasuredPage::chosen() const {
    const QString name = m_choice->currentData().toString();
    for (const MeasuredDataset& one : datasets())
        if (QString::fromStdString(one.info->name) == name) return one;
    return {};
}

void MeasuredPage::refill() {
    const QString before = m_choice->currentData().toString();
    {
        const QSignalBlocker blocked(m_choice);
        m_choice->clear();
        for (const MeasuredDataset& one : datasets()) m_choice->addItem(QString::fromStdString(one.info->title), QString::fromStdString(one.info->name));
        const int again = m_choice->findData(before);
        m_choice->setCurrentIndex(again >= 0 ? again : m_choice->count() > 0 ? 0 : -1);
        m_choice->setEnabled(m_choice->count() > 0);
    }
    ++m_generation;
    showChosen(chosen());
    updateNotice();
}

void MeasuredPage::fetchAll(const MeasuredDataset& dataset, std::function<void(const DatasetValues&)> done) {
    ++m_pending;
    const int generation = m_generation;
    m_source.fetch(
        dataset.measure->file, *dataset.info, this,
        [this, generation, done](std::shared_ptr<const DatasetValues> values) {
            --m_pending;
            if (generation == m_generation) done(*values);
        },
        [this](const WorkerError& error) {
            --m_pending;
            mainCanvas().setNotice({CanvasNotice::Error, error.text(), tr("Measure again")});
            Q_EMIT message({"error", error.subject.toStdString(), error.message.toStdString(), ""});
        });
}

void MeasuredPage::updateNotice() {
    const CanvasNotice notice = m_starter.notice(chosen().measure);
    const bool partial = notice.kind == CanvasNotice::Partial;
    mainCanvas().setNotice(partial ? CanvasNotice() : notice);
    m_state->setVisible(partial);
    m_state->setText(QStringLiteral("%1 - %2").arg(notice.text, notice.action));
    m_state->setToolTip(notice.text);
}

}  // namespace resect::ui
