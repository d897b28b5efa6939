#include "core/anatomy/anatomy.h"
#include "core/anatomy/cost.h"
#include "core/base/error.h"
#include "core/models/model.h"
#include "core/models/tensor_file.h"
#include "tests/core/models/tensor_matchers.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>
#include <torch/types.h>
#include <torch/utils.h>

namespace resect::test {
namespace {

constexpr double kTolerance = 1e-4;

class States final : public Observer {
public:
    bool wants(TapPoint point, int block) const override {
        return point == TapPoint::BlockOutput || (point == TapPoint::BlockInput && block == 0) || point == TapPoint::AttentionWeights;
    }
    void observe(TapPoint point, int, const torch::Tensor& value) override { (point == TapPoint::AttentionWeights ? attentions : states).push_back(value); }
    std::vector<torch::Tensor> states, attentions;
};

TokenBatch pictures(torch::Tensor pixels) { return {{}, {}, {}, std::move(pixels)}; }

void expectReference(const LanguageModel& model, std::map<std::string, torch::Tensor> golden) {
    const torch::NoGradGuard noGrad;
    const TokenBatch batch = pictures(golden.at("pixel_values"));
    States seen;
    const auto logits = model.logits(batch, &seen);
    EXPECT_TENSOR_NEAR(logits.select(1, 0), golden.at("logits"), kTolerance);
    ASSERT_EQ(seen.states.size(), model.shape().blocks.size() + 1);
    for (std::size_t i = 0; i < seen.states.size(); ++i) EXPECT_TENSOR_NEAR(seen.states[i], golden.at("hidden_states." + std::to_string(i)), kTolerance) << i;
    for (std::size_t i = 0; i < seen.attentions.size(); ++i)
        if (golden.contains("attentions." + std::to_string(i))) {
            EXPECT_TENSOR_NEAR(seen.attentions[i], golden.at("attentions." + std::to_string(i)), kTolerance) << i;
        }
}

TEST(VisionTransformer, GivesTheReferenceLogitsStatesAndGradients) {
    const auto folder = ownData("golden/vit");
    const Checkpoint checkpoint = Checkpoint::open(folder);
    const auto model = LanguageModel::load(checkpoint, {.device = torch::kCPU, .dtype = torch::kFloat32, .trainable = true});
    auto golden = readTensors(folder / "golden.safetensors"), gradients = readTensors(folder / "grads.safetensors");
    expectReference(*model, golden);
    const auto loss = model->loss(pictures(golden.at("pixel_values")), golden.at("labels").view({-1, 1}));
    EXPECT_TENSOR_NEAR(loss.view({1}), golden.at("loss"), kTolerance);
    loss.backward();
    std::size_t compared = 0;
    model->visitParameters([&](const std::string& name, torch::Tensor& tensor) {
        ASSERT_TRUE(gradients.contains(name)) << name;
        // Without rotation a bias of the keys shifts all scores of a query alike: its gradient is rounding noise on either side.
        if (name.ends_with("key.bias")) {
            EXPECT_TENSOR_NEAR(tensor.grad(), gradients.at(name), 1e-6) << name;
        } else {
            EXPECT_TENSOR_CLOSE(tensor.grad(), gradients.at(name), 1e-4) << name;
        }
        ++compared;
    });
    EXPECT_EQ(compared, gradients.size());
}

TEST(VisionTransformer, GivesTheReferenceLogitsOfATrainedOne) {
    RESECT_NEED_SHARED_DATA("models/vit-mnist-8l");
    const Checkpoint checkpoint = Checkpoint::open(sharedData("models/vit-mnist-8l"));
    expectReference(*LanguageModel::load(checkpoint, {}), readTensors(sharedData("golden/trained/vit-mnist-8l/golden.safetensors")));
}

TEST(VisionTransformer, ReadsPatchesRowByRow) {
    const TinyCheckpoint tiny = tinyFamily("vit");
    const auto model = LanguageModel::load(tiny.open(), {});
    const torch::NoGradGuard noGrad;
    auto white = torch::zeros({1, 2, 12, 8});
    const auto black = model->embed(pictures(white));
    white.slice(2, 0, 4).slice(3, 4, 8).fill_(1);  // the patch at the top right: the second of 6
    const auto changed = (model->embed(pictures(white)) - black).abs().sum(-1).view({-1});
    for (std::int64_t token = 0; token < 7; ++token) EXPECT_EQ(changed[token].item<float>() > 0, token == 2) << token;
}

TEST(VisionTransformer, TakesTheMeanOfBothHeadsWithATeacher) {
    const TinyCheckpoint tiny = tinyFamily("deit");
    const auto model = LanguageModel::load(tiny.open(), {});
    EXPECT_EQ(model->shape().image->prefixTokens, 2);
    EXPECT_EQ(model->shape().image->tokens(), 8);
    const torch::NoGradGuard noGrad;
    auto states = torch::randn({1, 8, 48});
    const auto swapped = torch::cat({states.slice(1, 1, 2), states.slice(1, 0, 1), states.slice(1, 2)}, 1);
    const auto only = [&](const char* zeroed) {
        TinyCheckpoint one = tiny;
        one.folder = std::make_shared<TempFolder>();
        one.zero(std::string(zeroed) + ".weight");
        one.zero(std::string(zeroed) + ".bias");
        one.save();
        return LanguageModel::load(one.open(), {})->head(states);
    };
    EXPECT_TENSOR_NEAR(model->head(states), only("classifier") + only("distillation_classifier"), 1e-6);
    EXPECT_GT(distance(model->head(states), model->head(swapped)), 1e-3);
}

TEST(VisionTransformer, HonoursTheEpsilonOfItsFile) {
    const auto logits = [](double eps) {
        const auto model = LanguageModel::load(tinyFamily("vit", {{"layer_norm_eps", eps}}).open(), {});
        const torch::NoGradGuard noGrad;
        return model->logits(pictures(torch::ones({1, 2, 12, 8})));
    };
    EXPECT_GT(distance(logits(0.05), logits(1e-12)), 1e-3);
}

TEST(VisionTransformer, PoolsTheClassTokenOfAClipTower) {
    const auto model = LanguageModel::load(tinyFamily("clip_vision_model").open(), {});
    const torch::NoGradGuard noGrad;
    const auto states = torch::randn({2, 7, 48});
    EXPECT_TENSOR_NEAR(model->head(model->finalNorm(states)), model->finalNorm(states).slice(1, 0, 1), 0);
}

TEST(VisionTransformer, RefusesTextAndOtherSizes) {
    const auto model = LanguageModel::load(tinyFamily("vit").open(), {});
    const auto error = [&](const TokenBatch& batch) -> std::string {
        try {
            model->logits(batch);
        } catch (const Error& thrown) {
            return thrown.what();
        }
        return "accepted";
    };
    EXPECT_THAT(error({torch::zeros({1, 4}, torch::kInt64), {}, {}, {}}), testing::HasSubstr("runs pictures [batch, 2, 12, 8], found text"));
    EXPECT_THAT(error(pictures(torch::zeros({1, 2, 8, 12}))), testing::HasSubstr("found [1, 2, 8, 12]"));
}

TEST(VisionTransformer, CostsWhatItsTensorsSay) {
    for (const char* type : {"vit", "deit", "clip_vision_model", "gpt2", "gemma2", "glm4_moe"}) {
        const Checkpoint checkpoint = tinyFamily(type).open();
        const Cost cost = costOf(Anatomy::of(checkpoint).shape(), 16);
        EXPECT_EQ(cost.parameters, checkpoint.totalParameters()) << type;
        EXPECT_EQ(cost.kvElementsPerToken == 0, Anatomy::of(checkpoint).shape().image.has_value());
    }
}

}  // namespace
}  // namespace resect::test
