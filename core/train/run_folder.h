#pragma once
#include "core/base/log.h"
#include "core/protocol/run_files.h"

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

namespace resect {

enum class RunControl { None, Pause, Resume, Stop };

/// The files of a run folder, held by the one process that runs it (see core/protocol/run_files.h). A thread keeps the heartbeat:
/// status.json is replaced once a second. Thread-safe.
class RunFolder {
public:
    /// Locks the folder. Throws NotFound, NoPermission (read-only), Mismatch when another process holds the run, naming pid and host.
    explicit RunFolder(std::filesystem::path folder);
    ~RunFolder();
    RunFolder(const RunFolder&) = delete;
    RunFolder& operator=(const RunFolder&) = delete;

    const std::filesystem::path& path() const noexcept { return m_path; }
    std::filesystem::path checkpoints() const { return m_path / "checkpoints"; }

    /// Changes the status; the next heartbeat shows it. States are written at once.
    void update(const std::function<void(protocol::RunStatus&)>& change);
    protocol::RunStatus status() const;
    /// One line of log.txt, and the process's log.
    void log(LogLevel level, std::string_view message);

    /// Appends and flushes. Throws DiskFull, NoPermission.
    void append(const protocol::MetricsRow& row);
    std::uint64_t metricsBytes() const;
    /// Cuts metrics.jsonl to its first `bytes`, keeping rows of pauses, stops, resumes and evaluations behind them that
    /// belong to steps up to `lastStep`.
    void truncateMetrics(std::uint64_t bytes, std::int64_t lastStep);

    RunControl control() const;       ///< what `control` asks for
    void clearControl();

private:
    void beat(const std::stop_token& stop);
    void writeStatus(protocol::RunStatus status) noexcept;
    std::filesystem::path m_path;
    int m_lock = -1, m_metrics = -1;
    mutable std::mutex m_mutex, m_writing;
    std::condition_variable_any m_wake;
    protocol::RunStatus m_status;
    bool m_writeFailed = false;
    std::jthread m_heart;             // last: ends before the rest goes
};

/// What status.json of a run folder says; a state that needs a living process is "lost" when there is none (same host: the lock is free;
/// another host: no heartbeat for 30 s). A folder with a job and no status is "queued". Throws NotFound, BadInput.
protocol::RunStatus readStatus(const std::filesystem::path& folder);
/// Asks the run to pause, resume or stop. Throws NotFound when the folder holds no run, NoPermission.
void writeControl(const std::filesystem::path& folder, RunControl control);
/// All complete rows of metrics.jsonl; a torn last line is left out. Throws BadInput naming the line.
std::vector<protocol::MetricsRow> readMetrics(const std::filesystem::path& folder);

std::string utcNow();                 ///< "2026-01-31T12:00:00Z"

}  // namespace resect
