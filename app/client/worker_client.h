#pragma once
#include "core/protocol/messages.h"

#include <QElapsedTimer>
#include <QObject>
#include <QPointer>
#include <QProcess>
#include <QStringList>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace resect::ui {

struct WorkerError {
    QString code;      ///< BadInput, OutOfMemory, Stopped, ...; WorkerDied when the process ended
    QString subject, message;
    /// "subject: message"
    QString text() const { return subject.isEmpty() ? message : subject + QStringLiteral(": ") + message; }
    bool stopped() const { return code == QLatin1String("Stopped"); }
};

struct WorkerProgress {
    double done = 0, total = 0;
    QString unit, stage;
    double fraction() const { return total > 0 ? done / total : -1; }   ///< -1 = unknown
};

/// Callbacks of one request; any may be empty. Exactly one of `result` and `error` is called, unless the context object is gone
/// or a newer view query took its place (then none is).
struct WorkerCallbacks {
    std::function<void(const Json& result)> result;
    std::function<void(const WorkerError&)> error;
    std::function<void(const WorkerProgress&, const Json& partial)> progress;  ///< partial is null when there is none
};

/// A job of the worker (measure, preview, ...), as the status bar and the jobs list show it.
struct WorkerJob {
    qint64 id = 0;
    QString call, title;
    enum class State { Queued, Running, Cancelling } state = State::Queued;
    WorkerProgress progress;
    QElapsedTimer since;   ///< started when it was sent
};

/// The window's end of `resect-cli serve`: starts the process, matches replies to requests, restarts it once after it died.
///
/// Never waits. Requests made before the worker is up are sent once it said hello. When the worker dies, everything unanswered fails
/// with code WorkerDied, the worker is started again and the model that was open is opened again; dying twice within
/// `kQuickDeathMs` ends in state Failed until restart() is called.
class WorkerClient : public QObject {
    Q_OBJECT
public:
    enum class State { Off, Starting, Ready, Failed };

    explicit WorkerClient(QObject* parent = nullptr);
    ~WorkerClient() override;

    /// Default: `resect-cli` beside this program, arguments {"serve"}.
    void setProgram(const QString& program, const QStringList& arguments);
    const QString& program() const noexcept { return m_program; }
    void start();
    void restart();     ///< after Failed, or to apply other threads
    void shutDown();    ///< closes stdin and waits briefly; the destructor does too
    void setThreads(int threads);   ///< 0 = the worker's default; takes effect at the next start

    State state() const noexcept { return m_state; }
    const protocol::HelloMessage& hello() const noexcept { return m_hello; }
    qint64 processId() const;
    /// Resident memory of the worker process in bytes; 0 when unknown.
    qint64 residentBytes() const;

    /// Sends a request. `context` (not null) owns the callbacks: when it is destroyed they are dropped and a job of its own is left to end.
    qint64 request(const QString& call, const Json& args, QObject* context, WorkerCallbacks callbacks);
    /// A job (measure, preview, generate, export, health, diff, ...) with the words that the jobs list shows.
    qint64 startJob(const QString& call, const Json& args, const QString& title, QObject* context, WorkerCallbacks callbacks);
    /// A view query: at most one of a `kind` is under way and one waits; a newer one replaces the waiting one, whose callbacks are never called.
    qint64 requestView(const QString& kind, const QString& call, const Json& args, QObject* context, WorkerCallbacks callbacks);
    /// Jobs answer with what is finished or with Stopped; a request that has not been sent yet is dropped without an answer.
    void cancel(qint64 id);

    /// Jobs not yet answered, oldest first; the first is the one that runs.
    const std::vector<WorkerJob>& jobs() const noexcept { return m_jobs; }
    const QStringList& logLines() const noexcept { return m_log; }   ///< the last 2000 of stderr

    /// A path to open again after a restart; set by the one who opens models. Empty = none.
    void setReopen(const QString& path) { m_reopen = path; }

Q_SIGNALS:
    void stateChanged();
    void jobsChanged();
    void jobProgress(qint64 id);
    void logLine(const QString& line);
    /// The worker ended unexpectedly. `restarted` is false on the second quick death; lastLines are the end of its log.
    void died(const QString& reason, bool restarted, const QStringList& lastLines);
    /// After a restart the model that was open is open again.
    void reopened(const resect::protocol::ModelMessage& model);

private:
    struct Request {
        qint64 id = 0;
        QString call, viewKind;
        Json args;
        QPointer<QObject> context;
        WorkerCallbacks callbacks;
        bool internal = false;
    };

    qint64 enqueue(Request request);
    void send(Request request);
    void write(const Json& message);
    void launch();
    void sendHello();
    void readOutput();
    void readLog();
    void handleLine(const QByteArray& line);
    void handleFinished(const QString& reason);
    void failAll(const WorkerError& error);
    void finishJob(qint64 id);
    void sendWaitingView(const QString& kind);
    void setState(State state);
    QString exitReason() const;

    static constexpr qint64 kQuickDeathMs = 30'000;
    static constexpr int kLogLength = 2000;
    static constexpr qsizetype kLongestLine = qsizetype(256) << 20;

    QString m_program;
    QStringList m_arguments;
    std::unique_ptr<QProcess> m_process;
    State m_state = State::Off;
    protocol::HelloMessage m_hello;
    int m_threads = 0;
    qint64 m_nextId = 1;
    bool m_ending = false;
    QString m_reopen;
    QElapsedTimer m_sinceDeath;
    std::map<qint64, Request> m_pending;          ///< sent, not answered
    std::deque<Request> m_unsent;                 ///< before hello
    std::map<QString, qint64> m_viewUnderWay;
    std::map<QString, Request> m_viewWaiting;
    std::vector<WorkerJob> m_jobs;
    QByteArray m_output, m_logTail;
    QStringList m_log;
};

}  // namespace resect::ui
