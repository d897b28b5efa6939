#pragma once
#include <memory>

namespace resect {

class Server;
class Session;

/// Teaches the server every call of core/protocol/messages.h. The session (open model, methods) must live as long as the server runs.
std::shared_ptr<Session> addHandlers(Server& server);

}  // namespace resect
