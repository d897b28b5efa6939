#pragma once
#include "core/base/job.h"
#include "core/protocol/json.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <iosfwd>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace resect {

/// The window's worker: JSON lines in, JSON lines out, as core/protocol/messages.h says. Questions are answered at once on the reading
/// thread; jobs queue and run one at a time on a second one. End of input stops the running job and ends the server.
class Server {
public:
    using Question = std::function<Json(const Json& args)>;
    /// `partial` sends intermediate results beside the progress.
    using Partial = std::function<void(const Json& partial)>;
    using Job = std::function<Json(const Json& args, const JobContext& job, const Partial& partial)>;

    Server(std::istream& in, std::ostream& out);
    ~Server();
    void addQuestion(const std::string& call, Question question);
    void addJob(const std::string& call, Job job);
    /// Reads until the end of input. The first request must be `hello` with our protocol version; anything else ends the server with an error.
    /// Returns the exit code.
    int run();
    /// Asks the running job and all waiting ones to stop and waits until they have: before the open model is replaced.
    void stopAllJobs();

private:
    struct Waiting {
        std::int64_t id;
        std::string call;
        Json args;
        std::stop_source stop;
    };
    void handleLine(const std::string& line);
    void workLoop();
    void runJob(Waiting& job);
    void cancel(std::int64_t id);
    void send(const Json& message);
    void sendFailure(std::int64_t id);

    std::istream& m_in;
    std::ostream& m_out;
    std::mutex m_outMutex, m_queueMutex;
    std::condition_variable m_changed;
    std::map<std::string, Question> m_questions;
    std::map<std::string, Job> m_jobs;
    std::deque<std::shared_ptr<Waiting>> m_queue;
    std::shared_ptr<Waiting> m_running;
    bool m_greeted = false, m_refused = false, m_ending = false;
    std::thread m_worker;
};

}  // namespace resect
