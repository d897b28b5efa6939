#include "core/export/config_rewrite.h"
#include "core/surgery/edit_plan.h"
#include "tests/core/export/exported.h"

namespace resect::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

/// The configuration of a tiny model with additions, and its rewriting for a plan.
struct ConfigCase {
    Json config;
    explicit ConfigCase(const TinyCheckpoint& tiny) : config(tiny.config) {}

    ConfigRewrite rewrite(std::vector<EditPointer> edits, SliceWay way = SliceWay::Exact,
                          std::optional<DType> dtype = {}) const {
        const ModelShape shape = readModelShape(config, nullptr, "config.json");
        const Cut cut = cutOf({"", std::move(edits), nullptr}, shape);
        const ModelShape after = shapeAfter(shape, cut);
        return rewriteConfig(config, shape, cut,
                             way == SliceWay::Exact    ? after
                             : way == SliceWay::Padded ? paddedShape(shape, cut)
                                                       : shape,
                             way, dtype);
    }
    Error refusal(std::vector<EditPointer> edits) const {
        return errorOf([&] { rewrite(std::move(edits)); });
    }
};

TEST(RewriteConfig, ChangesNothingWhenNothingIsCut) {
    for (const TinyCheckpoint& tiny :
         {tinyLlama(), tinyMistral({.slidingWindow = 7}), tinyQwen2({.slidingWindow = 7}), tinyQwen3(), tinyMixtral()})
        for (SliceWay way : {SliceWay::Exact, SliceWay::Padded, SliceWay::Zeroed}) {
            const ConfigRewrite result = ConfigCase(tiny).rewrite({}, way);
            EXPECT_EQ(result.config.dump(), tiny.config.dump());
            EXPECT_TRUE(result.resect.is_null());
            EXPECT_THAT(result.notes, IsEmpty());
        }
}

TEST(RewriteConfig, CountsBlocksUnderEveryName) {
    ConfigCase c(tinyLlama({.numBlocks = 5}));
    c.config["n_layer"] = 5;
    const Json result = c.rewrite({dropBlocks({0, 3})}).config;
    EXPECT_EQ(result["num_hidden_layers"], 3);
    EXPECT_EQ(result["n_layer"], 3);
    c.config["num_layers"] = 4;
    EXPECT_THAT(c.refusal({dropBlocks({0})}).what(),
                HasSubstr("config.json: num_layers: expected the number of blocks, 5, found 4"));
}

TEST(RewriteConfig, GathersListsRenumbersIndicesAndKeys) {
    ConfigCase c(tinyQwen3({.numBlocks = 5}));
    c.config["layer_types"] = {"a", "b", "c", "d", "e"};
    c.config["hybrid_override_pattern"] = "ABCDE";
    c.config["no_rope_layers"] = {1, 0, 1, 1, 0};
    c.config["mlp_only_layers"] = {0, 3, 4};
    c.config["moe_layers"] = {1, 4};
    c.config["per_layer_config"] = Json{{"1", Json{{"x", 1}}}, {"4", Json{{"x", 4}}}};
    c.config["my_scales"] = {10, 11, 12, 13, 14};
    c.config["eos_token_id"] = {1, 2, 3, 4, 5};
    const ConfigRewrite result = c.rewrite({dropBlocks({1, 3})});
    EXPECT_EQ(result.config["layer_types"], (Json{"a", "c", "e"}));
    EXPECT_EQ(result.config["hybrid_override_pattern"], "ACE");
    EXPECT_EQ(result.config["no_rope_layers"], (Json{1, 1, 0}));
    EXPECT_EQ(result.config["mlp_only_layers"], (Json{0, 2}));
    EXPECT_EQ(result.config["moe_layers"], Json::array({2}));
    EXPECT_EQ(result.config["per_layer_config"].dump(), R"({"2":{"x":4}})");
    EXPECT_EQ(result.config["my_scales"], (Json{10, 12, 14}));
    EXPECT_EQ(result.config["eos_token_id"].size(), 5u) << "a list of tokens, not of blocks";
    ASSERT_EQ(result.notes.size(), 1u);
    EXPECT_THAT(result.notes[0].subject, HasSubstr("my_scales"));
    const Json zeroed = c.rewrite({dropBlocks({1, 3})}, SliceWay::Zeroed).config;
    EXPECT_EQ(zeroed["layer_types"].size(), 5u);
    EXPECT_EQ(zeroed["num_hidden_layers"], 5);
}

TEST(RewriteConfig, CountsTheBlocksBeforeASlidingWindow) {
    ConfigCase c(tinyQwen2({.numBlocks = 5, .slidingWindow = 7}));
    c.config["max_window_layers"] = 3;
    EXPECT_EQ(c.rewrite({dropBlocks({0})}).config["max_window_layers"], 2);
    EXPECT_EQ(c.rewrite({dropBlocks({4})}).config["max_window_layers"], 3);
    c.config["max_window_layers"] = 28;
    EXPECT_EQ(c.rewrite({dropBlocks({4, 0})}).config["max_window_layers"], 3);
}

