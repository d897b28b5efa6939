#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/models/model.h"
#include "core/worker/handlers.h"
#include "core/worker/server.h"

#include <iostream>

namespace resect::cli {

void addServe(CLI::App& app) {
    auto options = std::make_shared<Common>();
    CLI::App* command = app.add_subcommand("serve", "The window's worker: JSON lines over standard input and output");
    command->add_option("--threads", options->threads, "CPU threads (0 = measured default)")->capture_default_str();
    command->callback([options] {
        configureRuntime(options->threads);
        Server server(std::cin, std::cout);
        const auto session = addHandlers(server);
        setExitCode(server.run());
    });
}

}  // namespace resect::cli
