#pragma once
#include "core/models/extension.h"
#include "core/train/recipe.h"

#include <memory>

namespace resect::depth {

/// "mixture-of-depths": trains all weights of a model together with routers that let only a fixed number of each sequence's tokens through every other
/// block. "Mixture-of-Depths: Dynamically allocating compute in transformer-based language models", arXiv 2404.02258, 2024. Trained on the best tokens;
/// evaluated and generated with the causal predictor. Its checkpoints run in Resect only.
std::shared_ptr<const Recipe> depthRecipe();
/// Runs them.
std::shared_ptr<const ModelExtension> depthExtension();

}  // namespace resect::depth
