#include "core/anatomy/anatomy.h"
#include "core/anatomy/cost.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/export/hf_writer.h"
#include "core/export/verdict.h"
#include "core/models/tensor_file.h"
#include "core/models/tower_model.h"
#include "core/surgery/edit_plan.h"
#include "tests/core/models/tensor_matchers.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>
#include <torch/types.h>
#include <torch/utils.h>

namespace resect::test {
namespace {

constexpr double kTolerance = 1e-4;
const LoadOptions kTrainable{.device = torch::kCPU, .dtype = torch::kFloat32, .trainable = true};
const LoadOptions kDouble{.device = torch::kCPU, .dtype = torch::kFloat64};

class States final : public Observer {
public:
    bool wants(TapPoint point, int) const override { return point == TapPoint::BlockInput || point == TapPoint::BlockOutput; }
    void observe(TapPoint point, int block, const torch::Tensor& value) override { (point == TapPoint::BlockInput ? inputs : outputs)[block] = value; }
    std::map<int, torch::Tensor> inputs, outputs;
};

struct Golden {
    explicit Golden(const std::string& name) : folder(ownData("golden/" + name)), tensors(readTensors(folder / "golden.safetensors")) {}
    TokenBatch batch() const { return {tensors.at("input_ids"), tensors.at("attention_mask").to(torch::kBool), {}, tensors.at("pixel_values")}; }
    std::filesystem::path folder;
    std::map<std::string, torch::Tensor> tensors;
};

torch::Tensor nextTokens(const torch::Tensor& ids_BT) {
    auto targets_BT = torch::full_like(ids_BT, -100);
    targets_BT.narrow(1, 0, ids_BT.size(1) - 1).copy_(ids_BT.narrow(1, 1, ids_BT.size(1) - 1));
    return targets_BT;
}

TEST(Llava, GivesTheReferenceLogitsStatesFeaturesAndLoss) {
    const Golden golden("llava");
    const torch::NoGradGuard noGrad;
    const auto model = LanguageModel::load(Checkpoint::open(golden.folder), kTrainable);
    States seen;
    EXPECT_TENSOR_NEAR(model->logits(golden.batch(), &seen), golden.tensors.at("logits"), kTolerance);
    const auto& towers = dynamic_cast<const TowerModel&>(*model);
    EXPECT_TENSOR_NEAR(towers.imageFeatures(golden.tensors.at("pixel_values")), golden.tensors.at("image_features"), kTolerance);
    EXPECT_TENSOR_NEAR(model->loss(golden.batch(), nextTokens(golden.tensors.at("input_ids"))).view({1}), golden.tensors.at("loss"), kTolerance);
    const int first = 4;  // blocks of the tower, of which the last gives nothing
    EXPECT_EQ(seen.outputs.count(first - 1), 0u);
    EXPECT_TENSOR_NEAR(seen.inputs.at(first), golden.tensors.at("hidden_states.0"), kTolerance);
    for (int block = 0; block < 3; ++block) EXPECT_TENSOR_NEAR(seen.outputs.at(first + block), golden.tensors.at("hidden_states." + std::to_string(block + 1)), kTolerance) << block;
    EXPECT_TENSOR_NEAR(model->finalNorm(seen.outputs.at(first + 3)), golden.tensors.at("hidden_states.4"), kTolerance);
}

TEST(Llava, GivesTheReferenceGradients) {
    const Golden golden("llava");
    const auto model = LanguageModel::load(Checkpoint::open(golden.folder), kTrainable);
    auto gradients = readTensors(golden.folder / "grads.safetensors");
    model->loss(golden.batch(), nextTokens(golden.tensors.at("input_ids"))).backward();
    std::size_t compared = 0;
    model->visitParameters([&](const std::string& name, torch::Tensor& tensor) {
        if (!gradients.contains(name)) {
            EXPECT_FALSE(tensor.grad().defined()) << name << ": the last block of the tower gives nothing";
            return;
        }
        ++compared;
        if (name.ends_with("k_proj.bias")) {  // rounding noise on either side
            EXPECT_TENSOR_NEAR(tensor.grad(), gradients.at(name), 1e-6) << name;
        } else {
            EXPECT_TENSOR_CLOSE(tensor.grad(), gradients.at(name), 1e-4) << name;
        }
    });
    EXPECT_EQ(compared, gradients.size());
}

TEST(Llava, AllNamesOnDiskGiveBitIdenticalLogits) {
    const Golden golden("llava");
    const torch::NoGradGuard noGrad;
    const auto reference = LanguageModel::load(Checkpoint::open(golden.folder), kTrainable)->logits(golden.batch());
    using Rename = std::pair<std::string, std::string>;
    const std::map<std::string, std::vector<Rename>> generations{
        {"4.52 in memory", {{"language_model.model.", "model.language_model."}, {"language_model.lm_head.", "lm_head."}, {"vision_tower.", "model.vision_tower."}, {"multi_modal", "model.multi_modal"}}},
        {"5 without vision_model",
         {{"language_model.model.", "model.language_model."}, {"language_model.lm_head.", "lm_head."}, {"vision_tower.vision_model.", "model.vision_tower."}, {"multi_modal", "model.multi_modal"}}},
        {"the authors' own",
         {{"language_model.model.", "model."}, {"language_model.lm_head.", "lm_head."}, {"vision_tower.", "model.vision_tower.vision_tower."},
          {"multi_modal_projector.linear_1.", "model.mm_projector.0."}, {"multi_modal_projector.linear_2.", "model.mm_projector.2."}}}};
    for (const auto& [title, renames] : generations) {
        const TempFolder folder;
        std::filesystem::copy(golden.folder / "config.json", folder.path() / "config.json");
        std::vector<std::pair<std::string, torch::Tensor>> renamed;
        for (auto& [name, tensor] : readTensors(golden.folder / "model.safetensors")) {
            const auto rename = std::find_if(renames.begin(), renames.end(), [&, &key = name](const Rename& row) { return key.starts_with(row.first); });
            renamed.emplace_back(rename == renames.end() ? name : rename->second + name.substr(rename->first.size()), tensor);
        }
        writeTensors(folder.path() / "model.safetensors", renamed);
        const Checkpoint checkpoint = Checkpoint::open(folder.path());
        EXPECT_TRUE(torch::equal(LanguageModel::load(checkpoint, kTrainable)->logits(golden.batch()), reference)) << title;
        EXPECT_NE(checkpoint.find("language_model.model.embed_tokens.weight"), nullptr) << title;
    }
}

TEST(Llava, APictureNeedsAsManyPlacesAsItHasRows) {
    const Golden golden("llava");
    const torch::NoGradGuard noGrad;
    const auto model = LanguageModel::load(Checkpoint::open(golden.folder), kTrainable);
    TokenBatch batch = golden.batch();
    auto ids_BT = batch.ids_BT.clone();
    const auto place = ids_BT.eq(159).nonzero()[0];
    ids_BT.index_put_({place[0], place[1]}, 5);
    batch.ids_BT = ids_BT;
    try {
        model->logits(batch);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::BadInput);
        EXPECT_THAT(error.message(), testing::AllOf(testing::HasSubstr("31"), testing::HasSubstr("32"), testing::HasSubstr("16")));
    }
    batch.pixels_BCHW = torch::Tensor();
    EXPECT_THROW(model->logits(batch), Error) << "places, but no picture";
    batch.ids_BT = torch::full({1, 4}, 7, torch::kInt64);
    batch.mask_BT = torch::Tensor();
    EXPECT_EQ(model->logits(batch).sizes(), (std::vector<std::int64_t>{1, 4, 160})) << "text alone";
}

TEST(Llava, TwoPicturesInOneTextAreTakenInOrder) {
    const Golden golden("llava");
    const torch::NoGradGuard noGrad;
    const auto model = LanguageModel::load(Checkpoint::open(golden.folder), kTrainable);
    const auto pixels = golden.tensors.at("pixel_values");
    auto ids_BT = torch::full({1, 40}, 3, torch::kInt64);
    ids_BT.narrow(1, 2, 16).fill_(159);
    ids_BT.narrow(1, 20, 16).fill_(159);
    States seen;
    model->logits({ids_BT, {}, {}, pixels}, &seen);
    const auto features = dynamic_cast<const TowerModel&>(*model).imageFeatures(pixels);
    EXPECT_TENSOR_NEAR(seen.inputs.at(4)[0].narrow(0, 2, 16), features[0], 1e-6);
    EXPECT_TENSOR_NEAR(seen.inputs.at(4)[0].narrow(0, 20, 16), features[1], 1e-6);
}

TEST(Llava, ImageTokensBecomeAPlaceForEveryRowOfTheirPicture) {
    const ModelShape small = Anatomy::of(Checkpoint::open(ownData("golden/llava"))).shape();
    EXPECT_EQ(imageRows(small), 16);
    const std::vector<std::int64_t> ids{1, 159, 7, 159, 2};
    const auto expanded = withPicturePlaces(ids, small, 2);
    ASSERT_EQ(expanded.size(), 3u + 2 * 16);
    EXPECT_EQ(std::count(expanded.begin(), expanded.end(), 159), 32);
    EXPECT_EQ(expanded[17], 7);
    EXPECT_THROW(withPicturePlaces(ids, small, 1), Error);
    const ModelShape published = readModelShape({{"model_type", "llava"}, {"text_config", {{"vocab_size", 32064}, {"rms_norm_eps", 1e-5}}}}, nullptr, "config.json");
    EXPECT_EQ(imageRows(published), 576);
    EXPECT_EQ(published.numBlocks(), 24 + 32);
    EXPECT_EQ(published.hiddenSize, 4096);
}

TEST(Llava, GeneratesWithACacheWhatItComputesAnew) {
    const Golden golden("llava");
    const auto model = LanguageModel::load(Checkpoint::open(golden.folder), kTrainable);
    TokenBatch prompt{golden.tensors.at("input_ids").narrow(0, 0, 1), {}, {}, golden.tensors.at("pixel_values").narrow(0, 0, 1)};
    SamplingOptions options;
    options.maxNewTokens = 6;
    const auto cached = generateAbout(*model, prompt, options, {});
    const torch::NoGradGuard noGrad;
    for (const std::int64_t id : cached) {
        const auto logits = model->logits(prompt);
        ASSERT_EQ(logits[0][logits.size(1) - 1].argmax().item<std::int64_t>(), id);
        prompt.ids_BT = torch::cat({prompt.ids_BT, torch::full({1, 1}, id, torch::kInt64)}, 1);
    }
}

/// What a plan makes of a checkpoint of towers, written and opened again.
struct CutTowers {
    CutTowers(const Golden& golden, const EditPlan& plan, SliceWay way, LoadOptions options = kDouble) : source(Checkpoint::open(golden.folder)), anatomy(Anatomy::of(source)) {
        cut = cutOf(plan, anatomy.shape());
        const auto to = folder.path() / "cut";
        ExportOptions how;
        how.way = way;
        exportHuggingFace(source, anatomy, cut, to, how, {});
        result = std::make_unique<Checkpoint>(Checkpoint::open(to));
        written = LanguageModel::load(*result, options);
        masked = LanguageModel::load(source, options);
        masked->setCut(cut);
    }
    TempFolder folder;
    Checkpoint source;
    Anatomy anatomy;
    Cut cut;
    std::unique_ptr<Checkpoint> result;
    std::unique_ptr<LanguageModel> written, masked;
};

EditPlan planOf(std::vector<EditPointer> edits) {
    EditPlan plan;
    plan.edits = std::move(edits);
    return plan;
}

TEST(Llava, WithoutItsDeadBlockTheLogitsStayIdentical) {
    const Golden golden("llava");
    const torch::NoGradGuard noGrad;
    const CutTowers cut(golden, planOf({dropBlocks({3})}), SliceWay::Exact, {.device = torch::kCPU, .dtype = torch::kFloat32});
    EXPECT_EQ(cut.result->config().at("vision_feature_layer"), -1);
    EXPECT_EQ(cut.result->config().at("vision_config").at("num_hidden_layers"), 3);
    EXPECT_EQ(cut.result->config().at("model_type"), "llava");
    EXPECT_TRUE(torch::equal(cut.written->logits(golden.batch()), LanguageModel::load(cut.source, kTrainable)->logits(golden.batch())));
}

class TowerCuts : public testing::TestWithParam<std::string> {
protected:
    static torch::Tensor run(const LanguageModel& model, const Golden& golden) { return model.logits(golden.batch()); }
};

TEST_P(TowerCuts, AMaskedRunIsTheWrittenCheckpointInEveryWay) {
    const Golden golden(GetParam());
    const torch::NoGradGuard noGrad;
    const std::vector<std::vector<EditPointer>> plans{{dropBlocks({1, 6})},
                                                      {dropAttention({0, 5}), dropMlp({2})},
                                                      {dropChannels(0, {1, 2, 3}), dropChannels(5, {0, 7})},
                                                      {dropHeads(1, {0}), dropHeads(6, {1, 3})},
                                                      {dropBlocks({3}), dropHeads(0, {2}), dropChannels(7, {4})}};
    for (std::size_t i = 0; i < plans.size(); ++i)
        for (const SliceWay way : {SliceWay::Exact, SliceWay::Padded, SliceWay::Zeroed}) {
            const CutTowers cut(golden, planOf(plans[i]), way);
            EXPECT_TENSOR_NEAR(run(*cut.written, golden), run(*cut.masked, golden), 1e-11) << i << " " << name(way);
            if (way != SliceWay::Exact) {
                EXPECT_EQ(cut.result->config().at("model_type"), GetParam());
                EXPECT_TRUE(isUniform(Anatomy::of(*cut.result).shape()));
            }
        }
}

TEST_P(TowerCuts, CountsAndPricesAddUp) {
    const Checkpoint checkpoint = Checkpoint::open(ownData("golden/" + GetParam()));
    const Anatomy anatomy = Anatomy::of(checkpoint);
    ASSERT_TRUE(anatomy.understood());
    EXPECT_EQ(anatomy.root().parameters, checkpoint.totalParameters());
    EXPECT_EQ(costOf(anatomy.shape(), 64).parameters, checkpoint.totalParameters());
    EXPECT_EQ(readModelShape(checkpoint.config(), resectConfigOf(anatomy.shape()), "config.json"), anatomy.shape());
}

TEST_P(TowerCuts, ATowerKeepsAtLeastOneBlock) {
    const Anatomy anatomy = Anatomy::of(Checkpoint::open(ownData("golden/" + GetParam())));
    EXPECT_THROW(cutOf(planOf({dropBlocks({0, 1, 2, 3})}), anatomy.shape()), Error);
    EXPECT_THROW(cutOf(planOf({dropBlocks({4, 5, 6, 7})}), anatomy.shape()), Error);
}

INSTANTIATE_TEST_SUITE_P(Families, TowerCuts, testing::Values("clip", "llava"));

TEST(Clip, GivesTheReferenceEmbeddingsStatesAndSimilarities) {
    const Golden golden("clip");
    const torch::NoGradGuard noGrad;
    const auto model = LanguageModel::load(Checkpoint::open(golden.folder), kTrainable);
    const auto& towers = dynamic_cast<const TowerModel&>(*model);
    States seen;
    EXPECT_TENSOR_NEAR(model->logits(golden.batch(), &seen).select(1, 0), golden.tensors.at("logits_per_image"), kTolerance);
    TokenBatch texts = golden.batch();
    texts.pixels_BCHW = torch::Tensor();
    EXPECT_TENSOR_NEAR(towers.imageEmbeddings(golden.tensors.at("pixel_values")), golden.tensors.at("image_embeds"), kTolerance);
    EXPECT_TENSOR_NEAR(towers.textEmbeddings(texts), golden.tensors.at("text_embeds"), kTolerance);
    const auto mask_BT1 = texts.mask_BT.unsqueeze(-1);
    for (int block = 0; block < 4; ++block) {
        EXPECT_TENSOR_NEAR(seen.outputs.at(block), golden.tensors.at("vision.hidden_states." + std::to_string(block + 1)), kTolerance) << block;
        EXPECT_TENSOR_NEAR(seen.outputs.at(4 + block) * mask_BT1, golden.tensors.at("text.hidden_states." + std::to_string(block + 1)) * mask_BT1, kTolerance) << block;
    }
    EXPECT_TENSOR_NEAR(seen.inputs.at(0), golden.tensors.at("vision.hidden_states.0"), kTolerance);
}

TEST(Clip, GivesTheReferenceGradients) {
    RESECT_NEED_SHARED_DATA("golden/clip/grads.safetensors");
    const Golden golden("clip");
    const auto model = LanguageModel::load(Checkpoint::open(golden.folder), kTrainable);
    model->logits(golden.batch()).sum().backward();
    auto gradients = readTensors(sharedData("golden/clip/grads.safetensors"));
    model->visitParameters([&](const std::string& name, torch::Tensor& tensor) {
        ASSERT_TRUE(gradients.contains(name)) << name;
        if (name.ends_with("k_proj.bias")) {
            EXPECT_TENSOR_NEAR(tensor.grad(), gradients.at(name), 1e-4) << name;
        } else {
            EXPECT_TENSOR_CLOSE(tensor.grad(), gradients.at(name), 1e-4) << name;
        }
    });
}

TEST(Clip, OneTowerRunsAlone) {
    const Golden golden("clip");
    const torch::NoGradGuard noGrad;
    const auto model = LanguageModel::load(Checkpoint::open(golden.folder), kTrainable);
    TokenBatch texts = golden.batch();
    texts.pixels_BCHW = torch::Tensor();
    EXPECT_EQ(model->logits(texts).sizes(), (std::vector<std::int64_t>{3, 12, 24}));
    const auto images = model->logits({{}, {}, {}, golden.tensors.at("pixel_values")}).select(1, 0);
    EXPECT_TENSOR_NEAR(images / images.norm(2, -1, true), golden.tensors.at("image_embeds"), kTolerance);
    EXPECT_THROW(model->embed(golden.batch()), Error);
    EXPECT_THROW(model->loss(texts, nextTokens(texts.ids_BT)), Error);
}

/// The reference ViT under timm's names: queries, keys and values in one tensor.
TEST(Timm, TheSameWeightsGiveTheSameLogitsAsUnderHuggingFaceNames) {
    const auto source = ownData("golden/vit");
    const torch::NoGradGuard noGrad;
    const TempFolder hf, timm;
    Json config = readJsonFile(source / "config.json");
    config["layer_norm_eps"] = 1e-6;  // what timm's class has
    writeJsonFile(hf.path() / "config.json", config);
    std::filesystem::copy(source / "model.safetensors", hf.path() / "model.safetensors");
    const ModelShape shape = Anatomy::of(Checkpoint::open(hf.path())).shape();
    const BlockShape& block = shape.blocks.front();
    writeJsonFile(timm.path() / "config.json",
                  Json{{"architecture", "vit_small_patch16_224.some_tag"}, {"num_classes", shape.image->labels}, {"global_pool", "token"},
                       {"pretrained_cfg", {{"input_size", {shape.image->channels, shape.image->height, shape.image->width}}}},
                       {"model_args", {{"embed_dim", shape.hiddenSize}, {"depth", shape.numBlocks()}, {"num_heads", block.numHeads}, {"patch_size", shape.image->patchHeight},
                                       {"mlp_ratio", double(block.ffnSize) / double(shape.hiddenSize)}, {"qkv_bias", shape.qkvBias}}}});
    auto tensors = readTensors(source / "model.safetensors");
    std::vector<std::pair<std::string, torch::Tensor>> named{{"cls_token", tensors.at("vit.embeddings.cls_token")}, {"pos_embed", tensors.at("vit.embeddings.position_embeddings")}};
    for (const char* kind : {".weight", ".bias"}) {
        const std::string k = kind;
        named.insert(named.end(), {{"patch_embed.proj" + k, tensors.at("vit.embeddings.patch_embeddings.projection" + k)}, {"norm" + k, tensors.at("vit.layernorm" + k)}, {"head" + k, tensors.at("classifier" + k)}});
        for (int b = 0; b < shape.numBlocks(); ++b) {
            const std::string from = "vit.encoder.layer." + std::to_string(b) + ".", to = "blocks." + std::to_string(b) + ".", attention = from + "attention.attention.";
            named.insert(named.end(), {{to + "attn.qkv" + k, torch::cat({tensors.at(attention + "query" + k), tensors.at(attention + "key" + k), tensors.at(attention + "value" + k)})},
                                       {to + "attn.proj" + k, tensors.at(from + "attention.output.dense" + k)}, {to + "norm1" + k, tensors.at(from + "layernorm_before" + k)},
                                       {to + "norm2" + k, tensors.at(from + "layernorm_after" + k)}, {to + "mlp.fc1" + k, tensors.at(from + "intermediate.dense" + k)},
                                       {to + "mlp.fc2" + k, tensors.at(from + "output.dense" + k)}});
        }
    }
    writeTensors(timm.path() / "model.safetensors", named);
    const TokenBatch batch{{}, {}, {}, readTensors(source / "golden.safetensors").at("pixel_values")};
    EXPECT_TENSOR_NEAR(LanguageModel::load(Checkpoint::open(timm.path()), kTrainable)->logits(batch), LanguageModel::load(Checkpoint::open(hf.path()), kTrainable)->logits(batch), 1e-6);
}

TEST(Timm, RefusesWhatIsNotImplementedByItsName) {
    const auto message = [](const Json& config) -> std::string {
        try {
            readModelShape(config, nullptr, "config.json");
            return "";
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::Unsupported);
            return error.what();
        }
    };
    const Json plain{{"architecture", "vit_base_patch16_224"}, {"num_classes", 10}};
    EXPECT_EQ(message(plain), "");
    EXPECT_EQ(readModelShape(plain, nullptr, "config.json").image->tokens(), 197);
    EXPECT_EQ(readModelShape({{"architecture", "deit_small_distilled_patch16_224"}}, nullptr, "config.json").image->heads, 2);
    EXPECT_THAT(message({{"architecture", "resnet50"}}), testing::HasSubstr("resnet50"));
    EXPECT_THAT(message({{"architecture", "vit_base_patch16_clip_224"}}), testing::HasSubstr("clip"));
    EXPECT_THAT(message({{"architecture", "vit_base_patch16_224"}, {"global_pool", "avg"}}), testing::HasSubstr("avg"));
    EXPECT_THAT(message({{"architecture", "vit_base_patch16_224"}, {"model_args", {{"init_values", 1e-5}}}}), testing::HasSubstr("init_values"));
}

