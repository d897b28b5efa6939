#pragma once
#include "core/anatomy/model_shape.h"
#include "core/models/tower_model.h"

#include <torch/types.h>
#include <torch/utils.h>

namespace resect::test {

/// Random rows of tokens or pictures, or both, as the model takes them; the same for the same sizes.
inline TokenBatch someInput(const ModelShape& shape, std::int64_t rows, std::int64_t tokens) {
    auto generator = torch::make_generator<torch::CPUGeneratorImpl>(7);
    TokenBatch batch;
    if (const auto& image = shape.towers.empty() ? shape.image : shape.towers.front().shape.image)
        batch.pixels_BCHW = torch::randn({rows, image->channels, image->height, image->width}, generator);
    if (!shape.image) batch.ids_BT = torch::randint(shape.vocabSize, {rows, tokens}, generator, torch::kInt64);
    if (shape.link.featureBlocks.empty()) return batch;
    batch.ids_BT = torch::cat({torch::full({rows, imageRows(shape)}, shape.link.imageTokenId, torch::kInt64), batch.ids_BT.remainder(shape.link.imageTokenId)}, 1);
    return batch;
}

}  // namespace resect::test
