#pragma once
#include "core/data/image.h"

#include <array>
#include <cstdint>

namespace resect {

/// Pillow's numbers, as `resample` of preprocessor_config.json has them.
enum class Resample { Nearest = 0, Lanczos = 1, Bilinear = 2, Bicubic = 3, Box = 4, Hamming = 5 };
const char* name(Resample filter) noexcept;   ///< "bicubic"

/// Pillow's resize of 8-bit images, bit for bit (github.com/python-pillow/Pillow, the algorithm of Resample.c): antialiased, horizontally then
/// vertically, with integer weights of 22 bits and clipping to 8 bits after each of the two; a side that keeps its size is left alone.
/// Bicubic has a = -0.5. Nearest takes the sample under the centre. Sizes are at least 1.
Image resized(const Image& image, int height, int width, Resample filter);

/// How a crop is placed when what is left over is odd, and a picture that is smaller than the crop is padded with black.
enum class CropRule {
    HuggingFace,  ///< begins at floor(rest / 2); padding takes the larger half in front
    Torchvision,  ///< begins at rest / 2 rounded half to even; padding takes the smaller half in front
};
Image centreCropped(const Image& image, int height, int width, CropRule rule);

/// Centred on a square of the longer side and this colour; the smaller half of an odd rest stands in front (LLaVA's expand2square).
Image paddedToSquare(const Image& image, std::array<std::uint8_t, 3> colour);

}  // namespace resect
