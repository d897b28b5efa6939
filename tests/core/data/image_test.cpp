#include "core/anatomy/model_shape.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/safetensors_file.h"
#include "core/data/image_preparation.h"
#include "tests/support/pictures.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

namespace resect::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Samples = std::vector<std::uint8_t>;

Image decoded(const std::string& bytes) { return decodeImage(std::as_bytes(std::span(bytes)), "picture"); }

template <class Work> std::string errorOf(Work&& work) {
    try {
        work();
    } catch (const Error& error) {
        return error.what();
    }
    return "nothing was thrown";
}

ModelShape shapeOf(int channels, int height, int width, const std::string& modelType = "vit") {
    ModelShape shape;
    shape.modelType = modelType;
    ImageShape image;
    image.channels = channels, image.height = height, image.width = width, image.patchHeight = image.patchWidth = 4;
    shape.image = image;
    return shape;
}

Image gradient(int height, int width, int channels) {
    Image image{height, width, channels, {}};
    for (int i = 0; i < height * width * channels; ++i) image.samples.push_back(static_cast<std::uint8_t>((i * 37 + i / 7 * 11) % 256));
    return image;
}

TEST(ImageDecoding, ReadsEveryKindOfPngAsPillowDoes) {
    EXPECT_THAT(decoded(pngBytes(1, 2, 0, 8, {7, 200})).samples, ElementsAre(7, 200));
    EXPECT_THAT(decoded(pngBytes(1, 2, 4, 8, {7, 0, 200, 9})).samples, ElementsAre(7, 200)) << "alpha is dropped";
    EXPECT_THAT(decoded(pngBytes(1, 1, 6, 8, {1, 2, 3, 0})).samples, ElementsAre(1, 2, 3));
    EXPECT_THAT(decoded(pngBytes(1, 2, 3, 8, {1, 0}, {9, 8, 7, 40, 50, 60})).samples, ElementsAre(40, 50, 60, 9, 8, 7)) << "a palette";
    EXPECT_THAT(decoded(pngBytes(1, 8, 0, 1, {0b10100000})).samples, ElementsAre(255, 0, 255, 0, 0, 0, 0, 0));
    EXPECT_THAT(decoded(pngBytes(1, 2, 0, 4, {0x3f})).samples, ElementsAre(51, 255));
    EXPECT_THAT(decoded(pngBytes(1, 2, 0, 16, {0x12, 0xff, 0xfe, 0x01})).samples, ElementsAre(0x12, 0xfe)) << "the high byte";
    EXPECT_THAT(decoded(pngBytes(1, 1, 2, 16, {1, 255, 2, 255, 3, 255})).samples, ElementsAre(1, 2, 3));
}

TEST(ImageDecoding, ReadsJpegAsTheLibraryDoes) {
    for (const char* name : {"colour", "grey"}) {
        const Image jpeg = readImage(ownData("images/" + std::string(name) + ".jpg")), png = readImage(ownData("images/" + std::string(name) + ".png"));
        EXPECT_EQ(jpeg.channels, name[0] == 'c' ? 3 : 1);
        EXPECT_EQ(jpeg.height, 17);
        EXPECT_EQ(jpeg.width, 23);
        EXPECT_EQ(jpeg.samples, png.samples) << name;
    }
    // C 50, M 100, Y 200, K 30 of 255: 225 - 225 x / 255.
    const Image cmyk = readImage(ownData("images/cmyk.jpg"));
    ASSERT_EQ(cmyk.channels, 3);
    EXPECT_NEAR(cmyk.samples[0], 181, 2);
    EXPECT_NEAR(cmyk.samples[1], 137, 2);
    EXPECT_NEAR(cmyk.samples[2], 49, 2);
}

TEST(ImageDecoding, MakesGreyAndColourAsPillowDoes) {
    EXPECT_THAT(withChannels({1, 2, 3, {255, 0, 0, 10, 200, 90}}, 1).samples, ElementsAre(76, 131));
    EXPECT_THAT(withChannels({1, 2, 1, {5, 6}}, 3).samples, ElementsAre(5, 5, 5, 6, 6, 6));
    EXPECT_THAT(errorOf([] { withChannels({1, 1, 1, {5}}, 2); }), HasSubstr("the model runs 2 channels"));
}

