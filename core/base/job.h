#pragma once
#include <functional>
#include <stop_token>
#include <string>

namespace resect {

struct Progress {
    double done = 0, total = 0;  ///< in `unit`s; total 0 when it is not known
    std::string unit;            ///< "tokens", "bytes", "steps", "blocks"
    std::string stage;           ///< "scoring", "writing shard 2 of 5"
};

/// What long work is given: a way to report progress and to see that it shall stop. Copyable; a default one does neither.
class JobContext {
public:
    JobContext() = default;
    JobContext(std::stop_token stop, std::function<void(const Progress&)> onProgress);
    /// Asked at least every second by everything that takes longer than two; stopping keeps the finished part.
    bool stopped() const noexcept { return m_stop.stop_requested(); }
    const std::stop_token& stopToken() const noexcept { return m_stop; }
    void progress(const Progress& progress) const;

private:
    std::stop_token m_stop;
    std::function<void(const Progress&)> m_onProgress;
};

}  // namespace resect
