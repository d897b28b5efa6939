#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/idx_file.h"
#include "core/data/image_set.h"
#include "core/protocol/json.h"
#include "tests/support/pictures.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using Samples = std::vector<std::uint8_t>;

/// A grey model of 4 x 4 pixels with three labels, and room for data.
class ImageFolder : public testing::Test {
protected:
    ImageFolder() {
        m_shape.modelType = "vit";
        ImageShape image;
        image.channels = 1, image.height = image.width = 4, image.patchHeight = image.patchWidth = 2, image.labels = 3;
        m_shape.image = image;
        nameLabels({"ant", "bee_hive", "cow, cattle"});
        fs::create_directories(m_data);
    }
    void nameLabels(const std::vector<std::string>& names) {
        Json json = Json::object();
        for (std::size_t i = 0; i < names.size(); ++i) json["id2label"][std::to_string(i)] = names[i];
        writeJsonFile(m_folder / "config.json", json);
    }
    void picture(const std::string& name, std::uint8_t value) {
        fs::create_directories((m_data / name).parent_path());
        writePng(m_data / name, 4, 4, Samples(16, value));
    }
    Dataset load(ImageOptions options = {}) { return loadImages(m_data, m_folder.path(), m_shape, options); }
    std::string error(ImageOptions options = {}) {
        try {
            load(options);
        } catch (const Error& error) {
            return error.what();
        }
        return "nothing was thrown";
    }
    static std::vector<std::int64_t> labels(const Dataset& data) {
        std::vector<std::int64_t> labels;
        for (const auto& row : data.rows) labels.push_back(row.targets.front());
        return labels;
    }
    static float firstPixel(const TokenRow& row) {
        std::vector<float> pixels(16);
        row.image.set->write(row.image.index, pixels.data());
        return pixels[0];
    }
    TempFolder m_folder;
    fs::path m_data = m_folder / "data";
    ModelShape m_shape;
};

TEST_F(ImageFolder, TakesClassesByName) {
    for (int i = 0; i < 4; ++i) picture("cattle/deep/" + std::to_string(i) + ".png", 255);
    picture("Ant/0.png", 0), picture("bee hive/0.png", 51);
    picture(".thumbs/0.png", 9);
    const Dataset data = load();
    ASSERT_EQ(data.rows.size(), 6u);
    EXPECT_TRUE(data.holdsImages());
    EXPECT_EQ(data.targets, 6);
    EXPECT_EQ(data.tokens, 6 * 5);
    EXPECT_EQ(data.rows[0].tokens(), 5);
    EXPECT_THAT(labels(data), ElementsAre(2, 2, 0, 1, 2, 2)) << "in proportion, from the first to the last";
    for (const auto& row : data.rows) EXPECT_FLOAT_EQ(firstPixel(row), row.targets[0] == 0 ? -1.0f : row.targets[0] == 1 ? -0.6f : 1.0f);
    EXPECT_THAT(data.description, HasSubstr("data: 6 images, 3 classes by the names of their folders; resized to 4 x 4"));
    EXPECT_THAT(data.description, HasSubstr("assumed, because the checkpoint has no preprocessor_config.json"));
    EXPECT_EQ(data.rows[2].image.set->name(data.rows[2].image.index), "Ant/0.png");
}

TEST_F(ImageFolder, TakesClassesByNumberAndByOrder) {
    picture("2/a.png", 1), picture("0/a.png", 1);
    EXPECT_THAT(labels(load()), ElementsAre(0, 2));
    fs::remove_all(m_data);
    picture("n03/a.png", 3), picture("n01/a.png", 1), picture("n02/a.png", 2);
    const Dataset data = load();
    EXPECT_THAT(labels(data), ElementsAre(0, 1, 2));
    EXPECT_THAT(data.problems.front().message, HasSubstr("taken in their order as labels 0 to 2"));
}

TEST_F(ImageFolder, RefusesClassesThatFitNothing) {
    picture("ant/a.png", 1), picture("elk/a.png", 1);
    EXPECT_THAT(error(), HasSubstr("folder elk is no label of the model's 3 (such as ant), and there are 2 classes"));
    fs::remove_all(m_data);
    picture("ant/a.png", 1), picture("ANT/a.png", 1);
    EXPECT_THAT(error(), HasSubstr("folders ANT and ant are both label 0"));
}

