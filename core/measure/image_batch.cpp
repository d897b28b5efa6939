#include "core/measure/image_batch.h"

#include <ATen/Parallel.h>
#include <torch/types.h>

namespace resect {

torch::Tensor imagePixels(std::span<const TokenRow* const> rows) {
    const ImagePreparation& to = rows.front()->image.set->preparation();
    const auto B = static_cast<std::int64_t>(rows.size());
    auto pixels_BCHW = torch::empty({B, to.channels, to.height, to.width}, torch::kFloat32);
    const std::int64_t each = pixels_BCHW.numel() / B;
    float* const out = pixels_BCHW.data_ptr<float>();
    at::parallel_for(0, B, 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t b = first; b < last; ++b) {
            const RowImage& image = rows[static_cast<std::size_t>(b)]->image;
            image.set->write(image.index, out + b * each);
        }
    });
    return pixels_BCHW;
}

}  // namespace resect
