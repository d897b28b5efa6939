#pragma once
#include "core/data/example.h"

namespace resect {

/// The messages of a row as [{"role", "content", ...}]: `messages` as they are (contents given in parts are joined, when all
/// parts are text), ShareGPT's `conversations` with from -> role (human -> user, gpt -> assistant, ...) and value -> content.
/// Throws BadInput whose message() is the reason for rejecting the row.
Json messagesOf(const Json& row);

/// Rows of messages through the checkpoint's chat template; `tools`, `documents` and `chat_template_kwargs` of the row go to
/// it. The answers are what the template's {% generation %} blocks write. A template without them is rendered with ever more
/// messages: an answer begins where the text of all messages before it, with the generation prompt, ends, and ends where the
/// text up to and with it ends (white space behind it aside; an end-of-turn token belongs to the answer). Throws BadInput when
/// the shorter texts are not the beginnings of the longer ones, so that the answers cannot be told apart.
Example templatedChat(const Json& row, const Json& messages, const ChatTemplate& chat);

/// Without a template: "role: content" with an empty line between; what the assistant says is the answer, and EOS goes behind
/// it.
Example plainChat(const Json& messages);

}  // namespace resect
