#include "core/base/files.h"
#include "core/protocol/json.h"
#include "tests/support/pictures.h"
#include "tests/support/process.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

namespace resect::test {
namespace {

using testing::HasSubstr;

/// A grey classifier of 12 x 8 pictures with the labels a, b and c, and pictures for it.
class ImageCli : public testing::Test {
protected:
    TinyCheckpoint m_model = tinyFamily("vit", {{"num_channels", 1}});
    TempFolder m_folder;
    std::string m_path = m_model.path().string();
    std::string m_data = writeBandImages(m_folder.path(), "t", 90, 6, 3, 5).string();

    std::string file(const std::string& name) const { return (m_folder / name).string(); }
    static Json json(std::vector<std::string> arguments) {
        arguments.push_back("--json");
        const auto result = runCli(arguments);
        EXPECT_EQ(result.exitCode, 0) << result.err;
        return result.exitCode == 0 ? parseJson(result.out, "stdout") : Json();
    }
};

TEST_F(ImageCli, FromMeasuringToTheExport) {
    const Json measured = json({"measure", "llm-drop", m_path, "--data", m_data, "--out", file("scores.h5"), "--workspace", file("work.resect")});
    EXPECT_EQ(measured["samples_done"], 90);
    EXPECT_THAT(measured.dump(), HasSubstr("the checkpoint does not say how its pictures are prepared"));
    json({"measure", "importance", m_path, "--data", m_data, "--workspace", file("work.resect")});
    ASSERT_EQ(runCli({"plan", "llm-drop", m_path, "--measure", file("scores.h5"), "--set", "target=block", "--set", "count=1", "--out", file("plan.json")}).exitCode, 0);
    const Json preview = json({"preview", file("plan.json"), m_path, "--data", m_data});
    EXPECT_EQ(preview["unit"], "images");
    EXPECT_EQ(preview["rowsDone"], 90);
    EXPECT_THAT(preview["problems"].dump(), HasSubstr("the checkpoint does not say how its pictures are prepared"));
    EXPECT_THAT(runCli({"preview", file("plan.json"), m_path, "--data", m_data}).out, HasSubstr("accuracy (95 %)"));
    const auto recovered = runCli({"recover", "full", m_path, "--plan", file("plan.json"), "--data", m_data, "--eval-data", m_data, "--out", file("run"), "--set", "steps=30", "--set",
                                   "batch_rows=16", "--set", "lr=3e-3", "--set", "checkpoint_every=0"});
    ASSERT_EQ(recovered.exitCode, 0) << recovered.err;
    EXPECT_THAT(recovered.out, HasSubstr("accuracy: uncut "));
    EXPECT_THAT(recovered.out, HasSubstr(" images/s"));
    const auto exported = runCli({"export", file("run"), "--to", file("smaller"), "--way", "uniform", "--data", m_data});
    ASSERT_EQ(exported.exitCode, 0) << exported.err;
    EXPECT_EQ(runCli({"verify", file("smaller")}).exitCode, 0);
    const Json before = json({"eval", m_path, "--data", m_data}), after = json({"eval", file("smaller"), "--data", m_data});
    EXPECT_EQ(before["accuracy"]["total"], 90);
    EXPECT_NEAR(before["accuracy"]["share"].get<double>(), preview["baselineAccuracy"].get<double>(), 1e-12);
    const Json status = json({"status", file("run")});
    EXPECT_NEAR(after["accuracy"]["share"].get<double>(), status["bestAccuracy"].get<double>(), 1e-12);
    EXPECT_LT(after["loss"].get<double>(), std::log(status["cutPerplexity"].get<double>()));
    EXPECT_EQ(after["labels"], (Json{"a", "b", "c"}));
    std::int64_t all = 0;
    for (const Json& row : after["confusion"])
        for (const Json& count : row) all += count.get<std::int64_t>();
    EXPECT_EQ(all, 90);
    EXPECT_THAT(readFile(file("smaller") + "/resect-plan.json"), HasSubstr("\"bestAccuracy\""));
    EXPECT_THAT(runCli({"eval", m_path, "--data", m_data}).out, HasSubstr("among the five likeliest 1 "));
}

TEST_F(ImageCli, TellsTheLabelsOfOnePicture) {
    writePng(file("one.png"), 12, 8, std::vector<std::uint8_t>(96, 200));
    const Json found = json({"logits", m_path, "--image", file("one.png")});
    ASSERT_EQ(found["images"].size(), 1u);
    double sum = 0;
    for (const Json& label : found["images"][0]) sum += label["probability"].get<double>();
    EXPECT_NEAR(sum, 1, 1e-9);
    EXPECT_EQ(found["images"][0].size(), 3u);
    EXPECT_GE(found["images"][0][0]["probability"], found["images"][0][1]["probability"]);
    EXPECT_EQ(runCli({"logits", m_path, "--image", file("one.png"), "--out", file("out.safetensors"), "--hidden-states"}).exitCode, 0);
    EXPECT_EQ(runCli({"logits", m_path, "--image", file("one.png"), "--ids", "1"}).exitCode, 2);
    EXPECT_EQ(runCli({"logits", m_path, "--image", m_data, "--gradients", "--out", file("grads.safetensors")}).exitCode, 0);
    const TinyCheckpoint text = tinyLlama();
    EXPECT_THAT(runCli({"logits", text.path().string(), "--image", file("one.png")}).err, HasSubstr("is an image, but the model runs text"));
}

TEST_F(ImageCli, TakesFoldersAsItTakesIdxFiles) {
    std::vector<std::uint8_t> all, labels;
    for (int i = 0; i < 6; ++i) {
        const std::vector<std::uint8_t> pixels(64, static_cast<std::uint8_t>(40 * i));
        const std::string name(1, "abc"[i % 3]);
        std::filesystem::create_directories(m_folder / ("set/" + name));
        writePng(m_folder / ("set/" + name + "/" + std::to_string(i) + ".png"), 8, 8, pixels);
        all.insert(all.end(), pixels.begin(), pixels.end());
        labels.push_back(static_cast<std::uint8_t>(i % 3));
    }
    writeFileAtomically(file("set/b/broken.jpg"), "no picture");
    writeFileAtomically(file("x-images-idx3-ubyte"), idxBytes({6, 8, 8}, all));
    writeFileAtomically(file("x-labels-idx1-ubyte"), idxBytes({6}, labels));
    const Json folder = json({"eval", m_path, "--data", file("set")}), idx = json({"eval", m_path, "--data", file("x-images-idx3-ubyte")});
    EXPECT_EQ(folder["imagesRejected"], 1);
    EXPECT_EQ(folder["imagesDone"], 6);
    EXPECT_EQ(folder["confusion"], idx["confusion"]);
    EXPECT_NEAR(folder["loss"].get<double>(), idx["loss"].get<double>(), 1e-6);
    EXPECT_THAT(runCli({"eval", m_path, "--data", file("set")}).out, HasSubstr("b/broken.jpg: is no image; expected PNG or JPEG"));
}

TEST_F(ImageCli, NamesWhatIsWrongWithTheData) {
    const TinyCheckpoint text = tinyLlama();
    const auto images = runCli({"eval", text.path().string(), "--data", m_data, "--row-length", "24"});
    EXPECT_EQ(images.exitCode, 3);
    EXPECT_THAT(images.err, HasSubstr("holds images; the model runs text"));
    writeFileAtomically(file("text.txt"), "Once upon a time");
    const auto words = runCli({"eval", m_path, "--data", file("text.txt")});
    EXPECT_EQ(words.exitCode, 3);
    EXPECT_THAT(words.err, HasSubstr("text.txt: expected an image folder, an IDX file"));
    EXPECT_EQ(runCli({"eval", m_path, "--data", m_data, "--second-half"}).exitCode, 2);
    EXPECT_EQ(runCli({"eval", m_path, "--data", m_data, "--image-aspect", "stretch"}).exitCode, 2);
    EXPECT_EQ(runCli({"eval", m_path, "--data", m_data, "--image-aspect", "pad"}).exitCode, 0);
}

}  // namespace
}  // namespace resect::test
