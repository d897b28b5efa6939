#pragma once
#include <memory>

namespace resect {

class Server;
class Session;

/// preview, recover_estimate, run_create.
void addRunCalls(Server& server, const std::shared_ptr<Session>& session);

}  // namespace resect
