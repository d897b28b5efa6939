#pragma once
#include "core/method/method.h"
#include "core/protocol/messages.h"

#include <vector>

namespace resect {

/// All methods of all plugins, and how loading each plugin went.
struct Catalogue {
    MethodRegistry registry;
    std::vector<PluginStatus> plugins;
};
/// Loads the plugins; their recipes are known to the process from then on.
Catalogue loadCatalogue();

/// The recovery recipes as methods that train.
std::vector<protocol::MethodMessage> recipeMessages();

/// {methods, recipes, plugins}: the answer to `methods`.
Json catalogueJson(const Catalogue& catalogue);

}  // namespace resect