TEST(ImageDecoding, RefusesWhatIsNoWholePicture) {
    const std::string png = pngBytes(8, 8, 0, 8, Samples(64, 3)), jpeg = readFile(ownData("images/colour.jpg"));
    EXPECT_THAT(errorOf([&] { decoded(png.substr(0, png.size() / 2)); }), HasSubstr("it ends too early: it is truncated"));
    EXPECT_THAT(errorOf([&] { decoded(jpeg.substr(0, jpeg.size() * 2 / 3)); }), HasSubstr("is truncated"));
    EXPECT_THAT(errorOf([&] { decoded(jpeg.substr(0, 40)); }), HasSubstr("JPEG file"));
    std::string flipped = png;
    flipped[flipped.size() - 30] ^= 1;
    EXPECT_THAT(errorOf([&] { decoded(flipped); }), HasSubstr("is a damaged PNG file"));
    EXPECT_THAT(errorOf([] { decoded(""); }), HasSubstr("is empty"));
    EXPECT_THAT(errorOf([] { decoded("GIF89a..."); }), HasSubstr("is a GIF image; expected PNG or JPEG"));
    EXPECT_THAT(errorOf([] { decoded("Once upon a time"); }), HasSubstr("is no image"));
    EXPECT_THAT(errorOf([] { decoded(pngBytes(20000, 20000, 0, 8, {})); }), HasSubstr("20000 x 20000 pixels; expected at least 1 and at most 178,956,970 in all"));
}

TEST(ImageResize, LeavesWhatNeedsNoResize) {
    const Image image = gradient(5, 7, 3);
    for (const Resample filter : {Resample::Nearest, Resample::Lanczos, Resample::Bilinear, Resample::Bicubic, Resample::Box, Resample::Hamming}) {
        EXPECT_EQ(resized(image, 5, 7, filter).samples, image.samples);
        const Image constant{9, 4, 1, Samples(36, 131)};
        for (const auto& [h, w] : {std::pair{3, 11}, std::pair{20, 1}, std::pair{1, 1}})
            EXPECT_EQ(resized(constant, h, w, filter).samples, Samples(static_cast<std::size_t>(h * w), 131)) << name(filter);
    }
}

TEST(ImageResize, TakesEightTapsPerAxisToHalveBicubically) {
    // Seen by a single bright sample: it reaches as many halved samples as have it among their taps; all of them together give its weight, a half.
    const int size = 32;
    Samples reached(size, 0);
    for (int at = 0; at < size; ++at) {
        Image line{1, size, 1, Samples(static_cast<std::size_t>(size), 100)};
        line.samples[static_cast<std::size_t>(at)] = 200;
        const Image half = resized(line, 1, size / 2, Resample::Bicubic);
        reached[static_cast<std::size_t>(at)] = half.samples[8] != 100;
    }
    EXPECT_EQ(std::accumulate(reached.begin(), reached.end(), 0), 8);
    EXPECT_EQ(std::find(reached.begin(), reached.end(), 1) - reached.begin(), 8 * 2 - 3);
}

TEST(ImageResize, AveragesPairsByTheBox) {
    EXPECT_THAT(resized({1, 4, 1, {10, 20, 30, 41}}, 1, 2, Resample::Box).samples, ElementsAre(15, 36));
    EXPECT_THAT(resized({2, 1, 3, {10, 20, 30, 20, 40, 61}}, 1, 1, Resample::Box).samples, ElementsAre(15, 30, 46));
    EXPECT_THAT(resized({1, 5, 1, {1, 2, 3, 4, 5}}, 1, 2, Resample::Nearest).samples, ElementsAre(2, 4));
}