TEST_F(ImageFolder, RejectsFilesWithReasons) {
    picture("ant/good.png", 1), picture("stray.png", 1);
    writeFileAtomically(m_data / "ant/text.png", "no picture");
    writeFileAtomically(m_data / "ant/web.jpg", "RIFF....WEBPVP8 ");
    const std::string whole = pngBytes(4, 4, 0, 8, Samples(16, 3));
    writeFileAtomically(m_data / "ant/torn.png", whole.substr(0, whole.size() - 30));
    const Dataset data = load();
    EXPECT_EQ(data.rows.size(), 1u);
    EXPECT_EQ(data.rejectedRows, 4);
    std::string all;
    for (const auto& problem : data.problems) all += problem.subject + ": " + problem.message + "\n";
    EXPECT_THAT(all, HasSubstr("stray.png: stands beside the class folders"));
    EXPECT_THAT(all, HasSubstr("ant/text.png: is no image"));
    EXPECT_THAT(all, HasSubstr("ant/web.jpg: is a WebP image"));
    EXPECT_THAT(all, HasSubstr("ant/torn.png: is a damaged PNG file: it ends too early"));
    EXPECT_THAT(data.description, HasSubstr("rejected: 4"));
    fs::remove(m_data / "ant/good.png");
    EXPECT_THAT(error(), HasSubstr("holds no usable image; stray.png stands beside"));
}

TEST_F(ImageFolder, ReadsAListOfLabels) {
    for (const char* name : {"a.png", "b.png", "c d.png", "e.png"}) picture(name, 1);
    writeFileAtomically(m_data / "labels.csv", "file,label\r\na.png,2\n\"c d.png\",\"cow, cattle\"\ngone.png,1\nb.png,gnu\n");
    const Dataset data = load();
    EXPECT_THAT(labels(data), ElementsAre(2, 2));
    std::string all;
    for (const auto& problem : data.problems) all += problem.subject + ": " + problem.message + "\n";
    EXPECT_THAT(all, HasSubstr("labels.csv, line 5: \"gnu\" is no label of the model"));
    EXPECT_THAT(all, HasSubstr("e.png: is not listed in labels.csv"));
    EXPECT_THAT(all, HasSubstr("gone.png: is listed in labels.csv, but not there"));
    writeFileAtomically(m_data / "labels.csv", "a.png,3\n");
    EXPECT_THAT(error(), HasSubstr("labels.csv: line 1: label 3 is out of range; the model has labels 0 to 2"));
}

TEST_F(ImageFolder, ReadsPicturesWithoutLabels) {
    picture("a.png", 1), picture("b.png", 2);
    const Dataset data = load();
    EXPECT_THAT(labels(data), ElementsAre(kIgnoredTarget, kIgnoredTarget));
    EXPECT_EQ(data.targets, 0);
    EXPECT_THAT(loadImages(m_data / "b.png", m_folder.path(), m_shape, {}).description, HasSubstr("b.png: 1 image; "));
    EXPECT_EQ(load({.maxRows = 1}).rows.size(), 1u);
    EXPECT_THAT(load({.maxRows = 1}).description, HasSubstr("1 image"));
}

TEST_F(ImageFolder, DecodesLargeSetsWhenAsked) {
    for (int i = 0; i < 9; ++i) picture("ant/" + std::to_string(i) + ".png", static_cast<std::uint8_t>(20 * i));
    writeFileAtomically(m_data / "ant/x.png", "no picture");
    const Dataset kept = load(), lazy = load({.keepBytes = 100});
    EXPECT_TRUE(kept.rows[0].image.set->isInMemory());
    EXPECT_FALSE(lazy.rows[0].image.set->isInMemory());
    ASSERT_EQ(lazy.rows.size(), kept.rows.size());
    EXPECT_EQ(lazy.rejectedRows, 1);
    for (std::size_t i = 0; i < kept.rows.size(); ++i) EXPECT_EQ(firstPixel(kept.rows[i]), firstPixel(lazy.rows[i]));
    const std::string before = load({.keepBytes = 100}).fingerprint;
    EXPECT_EQ(lazy.fingerprint, before);
    writeFileAtomically(m_data / "ant/3.png", readFile(m_data / "ant/3.png").substr(0, 60));
    try {
        firstPixel(lazy.rows[3]);
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("3.png: is a damaged PNG file"));
    }
    picture("ant/3.png", 61);
    EXPECT_NE(load({.keepBytes = 100}).fingerprint, before);
}

