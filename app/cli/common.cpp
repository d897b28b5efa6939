#include "app/cli/common.h"

#include "core/base/error.h"
#include "core/base/numbers.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <mutex>
#include <thread>
#include <unistd.h>

namespace resect::cli {

namespace {

using Clock = std::chrono::steady_clock;

int g_exitCode = 0;
std::atomic<int> g_signals = 0;

void onSignal(int signal) {
    if (++g_signals > 1) _exit(128 + signal);
}

/// Bytes are not columns: counts code points, which is right for the Latin text that we print.
std::size_t columns(const std::string& text) {
    std::size_t count = 0;
    for (const unsigned char c : text) count += (c & 0xC0) != 0x80;
    return count;
}

bool looksNumeric(const std::string& cell) {
    return !cell.empty() && (std::isdigit(static_cast<unsigned char>(cell[0])) || cell[0] == '-' || cell[0] == '+' || cell[0] == '.');
}

}  // namespace

void addCommon(CLI::App& command, Common& common, Shared shared) {
    command.add_flag("--json", common.json, "One JSON document on stdout, nothing else");
    if (shared != Shared::Compute) return;
    command.add_option("--device", common.device, "cpu, cuda, cuda:1 or auto (cuda where there is one)")->capture_default_str();
    command.add_option("--dtype", common.dtype, "f32, bf16 or f16 (default: f32 on the CPU, the stored type on a GPU)");
    command.add_option("--seed", common.seed, "Random seed")->capture_default_str();
    command.add_option("--threads", common.threads, "CPU threads (0 = measured default)")->capture_default_str();
    command.add_option("--workspace", common.workspace, "Workspace folder (NAME.resect) that keeps measurements and plans");
}

void addSettings(CLI::App& command, Common& common) {
    command.add_option("--set", common.settings, "Parameter of the method, NAME=VALUE; repeatable (see: resect-cli methods)")->allow_extra_args(false);
}

Json settingsOf(const Common& common) {
    Json result = Json::object();
    for (const auto& setting : common.settings) {
        const auto equals = setting.find('=');
        if (equals == std::string::npos || equals == 0)
            throw Error(ErrorCode::Usage, "--set " + setting, "expected NAME=VALUE");
        result[setting.substr(0, equals)] = setting.substr(equals + 1);
    }
    return result;
}

struct CommandJob::Bar {
    bool terminal = isatty(STDERR_FILENO);
    std::mutex mutex;
    Clock::time_point start = Clock::now(), last{};
    std::string stage;
    bool drawn = false;
    std::stop_source stop;
    std::jthread watcher;

    void show(const Progress& progress) {
        const std::lock_guard lock(mutex);
        const auto now = Clock::now();
        if (progress.stage != stage) {
            stage = progress.stage;
            start = now;
        } else if (now - last < (terminal ? std::chrono::milliseconds(100) : std::chrono::milliseconds(2000))) {
            return;
        }
        if (!terminal && now - start < std::chrono::seconds(2)) return;
        last = now;
        const double share = progress.total > 0 ? std::min(1.0, progress.done / progress.total) : 0;
        const double elapsed = std::chrono::duration<double>(now - start).count();
        std::string line = progress.stage + ": " + formatCount(progress.done);
        if (progress.total > 0) line += " of " + formatCount(progress.total);
        line += " " + progress.unit;
        if (progress.total > 0) line += ", " + toText(100 * share, 3) + " %";
        if (share > 0 && elapsed > 3) line += ", " + formatDuration(elapsed * (1 - share) / share) + " left";
        if (!terminal) {
            std::fprintf(stderr, "%s\n", line.c_str());
            return;
        }
        std::string bar(24, '-');
        std::fill_n(bar.begin(), static_cast<int>(share * 24), '#');
        std::fprintf(stderr, "\r\033[K[%s] %s", bar.c_str(), line.c_str());
        drawn = true;
    }
    void clear() {
        if (drawn) std::fprintf(stderr, "\r\033[K");
        drawn = false;
    }
};

CommandJob::CommandJob(const Common&) : m_bar(std::make_shared<Bar>()) {
    g_signals = 0;
    std::signal(SIGINT, onSignal);
    std::signal(SIGTERM, onSignal);
    m_bar->watcher = std::jthread([bar = m_bar.get()](std::stop_token done) {
        while (!done.stop_requested()) {
            if (g_signals > 0) bar->stop.request_stop();
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
    });
    m_context = JobContext(m_bar->stop.get_token(), [bar = m_bar](const Progress& progress) { bar->show(progress); });
}

CommandJob::~CommandJob() {
    m_bar->watcher.request_stop();
    if (m_bar->watcher.joinable()) m_bar->watcher.join();
    m_bar->clear();
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
}

void printJson(const Json& json) {
    std::cout << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
}

void printTable(const std::vector<std::vector<std::string>>& rows) {
    std::vector<std::size_t> widths;
    for (const auto& row : rows)
        for (std::size_t i = 0; i < row.size(); ++i) {
            if (widths.size() <= i) widths.push_back(0);
            widths[i] = std::max(widths[i], columns(row[i]));
        }
    std::vector<bool> right(widths.size(), true);
    for (std::size_t r = 1; r < rows.size(); ++r)
        for (std::size_t i = 0; i < rows[r].size(); ++i)
            if (!rows[r][i].empty() && !looksNumeric(rows[r][i])) right[i] = false;
    for (const auto& row : rows) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            const std::string padding(widths[i] - columns(row[i]), ' ');
            line += right[i] ? padding + row[i] : row[i] + padding;
            line += "  ";
        }
        line.erase(line.find_last_not_of(' ') + 1);
        std::cout << line << "\n";
    }
}

void printProblems(const std::vector<protocol::ProblemMessage>& problems) {
    for (const auto& problem : problems) {
        std::cout << problem.severity << ": " << (problem.subject.empty() ? "" : problem.subject + ": ") << problem.message;
        if (!problem.advice.empty()) std::cout << " " << problem.advice;
        std::cout << "\n";
    }
}

void setExitCode(int code) { g_exitCode = code; }
int currentExitCode() { return g_exitCode; }

}  // namespace resect::cli