TEST(Timm, WritesDepthAndWidthAsArguments) {
    const TinyCheckpoint tiny = tinyFamily("timm_vit");
    const Checkpoint source = tiny.open();
    const Anatomy anatomy = Anatomy::of(source);
    const TempFolder out;
    EditPlan plan = planOf({dropBlocks({1})});
    for (int b = 0; b < 4; ++b) plan.edits.push_back(dropChannels(b, {0, 5, 9}));
    exportHuggingFace(source, anatomy, cutOf(plan, anatomy.shape()), out / "cut", {}, {});
    const Json config = readJsonFile(out / "cut" / "config.json");
    EXPECT_EQ(config.at("model_args").at("depth"), 3);
    EXPECT_EQ(static_cast<int>(48 * config.at("model_args").at("mlp_ratio").get<double>()), 40);
    EXPECT_FALSE(std::filesystem::exists(out / "cut" / "resect.json"));
}

TEST(Towers, VerdictsNameTheTower) {
    const ModelShape shape = Anatomy::of(Checkpoint::open(ownData("golden/llava"))).shape();
    const auto plain = verdicts(shape, emptyCut(shape));
    EXPECT_EQ(plain[0].verdict, Verdict::Opens);
    EXPECT_EQ(plain[1].verdict, Verdict::Opens);
    EXPECT_EQ(plain[2].verdict, Verdict::No) << "two files";
    const auto cut = verdicts(shape, cutOf(planOf({dropChannels(1, {0})}), shape));
    EXPECT_EQ(cut[0].verdict, Verdict::AfterPadding);
    EXPECT_THAT(cut[0].reasons, testing::Contains(testing::StartsWith("Vision tower: ")));
    const ModelShape clip = Anatomy::of(Checkpoint::open(ownData("golden/clip"))).shape();
    EXPECT_EQ(verdicts(clip, emptyCut(clip))[1].verdict, Verdict::No);
}

}  // namespace
}  // namespace resect::test