TEST_F(ImageFolder, FingerprintsPicturesLabelsAndPreparation) {
    std::set<std::string> seen;
    const auto isNew = [&] { return seen.insert(load().fingerprint).second; };
    picture("ant/a.png", 1), picture("bee_hive/a.png", 2);
    EXPECT_TRUE(isNew());
    EXPECT_FALSE(isNew());
    picture("ant/a.png", 3);
    EXPECT_TRUE(isNew());
    fs::rename(m_data / "ant", m_data / "cattle");
    EXPECT_TRUE(isNew());
    writeJsonFile(m_folder / "preprocessor_config.json", {{"image_processor_type", "ViTImageProcessor"}, {"size", 4}, {"image_mean", {0.1}}});
    EXPECT_TRUE(isNew());
}

class IdxImages : public ImageFolder {
protected:
    void write(const std::string& name, const std::string& bytes) { writeFileAtomically(m_data / name, bytes); }
    std::string errorOfFile(const std::string& name) {
        try {
            loadImages(m_data / name, m_folder.path(), m_shape, {});
        } catch (const Error& error) {
            return error.what();
        }
        return "nothing was thrown";
    }
};

TEST_F(IdxImages, AreReadWithTheirLabels) {
    Samples values(5 * 16);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint8_t>(i / 16 * 50);
    write("t-images.idx3-ubyte", idxBytes({5, 4, 4}, values));
    EXPECT_EQ(load().targets, 0);
    EXPECT_THAT(load().problems.front().message, HasSubstr("has no labels beside it"));
    write("t-labels.idx1-ubyte", idxBytes({5}, {2, 1, 0, 1, 2}));
    const Dataset data = load();
    EXPECT_THAT(labels(data), ElementsAre(2, 1, 0, 1, 2));
    EXPECT_FLOAT_EQ(firstPixel(data.rows[3]), 150 / 127.5f - 1);
    EXPECT_THAT(data.description, HasSubstr("5 images, labels from t-labels.idx1-ubyte"));
    EXPECT_EQ(data.rows[4].image.set->name(4), "image 4 of t-images.idx3-ubyte");
    const Dataset some = load({.maxRows = 2});
    EXPECT_THAT(labels(some), ElementsAre(2, 1));
    EXPECT_THAT(some.description, HasSubstr("2 of 5 images"));
    EXPECT_NE(some.fingerprint, data.fingerprint);
    EXPECT_EQ(load({.keepBytes = 10}).rows.size(), 5u);
    EXPECT_FLOAT_EQ(firstPixel(load({.keepBytes = 10}).rows[3]), 150 / 127.5f - 1);
    write("u-images-idx3-ubyte", idxBytes({1, 4, 4}, Samples(16)));
    EXPECT_THAT(error(), HasSubstr("holds 2 IDX files of images; name one of them"));
}

