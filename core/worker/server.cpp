#include "core/worker/server.h"

#include "core/base/error.h"
#include "core/protocol/messages.h"
#include "core/worker/failure.h"

#include <algorithm>
#include <chrono>
#include <istream>
#include <ostream>

namespace resect {

Server::Server(std::istream& in, std::ostream& out) : m_in(in), m_out(out), m_worker([this] { workLoop(); }) {}

Server::~Server() {
    stopAllJobs();
    {
        const std::lock_guard lock(m_queueMutex);
        m_ending = true;
    }
    m_changed.notify_all();
    m_worker.join();
}

void Server::addQuestion(const std::string& call, Question question) { m_questions[call] = std::move(question); }
void Server::addJob(const std::string& call, Job job) { m_jobs[call] = std::move(job); }

int Server::run() {
    std::string line;
    while (!m_refused && std::getline(m_in, line))
        if (line.find_first_not_of(" \t\r") != std::string::npos) handleLine(line);
    stopAllJobs();
    return m_refused ? exitCode(ErrorCode::Usage) : 0;
}

void Server::handleLine(const std::string& line) {
    std::int64_t id = -1;
    try {
        const Json request = parseJson(line, "request");
        id = intField(request, "id", "request", -1);
        const std::string call = stringField(request, "call", "request");
        const Json args = request.value("args", Json::object());
        if (!m_greeted && (call != "hello" || intField(args, "protocol", "hello") != protocol::kProtocolVersion)) {
            m_refused = true;
            throw Error(ErrorCode::Usage, call, "the first request must be hello with protocol " + std::to_string(protocol::kProtocolVersion));
        }
        m_greeted = true;
        if (call == "cancel") {
            cancel(intField(args, "id", "cancel"));
            send({{"id", id}, {"result", Json::object()}});
        } else if (const auto question = m_questions.find(call); question != m_questions.end()) {
            send({{"id", id}, {"result", question->second(args)}});
        } else if (m_jobs.contains(call)) {
            {
                const std::lock_guard lock(m_queueMutex);
                m_queue.push_back(std::make_shared<Waiting>(Waiting{id, call, args, {}}));
            }
            m_changed.notify_all();
        } else {
            throw Error(ErrorCode::Usage, call, "is not a call that this worker knows");
        }
    } catch (...) {
        sendFailure(id);
    }
}

void Server::workLoop() {
    std::unique_lock lock(m_queueMutex);
    while (true) {
        m_changed.wait(lock, [this] { return m_ending || !m_queue.empty(); });
        if (m_queue.empty()) return;
        m_running = m_queue.front();
        m_queue.pop_front();
        const auto job = m_running;
        lock.unlock();
        runJob(*job);
        lock.lock();
        m_running.reset();
        m_changed.notify_all();
    }
}

void Server::runJob(Waiting& job) {
    using Clock = std::chrono::steady_clock;
    auto last = Clock::time_point{};
    std::string stage;
    const JobContext context(job.stop.get_token(), [&](const Progress& progress) {
        const auto now = Clock::now();
        if (progress.stage == stage && now - last < std::chrono::milliseconds(100)) return;
        last = now;
        stage = progress.stage;
        send({{"id", job.id}, {"progress", {{"done", progress.done}, {"total", progress.total}, {"unit", progress.unit}, {"stage", progress.stage}}}});
    });
    try {
        if (job.stop.stop_requested()) throw Error(ErrorCode::Stopped, job.call, "cancelled before it started");
        const Json result = m_jobs.at(job.call)(job.args, context, [&](const Json& partial) { send({{"id", job.id}, {"partial", partial}}); });
        send({{"id", job.id}, {"result", result}});
    } catch (...) {
        sendFailure(job.id);
    }
}

void Server::cancel(std::int64_t id) {
    const std::lock_guard lock(m_queueMutex);
    if (m_running && m_running->id == id) m_running->stop.request_stop();
    for (const auto& job : m_queue)
        if (job->id == id) job->stop.request_stop();
}

void Server::stopAllJobs() {
    std::unique_lock lock(m_queueMutex);
    for (const auto& job : m_queue) job->stop.request_stop();
    if (m_running) m_running->stop.request_stop();
    m_changed.wait(lock, [this] { return m_queue.empty() && !m_running; });
}

void Server::send(const Json& message) {
    const std::string line = message.dump(-1, ' ', false, Json::error_handler_t::replace);
    const std::lock_guard lock(m_outMutex);
    m_out << line << std::endl;
}

void Server::sendFailure(std::int64_t id) {
    const Error failure = currentFailure();
    send({{"id", id}, {"error", {{"code", name(failure.code())}, {"subject", failure.subject()}, {"message", failure.message()}}}});
}

}  // namespace resect
