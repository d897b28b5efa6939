#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/version.h"
#include "core/models/extension.h"
#include "core/models/runtime.h"
#include "core/train/recipe.h"
#include "core/worker/catalogue.h"
#include "core/worker/failure.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <span>
#include <string_view>

namespace {

void logToStderr() {
    auto logger = spdlog::stderr_color_mt("resect");
    logger->set_pattern("%^%l%$: %v");
    resect::setLogSink([logger](resect::LogLevel level, std::string_view message) {
        switch (level) {
        case resect::LogLevel::Debug: logger->debug(message); break;
        case resect::LogLevel::Info: logger->info(message); break;
        case resect::LogLevel::Warning: logger->warn(message); break;
        case resect::LogLevel::Error: logger->error(message); break;
        }
    });
}

/// False for commands that run no model and for help: they do without the restart, which would take half of their time.
bool mayCompute(std::span<char*> arguments) {
    constexpr std::array kLight = {"inspect", "methods", "plan", "verdict", "status", "stop", "tokenize", "chat", "diff", "import", "adapter", "demo-text", "--version"};
    const auto isOneOf = [](std::string_view word, const auto& list) { return std::ranges::find(list, word) != std::end(list); };
    if (arguments.size() < 2 || isOneOf(arguments[1], kLight)) return false;
    return std::ranges::none_of(arguments, [&](std::string_view word) { return isOneOf(word, std::array{std::string_view("--help"), std::string_view("-h")}); });
}

}  // namespace

int main(int argc, char** argv) {
    if (mayCompute({argv, static_cast<std::size_t>(argc)})) resect::restartWithWaitPolicy(argv);
    logToStderr();
    resect::setRecipeLoader([] { resect::loadCatalogue(); });
    resect::setExtensionLoader([] { resect::loadCatalogue(); });
    CLI::App app("Resect: surgery on transformer checkpoints. See what is redundant, cut it, train it back, export what other programs open.", "resect-cli");
    app.set_version_flag("--version", std::string("resect-cli ") + resect::versionText());
    app.require_subcommand(1);
    app.footer("Examples:\n"
               "  resect-cli inspect MODEL\n"
               "  resect-cli measure llm-drop MODEL --data text.txt --out scores.h5\n"
               "  resect-cli plan llm-drop MODEL --measure scores.h5 --set target=block --set count=2 --out plan.json\n"
               "  resect-cli preview plan.json MODEL --data text.txt\n"
               "  resect-cli recover lora MODEL --plan plan.json --data text.txt --out run\n"
               "  resect-cli export run --to smaller-model --way uniform\n"
               "Exit codes: 0 done, 2 usage, 3 bad input, 4 memory or disk, 5 stopped and kept, 1 our own fault.");
    using namespace resect::cli;
    for (const auto add : {addInspect, addMethods, addMeasure, addPlan, addVerdict, addPreview, addRecover, addRunCommands, addEval, addExport, addAdapter, addImport, addDropLists, addVerify, addDiff,
                           addLogits, addTokenize, addChat, addGenerate, addDemoText, addServe})
        add(app);
    try {
        app.parse(argc, argv);
        return currentExitCode();
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    } catch (const std::exception&) {
        const resect::Error failure = resect::currentFailure();
        std::cerr << "error: " << failure.what() << "\n";
        return resect::exitCode(failure.code());
    }
}
