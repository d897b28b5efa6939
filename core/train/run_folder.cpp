#include "core/train/run_folder.h"

#include "core/base/error.h"
#include "core/base/files.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace resect {

namespace fs = std::filesystem;
using protocol::MetricsRow;
using protocol::RunStatus;

namespace {

constexpr auto kBeat = std::chrono::seconds(1);
constexpr std::time_t kSilence = 30;  // seconds without a heartbeat after which a run elsewhere counts as lost
constexpr int kShared = 0644;

std::string hostName() {
    std::array<char, 256> name{};
    return gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : std::string("unknown");
}

std::int64_t peakResidentBytes() {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("VmHWM:")) return std::strtoll(line.c_str() + 6, nullptr, 10) * 1024;
    }
    return 0;
}

bool needsProcess(const std::string& state) {
    return state == "starting" || state == "running" || state == "pausing" || state == "paused" || state == "stopping";
}

std::optional<std::time_t> parseUtc(const std::string& text) {
    std::tm parts{};
    if (!strptime(text.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts)) return std::nullopt;
    return timegm(&parts);
}

bool beatsStill(const RunStatus& status) {
    const auto last = parseUtc(status.heartbeat);
    return last && std::time(nullptr) - *last < kSilence;
}

std::optional<RunStatus> statusFile(const fs::path& folder) {
    const auto file = folder / "status.json";
    if (!fs::exists(file)) return std::nullopt;
    return readJsonFile(file).get<RunStatus>();
}

/// Is the lock of the folder held by a process of this host?
bool isLocked(const fs::path& folder) {
    const int file = open((folder / "lock").c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    const bool held = flock(file, LOCK_SH | LOCK_NB) != 0;
    close(file);
    return held;
}

/// Waits a moment: readStatus() of another process takes the lock for an instant.
bool takeLock(int file) {
    for (int attempt = 0; attempt < 5; ++attempt) {
        if (flock(file, LOCK_EX | LOCK_NB) == 0) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
}

/// Half-written files of a process that was killed.
void removeLeftovers(const fs::path& folder) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
        if (entry.path().filename().string().starts_with(".status.json.tmp-")) fs::remove(entry.path(), ignored);
    }
}

void appendAll(int file, std::string_view text, const fs::path& path) {
    while (!text.empty()) {
        const auto written = write(file, text.data(), text.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) throw systemError(errno, path, "cannot write");
        text.remove_prefix(static_cast<std::size_t>(written));
    }
}

std::string_view word(RunControl control) {
    switch (control) {
    case RunControl::Pause: return "pause";
    case RunControl::Resume: return "resume";
    case RunControl::Stop: return "stop";
    case RunControl::None: break;
    }
    return "";
}

std::string_view levelName(LogLevel level) {
    switch (level) {
    case LogLevel::Debug: return "DEBUG";
    case LogLevel::Info: return "INFO";
    case LogLevel::Warning: return "WARNING";
    case LogLevel::Error: return "ERROR";
    }
    return "INFO";
}

}  // namespace

std::string utcNow() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    std::array<char, 32> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text.data();
}

