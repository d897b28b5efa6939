#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/worker/catalogue.h"
#include "core/worker/describe.h"

#include <iostream>

namespace resect::cli {

namespace {

std::string defaultText(const protocol::ParameterMessage& parameter) {
    return parameter.defaultValue.is_string() ? parameter.defaultValue.get<std::string>() : parameter.defaultValue.dump();
}

void printParameters(const std::string& title, const std::vector<protocol::ParameterMessage>& parameters) {
    if (parameters.empty()) return;
    std::cout << "  " << title << ":\n";
    for (const auto& parameter : parameters) {
        std::cout << "    --set " << parameter.name << "=" << defaultText(parameter);
        if (!parameter.unit.empty()) std::cout << " " << parameter.unit;
        std::string range;
        for (const auto& choice : parameter.choices) range += (range.empty() ? "" : ", ") + choice;
        if (range.empty() && !parameter.minimum.is_null()) range = "from " + parameter.minimum.dump();
        if (!parameter.maximum.is_null()) range += " to " + parameter.maximum.dump();
        if (!range.empty()) std::cout << " (" << range << ")";
        std::cout << "\n        " << parameter.help << "\n";
    }
}

void printMethod(const protocol::MethodMessage& method) {
    std::cout << method.id << ": " << method.title << "\n  " << method.summary << "\n";
    if (!method.paper.empty()) std::cout << "  " << method.paper << "\n";
    printParameters("measure", method.measureParameters);
    printParameters("plan", method.planParameters);
    printParameters("recover", method.trainParameters);
    std::cout << "\n";
}

void runMethods(const Common& options, const std::string& only) {
    const Catalogue catalogue = loadCatalogue();
    if (options.json) {
        printJson(catalogueJson(catalogue));
        return;
    }
    for (const auto& method : catalogue.registry.methods())
        if (only.empty() || method->info().id == only) printMethod(describe(*method));
    for (const auto& recipe : recipeMessages())
        if (only.empty() || recipe.id == only) printMethod(recipe);
    for (const auto& plugin : catalogue.plugins)
        if (!plugin.error.empty()) std::cout << "not loaded: " << plugin.file << ": " << plugin.error << "\n";
}

}  // namespace

void addMethods(CLI::App& app) {
    auto options = std::make_shared<Common>();
    auto only = std::make_shared<std::string>();
    CLI::App* command = app.add_subcommand("methods", "Registered methods and recipes, with their parameters");
    command->add_option("METHOD", *only, "Only this one");
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  resect-cli methods llm-drop");
    command->callback([options, only] { runMethods(*options, *only); });
}

}  // namespace resect::cli
