#include "core/data/image_resize.h"

#include "core/base/error.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace resect {
namespace {

constexpr int kBits = 22;

double sinc(double x) { return x == 0 ? 1 : std::sin(x * std::numbers::pi) / (x * std::numbers::pi); }

double weight(Resample filter, double x) {
    const double distance = std::abs(x);
    switch (filter) {
        case Resample::Bilinear: return distance < 1 ? 1 - distance : 0;
        case Resample::Bicubic: {
            constexpr double a = -0.5;
            if (distance < 1) return ((a + 2) * distance - (a + 3)) * distance * distance + 1;
            return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * a : 0;
        }
        case Resample::Lanczos: return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0;
        case Resample::Box: return x > -0.5 && x <= 0.5 ? 1 : 0;
        case Resample::Hamming: return distance >= 1 ? 0 : sinc(distance) * (0.54 + 0.46 * std::cos(std::numbers::pi * distance));
        case Resample::Nearest: break;
    }
    throw Error(ErrorCode::Internal, "resize", "this filter has no weights");
}

double supportOf(Resample filter) {
    switch (filter) {
        case Resample::Lanczos: return 3;
        case Resample::Bicubic: return 2;
        case Resample::Box: return 0.5;
        default: return 1;
    }
}

/// Which samples each output sample is made of, and with which integer weights.
struct Taps {
    struct Span {
        int first = 0, count = 0;
        std::size_t weights = 0;   ///< index of the first
    };
    std::vector<Span> spans;
    std::vector<int> weights;
};

Taps tapsOf(int from, int to, Resample filter) {
    const double scale = double(from) / to, filterScale = std::max(scale, 1.0);
    const double support = supportOf(filter) * filterScale, inverse = 1 / filterScale;
    Taps taps;
    std::vector<double> raw;
    for (int i = 0; i < to; ++i) {
        const double centre = (i + 0.5) * scale;
        const int first = std::max(0, static_cast<int>(centre - support + 0.5));
        const int count = std::min(from, static_cast<int>(centre + support + 0.5)) - first;
        raw.clear();
        double sum = 0;
        for (int x = 0; x < count; ++x) {
            raw.push_back(weight(filter, (x + first - centre + 0.5) * inverse));
            sum += raw.back();
        }
        taps.spans.push_back({first, count, taps.weights.size()});
        for (double w : raw) {
            if (sum != 0) w /= sum;
            taps.weights.push_back(static_cast<int>((w < 0 ? -0.5 : 0.5) + w * (1 << kBits)));
        }
    }
    return taps;
}

std::uint8_t clipped(int sum) { return static_cast<std::uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

/// Along the width; C channels side by side.
template <int C> void passAcross(const Image& in, const Taps& taps, Image& out) {
    for (int y = 0; y < in.height; ++y) {
        const std::uint8_t* row = in.samples.data() + std::size_t(y) * std::size_t(in.width) * C;
        std::uint8_t* to = out.samples.data() + std::size_t(y) * std::size_t(out.width) * C;
        for (const auto& span : taps.spans) {
            int sum[C];
            std::fill_n(sum, C, 1 << (kBits - 1));
            const std::uint8_t* from = row + std::size_t(span.first) * C;
            const int* w = taps.weights.data() + span.weights;
            for (int x = 0; x < span.count; ++x)
                for (int c = 0; c < C; ++c) sum[c] += from[x * C + c] * w[x];
            for (int c = 0; c < C; ++c) *to++ = clipped(sum[c]);
        }
    }
}

/// Down the height, a whole row of samples at a time.
void passDown(const Image& in, const Taps& taps, Image& out) {
    const std::size_t row = std::size_t(in.width) * std::size_t(in.channels);
    std::vector<int> sums(row);
    std::uint8_t* to = out.samples.data();
    for (const auto& span : taps.spans) {
        std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
        for (int y = 0; y < span.count; ++y) {
            const std::uint8_t* from = in.samples.data() + std::size_t(span.first + y) * row;
            const int w = taps.weights[span.weights + std::size_t(y)];
            for (std::size_t x = 0; x < row; ++x) sums[x] += from[x] * w;
        }
        for (const int sum : sums) *to++ = clipped(sum);
    }
}

Image blank(int height, int width, int channels) {
    return {height, width, channels, std::vector<std::uint8_t>(std::size_t(height) * std::size_t(width) * std::size_t(channels))};
}

Image nearest(const Image& image, int height, int width) {
    Image out = blank(height, width, image.channels);
    const auto C = std::size_t(image.channels);
    const double scaleX = double(image.width) / width, scaleY = double(image.height) / height;
    double y = scaleY * 0.5;  // summed up, as Pillow does
    for (int row = 0; row < height; ++row, y += scaleY) {
        double x = scaleX * 0.5;
        const auto from = std::size_t(std::min(int(y), image.height - 1)) * std::size_t(image.width);
        for (int column = 0; column < width; ++column, x += scaleX)
            std::copy_n(image.samples.begin() + std::ptrdiff_t((from + std::size_t(std::min(int(x), image.width - 1))) * C), C,
                        out.samples.begin() + std::ptrdiff_t((std::size_t(row) * std::size_t(width) + std::size_t(column)) * C));
    }
    return out;
}

/// Copies the part of `image` that falls on `out` when its corner is put at (top, left), which may lie outside.
void paste(const Image& image, Image& out, int top, int left) {
    const int C = image.channels;
    const int firstX = std::max(0, -left), lastX = std::min(image.width, out.width - left);
    for (int y = std::max(0, -top); y < std::min(image.height, out.height - top) && firstX < lastX; ++y) {
        const auto* from = image.samples.data() + (std::size_t(y) * std::size_t(image.width) + std::size_t(firstX)) * std::size_t(C);
        std::copy_n(from, std::size_t(lastX - firstX) * std::size_t(C),
                    out.samples.data() + (std::size_t(y + top) * std::size_t(out.width) + std::size_t(left + firstX)) * std::size_t(C));
    }
}

/// Where a crop of `wanted` begins in a side of `size`; below 0 = so much padding in front.
int cropStart(int size, int wanted, CropRule rule) {
    const int rest = size - wanted;
    if (rest < 0) return rule == CropRule::HuggingFace ? -((-rest + 1) / 2) : -(-rest / 2);
    if (rule == CropRule::HuggingFace || rest % 2 == 0) return rest / 2;
    return rest / 2 + (rest / 2) % 2;  // half to even
}

}  // namespace

const char* name(Resample filter) noexcept {
    constexpr std::array kNames{"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"};
    return kNames[static_cast<std::size_t>(filter)];
}

Image resized(const Image& image, int height, int width, Resample filter) {
    if (image.height == height && image.width == width) return image;
    if (filter == Resample::Nearest) return nearest(image, height, width);
    const Image* current = &image;
    Image across;
    if (width != image.width) {
        across = blank(image.height, width, image.channels);
        const Taps taps = tapsOf(image.width, width, filter);
        if (image.channels == 3) passAcross<3>(image, taps, across);
        else if (image.channels == 1) passAcross<1>(image, taps, across);
        else throw Error(ErrorCode::Unsupported, "resize", "images have 1 or 3 channels, found " + toText(image.channels));
        current = &across;
    }
    if (height == image.height) return across;
    Image out = blank(height, width, image.channels);
    passDown(*current, tapsOf(image.height, height, filter), out);
    return out;
}

Image centreCropped(const Image& image, int height, int width, CropRule rule) {
    if (image.height == height && image.width == width) return image;
    Image out = blank(height, width, image.channels);
    paste(image, out, -cropStart(image.height, height, rule), -cropStart(image.width, width, rule));
    return out;
}

Image paddedToSquare(const Image& image, std::array<std::uint8_t, 3> colour) {
    const int side = std::max(image.height, image.width);
    if (image.height == image.width) return image;
    Image out = blank(side, side, image.channels);
    for (std::size_t i = 0; i < out.samples.size(); ++i) out.samples[i] = colour[i % std::size_t(image.channels)];
    paste(image, out, (side - image.height) / 2, (side - image.width) / 2);
    return out;
}

}  // namespace resect
