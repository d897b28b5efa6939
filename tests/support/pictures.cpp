#include "tests/support/pictures.h"

#include "core/base/files.h"

#include <random>

namespace resect::test {
namespace {

std::string bigEndian(std::uint32_t value) {
    std::string text;
    for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(value >> shift & 0xff);
    return text;
}

std::uint32_t crc(const std::string& bytes) {
    std::uint32_t sum = 0xffffffffu;
    for (const char c : bytes) {
        sum ^= static_cast<unsigned char>(c);
        for (int bit = 0; bit < 8; ++bit) sum = sum & 1 ? 0xedb88320u ^ (sum >> 1) : sum >> 1;
    }
    return ~sum;
}

std::string chunk(const std::string& type, const std::string& content) {
    return bigEndian(static_cast<std::uint32_t>(content.size())) + type + content + bigEndian(crc(type + content));
}

/// A zlib stream of stored blocks.
std::string stored(const std::string& bytes) {
    std::string out("\x78\x01", 2);
    std::uint32_t a = 1, b = 0;
    for (std::size_t from = 0; from < bytes.size(); from += 65535) {
        const std::size_t size = std::min<std::size_t>(65535, bytes.size() - from);
        out += from + size == bytes.size() ? '\x01' : '\0';
        out += static_cast<char>(size & 0xff), out += static_cast<char>(size >> 8), out += static_cast<char>(~size & 0xff), out += static_cast<char>(~size >> 8 & 0xff);
        out += bytes.substr(from, size);
    }
    for (const char c : bytes) a = (a + static_cast<unsigned char>(c)) % 65521, b = (b + a) % 65521;
    return out + bigEndian(b << 16 | a);
}

}  // namespace

std::string pngBytes(int height, int width, int colourType, int bits, const std::vector<std::uint8_t>& samples, const std::vector<std::uint8_t>& palette) {
    const std::size_t row = samples.size() / static_cast<std::size_t>(height);
    std::string raw;
    for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) raw += '\0' + std::string(samples.begin() + static_cast<std::ptrdiff_t>(y * row), samples.begin() + static_cast<std::ptrdiff_t>((y + 1) * row));
    std::string head = bigEndian(static_cast<std::uint32_t>(width)) + bigEndian(static_cast<std::uint32_t>(height));
    head += static_cast<char>(bits), head += static_cast<char>(colourType), head += std::string(3, '\0');
    std::string file("\x89PNG\r\n\x1a\n", 8);
    file += chunk("IHDR", head);
    if (!palette.empty()) file += chunk("PLTE", std::string(palette.begin(), palette.end()));
    return file + chunk("IDAT", stored(raw)) + chunk("IEND", "");
}

void writePng(const std::filesystem::path& file, int height, int width, const std::vector<std::uint8_t>& samples) {
    const bool grey = samples.size() == static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
    writeFileAtomically(file, pngBytes(height, width, grey ? 0 : 2, 8, samples));
}

std::string idxBytes(const std::vector<std::int64_t>& sizes, const std::vector<std::uint8_t>& values) {
    std::string bytes{'\0', '\0', '\x08', static_cast<char>(sizes.size())};
    for (const auto size : sizes) bytes += bigEndian(static_cast<std::uint32_t>(size));
    return bytes + std::string(values.begin(), values.end());
}

std::filesystem::path writeBandImages(const std::filesystem::path& folder, const std::string& prefix, int count, int side, int classes, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::uint8_t> images, labels;
    for (int i = 0; i < count; ++i) {
        const int label = static_cast<int>(random() % static_cast<std::uint64_t>(classes));
        labels.push_back(static_cast<std::uint8_t>(label));
        for (int y = 0; y < side; ++y)
            for (int x = 0; x < side; ++x) images.push_back(static_cast<std::uint8_t>(random() % 60 + (y * classes / side == label ? 190 : 0)));
    }
    writeFileAtomically(folder / (prefix + "-labels-idx1-ubyte"), idxBytes({count}, labels));
    writeFileAtomically(folder / (prefix + "-images-idx3-ubyte"), idxBytes({count, side, side}, images));
    return folder / (prefix + "-images-idx3-ubyte");
}

}  // namespace resect::test
