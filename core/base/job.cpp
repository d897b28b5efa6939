#include "core/base/job.h"

#include "core/base/log.h"

#include <memory>
#include <mutex>

namespace resect {

JobContext::JobContext(std::stop_token stop, std::function<void(const Progress&)> onProgress)
    : m_stop(std::move(stop)), m_onProgress(std::move(onProgress)) {}

void JobContext::progress(const Progress& progress) const {
    if (m_onProgress) m_onProgress(progress);
}

namespace {
std::mutex g_sinkMutex;
std::shared_ptr<const LogSink> g_sink;
}  // namespace

void setLogSink(LogSink sink) {
    auto replacement = sink ? std::make_shared<const LogSink>(std::move(sink)) : nullptr;
    const std::lock_guard lock(g_sinkMutex);
    g_sink.swap(replacement);
}

void log(LogLevel level, std::string_view message) {
    std::shared_ptr<const LogSink> sink;
    {
        const std::lock_guard lock(g_sinkMutex);
        sink = g_sink;
    }
    if (sink) (*sink)(level, message);  // not under the lock: a sink may log or replace the sink
}

}  // namespace resect
