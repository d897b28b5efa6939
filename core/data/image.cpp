#include "core/data/image.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/mapped_file.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>

#include <jpeglib.h>

#include <jerror.h>
#include <png.h>

namespace resect {
namespace {

namespace fs = std::filesystem;
using Bytes = std::span<const std::byte>;

[[noreturn]] void damaged(const std::string& subject, const std::string& why) { throw Error(ErrorCode::BadInput, subject, why); }

bool startsWith(Bytes bytes, std::string_view magic, std::size_t at = 0) noexcept {
    return bytes.size() >= at + magic.size() && std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

constexpr std::string_view kPng("\x89PNG\r\n\x1a\n", 8), kJpeg("\xff\xd8\xff", 3);

void requireKnown(Bytes bytes, const std::string& subject) {
    if (bytes.empty()) damaged(subject, "is empty");
    if (looksLikeImage(bytes)) return;
    struct Other {
        std::string_view magic, name;
    };
    constexpr std::array kOthers{Other{"GIF8", "GIF"}, Other{"BM", "BMP"}, Other{std::string_view("II*\0", 4), "TIFF"}, Other{std::string_view("MM\0*", 4), "TIFF"},
                                 Other{"P5", "PGM"},   Other{"P6", "PPM"}};
    for (const Other& other : kOthers)
        if (startsWith(bytes, other.magic)) damaged(subject, "is a " + std::string(other.name) + " image; expected PNG or JPEG");
    if (startsWith(bytes, "RIFF") && startsWith(bytes, "WEBP", 8)) damaged(subject, "is a WebP image; expected PNG or JPEG");
    damaged(subject, "is no image; expected PNG or JPEG");
}

void requireModest(std::int64_t height, std::int64_t width, const std::string& subject) {
    if (height > 0 && width > 0 && height * width <= kMaxPixels) return;
    damaged(subject, "says it is " + toText(height) + " x " + toText(width) + " pixels; expected at least 1 and at most " + formatThousands(kMaxPixels) + " in all");
}

// Both libraries report errors by a long jump, which runs no destructors: the functions that set one hold plain data only.

struct JpegTrouble {
    jpeg_error_mgr base;
    std::jmp_buf jump;
    std::array<char, JMSG_LENGTH_MAX> message;
    bool truncated;
};

[[noreturn]] void jpegFailed(j_common_ptr info) {
    auto& trouble = *reinterpret_cast<JpegTrouble*>(info->err);
    info->err->format_message(info, trouble.message.data());
    std::longjmp(trouble.jump, 1);
}

/// The library goes on behind a missing end with grey; such a picture is refused.
void jpegMessage(j_common_ptr info, int level) {
    auto& trouble = *reinterpret_cast<JpegTrouble*>(info->err);
    if (level >= 0 || info->err->msg_code != JWRN_JPEG_EOF) return;
    trouble.truncated = true;
    jpegFailed(info);
}

struct JpegReader {
    jpeg_decompress_struct info{};
    JpegTrouble trouble{};

    explicit JpegReader(Bytes bytes) {
        info.err = jpeg_std_error(&trouble.base);
        trouble.base.error_exit = jpegFailed;
        trouble.base.emit_message = jpegMessage;
        jpeg_create_decompress(&info);
        jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    }
    ~JpegReader() { jpeg_destroy_decompress(&info); }
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;

    bool readHeader() {
        if (setjmp(trouble.jump)) return false;
        jpeg_read_header(&info, TRUE);
        return true;
    }
    bool start() {
        if (setjmp(trouble.jump)) return false;
        info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : info.num_components == 4 ? JCS_CMYK : JCS_RGB;
        jpeg_start_decompress(&info);
        return true;
    }
    bool readRows(std::uint8_t* samples, std::size_t rowBytes) {
        if (setjmp(trouble.jump)) return false;
        while (info.output_scanline < info.output_height) {
            JSAMPROW row = samples + info.output_scanline * rowBytes;
            jpeg_read_scanlines(&info, &row, 1);
        }
        return true;
    }
    void require(bool good, const std::string& subject) const {
        if (good) return;
        damaged(subject, trouble.truncated ? std::string("is a JPEG file that ends too early: it is truncated") : "is a damaged JPEG file: " + std::string(trouble.message.data()));
    }
};

Image fromCmyk(const Image& cmyk) {
    Image image{cmyk.height, cmyk.width, 3, std::vector<std::uint8_t>(cmyk.samples.size() / 4 * 3)};
    for (std::size_t pixel = 0; pixel < cmyk.samples.size() / 4; ++pixel) {
        const int light = cmyk.samples[pixel * 4 + 3];  // inverted: 255 - K
        for (std::size_t c = 0; c < 3; ++c) {
            const int product = (255 - cmyk.samples[pixel * 4 + c]) * light + 128;
            image.samples[pixel * 3 + c] = static_cast<std::uint8_t>(std::max(0, light - ((product + (product >> 8)) >> 8)));
        }
    }
    return image;
}

Image decodeJpeg(Bytes bytes, const std::string& subject) {
    JpegReader reader(bytes);
    reader.require(reader.readHeader(), subject);
    requireModest(reader.info.image_height, reader.info.image_width, subject);
    reader.require(reader.start(), subject);
    Image image{static_cast<int>(reader.info.output_height), static_cast<int>(reader.info.output_width), reader.info.output_components, {}};
    const std::size_t rowBytes = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels);
    image.samples.resize(rowBytes * static_cast<std::size_t>(image.height));
    reader.require(reader.readRows(image.samples.data(), rowBytes), subject);
    return image.channels == 4 ? fromCmyk(image) : image;
}

struct PngReader {
    png_structp png = nullptr;
    png_infop info = nullptr;
    Bytes left;
    std::array<char, 200> message{};

