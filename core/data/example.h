#pragma once
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
};

/// The prompt of Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca) up to and with the line "### Response:".
std::string alpacaPrompt(std::string_view instruction, std::string_view input);

/// Throws BadInput whose message() is the reason for rejecting the row.
Example readExample(const Json& row);

/// Fills `ids` and `loss` from the text parts: BOS (where the tokenizer adds it), text, EOS behind the whole and behind every
/// answer that is not last. Throws BadInput when there is no tokenizer.
void tokenizeExample(Example& example, const Tokenizer* tokenizer, bool answersOnly);

}  // namespace resect
