#include "core/worker/catalogue.h"

#include "core/train/recipe.h"
#include "core/worker/describe.h"

namespace resect {

Catalogue loadCatalogue() {
    Catalogue catalogue;
    catalogue.plugins = loadPlugins(catalogue.registry);
    for (const auto& recipe : catalogue.registry.recipes()) addRecipe(recipe);
    setRecipeLoader({});   // they are known now
    return catalogue;
}

std::vector<protocol::MethodMessage> recipeMessages() {
    std::vector<protocol::MethodMessage> messages;
    for (const auto& known : recipes()) {
        const RecipeInfo& recipe = known->info();
        protocol::MethodMessage message;
        message.id = recipe.id;
        message.title = recipe.title;
        message.summary = recipe.summary;
        message.paper = recipe.paper;
        message.trains = true;
        for (const auto& parameter : recipe.parameters) message.trainParameters.push_back(toMessage(parameter));
        messages.push_back(std::move(message));
    }
    return messages;
}

Json catalogueJson(const Catalogue& catalogue) {
    Json json{{"methods", Json::array()}, {"recipes", recipeMessages()}, {"plugins", Json::array()}};
    for (const auto& method : catalogue.registry.methods()) json["methods"].push_back(describe(*method));
    for (const auto& plugin : catalogue.plugins)
        json["plugins"].push_back({{"file", plugin.file}, {"methods", plugin.methods}, {"error", plugin.error}});
    return json;
}

}  // namespace resect