    explicit PngReader(Bytes bytes) : left(bytes) {
        png = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, failed, [](png_structp, png_const_charp) {});
        info = png ? png_create_info_struct(png) : nullptr;
    }
    ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }
    PngReader(const PngReader&) = delete;
    PngReader& operator=(const PngReader&) = delete;

    [[noreturn]] static void failed(png_structp png, png_const_charp why) {
        auto& own = *static_cast<PngReader*>(png_get_error_ptr(png));
        std::strncpy(own.message.data(), why, own.message.size() - 1);
        png_longjmp(png, 1);
    }
    static void readBytes(png_structp png, png_bytep out, std::size_t count) {
        auto& own = *static_cast<PngReader*>(png_get_io_ptr(png));
        if (own.left.size() < count) png_error(png, "it ends too early: it is truncated");
        std::memcpy(out, own.left.data(), count);
        own.left = own.left.subspan(count);
    }
    bool readHeader() {
        if (setjmp(png_jmpbuf(png))) return false;
        png_set_user_limits(png, 0x7fffffff, 0x7fffffff);  // the size is judged by ourselves
        png_set_read_fn(png, this, readBytes);
        png_read_info(png, info);
        return true;
    }
    bool setUp() {
        if (setjmp(png_jmpbuf(png))) return false;
        const auto type = png_get_color_type(png, info);
        if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
        if (type == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, info) < 8) png_set_expand_gray_1_2_4_to_8(png);
        if (png_get_bit_depth(png, info) == 16) png_set_strip_16(png);
        png_set_strip_alpha(png);
        png_set_interlace_handling(png);
        png_read_update_info(png, info);
        return true;
    }
    bool readRows(png_bytepp rows) {
        if (setjmp(png_jmpbuf(png))) return false;
        png_read_image(png, rows);
        return true;
    }
    void require(bool good, const std::string& subject) const {
        if (!good) damaged(subject, "is a damaged PNG file: " + std::string(message.data()));
    }
};

Image decodePng(Bytes bytes, const std::string& subject) {
    PngReader reader(bytes);
    if (!reader.info) throw Error(ErrorCode::OutOfMemory, subject, "libpng found no memory");
    reader.require(reader.readHeader(), subject);
    requireModest(png_get_image_height(reader.png, reader.info), png_get_image_width(reader.png, reader.info), subject);
    reader.require(reader.setUp(), subject);
    Image image{static_cast<int>(png_get_image_height(reader.png, reader.info)), static_cast<int>(png_get_image_width(reader.png, reader.info)),
                png_get_channels(reader.png, reader.info), {}};
    const std::size_t rowBytes = png_get_rowbytes(reader.png, reader.info);
    if (rowBytes != static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels)) throw Error(ErrorCode::Internal, subject, "libpng gives rows of another length");
    image.samples.resize(rowBytes * static_cast<std::size_t>(image.height));
    std::vector<png_bytep> rows;
    for (int y = 0; y < image.height; ++y) rows.push_back(image.samples.data() + static_cast<std::size_t>(y) * rowBytes);
    reader.require(reader.readRows(rows.data()), subject);
    return image;
}

}  // namespace

bool looksLikeImage(Bytes head) noexcept { return startsWith(head, kPng) || startsWith(head, kJpeg); }

ImageSize imageSize(Bytes head, const std::string& subject) {
    requireKnown(head, subject);
    ImageSize size;
    if (startsWith(head, kPng)) {
        PngReader reader(head);
        if (!reader.info) throw Error(ErrorCode::OutOfMemory, subject, "libpng found no memory");
        reader.require(reader.readHeader(), subject);
        requireModest(png_get_image_height(reader.png, reader.info), png_get_image_width(reader.png, reader.info), subject);
        size = {static_cast<int>(png_get_image_height(reader.png, reader.info)), static_cast<int>(png_get_image_width(reader.png, reader.info))};
    } else {
        JpegReader reader(head);
        reader.require(reader.readHeader(), subject);
        requireModest(reader.info.image_height, reader.info.image_width, subject);
        size = {static_cast<int>(reader.info.image_height), static_cast<int>(reader.info.image_width)};
    }
    return size;
}

Image decodeImage(Bytes bytes, const std::string& subject) {
    requireKnown(bytes, subject);
    return startsWith(bytes, kPng) ? decodePng(bytes, subject) : decodeJpeg(bytes, subject);
}

Image readImage(const fs::path& file) { return decodeImage(MappedFile(file).bytes(), file.string()); }

Image withChannels(Image image, int channels) {
    if (image.channels == channels) return image;
    const std::size_t pixels = static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width);
    Image other{image.height, image.width, channels, std::vector<std::uint8_t>(pixels * static_cast<std::size_t>(channels))};
    if (channels == 3 && image.channels == 1) {
        for (std::size_t i = 0; i < pixels; ++i) std::fill_n(other.samples.begin() + static_cast<std::ptrdiff_t>(3 * i), 3, image.samples[i]);
    } else if (channels == 1 && image.channels == 3) {
        for (std::size_t i = 0; i < pixels; ++i)
            other.samples[i] = static_cast<std::uint8_t>((19595u * image.samples[3 * i] + 38470u * image.samples[3 * i + 1] + 7471u * image.samples[3 * i + 2] + 0x8000u) >> 16);
    } else {
        throw Error(ErrorCode::Unsupported, "images", "can be made grey or RGB; the model runs " + toText(channels) + " channels");
    }
    return other;
}

}  // namespace resect
