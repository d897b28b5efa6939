#pragma once
#include "core/protocol/messages.h"

namespace CLI {
class App;
}

namespace resect::cli {

/// What `--data` takes, for help texts.
inline constexpr const char* kDataHelp = "Text (.txt) or rows (.jsonl, .json); for image models an image folder, an IDX file or an image";
/// `--data FILE`, `--row-length`, `--max-rows`, `--layout`, `--image-aspect`.
void addData(CLI::App& command, protocol::DataMessage& data);
/// `--image-aspect pad`.
void addImageAspect(CLI::App& command, std::string& imageAspect);

}  // namespace resect::cli
