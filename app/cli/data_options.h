#pragma once
#include "core/protocol/messages.h"

namespace CLI {
class App;
}

namespace resect::cli {

/// `--data FILE`, `--row-length`, `--max-rows`, `--layout`.
void addData(CLI::App& command, protocol::DataMessage& data);

}  // namespace resect::cli
