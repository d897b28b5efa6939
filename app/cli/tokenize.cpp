#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/data/tokenizer.h"
#include "core/protocol/json.h"

#include <fstream>
#include <iostream>

namespace resect::cli {

namespace {

struct TokenizeOptions : Common {
    std::string checkpoint, input, text;
    bool noSpecial = false;
};

void tokenizeRows(const Tokenizer& tokenizer, std::istream& rows, const std::string& subject, SpecialTokens special) {
    std::string line;
    for (int number = 1; std::getline(rows, line); ++number) {
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        const std::string where = subject + ": line " + std::to_string(number);
        const Json row = parseJson(line, where);
        const auto ids = tokenizer.encode(stringField(row, "text", where), special);
        std::cout << Json{{"ids", ids}, {"decoded", tokenizer.decode(ids)}}.dump() << "\n";
    }
}

void runTokenize(TokenizeOptions& options) {
    const auto tokenizer = Tokenizer::load(options.checkpoint);
    const SpecialTokens special = options.noSpecial ? SpecialTokens::Omit : SpecialTokens::Add;
    if (!options.text.empty()) {
        const auto ids = tokenizer->encode(options.text, special);
        Json row{{"ids", ids}, {"pieces", Json::array()}, {"decoded", tokenizer->decode(ids)}};
        for (const auto id : ids) row["pieces"].push_back(tokenizer->piece(id));
        printJson(row);
    } else if (options.input.empty() || options.input == "-") {
        tokenizeRows(*tokenizer, std::cin, "standard input", special);
    } else {
        std::ifstream rows(options.input);
        if (!rows) throw Error(ErrorCode::NotFound, options.input, "cannot be read");
        tokenizeRows(*tokenizer, rows, options.input, special);
    }
}

}  // namespace

void addTokenize(CLI::App& app) {
    auto options = std::make_shared<TokenizeOptions>();
    CLI::App* command = app.add_subcommand("tokenize", "Rows {\"text\"} in, rows {\"ids\", \"decoded\"} out");
    command->add_option("CKPT", options->checkpoint, "Folder with tokenizer.json or tokenizer.model")->required();
    command->add_option("--input", options->input, "JSON lines with a text field (default: standard input)");
    command->add_option("--text", options->text, "One text instead of a file");
    command->add_flag("--no-special", options->noSpecial, "Without BOS and other special tokens around");
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  resect-cli tokenize MODEL --text 'Once upon a time'");
    command->callback([options] { runTokenize(*options); });
}

}  // namespace resect::cli
