#pragma once
#include "core/data/chat_template.h"
#include "core/data/tokenizer.h"
#include "core/protocol/json.h"

#include <string>
#include <vector>

namespace resect {

/// A stretch of an example's text.
struct TextPart {
    std::string text;
    bool answer = false;  ///< part of what the model shall learn to say
};

/// One row of a data file before it is tokenised: either text parts or ids.
struct Example {
    std::vector<TextPart> parts;
    std::vector<std::int64_t> ids;
    std::vector<bool> loss;    ///< per id: whether predicting it counts
    bool instruction = false;  ///< has prompt and answer, so that it must not be continued on another row
    bool complete = false;     ///< the text brings its own special tokens (a chat template wrote it): no BOS or EOS is added
    std::string format;        ///< what kind of row it is, for people: "Alpaca rows"
};

/// The prompt of Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca) up to and with the line "### Response:".
std::string alpacaPrompt(std::string_view instruction, std::string_view input);

/// The fields of the formats that readExample() understands, for messages: "messages; conversations; ...".
std::string expectedFormats();

/// `chat` renders rows of messages; null: the plain form that plainChat() describes. Throws BadInput whose message() is the
/// reason for rejecting the row.
Example readExample(const Json& row, const ChatTemplate* chat = nullptr);
/// True for rows that a chat template would render.
bool holdsMessages(const Json& row);

/// Fills `ids` and `loss` from the text parts: BOS (where the tokenizer adds it), text, EOS behind the whole and behind every
/// answer that is not last; neither BOS nor EOS for a `complete` example. Throws BadInput when there is no tokenizer, or when
/// the tokens of a complete example's answers do not spell the answers.
void tokenizeExample(Example& example, const Tokenizer* tokenizer, bool answersOnly);

}  // namespace resect