TEST(RewriteConfig, RefusesWhatItCannotKeepAndNamesTheField) {
    const ConfigCase plain(tinyLlama({.numBlocks = 6}));
    const auto refused = [&](const char* field, Json value, std::vector<EditPointer> edits = {dropBlocks({1})}) {
        ConfigCase c = plain;
        c.config[field] = std::move(value);
        const Error error = c.refusal(std::move(edits));
        EXPECT_EQ(error.code(), ErrorCode::Unsupported) << field;
        EXPECT_THAT(error.subject(), HasSubstr(field));
    };
    refused("layer_types", {"a", "b"});
    refused("mlp_only_layers", {1, 6});
    refused("mlp_only_layers", {"x"});
    refused("pruned_heads", Json{{"x", {1}}});
    refused("pruned_heads", Json{{"2", {1}}}, {dropHeads(1, {0})});
    refused("first_k_dense_replace", "two");
    refused("num_nextn_predict_layers", 1);
    refused("num_kv_shared_layers", 2);
    refused("sliding_window_pattern", 2);
    refused("decoder_sparse_step", 3);

    ConfigCase pattern = plain;
    pattern.config["sliding_window_pattern"] = 2;
    EXPECT_EQ(pattern.rewrite({dropBlocks({2, 3})}).config["sliding_window_pattern"], 2) << "whole periods may go";
    EXPECT_EQ(pattern.rewrite({dropHeads(1, {0})}).config["sliding_window_pattern"], 2) << "no block is dropped";
}

TEST(RewriteConfig, WritesSizesOfAStockShape) {
    const ConfigCase c(tinyQwen3());
    std::vector<EditPointer> edits;
    for (int b = 0; b < 3; ++b) {
        edits.push_back(dropKvGroups(b, {0}));
        edits.push_back(dropChannels(b, {0, 1}));
    }
    const ConfigRewrite result = c.rewrite(edits);
    EXPECT_TRUE(result.resect.is_null());
    EXPECT_EQ(result.config["num_attention_heads"], 3);
    EXPECT_EQ(result.config["num_key_value_heads"], 1);
    EXPECT_EQ(result.config["head_dim"], 10);
    EXPECT_EQ(result.config["intermediate_size"], 41);
    EXPECT_EQ(result.config["model_type"], "qwen3");
}

TEST(RewriteConfig, MakesTheHeadSizeExplicitWhenItWasDerived) {
    ConfigCase c(tinyLlama({.hiddenSize = 60, .numHeads = 6, .numKvHeads = 6, .headDim = 10}));
    c.config.erase("head_dim");
    c.config.erase("num_key_value_heads");
    EXPECT_EQ(c.rewrite({}).config.dump(), c.config.dump());
    std::vector<EditPointer> edits;
    for (int b = 0; b < 3; ++b) edits.push_back(dropHeads(b, {1}));
    const Json result = c.rewrite(edits).config;
    EXPECT_EQ(result["num_attention_heads"], 5);
    EXPECT_EQ(result["head_dim"], 10);
}

TEST(RewriteConfig, NamesAShapeThatStockClassesLackSoThatNoneMistakesIt) {
    const ConfigRewrite result = ConfigCase(tinyLlama()).rewrite({dropHeads(1, {5}), dropAttention({2}), dropMlp({0})});
    EXPECT_EQ(result.config["model_type"], "resect");
    EXPECT_EQ(result.config["architectures"], Json::array({"ResectForCausalLM"}));
    EXPECT_EQ(result.resect["model_type"], "llama");
    EXPECT_EQ(result.resect["blocks"][1]["attention"]["heads_per_kv"], (Json{3, 2}));
    EXPECT_TRUE(result.resect["blocks"][2]["attention"].is_null());
    EXPECT_TRUE(result.resect["blocks"][0]["ffn"].is_null());
    EXPECT_TRUE(ConfigCase(tinyLlama()).rewrite({dropHeads(1, {5})}, SliceWay::Padded).resect.is_null());
}

TEST(RewriteConfig, SetsTheDtypeUnderTheNameThatIsThere) {
    ConfigCase c(tinyLlama());
    EXPECT_EQ(c.rewrite({}, SliceWay::Exact, DType::BF16).config["torch_dtype"], "bfloat16");
    c.config.erase("torch_dtype");
    c.config["dtype"] = "float32";
    const Json result = c.rewrite({}, SliceWay::Exact, DType::F16).config;
    EXPECT_EQ(result["dtype"], "float16");
    EXPECT_FALSE(result.contains("torch_dtype"));
    EXPECT_THROW(c.rewrite({}, SliceWay::Exact, DType::I8), Error);
}

TEST(RewriteConfig, RemovesPointersToCodeThatIsNotCarriedOver) {
    ConfigCase c(tinyLlama());
    c.config["auto_map"] = Json{{"AutoConfig", "configuration_x.XConfig"}};
    const ConfigRewrite result = c.rewrite({});
    EXPECT_FALSE(result.config.contains("auto_map"));
    ASSERT_EQ(result.notes.size(), 1u);
    EXPECT_EQ(result.notes[0].severity, Severity::Warning);
}

}  // namespace
}  // namespace resect::test
