#pragma once
#include "core/train/recipe.h"
#include "plugins/router_tuning/routing.h"

#include <memory>

namespace resect::router {

/// "router-tuning": trains routers of a frozen model, which decide per sequence or token whether a layer runs, towards an executed share.
/// "Router-Tuning: A Simple and Effective Approach for Enabling Dynamic-Depth in Transformers", arXiv 2410.13184.
///
/// Departures: the loss has a target and its weight grows until it is met (the authors' scripts set the weight to 0, which controls nothing); a
/// sequence's router sees its prompt only (theirs sees the padding and what is to be predicted as well).
std::shared_ptr<const Recipe> routerRecipe();

/// The `count` deepest of the blocks that can be routed, the model's last block left out; 0 = half of the model's blocks.
std::vector<int> defaultBlocks(const ModelShape& shape, Target target, std::int64_t count);

}  // namespace resect::router
