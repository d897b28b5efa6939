#pragma once
#include "core/data/image_set.h"

#include <torch/types.h>

#include <span>

namespace resect {

/// The pictures of these rows (each has one, all for the same model): f32 [B, C, height, width] on the CPU, prepared in parallel.
torch::Tensor imagePixels(std::span<const TokenRow* const> rows);

}  // namespace resect
