#pragma once
#include <functional>
#include <string>
#include <string_view>

namespace resect {

enum class LogLevel { Debug, Info, Warning, Error };
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Replaces the process-wide sink. The core never prints; without a sink messages are dropped. Thread-safe; the sink is called
/// from whichever thread logs, from several at once too.
void setLogSink(LogSink sink);
void log(LogLevel level, std::string_view message);

}  // namespace resect