TEST(ImageCrop, IsPlacedByEitherRule) {
    const Image line{1, 6, 1, {1, 2, 3, 4, 5, 6}};
    EXPECT_THAT(centreCropped(line, 1, 3, CropRule::HuggingFace).samples, ElementsAre(2, 3, 4));
    EXPECT_THAT(centreCropped(line, 1, 3, CropRule::Torchvision).samples, ElementsAre(3, 4, 5)) << "1.5 is rounded to 2";
    EXPECT_THAT(centreCropped(line, 1, 5, CropRule::Torchvision).samples, ElementsAre(1, 2, 3, 4, 5)) << "0.5 is rounded to 0";
    EXPECT_THAT(centreCropped(line, 1, 9, CropRule::HuggingFace).samples, ElementsAre(0, 0, 1, 2, 3, 4, 5, 6, 0));
    EXPECT_THAT(centreCropped(line, 1, 9, CropRule::Torchvision).samples, ElementsAre(0, 1, 2, 3, 4, 5, 6, 0, 0));
    EXPECT_THAT(centreCropped({1, 2, 1, {7, 8}}, 3, 1, CropRule::HuggingFace).samples, ElementsAre(0, 7, 0));
    EXPECT_THAT(paddedToSquare({1, 2, 3, {1, 2, 3, 4, 5, 6}}, {9, 8, 7}).samples, ElementsAre(1, 2, 3, 4, 5, 6, 9, 8, 7, 9, 8, 7));
}

/// What a checkpoint folder that holds just this says.
struct Said {
    TempFolder folder;
    ImagePreparation by(const std::string& file, const Json& json, const ModelShape& shape = shapeOf(3, 32, 32), bool pad = false) {
        writeJsonFile(folder / file, json);
        return readImagePreparation(folder.path(), shape, pad);
    }
    ImagePreparation hf(const Json& json, const ModelShape& shape = shapeOf(3, 32, 32)) { return by("preprocessor_config.json", json, shape); }
};

std::vector<float> pixels(const ImagePreparation& preparation, const Image& image) {
    const Image ready = preparation.prepared(image, "picture");
    const auto table = preparation.table();
    std::vector<float> values;
    const std::size_t channels = static_cast<std::size_t>(ready.channels);
    for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t i = c; i < ready.samples.size(); i += channels) values.push_back(table[c][ready.samples[i]]);
    return values;
}

TEST(ImagePreparation, GivesThePixelsOfTheReference) {
    const auto folder = ownData("golden/preprocess");
    const SafetensorsFile golden = SafetensorsFile::open(folder / "pixel_values.safetensors");
    const Json cases = readJsonFile(folder / "cases.json")["cases"];
    ASSERT_EQ(cases.size(), 12u);
    for (const Json& one : cases) {
        Said said;
        const auto preparation = said.hf(readJsonFile(folder / one["processor"].get<std::string>()));
        EXPECT_FALSE(preparation.assumed);
        const auto found = pixels(preparation, readImage(folder / one["image"].get<std::string>()));
        const auto bytes = golden.bytes(one["key"].get<std::string>());
        std::vector<float> expected(bytes.size() / sizeof(float));
        std::memcpy(expected.data(), bytes.data(), bytes.size());
        ASSERT_EQ(found.size(), expected.size());
        double worst = 0;
        for (std::size_t i = 0; i < found.size(); ++i) worst = std::max(worst, std::abs(double(found[i]) - double(expected[i])));
        EXPECT_EQ(worst, 0) << one["key"];
    }
}

