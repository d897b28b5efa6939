#pragma once
#include "core/data/unicode.h"
#include "core/protocol/json.h"

#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

struct RenderedChat {
    std::string text;
    std::vector<ByteRange> generated;  ///< what the template's {% generation %} blocks wrote, in order
};

/// A checkpoint's chat template: turns a list of messages into the text that the model was trained on. Written in the part of
/// Jinja2 that such templates use, rendered with the settings of transformers' apply_chat_template (trim_blocks, lstrip_blocks,
/// loop controls, tojson that keeps characters, raise_exception, strftime_now, {% generation %}). Immutable, thread-safe.
class ChatTemplate {
public:
    /// `subject` names the template in errors; `tokens` are the special tokens as specialTokenTexts() gives them. Throws
    /// BadInput naming the line.
    ChatTemplate(std::string source, std::string subject, Json tokens = Json::object());

    /// The template of a checkpoint folder, null when it has none. Looked for as transformers does: chat_template.jinja (others
    /// by name in additional_chat_templates/), then chat_template.json, then `chat_template` of tokenizer_config.json, which is
    /// a text or a list of {"name", "template"}. `name` chooses among several. Throws BadInput naming the file and field, or
    /// NotFound when there are templates but none of that name (the message lists the names).
    static std::unique_ptr<ChatTemplate> find(const std::filesystem::path& folder, const std::string& name = "default");

    /// `fields` are the template's variables: `messages`, and perhaps `tools`, `documents`, `add_generation_prompt` or others;
    /// as in transformers these three are none, none and false where they are not given. The checkpoint's special tokens
    /// (bos_token, eos_token, ...) are set unless `fields` sets them. Throws BadInput naming the template's line: what it
    /// raises, and operations that the values do not allow.
    RenderedChat render(const Json& fields) const;
    /// The same with the messages alone.
    RenderedChat renderMessages(const Json& messages, bool addGenerationPrompt) const;

    /// Whether the template marks what the model says with {% generation %}.
    bool marksGeneration() const noexcept;
    const Json& specialTokens() const noexcept { return m_tokens; }  ///< {"bos_token": "<s>", ...} of the checkpoint folder
    const std::string& source() const noexcept { return m_source; }
    const std::string& subject() const noexcept { return m_subject; }
    /// What strftime_now() tells; the time of the call when it is not set.
    void setNow(std::time_t now) { m_now = now; }

private:
    struct Parsed;
    std::string m_source, m_subject;
    std::shared_ptr<const Parsed> m_parsed;
    Json m_tokens;  ///< bos_token and so on
    std::optional<std::time_t> m_now;
};

/// The special tokens that a checkpoint folder names, as the variables of a chat template: {"bos_token": "<s>", ...}.
Json specialTokenTexts(const std::filesystem::path& folder);

}  // namespace resect
