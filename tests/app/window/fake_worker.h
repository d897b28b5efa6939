#pragma once
#include "core/protocol/messages.h"

namespace resect::test {

/// What `test_app serve` does: a worker that speaks the protocol over its pipes about a made-up model, and misbehaves on request.
/// Environment RESECT_FAKE: "" = well, "die" = exits at once, "old" = says another protocol version, "garbage" = rubbish lines between replies.
/// Calls of its own: "echo" {x} -> {x}; "die" = killed by a signal; "late" = answers the request before it only now.
int runFakeWorker();
/// `test_app run JOB.json`: writes a few steps into the run folder and obeys control until it ends.
int runFakeRun(const char* jobFile);

/// 6 blocks, 8 query heads in 4 key groups of 10, 40 hidden, 44 channels.
protocol::ModelMessage fakeModel();

}  // namespace resect::test
