#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace resect::test {

/// A PNG file, not compressed. `samples`: height rows of width x channels samples, most significant byte first where bits = 16, packed where bits < 8
/// (then width x bits must fill whole bytes). colourType as in the format: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
std::string pngBytes(int height, int width, int colourType, int bits, const std::vector<std::uint8_t>& samples, const std::vector<std::uint8_t>& palette = {});
/// 8-bit grey or RGB by the number of samples.
void writePng(const std::filesystem::path& file, int height, int width, const std::vector<std::uint8_t>& samples);
/// An IDX file of unsigned bytes, not zipped.
std::string idxBytes(const std::vector<std::int64_t>& sizes, const std::vector<std::uint8_t>& values);
/// IDX images of `side` x `side` and their labels (count of both), under MNIST's names with `prefix`: pictures of class k are bright in the k-th of `classes`
/// bands of rows and noise elsewhere, so that a small model can tell them apart. Returns the images file.
std::filesystem::path writeBandImages(const std::filesystem::path& folder, const std::string& prefix, int count, int side, int classes, std::uint64_t seed);

}  // namespace resect::test
