#include "core/base/files.h"
#include "core/export/decilm.h"
#include "tests/core/export/exported.h"
#include "tests/core/surgery/shapes.h"

#include <random>

namespace resect::test {
namespace {

using testing::HasSubstr;

TEST(DeciLm, WidthsComeBackFromTheirMultiples) {
    std::mt19937 random(3);
    for (const std::int64_t hidden : {576, 768, 1024, 1536, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 6656, 7168, 8192, 12288, 16384, 20480})
        for (std::int64_t width = 256; width <= 256 * 256; width += 256) ASSERT_EQ(deciWidth(deciFfnMult(width, hidden), hidden), width) << hidden;
}

TEST(DeciLm, EveryBlockGetsSizesThatItsRuntimesAccept) {
    const ModelShape source = stockShape("llama", {.numBlocks = 6, .numKvHeads = 4, .headsPerKv = 2, .headDim = 6, .ffnSize = 700});
    const Cut cut = cutOf({"", {dropAttention({0, 3}), dropMlp({1, 3, 5}), dropKvGroups(2, {0}), dropHeads(4, {1}), dropChannels(4, {0, 1, 2})}, nullptr}, source);
    const ModelShape shape = deciShape(source, cut);
    ASSERT_EQ(shape.numBlocks(), 6);
    EXPECT_TRUE(shape.blocks[0].hasAttention) << "runtimes take the head layout from block 0";
    EXPECT_FALSE(shape.blocks[3].hasAttention || shape.blocks[3].hasFfn);
    EXPECT_EQ(shape.blocks[1].ffnSize, 256) << "a zero MLP beside attention";
    EXPECT_EQ(shape.blocks[5].ffnSize, 256);
    EXPECT_EQ(shape.blocks[4].ffnSize, 768);
    for (const BlockShape& block : shape.blocks) {
        if (!block.hasAttention) continue;
        EXPECT_EQ(block.numHeads, shape.blocks[0].numHeads);
        EXPECT_EQ(block.numHeads % block.numKvHeads, 0);
        EXPECT_TRUE(block.groupsAreEqual());
    }
}

TEST(DeciLm, FoldersReopenWithTheSizesOfEveryBlock) {
    const ExportCase exported(tinyMistral({.numBlocks = 4, .slidingWindow = 0}));
    ExportOptions options;
    options.heterogeneous = true;
    const ExportResult result = exported.run({dropBlocks({1}), dropAttention({2}), dropChannels(0, {3, 9}), dropKvGroups(3, {1})}, options);
    const Checkpoint written = Checkpoint::open(exported.target());
    const Anatomy anatomy = Anatomy::of(written);
    ASSERT_TRUE(anatomy.understood()) << listed(anatomy.problems());
    EXPECT_TRUE(anatomy.problems().empty()) << listed(anatomy.problems());
    EXPECT_EQ(anatomy.shape().blocks, result.shape.blocks);
    EXPECT_EQ(written.config()["model_type"], "nemotron-nas");
    EXPECT_EQ(written.config()["num_hidden_layers"], 3);
    EXPECT_EQ(written.config()["block_configs"][1]["attention"]["no_op"], true);
    EXPECT_TRUE(written.resectConfig().is_null());
    for (const TensorInfo& tensor : written.tensors()) EXPECT_FALSE(tensor.name.starts_with("model.layers.1.self_attn") || tensor.name == "model.layers.1.input_layernorm.weight") << tensor.name;
    EXPECT_THAT(readFile(exported.target() / kDeciConfigurationFile), HasSubstr("class DeciLMConfig"));
}

TEST(DeciLm, WhatItCannotHoldIsRefused) {
    const auto refusal = [](const TinyCheckpoint& tiny) {
        const ExportCase exported(tiny);
        ExportOptions options;
        options.heterogeneous = true;
        const Error error = errorOf([&] { exported.run({dropMlp({1})}, options); });
        EXPECT_EQ(error.code(), ErrorCode::Unsupported);
        EXPECT_FALSE(std::filesystem::exists(exported.target()));
        return error.message();
    };
    EXPECT_THAT(refusal(tinyQwen3()), HasSubstr("not for \"qwen3\""));
    EXPECT_THAT(refusal(tinyLlama({.attentionBias = true})), HasSubstr("has no biases"));
    EXPECT_THAT(refusal(tinyMistral({.slidingWindow = 7})), HasSubstr("attends to all positions"));
}

TEST(DeciLm, BrokenBlockConfigsNameTheBlock) {
    const ExportCase exported(tinyLlama());
    ExportOptions options;
    options.heterogeneous = true;
    exported.run({dropMlp({1})}, options);
    const Json good = readJsonFile(exported.target() / "config.json");
    const auto failure = [&](auto change) {
        Json config = good;
        change(config);
        const Error error = errorOf([&] { readModelShape(config, nullptr, "config.json"); });
        return error.subject() + ": " + error.message();
    };
    EXPECT_THAT(failure([](Json& c) { c.erase("block_configs"); }), HasSubstr("block_configs: expected a list"));
    EXPECT_THAT(failure([](Json& c) { c["block_configs"][1]["attention"] = 3; }), HasSubstr("block_configs[1]: attention: expected an object"));
    EXPECT_THAT(failure([](Json& c) { c["block_configs"][0]["attention"]["n_heads_in_group"] = 5; }), HasSubstr("expected a divisor of num_attention_heads"));
    EXPECT_THAT(failure([](Json& c) { c["block_configs"][2]["ffn"]["ffn_mult"] = -1; }), HasSubstr("block_configs[2]: ffn_mult"));
    EXPECT_THAT(failure([](Json& c) { c["block_configs"][2]["ffn"]["replace_with_linear"] = true; }), HasSubstr("replaced by one linear map"));
    EXPECT_THAT(failure([](Json& c) { c["block_configs"].erase(0); }), HasSubstr("entries, found 2"));
}

}  // namespace
}  // namespace resect::test