TEST(ImagePreparation, ReadsEveryFormOfSize) {
    Said said;
    const auto sizes = [&](const Json& json, int height = 20, int width = 50) {
        const auto preparation = said.hf(json);
        const Image image = preparation.prepared(gradient(height, width, 3), "picture");
        EXPECT_EQ(image.height, 32);
        EXPECT_EQ(image.width, 32);
        return preparation;
    };
    using enum ImagePreparation::Size;
    EXPECT_EQ(sizes({{"image_processor_type", "ViTImageProcessor"}, {"size", 32}}).size, Exact);
    EXPECT_EQ(sizes({{"feature_extractor_type", "ViTFeatureExtractor"}, {"size", {32, 32}}}).size, Exact);
    const auto clip = sizes({{"image_processor_type", "CLIPImageProcessorFast"}, {"size", 40}, {"crop_size", 32}});
    EXPECT_EQ(clip.size, Shortest);
    EXPECT_EQ(clip.edge, 40);
    EXPECT_EQ(clip.filter, Resample::Bicubic);
    EXPECT_TRUE(clip.crop);
    EXPECT_DOUBLE_EQ(clip.mean[1], 0.4578275);
    const auto deit = sizes({{"image_processor_type", "DeiTImageProcessor"}, {"size", {{"height", 40}, {"width", 36}}}, {"crop_size", {{"height", 32}, {"width", 32}}}, {"resample", "lanczos"}});
    EXPECT_EQ(deit.size, Exact);
    EXPECT_EQ(deit.filter, Resample::Lanczos);
    EXPECT_EQ(sizes({{"image_processor_type", "CLIPImageProcessor"}, {"size", {{"shortest_edge", 40}, {"longest_edge", 50}}}}).cap, 50);
    EXPECT_EQ(sizes({{"image_processor_type", "CLIPImageProcessor"}, {"size", {{"longest_edge", 64}}}, {"crop_size", 32}}).size, Longest);
    EXPECT_EQ(sizes({{"image_processor_type", "BitImageProcessor"}, {"size", {{"max_height", 64}, {"max_width", 99}}}}).size, Within);
    EXPECT_EQ(sizes({{"image_processor_type", "ViTImageProcessor"}, {"do_resize", false}}, 32, 32).size, Keep);
    EXPECT_EQ(sizes({{"image_processor_type", "ViTImageProcessor"}, {"do_resize", false}, {"do_center_crop", true}}).size, Keep);
    const auto convNext = sizes({{"image_processor_type", "ConvNextImageProcessor"}, {"size", {{"shortest_edge", 32}}}, {"crop_pct", 0.8}});
    EXPECT_EQ(convNext.edge, 40);
    EXPECT_EQ(convNext.cropHeight, 32);
    // 20 x 50 by the shortest edge 33: the longer side becomes 82.5, cut down; 82 - 32 leaves 50, so the crop begins at 25.
    const auto cut = said.hf({{"image_processor_type", "CLIPImageProcessor"}, {"size", 33}, {"crop_size", 32}});
    EXPECT_EQ(cut.prepared(gradient(20, 50, 3), "").samples, centreCropped(resized(gradient(20, 50, 3), 33, 82, Resample::Bicubic), 32, 32, CropRule::HuggingFace).samples);
}

TEST(ImagePreparation, HonoursEveryFlag) {
    Said said;
    const Json plain{{"image_processor_type", "ViTImageProcessor"}, {"size", 32}};
    const auto with = [&](Json change) {
        Json json = plain;
        json.update(change);
        return said.hf(json).table()[1][51];
    };
    EXPECT_FLOAT_EQ(with({{"do_rescale", false}, {"do_normalize", false}}), 51);
    EXPECT_FLOAT_EQ(with({{"do_normalize", false}}), 0.2f);
    EXPECT_FLOAT_EQ(with({{"rescale_factor", 0.5}, {"do_normalize", false}}), 25.5f);
    EXPECT_FLOAT_EQ(with({{"do_rescale", false}}), 101);
    EXPECT_FLOAT_EQ(with({{"image_mean", {0.5, 0.2, 0.5}}, {"image_std", 0.1}}), 0);
    EXPECT_FLOAT_EQ(with(Json::object()), -0.6f);
}

TEST(ImagePreparation, LooksInEveryFile) {
    const Json processor{{"image_processor_type", "ViTImageProcessor"}, {"size", 32}, {"image_mean", {0.1, 0.2, 0.3}}};
    EXPECT_DOUBLE_EQ(Said().by("processor_config.json", {{"image_processor", processor}}).mean[2], 0.3);
    const Json timm{{"input_size", {3, 32, 32}}, {"mean", {0.485, 0.456, 0.406}}, {"std", {0.229, 0.224, 0.225}}, {"crop_pct", 0.9}, {"interpolation", "bicubic"}};
    for (const auto& [file, json] : {std::pair<std::string, Json>{"config.json", {{"architecture", "deit_tiny_patch16_224"}, {"pretrained_cfg", timm}}}, {"config.json", timm},
                                     {"preprocessor_config.json", {{"image_processor_type", "TimmWrapperImageProcessor"}, {"pretrained_cfg", timm}}}}) {
        const auto preparation = Said().by(file, json);
        EXPECT_EQ(preparation.edge, 35) << "floor(32 / 0.9)";
        EXPECT_EQ(preparation.cropRule, CropRule::Torchvision);
        EXPECT_EQ(preparation.filter, Resample::Bicubic);
        EXPECT_FALSE(preparation.assumed);
    }
    TempFolder empty;
    const auto grey = readImagePreparation(empty.path(), shapeOf(1, 28, 28));
    EXPECT_TRUE(grey.assumed);
    EXPECT_FLOAT_EQ(grey.table()[0][255], 1);
    EXPECT_FLOAT_EQ(grey.table()[0][0], -1);
    const auto clip = readImagePreparation(empty.path(), shapeOf(3, 32, 32, "clip_vision_model"));
    EXPECT_EQ(clip.size, ImagePreparation::Size::Shortest);
    EXPECT_DOUBLE_EQ(clip.std[0], 0.26862954);
    EXPECT_THAT(clip.words(), HasSubstr("shorter side resized to 32 (bicubic)"));
}