RunFolder::RunFolder(fs::path folder) : m_path(std::move(folder)) {
    if (!fs::is_directory(m_path)) throw Error(ErrorCode::NotFound, m_path.string(), "is no run folder");
    m_lock = open((m_path / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kShared);
    if (m_lock < 0) throw systemError(errno, m_path / "lock", "cannot write");
    const auto before = statusFile(m_path);
    const bool elsewhere = before && needsProcess(before->state) && before->host != hostName() && beatsStill(*before);
    if (elsewhere || !takeLock(m_lock)) {
        close(m_lock);
        const auto holder = before ? "process " + std::to_string(before->pid) + " on " + before->host : std::string("another process");
        throw Error(ErrorCode::Mismatch, m_path.string(), "is being run by " + holder + "; stop that one first");
    }
    m_metrics = open((m_path / "metrics.jsonl").c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, kShared);
    if (m_metrics < 0) {
        const auto error = systemError(errno, m_path / "metrics.jsonl", "cannot write");
        close(m_lock);
        throw error;
    }
    removeLeftovers(m_path);
    m_status.state = "starting";
    m_status.pid = getpid();
    m_status.host = hostName();
    m_status.started = utcNow();
    writeStatus(m_status);
    m_heart = std::jthread([this](const std::stop_token& stop) { beat(stop); });
}

RunFolder::~RunFolder() {
    m_heart.request_stop();
    m_heart.join();
    writeStatus(status());
    close(m_metrics);
    close(m_lock);
}

void RunFolder::beat(const std::stop_token& stop) {
    std::unique_lock lock(m_mutex);
    while (!stop.stop_requested()) {
        auto status = m_status;
        lock.unlock();
        // A long step answers a request at once, although it is honoured only when the step ends.
        if (status.state == "running") {
            const auto wish = control();
            if (wish == RunControl::Pause) status.state = "pausing";
            if (wish == RunControl::Stop) status.state = "stopping";
        }
        writeStatus(std::move(status));
        lock.lock();
        m_wake.wait_for(lock, stop, kBeat, [] { return false; });
    }
}

void RunFolder::writeStatus(RunStatus status) noexcept {
    const std::scoped_lock lock(m_writing);
    try {
        status.heartbeat = utcNow();
        status.peakMemoryBytes = std::max(status.peakMemoryBytes, peakResidentBytes());
        writeJsonFile(m_path / "status.json", status);
        m_writeFailed = false;
    } catch (const std::exception& error) {
        // The heartbeat may miss a beat on a full disk; the training loop finds out by itself when it cannot keep its results.
        if (!m_writeFailed) resect::log(LogLevel::Warning, std::string("cannot write the status: ") + error.what());
        m_writeFailed = true;
    }
}

void RunFolder::update(const std::function<void(RunStatus&)>& change) {
    std::unique_lock lock(m_mutex);
    const auto before = m_status.state;
    change(m_status);
    const auto now = m_status;
    lock.unlock();
    if (now.state != before) writeStatus(now);
}

RunStatus RunFolder::status() const {
    const std::scoped_lock lock(m_mutex);
    RunStatus status = m_status;
    status.peakMemoryBytes = std::max(status.peakMemoryBytes, peakResidentBytes());
    return status;
}

void RunFolder::log(LogLevel level, std::string_view message) {
    resect::log(level, message);
    const std::scoped_lock lock(m_writing);
    std::ofstream file(m_path / "log.txt", std::ios::app);
    file << utcNow() << ' ' << levelName(level) << ' ' << message << '\n';
}

void RunFolder::append(const MetricsRow& row) {
    appendAll(m_metrics, Json(row).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n", m_path / "metrics.jsonl");
}

std::uint64_t RunFolder::metricsBytes() const {
    struct stat info {};
    if (fstat(m_metrics, &info) != 0) throw systemError(errno, m_path / "metrics.jsonl", "cannot read");
    return static_cast<std::uint64_t>(info.st_size);
}

void RunFolder::truncateMetrics(std::uint64_t bytes, std::int64_t lastStep) {
    const auto file = m_path / "metrics.jsonl";
    const auto text = readFile(file);
    std::string kept;
    std::string_view rest = std::string_view(text).substr(std::min<std::size_t>(bytes, text.size()));
    for (auto end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
        const auto line = rest.substr(0, end);
        rest.remove_prefix(end + 1);
        const auto row = parseJson(line, file.string()).get<MetricsRow>();
        const bool isHistory = row.event == "pause" || row.event == "resume" || row.event == "stop" || row.event == "eval";
        if (row.step <= lastStep && isHistory) kept.append(line).push_back('\n');
    }
    if (ftruncate(m_metrics, static_cast<off_t>(std::min<std::size_t>(bytes, text.size()))) != 0) throw systemError(errno, file, "cannot shorten");
    appendAll(m_metrics, kept, file);
}

RunControl RunFolder::control() const {
    std::ifstream file(m_path / "control");
    std::string text;
    if (!(file >> text)) return RunControl::None;
    for (const auto control : {RunControl::Pause, RunControl::Resume, RunControl::Stop}) {
        if (text == word(control)) return control;
    }
    return RunControl::None;
}

void RunFolder::clearControl() {
    std::error_code ignored;
    fs::remove(m_path / "control", ignored);
}

RunStatus readStatus(const fs::path& folder) {
    auto status = statusFile(folder);
    if (!status) {
        if (!fs::exists(folder / "job.json")) throw Error(ErrorCode::NotFound, folder.string(), "is no run folder: it holds neither status.json nor job.json");
        status.emplace();
        status->state = "queued";
        return *status;
    }
    if (!needsProcess(status->state)) return *status;
    const bool alive = status->host == hostName() ? isLocked(folder) : beatsStill(*status);
    if (!alive) status->state = "lost";
    return *status;
}

void writeControl(const fs::path& folder, RunControl control) {
    if (!fs::exists(folder / "job.json")) throw Error(ErrorCode::NotFound, folder.string(), "is no run folder: it holds no job.json");
    writeFileAtomically(folder / "control", std::string(word(control)) + "\n");
}

std::vector<MetricsRow> readMetrics(const fs::path& folder) {
    const auto file = folder / "metrics.jsonl";
    const auto text = readFile(file);
    std::vector<MetricsRow> rows;
    std::string_view rest = text;
    for (auto end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
        rows.push_back(parseJson(rest.substr(0, end), file.string() + ": line " + std::to_string(rows.size() + 1)).get<MetricsRow>());
        rest.remove_prefix(end + 1);
    }
    return rows;
}

}  // namespace resect
