#pragma once
#include "core/train/recipe.h"

namespace resect::s2 {

/// S2FT: trains the weight columns and rows of chosen heads and channels (arXiv 2412.06289). What is chosen is kept in recipe/selection.json of the
/// run; checkpoints hold an s2::Adapter.
std::shared_ptr<const Recipe> s2Recipe();

}  // namespace resect::s2
