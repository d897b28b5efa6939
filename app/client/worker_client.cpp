#include "app/client/worker_client.h"

#include <QCoreApplication>
#include <QDir>
#include <QFile>
#include <QFileInfo>
#include <QTimer>

#include <algorithm>
#include <csignal>
#include <unistd.h>

namespace resect::ui {
namespace {

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

WorkerError errorFrom(const Json& json) {
    WorkerError error{QStringLiteral("Internal"), QString(), QStringLiteral("the worker answered with an error without words")};
    const auto take = [&](const char* field, QString& out) {
        if (const auto it = json.find(field); it != json.end() && it->is_string()) out = fromStd(it->get<std::string>());
    };
    if (!json.is_object()) return error;
    take("code", error.code);
    take("subject", error.subject);
    take("message", error.message);
    return error;
}

WorkerProgress progressFrom(const Json& json) {
    WorkerProgress progress;
    const auto number = [&](const char* field) {
        const auto it = json.find(field);
        return it != json.end() && it->is_number() ? it->get<double>() : 0.0;
    };
    const auto words = [&](const char* field) {
        const auto it = json.find(field);
        return it != json.end() && it->is_string() ? fromStd(it->get<std::string>()) : QString();
    };
    if (!json.is_object()) return progress;
    progress.done = number("done");
    progress.total = number("total");
    progress.unit = words("unit");
    progress.stage = words("stage");
    return progress;
}

}  // namespace

WorkerClient::WorkerClient(QObject* parent) : QObject(parent) {
    setProgram(QDir(QCoreApplication::applicationDirPath()).filePath(QStringLiteral("resect-cli")), {QStringLiteral("serve")});
}

WorkerClient::~WorkerClient() { shutDown(); }

void WorkerClient::setProgram(const QString& program, const QStringList& arguments) {
    m_program = program;
    m_arguments = arguments;
}

void WorkerClient::setThreads(int threads) { m_threads = threads; }

void WorkerClient::setState(State state) {
    if (state == m_state) return;
    m_state = state;
    Q_EMIT stateChanged();
}

void WorkerClient::start() {
    if (m_state == State::Off) launch();
}

void WorkerClient::restart() {
    shutDown();
    m_sinceDeath.invalidate();
    launch();
}

void WorkerClient::launch() {
    m_ending = false;
    m_output.clear();
    m_logTail.clear();
    m_process = std::make_unique<QProcess>();
    QProcess* process = m_process.get();
    connect(process, &QProcess::readyReadStandardOutput, this, &WorkerClient::readOutput);
    connect(process, &QProcess::readyReadStandardError, this, &WorkerClient::readLog);
    connect(process, &QProcess::finished, this, [this] { handleFinished(exitReason()); });
    connect(process, &QProcess::errorOccurred, this, [this](QProcess::ProcessError error) {
        if (error == QProcess::FailedToStart) handleFinished(tr("%1 could not be started: %2").arg(m_program, m_process->errorString()));
    });
    QStringList arguments = m_arguments;
    if (m_threads > 0) arguments << QStringLiteral("--threads") << QString::number(m_threads);
    setState(State::Starting);
    process->start(m_program, arguments);
    if (m_process.get() == process && m_state == State::Starting) sendHello();
}

void WorkerClient::sendHello() {
    Request hello;
    hello.call = QStringLiteral("hello");
    hello.args = Json{{"protocol", protocol::kProtocolVersion}};
    hello.context = this;
    hello.internal = true;
    hello.callbacks.result = [this](const Json& result) {
        m_hello = result.get<protocol::HelloMessage>();
        if (m_hello.protocol != protocol::kProtocolVersion) {
            const QString reason = tr("The worker speaks protocol %1, this window %2. Both programs must come from the same version of Resect.")
                                       .arg(m_hello.protocol).arg(protocol::kProtocolVersion);
            shutDown();
            setState(State::Failed);
            Q_EMIT died(reason, false, m_log.mid(qMax(0, m_log.size() - 20)));
            return;
        }
        setState(State::Ready);
        if (!m_reopen.isEmpty()) {
            WorkerCallbacks callbacks;
            callbacks.result = [this](const Json& model) { Q_EMIT reopened(model.get<protocol::ModelMessage>()); };
            Request open{m_nextId++, QStringLiteral("open"), QString(), Json{{"path", m_reopen.toStdString()}}, this, callbacks, true};
            send(std::move(open));
        }
        auto unsent = std::move(m_unsent);
        m_unsent.clear();
        for (auto& request : unsent) send(std::move(request));
    };
    hello.callbacks.error = [this](const WorkerError& error) {
        if (error.code == QLatin1String("WorkerDied")) return;
        shutDown();
        setState(State::Failed);
        Q_EMIT died(error.text(), false, m_log.mid(qMax(0, m_log.size() - 20)));
    };
    hello.id = m_nextId++;
    send(std::move(hello));
}

void WorkerClient::shutDown() {
    if (!m_process) return;
    m_ending = true;
    QProcess* process = m_process.get();
    process->disconnect(this);
    if (process->state() != QProcess::NotRunning) {
        process->closeWriteChannel();   // end of stdin ends the worker
        if (!process->waitForFinished(500)) {
            process->terminate();
            if (!process->waitForFinished(500)) process->kill();
            process->waitForFinished(500);
        }
    }
    m_process.release()->deleteLater();
    failAll({QStringLiteral("WorkerDied"), QString(), tr("the worker was ended")});
    setState(State::Off);
}

qint64 WorkerClient::processId() const { return m_process && m_process->state() == QProcess::Running ? m_process->processId() : 0; }

qint64 WorkerClient::residentBytes() const {
    const qint64 pid = processId();
    if (pid == 0) return 0;
    QFile file(QStringLiteral("/proc/%1/statm").arg(pid));
    if (!file.open(QIODevice::ReadOnly)) return 0;
    const auto fields = file.readAll().split(' ');
    return fields.size() > 1 ? fields[1].toLongLong() * sysconf(_SC_PAGESIZE) : 0;
}

qint64 WorkerClient::enqueue(Request request) {
    request.id = m_nextId++;
    const qint64 id = request.id;
    if (m_state == State::Off) launch();
    if (m_state == State::Ready) {
        send(std::move(request));
    } else if (m_state == State::Starting) {
        m_unsent.push_back(std::move(request));
    } else {
        // The answer must not come before the caller knows the id.
        QMetaObject::invokeMethod(this, [this, request, id] {
            finishJob(id);
            if (!request.viewKind.isEmpty()) m_viewUnderWay.erase(request.viewKind);
            if (request.context && request.callbacks.error)
                request.callbacks.error({QStringLiteral("WorkerDied"), QString(), tr("the worker is not running; restart it from the Help menu")});
        }, Qt::QueuedConnection);
    }
    return id;
}

qint64 WorkerClient::request(const QString& call, const Json& args, QObject* context, WorkerCallbacks callbacks) {
    return enqueue({0, call, QString(), args, context, std::move(callbacks), false});
}

qint64 WorkerClient::startJob(const QString& call, const Json& args, const QString& title, QObject* context, WorkerCallbacks callbacks) {
    WorkerJob job;
    job.id = m_nextId;   // the id that enqueue() is about to give
    job.call = call;
    job.title = title;
    job.state = m_jobs.empty() ? WorkerJob::State::Running : WorkerJob::State::Queued;
    job.since.start();
    if (m_state == State::Off) launch(), job.id = m_nextId;
    m_jobs.push_back(job);
    const qint64 id = enqueue({0, call, QString(), args, context, std::move(callbacks), false});
    Q_EMIT jobsChanged();
    return id;
}

qint64 WorkerClient::requestView(const QString& kind, const QString& call, const Json& args, QObject* context, WorkerCallbacks callbacks) {
    Request request{0, call, kind, args, context, std::move(callbacks), false};
    if (m_viewUnderWay.contains(kind)) {
        request.id = m_nextId++;
        const qint64 id = request.id;
        m_viewWaiting[kind] = std::move(request);
        return id;
    }
    if (m_state == State::Off) launch();
    m_viewUnderWay[kind] = m_nextId;
    return enqueue(std::move(request));
}

void WorkerClient::sendWaitingView(const QString& kind) {
    m_viewUnderWay.erase(kind);
    const auto waiting = m_viewWaiting.find(kind);
    if (waiting == m_viewWaiting.end()) return;
    Request request = std::move(waiting->second);
    m_viewWaiting.erase(waiting);
    if (m_state != State::Ready) return;
    m_viewUnderWay[kind] = request.id;
    send(std::move(request));
}

void WorkerClient::send(Request request) {
    const Json message{{"id", request.id}, {"call", request.call.toStdString()}, {"args", request.args}};
    m_pending[request.id] = std::move(request);
    write(message);
}

void WorkerClient::write(const Json& message) {
    if (!m_process) return;
    std::string line = message.dump(-1, ' ', false, Json::error_handler_t::replace);
    line += '\n';
    m_process->write(line.data(), static_cast<qint64>(line.size()));
}

void WorkerClient::cancel(qint64 id) {
    const auto unsent = std::find_if(m_unsent.begin(), m_unsent.end(), [&](const auto& request) { return request.id == id; });
    if (unsent != m_unsent.end()) {
        if (!unsent->viewKind.isEmpty()) m_viewUnderWay.erase(unsent->viewKind);
        m_unsent.erase(unsent);
        finishJob(id);
        return;
    }
    std::erase_if(m_viewWaiting, [&](const auto& entry) { return entry.second.id == id; });
    if (!m_pending.contains(id)) return;
    for (auto& job : m_jobs)
        if (job.id == id) job.state = WorkerJob::State::Cancelling;
    Request request{m_nextId++, QStringLiteral("cancel"), QString(), Json{{"id", id}}, this, {}, true};
    send(std::move(request));
    Q_EMIT jobsChanged();
}

void WorkerClient::readOutput() {
    m_output += m_process->readAllStandardOutput();
    qsizetype begin = 0;
    for (qsizetype end; (end = m_output.indexOf('\n', begin)) >= 0; begin = end + 1) {
        const QByteArray line = m_output.mid(begin, end - begin);
        const QPointer<QProcess> process = m_process.get();
        handleLine(line);
        if (!process || process != m_process.get()) return;  // a callback ended or replaced the worker; its buffer went too
    }
    m_output.remove(0, begin);
    if (m_output.size() > kLongestLine) {
        m_log << tr("The worker sent a line longer than %1 MB; it is ended.").arg(kLongestLine >> 20);
        m_process->kill();
    }
}

void WorkerClient::handleLine(const QByteArray& line) {
    if (line.trimmed().isEmpty()) return;
    Json message;
    try {
        message = parseJson(std::string_view(line.constData(), static_cast<size_t>(line.size())), "worker");
    } catch (const std::exception& error) {
        const QString text = tr("Unreadable reply: %1").arg(QString::fromUtf8(error.what()));
        m_log << text;
        Q_EMIT logLine(text);
        return;
    }
    const auto idField = message.is_object() ? message.find("id") : message.end();
    if (idField == message.end() || !idField->is_number_integer()) return;
    const qint64 id = idField->get<qint64>();
    const auto it = m_pending.find(id);
    if (it == m_pending.end()) return;  // late, or for a cancelled id
    if (const auto progress = message.find("progress"); progress != message.end()) {
        const WorkerProgress parsed = progressFrom(*progress);
        for (auto& job : m_jobs) {
            if (job.id != id) continue;
            job.progress = parsed;
            if (job.state == WorkerJob::State::Queued) job.state = WorkerJob::State::Running;
        }
        Q_EMIT jobProgress(id);
        const auto callback = it->second.callbacks.progress;
        if (it->second.context && callback) callback(parsed, message.contains("partial") ? message["partial"] : Json());
        return;
    }
    const bool isResult = message.contains("result"), isError = message.contains("error");
    if (!isResult && !isError) return;
    const Request request = std::move(it->second);
    m_pending.erase(it);
    finishJob(id);
    if (!request.viewKind.isEmpty()) sendWaitingView(request.viewKind);
    if (!request.context) return;
    if (isError) {
        if (request.callbacks.error) request.callbacks.error(errorFrom(message["error"]));
        return;
    }
    try {
        if (request.callbacks.result) request.callbacks.result(message["result"]);
    } catch (const std::exception& error) {
        // A result of another shape than the protocol says: the caller gets an error instead of half a result.
        if (request.callbacks.error)
            request.callbacks.error({QStringLiteral("Internal"), request.call, tr("the worker's answer has an unexpected form: %1").arg(QString::fromUtf8(error.what()))});
    }
}

void WorkerClient::finishJob(qint64 id) {
    if (std::erase_if(m_jobs, [&](const auto& job) { return job.id == id; }) == 0) return;
    if (!m_jobs.empty() && m_jobs.front().state == WorkerJob::State::Queued) {
        m_jobs.front().state = WorkerJob::State::Running;
        m_jobs.front().since.restart();
    }
    Q_EMIT jobsChanged();
}

void WorkerClient::readLog() {
    m_logTail += m_process->readAllStandardError();
    qsizetype begin = 0;
    for (qsizetype end; (end = m_logTail.indexOf('\n', begin)) >= 0; begin = end + 1) {
        const QString line = QString::fromUtf8(m_logTail.mid(begin, end - begin));
        m_log << line;
        Q_EMIT logLine(line);
    }
    m_logTail.remove(0, begin);
    if (m_log.size() > kLogLength) m_log.remove(0, m_log.size() - kLogLength);
}

QString WorkerClient::exitReason() const {
    if (m_process->exitStatus() == QProcess::CrashExit) {
        // QProcess hands the signal number over as the exit code.
        const int signal = m_process->exitCode();
        if (signal == SIGKILL) return tr("The worker ended unexpectedly: it was killed from outside, often because memory ran out.");
        return tr("The worker ended unexpectedly (signal %1).").arg(signal);
    }
    return tr("The worker ended unexpectedly (exit code %1).").arg(m_process->exitCode());
}

void WorkerClient::handleFinished(const QString& reason) {
    if (!m_process || m_ending) return;
    readOutput();
    if (!m_process) return;
    readLog();
    if (!m_logTail.isEmpty()) m_log << QString::fromUtf8(std::exchange(m_logTail, QByteArray()));
    m_process->disconnect(this);
    m_process.release()->deleteLater();
    const bool quick = m_sinceDeath.isValid() && m_sinceDeath.elapsed() < kQuickDeathMs;
    const bool neverUp = m_state == State::Starting && !m_sinceDeath.isValid() && m_hello.version.empty() && !QFileInfo(m_program).isExecutable();
    m_sinceDeath.start();
    setState(State::Failed);
    failAll({QStringLiteral("WorkerDied"), QString(), reason});
    const bool again = !quick && !neverUp;
    const QStringList lastLines = m_log.mid(qMax<qsizetype>(0, m_log.size() - 20));
    if (again && m_state == State::Failed) launch();
    Q_EMIT died(reason, again, lastLines);
}

void WorkerClient::failAll(const WorkerError& error) {
    auto pending = std::move(m_pending);
    auto unsent = std::move(m_unsent);
    m_pending.clear();
    m_unsent.clear();
    auto waiting = std::move(m_viewWaiting);
    m_viewWaiting.clear();
    m_viewUnderWay.clear();
    m_jobs.clear();
    const auto fail = [&](const Request& request) {
        if (!request.internal && request.context && request.callbacks.error) request.callbacks.error(error);
    };
    for (const auto& [id, request] : pending) fail(request);
    for (const auto& request : unsent) fail(request);
    for (const auto& [kind, request] : waiting) fail(request);
    Q_EMIT jobsChanged();
}

}  // namespace resect::ui
