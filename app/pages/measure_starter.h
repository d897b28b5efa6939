#pragma once
#include "app/client/worker_client.h"
#include "widgets/models/document.h"
#include "widgets/plots/plot_canvas.h"

namespace resect::ui {

/// Starts one measurement and knows how it goes: the Measure button of a page and what its canvas says meanwhile.
class MeasureStarter final : public QObject {
    Q_OBJECT
public:
    /// `method` is the id of a registered method; `wanted` names in plain words what it gives ("head scores").
    MeasureStarter(Document& document, WorkerClient& client, std::string method, QString wanted, QObject* parent = nullptr);

    void start();
    void stop();   ///< keeps what is finished
    /// The button of a notice: stops when running, else starts.
    void act();
    bool running() const noexcept { return m_job != 0; }
    const QString& error() const noexcept { return m_error; }
    const std::string& method() const noexcept { return m_method; }

    /// What a canvas without data (or with partial data of `measure`) shows.
    CanvasNotice notice(const protocol::MeasureMessage* measure) const;

Q_SIGNALS:
    void changed();
    void failed(const resect::protocol::ProblemMessage& problem);

private:
    Document& m_document;
    WorkerClient& m_client;
    std::string m_method;
    QString m_wanted, m_error;
    qint64 m_job = 0;
    WorkerProgress m_progress;
    QElapsedTimer m_since;
};

}  // namespace resect::ui
