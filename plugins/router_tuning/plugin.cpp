#include "core/method/method.h"
#include "plugins/router_tuning/depth_recipe.h"
#include "plugins/router_tuning/router_files.h"
#include "plugins/router_tuning/router_method.h"
#include "plugins/router_tuning/router_recipe.h"

extern "C" int resectPluginAbi() { return resect::kPluginAbi; }
extern "C" void resectRegister(resect::MethodRegistry& registry) {
    registry.add(std::make_unique<resect::router::RouterMethod>());
    registry.addRecipe(resect::router::routerRecipe());
    registry.addRecipe(resect::depth::depthRecipe());
    resect::addModelExtension(resect::router::routerExtension());
    resect::addModelExtension(resect::depth::depthExtension());
}
