#pragma once
#include <memory>

namespace resect {

class Server;
class Session;

/// tensors, tensor_look, router_tokens, diff, health.
void addInspectCalls(Server& server, const std::shared_ptr<Session>& session);

}  // namespace resect