TEST_F(IdxImages, AreRefusedWithTheReason) {
    const Samples pixels(3 * 16);
    write("a-images-idx3-ubyte", idxBytes({3, 4, 4}, pixels));
    write("a-labels-idx1-ubyte", idxBytes({2}, {0, 1}));
    EXPECT_THAT(errorOfFile("a-images-idx3-ubyte"), HasSubstr("a-labels-idx1-ubyte: holds 2 labels for 3 images"));
    write("a-labels-idx1-ubyte", idxBytes({3}, {0, 7, 1}));
    EXPECT_THAT(errorOfFile("a-images-idx3-ubyte"), HasSubstr("a-labels-idx1-ubyte: entry 1: label 7 is out of range; the model has labels 0 to 2"));
    EXPECT_THAT(errorOfFile("a-labels-idx1-ubyte"), HasSubstr("1 dimensions; expected 3: images, height, width (this file seems to hold the labels)"));
    write("torn", idxBytes({3, 4, 4}, pixels).substr(0, 16 + 20));
    EXPECT_THAT(errorOfFile("torn"), HasSubstr("ends within entry 1 of 3: it is truncated"));
    write("more", idxBytes({3, 4, 4}, pixels) + "x");
    EXPECT_THAT(errorOfFile("more"), HasSubstr("holds more bytes than its header says"));
    write("none", idxBytes({0, 4, 4}, {}));
    EXPECT_THAT(errorOfFile("none"), HasSubstr("dimension 0 is 0"));
    write("wide", idxBytes({1, 4, 70000}, {}));
    EXPECT_THAT(errorOfFile("wide"), HasSubstr("dimension 2 is 70,000; expected 1 to 65,536"));
    write("huge", idxBytes({1 << 30, 4096, 4096}, {}));
    EXPECT_THAT(errorOfFile("huge"), HasSubstr("are allowed. Use fewer rows"));
    std::string floats = idxBytes({3, 4, 4}, pixels);
    floats[2] = 0x0d;
    write("floats", floats);
    EXPECT_THAT(errorOfFile("floats"), HasSubstr("values of type 13; expected 8, unsigned bytes"));
    write("text", "Once upon a time");
    EXPECT_THAT(errorOfFile("text"), HasSubstr("expected an image folder, an IDX file or a PNG or JPEG file for an image model"));
}

TEST_F(IdxImages, AreUnzipped) {
    RESECT_NEED_SHARED_DATA("vision/mnist");
    const IdxFile labels = readIdx(sharedData("vision/mnist/t10k-labels-idx1-ubyte.gz"), 1, 0, 1 << 20);
    EXPECT_EQ(labels.values.size(), 10000u);
    EXPECT_THAT(std::vector<int>(labels.values.begin(), labels.values.begin() + 5), ElementsAre(7, 2, 1, 0, 4));
    EXPECT_EQ(idxLabelsOf(sharedData("vision/mnist/t10k-images-idx3-ubyte.gz")).filename(), "t10k-labels-idx1-ubyte.gz");
    EXPECT_EQ(readIdx(sharedData("vision/mnist/t10k-images-idx3-ubyte.gz"), 3, 10, 1 << 20).values.size(), 7840u);
    const std::string zipped = readFile(sharedData("vision/mnist/t10k-labels-idx1-ubyte.gz"));
    write("torn.gz", zipped.substr(0, 3000));
    EXPECT_THROW(readIdx(m_data / "torn.gz", 1, 0, 1 << 20), Error);
    std::string flipped = zipped;
    flipped[2000] ^= 0x55;
    write("flipped.gz", flipped);
    EXPECT_THROW(readIdx(m_data / "flipped.gz", 1, 0, 1 << 20), Error);
}

TEST_F(IdxImages, AreNotTakenForText) {
    write("a-images-idx3-ubyte", idxBytes({1, 4, 4}, Samples(16)));
    ModelShape text;
    text.vocabSize = 300;
    const auto errorFor = [&](const fs::path& path, const ModelShape& shape) -> std::string {
        try {
            loadModelData(path, m_folder.path(), shape, nullptr, {});
        } catch (const Error& error) {
            return error.what();
        }
        return "nothing was thrown";
    };
    EXPECT_THAT(errorFor(m_data / "a-images-idx3-ubyte", text), HasSubstr("holds images; the model runs text"));
    EXPECT_THAT(errorFor(m_data, text), HasSubstr("is a folder; the model runs text"));
    write("a.txt", "text");
    EXPECT_THAT(errorFor(m_data / "a.txt", m_shape), HasSubstr("for an image model"));
    EXPECT_EQ(loadModelData(m_data / "a-images-idx3-ubyte", m_folder.path(), m_shape, nullptr, {}).rows.size(), 1u);
}

}  // namespace
}  // namespace resect::test
