#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace resect {

/// A picture of 8-bit samples: row by row, the channels of a pixel side by side.
struct Image {
    int height = 0, width = 0, channels = 0;
    std::vector<std::uint8_t> samples;   ///< height x width x channels
};

/// Larger pictures are refused: Pillow's limit against decompression bombs.
inline constexpr std::int64_t kMaxPixels = 178'956'970;

/// Sizes of a picture file, from its header alone.
struct ImageSize {
    int height = 0, width = 0;
};
/// `head`: the first bytes of the file; the header of a JPEG may stand behind large metadata, then all bytes are needed. Throws as decodeImage.
ImageSize imageSize(std::span<const std::byte> head, const std::string& subject);

/// True when these first bytes are those of a PNG or JPEG file.
bool looksLikeImage(std::span<const std::byte> head) noexcept;

/// Decodes PNG or JPEG to 1 channel (grey) or 3 (RGB), as Pillow does: alpha is dropped, palettes are looked up, fewer bits are scaled up, of 16 bits
/// the high byte is taken (Pillow cuts 16-bit grey off at 255 instead, which whitens it), CMYK is inverted as Adobe writes it and converted plainly,
/// an EXIF rotation is not applied, colour profiles and gamma are ignored.
/// Throws BadInput: neither of the two formats (it names the one it is, if known), truncated or damaged, more than kMaxPixels pixels.
Image decodeImage(std::span<const std::byte> bytes, const std::string& subject);
/// The whole file, decoded. Throws NotFound and NoPermission too.
Image readImage(const std::filesystem::path& file);

/// To 1 or 3 channels as Pillow's convert("L") and convert("RGB") do: L = (19595 R + 38470 G + 7471 B + 32768) >> 16.
/// Throws Unsupported for any other number.
Image withChannels(Image image, int channels);

}  // namespace resect