TEST(ImagePreparation, PadsToSquaresWhenAsked) {
    const Json clip{{"image_processor_type", "CLIPImageProcessor"}, {"size", 32}, {"crop_size", 32}, {"image_mean", {0.5, 0.25, 0.0}}};
    Json padded = clip;
    padded["image_aspect_ratio"] = "pad";
    EXPECT_FALSE(Said().hf(clip).padToSquare);
    for (const auto& preparation : {Said().hf(padded), Said().by("preprocessor_config.json", clip, shapeOf(3, 32, 32), true)}) {
        const Image image = preparation.prepared({16, 32, 3, Samples(16 * 32 * 3, 255)}, "picture");
        EXPECT_THAT(Samples(image.samples.begin(), image.samples.begin() + 3), ElementsAre(127, 63, 0)) << "the mean colour";
        EXPECT_EQ(image.samples[(16 * 32 + 5) * 3], 255);
    }
}

TEST(ImagePreparation, NamesTheFieldThatIsWrong) {
    const auto error = [](const Json& json, const ModelShape& shape = shapeOf(3, 32, 32)) { return errorOf([&] { Said().hf(json, shape); }); };
    const Json vit{{"image_processor_type", "ViTImageProcessor"}};
    const auto with = [&](Json change) {
        Json json = vit;
        json.update(change);
        return json;
    };
    EXPECT_THAT(error(with({{"size", 64}})), HasSubstr("preprocessor_config.json: size: makes pictures of 64 x 64 pixels; the model runs 32 x 32"));
    EXPECT_THAT(error(with({{"size", {{"depth", 3}}}})), HasSubstr("shortest_edge"));
    EXPECT_THAT(error(with({{"size", -1}})), HasSubstr("expected 1 to 65,536 pixels, found -1"));
    EXPECT_THAT(error(with({{"size", 40}, {"do_center_crop", true}, {"crop_size", 30}})), HasSubstr("crop_size: makes pictures of 30 x 30"));
    EXPECT_THAT(error(with({{"resample", 9}})), HasSubstr("resample: expected 0 to 5"));
    EXPECT_THAT(error(with({{"image_std", {1, 0, 1}}})), HasSubstr("image_std: expected 3 numbers other than 0"));
    EXPECT_THAT(error(with({{"image_mean", {0.5}}})), HasSubstr("image_mean: expected 3 numbers, one per channel of the model; found [0.5]"));
    EXPECT_THAT(error({{"image_processor_type", "OtherImageProcessor"}}), HasSubstr("resample: is not there, and OtherImageProcessor is not known"));
    EXPECT_THAT(error({{"image_processor_type", "CLIPImageProcessor"}}, shapeOf(1, 32, 32)), HasSubstr("the default is for 3 channels; the model runs 1"));
    EXPECT_THAT(errorOf([] { Said().hf({{"image_processor_type", "ViTImageProcessor"}, {"do_resize", false}}).prepared(gradient(5, 6, 3), "a.png"); }),
                HasSubstr("a.png: is 5 x 6 pixels; the model runs 32 x 32 and do_resize is false"));
    EXPECT_THAT(errorOf([] { Said().by("config.json", {{"pretrained_cfg", {{"input_size", {3, 64, 64}}}}}); }), HasSubstr("config.json: pretrained_cfg: input_size: expected [3, 32, 32]"));
}

}  // namespace
}  // namespace resect::test
