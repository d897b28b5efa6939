#pragma once
#include "core/train/recipe.h"

namespace resect {

std::shared_ptr<const Recipe> fullRecipe();
std::shared_ptr<const Recipe> pretrainRecipe();
std::shared_ptr<const Recipe> loraRecipe();

}  // namespace resect
