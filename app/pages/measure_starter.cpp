#include "app/pages/measure_starter.h"

namespace resect::ui {
namespace {

QString timeWords(double seconds) {
    if (seconds < 90) return MeasureStarter::tr("about %1 s left").arg(qRound(seconds));
    return MeasureStarter::tr("about %1 min left").arg(qRound(seconds / 60));
}

}  // namespace

MeasureStarter::MeasureStarter(Document& document, WorkerClient& client, std::string method, QString wanted, QObject* parent)
    : QObject(parent), m_document(document), m_client(client), m_method(std::move(method)), m_wanted(std::move(wanted)) {
    connect(&document, &Document::modelChanged, this, [this] {
        m_error.clear();
        m_job = 0;
        Q_EMIT changed();
    });
    connect(&document, &Document::dataChanged, this, [this] {
        m_error.clear();
        Q_EMIT changed();
    });
}

void MeasureStarter::start() {
    if (running() || !m_document.model()) return;
    m_error.clear();
    if (m_document.data().file.empty()) {
        m_error = tr("Measuring runs the model on a text. Choose a calibration text in the tool bar first.");
        Q_EMIT failed({"error", m_method, m_error.toStdString(), ""});
        Q_EMIT changed();
        return;
    }
    const ComputeSettings& compute = m_document.compute();
    const Json args = {{"method", m_method},         {"set", Json::object()},       {"data", m_document.data()},
                       {"device", compute.device},   {"dtype", compute.dtype},      {"stream", false},
                       {"workspace", m_document.workspace().toStdString()}};
    WorkerCallbacks callbacks;
    callbacks.result = [this, model = m_document.sharedModel()](const Json& result) {
        if (model != m_document.sharedModel()) return;  // another model was opened meanwhile
        m_job = 0;
        m_document.addMeasure(result.get<protocol::MeasureMessage>());
        Q_EMIT changed();
    };
    callbacks.error = [this, model = m_document.sharedModel()](const WorkerError& error) {
        if (model != m_document.sharedModel()) return;
        m_job = 0;
        if (!error.stopped()) {
            m_error = error.text();
            Q_EMIT failed({"error", error.subject.toStdString(), error.message.toStdString(), ""});
        }
        Q_EMIT changed();
    };
    callbacks.progress = [this](const WorkerProgress& progress, const Json&) {
        m_progress = progress;
        Q_EMIT changed();
    };
    m_progress = {};
    m_since.start();
    m_job = m_client.startJob(QStringLiteral("measure"), args, tr("Measuring %1").arg(m_wanted), this, std::move(callbacks));
    Q_EMIT changed();
}

void MeasureStarter::stop() {
    if (running()) m_client.cancel(m_job);
}

void MeasureStarter::act() {
    if (running()) stop();
    else start();
}

CanvasNotice MeasureStarter::notice(const protocol::MeasureMessage* measure) const {
    const auto* model = m_document.model();
    if (!model) return {CanvasNotice::Empty, tr("Open a model to see its %1.").arg(m_wanted), {}};
    if (!model->understood)
        return {CanvasNotice::Empty, tr("Resect does not know the family \"%1\", so nothing can be measured. Its tensors can be inspected.").arg(QString::fromStdString(model->family)), {}};
    if (running()) {
        QString text = tr("Measuring %1").arg(m_wanted);
        if (!m_progress.stage.isEmpty()) text += QStringLiteral(": ") + m_progress.stage;
        if (m_progress.total > 0) {
            text += tr(", %1 of %2 %3").arg(shortNumber(m_progress.done), shortNumber(m_progress.total), m_progress.unit);
            const double elapsed = double(m_since.elapsed()) / 1000.0, part = m_progress.fraction();
            if (elapsed > 3 && part > 0.01) text += QStringLiteral(" (%1)").arg(timeWords(elapsed * (1 - part) / part));
        }
        return {measure ? CanvasNotice::Partial : CanvasNotice::Loading, text, tr("Stop and keep")};
    }
    if (!m_error.isEmpty()) return {measure ? CanvasNotice::Partial : CanvasNotice::Error, m_error, tr("Try again")};
    if (!measure) return {CanvasNotice::Empty, tr("No %1 yet.").arg(m_wanted), tr("Measure")};
    if (measure->samplesDone < measure->samplesTotal)
        return {CanvasNotice::Partial, tr("Stopped early: from %1 of %2 samples").arg(measure->samplesDone).arg(measure->samplesTotal), tr("Measure again")};
    return {};
}

}  // namespace resect::ui
