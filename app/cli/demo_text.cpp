#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/data/bpe_trainer.h"
#include "core/data/demo_text.h"

#include <iostream>

namespace resect::cli {

namespace {

void addText(CLI::App& app) {
    auto options = std::make_shared<DemoTextOptions>();
    auto folder = std::make_shared<std::string>();
    CLI::App* command = app.add_subcommand("demo-text", "Write the demo's text: stories, facts and sums with a held-out split and exact questions");
    command->add_option("DIR", *folder, "New folder for train.txt, heldout.txt and questions.jsonl")->required();
    command->add_option("--seed", options->seed, "The same seed gives the same bytes")->capture_default_str();
    command->add_option("--train-bytes", options->trainBytes, "Size of the training text")->capture_default_str()->check(CLI::PositiveNumber);
    command->add_option("--heldout-bytes", options->heldOutBytes, "Size of the held-out text")->capture_default_str()->check(CLI::PositiveNumber);
    command->add_option("--questions", options->questions, "Questions at most")->capture_default_str()->check(CLI::PositiveNumber);
    command->footer("Example:\n  resect-cli demo-text text --train-bytes 4000000");
    command->callback([options, folder] {
        writeDemoText(*folder, *options);
        std::cout << "wrote " << *folder << "\n";
    });
}

void addTokenizer(CLI::App& app) {
    struct DemoTextOptions {
        std::string text, folder;
        int vocabSize = 768, context = 256;
    };
    auto options = std::make_shared<DemoTextOptions>();
    CLI::App* command = app.add_subcommand("train-tokenizer", "Train a byte-level BPE tokenizer on a text");
    command->add_option("TEXT", options->text, "UTF-8 text")->required();
    command->add_option("DIR", options->folder, "Existing folder for tokenizer.json and its companions")->required();
    command->add_option("--vocab", options->vocabSize, "Tokens, special ones and the 256 bytes included")->capture_default_str()->check(CLI::Range(260, 65536));
    command->add_option("--context", options->context, "Context of the model, for tokenizer_config.json")->capture_default_str()->check(CLI::PositiveNumber);
    command->footer("Example:\n  resect-cli train-tokenizer text/train.txt model --vocab 768");
    command->callback([options] {
        writeTokenizer(options->folder, trainBpe(readFile(options->text), options->vocabSize), options->context);
        std::cout << "wrote " << options->folder << "/tokenizer.json\n";
    });
}

}  // namespace

void addDemoText(CLI::App& app) {
    addText(app);
    addTokenizer(app);
}

}  // namespace resect::cli
