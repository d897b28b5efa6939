#include "core/anatomy/family.h"
#include "core/anatomy/model_shape.h"
#include "core/base/error.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>

namespace resect {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Json config(const char* modelType = "llama") {
    return {{"model_type", modelType},       {"vocab_size", 61},           {"hidden_size", 48},        {"intermediate_size", 43},
            {"num_hidden_layers", 3},        {"num_attention_heads", 6},   {"num_key_value_heads", 2}, {"head_dim", 10},
            {"max_position_embeddings", 128}};
}

ModelShape read(const Json& json, const Json& resect = nullptr) { return readModelShape(json, resect, "config.json"); }

std::string errorOf(const Json& json, const Json& resect = nullptr, ErrorCode code = ErrorCode::BadInput) {
    try {
        read(json, resect);
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), code) << error.what();
        return error.what();
    }
    ADD_FAILURE() << "read: " << json.dump();
    return {};
}

std::string errorWith(const char* field, const Json& value, ErrorCode code = ErrorCode::BadInput) {
    Json json = config();
    json[field] = value;
    return errorOf(json, nullptr, code);
}

TEST(ModelShape, ReadsEveryField) {
    Json json = config();
    json["architectures"] = {"LlamaForCausalLM"};
    json["rms_norm_eps"] = 1e-5;
    json["rope_theta"] = 500000;
    json["hidden_act"] = "silu";
    json["tie_word_embeddings"] = true;
    json["attention_bias"] = true;
    json["mlp_bias"] = true;
    json["bos_token_id"] = 1;
    json["eos_token_id"] = {2, 7};
    json["pad_token_id"] = nullptr;
    json["torch_dtype"] = "bfloat16";
    const ModelShape shape = read(json);
    EXPECT_EQ(shape.architecture, "LlamaForCausalLM");
    EXPECT_EQ(shape.vocabSize, 61);
    EXPECT_EQ(shape.hiddenSize, 48);
    EXPECT_EQ(shape.maxPositions, 128);
    EXPECT_EQ(shape.normEps, 1e-5);
    EXPECT_EQ(shape.ropeTheta, 500000);
    EXPECT_TRUE(shape.tiedEmbeddings && shape.qkvBias && shape.outputBias && shape.mlpBias && !shape.qkNorm);
    EXPECT_EQ(shape.bosId, 1);
    EXPECT_THAT(shape.eosIds, ElementsAre(2, 7));
    EXPECT_FALSE(shape.padId);
    EXPECT_EQ(shape.torchDtype, "bfloat16");
    ASSERT_EQ(shape.numBlocks(), 3);
    const BlockShape& block = shape.blocks[2];
    EXPECT_EQ(block.numHeads, 6);
    EXPECT_EQ(block.numKvHeads, 2);
    EXPECT_EQ(block.headDim, 10);
    EXPECT_EQ(block.ffnSize, 43);
    EXPECT_THAT(block.headsPerKv, ElementsAre(3, 3));
    EXPECT_TRUE(block.groupsAreEqual());
}

TEST(ModelShape, FillsInWhatIsLeftOut) {
    Json json = config();
    json.erase("head_dim");
    json.erase("num_key_value_heads");
    json["eos_token_id"] = 2;
    json["pad_token_id"] = -1;
    const ModelShape shape = read(json);
    EXPECT_EQ(shape.blocks[0].headDim, 8);
    EXPECT_EQ(shape.blocks[0].numKvHeads, 6);
    EXPECT_EQ(shape.ropeTheta, 10000);
    EXPECT_FALSE(shape.tiedEmbeddings);
    EXPECT_FALSE(shape.padId) << "-1 is an old way to say none";
    EXPECT_THAT(shape.eosIds, ElementsAre(2));
    EXPECT_EQ(shape.architecture, "LlamaForCausalLM");
    json["model_type"] = "qwen3";
    EXPECT_EQ(read(json).blocks[0].headDim, 128) << "the default of the stock class";
}

TEST(ModelShape, FamiliesDifferInBiasesAndNorms) {
    EXPECT_FALSE(read(config("llama")).qkvBias);
    EXPECT_TRUE(read(config("qwen2")).qkvBias);
    EXPECT_FALSE(read(config("qwen2")).outputBias);
    EXPECT_TRUE(read(config("qwen3")).qkNorm);
    Json biased = config("mistral");
    biased["attention_bias"] = true;
    EXPECT_FALSE(read(biased).qkvBias) << "the stock class has no such field";
    Json mixtral = config("mixtral");
    EXPECT_THAT(errorOf(mixtral), HasSubstr("config.json: num_local_experts: expected an integer, found nothing"));
    mixtral["num_local_experts"] = 4;
    EXPECT_EQ(read(mixtral).blocks[1].numExperts, 4);
    EXPECT_EQ(read(mixtral).numExpertsPerToken, 2);
    EXPECT_EQ(read(mixtral).ropeTheta, 1e6);
}

TEST(ModelShape, SlidingWindows) {
    Json json = config("mistral");
    json["sliding_window"] = 8;
    EXPECT_EQ(read(json).blocks[0].slidingWindow, 8);
    json["sliding_window"] = nullptr;
    EXPECT_EQ(read(json).blocks[0].slidingWindow, 0);
    json.erase("sliding_window");
    EXPECT_EQ(read(json).blocks[0].slidingWindow, 4096) << "the default of the stock class";
    json["model_type"] = "llama";
    json["sliding_window"] = 8;
    EXPECT_EQ(read(json).blocks[0].slidingWindow, 0);

    const auto windows = [](const Json& from) {
        std::vector<int> found;
        for (const BlockShape& block : read(from).blocks) found.push_back(block.slidingWindow);
        return found;
    };
    Json qwen = config("qwen2");
    qwen["sliding_window"] = 8;
    EXPECT_THAT(windows(qwen), ElementsAre(0, 0, 0)) << "use_sliding_window is off";
    qwen["use_sliding_window"] = true;
    EXPECT_THAT(windows(qwen), ElementsAre(0, 0, 0)) << "max_window_layers is 28";
    qwen["max_window_layers"] = 1;
    EXPECT_THAT(windows(qwen), ElementsAre(0, 8, 8));
    qwen["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention"};
    EXPECT_THAT(windows(qwen), ElementsAre(8, 0, 8));
    qwen["layer_types"] = {"full_attention"};
    EXPECT_THAT(errorOf(qwen), HasSubstr("layer_types: expected a list with one entry per block"));
}

TEST(ModelShape, RopeScalingInEverySpelling) {
    Json json = config();
    json["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
    EXPECT_EQ(read(json).ropeScaling.kind, RopeScaling::Kind::Linear);
    EXPECT_EQ(read(json).ropeScaling.factor, 4);
    json["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2}};
    EXPECT_EQ(read(json).ropeScaling.kind, RopeScaling::Kind::Dynamic);
    json["rope_scaling"] = {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 1}, {"high_freq_factor", 4}, {"original_max_position_embeddings", 32}};
    const RopeScaling llama3 = read(json).ropeScaling;
    EXPECT_EQ(llama3.kind, RopeScaling::Kind::Llama3);
    EXPECT_EQ(llama3.originalMaxPositions, 32);
    EXPECT_EQ(llama3.highFreqFactor, 4);
    json["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4}, {"beta_fast", 16}, {"attention_factor", 1.25}, {"mscale", 0.7}};
    const RopeScaling yarn = read(json).ropeScaling;
    EXPECT_EQ(yarn.kind, RopeScaling::Kind::Yarn);
    EXPECT_EQ(yarn.betaFast, 16);
    EXPECT_EQ(yarn.betaSlow, 1);
    EXPECT_EQ(yarn.attentionFactor, 1.25);
    EXPECT_EQ(yarn.mscale, 0.7);
    EXPECT_FALSE(yarn.mscaleAllDim);
    json["rope_scaling"] = {{"rope_type", "default"}};
    EXPECT_EQ(read(json).ropeScaling, RopeScaling{});
    json["rope_scaling"] = nullptr;
    json["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 3}, {"rope_theta", 20000}};
    EXPECT_EQ(read(json).ropeScaling.factor, 3);
    EXPECT_EQ(read(json).ropeTheta, 20000);
}

TEST(ModelShape, BrokenRopeScalingNamesTheField) {
    const auto error = [](const Json& rope, ErrorCode code = ErrorCode::BadInput) { return errorWith("rope_scaling", rope, code); };
    EXPECT_THAT(error(7), HasSubstr("config.json: rope_scaling: expected an object"));
    EXPECT_THAT(error({{"type", "linear"}}), HasSubstr("rope_scaling: factor: expected a number, found nothing"));
    EXPECT_THAT(error({{"type", "linear"}, {"factor", 0}}), HasSubstr("expected a number above 0"));
    EXPECT_THAT(error({{"rope_type", "spiral"}}, ErrorCode::Unsupported), HasSubstr("\"spiral\" is not supported"));
    EXPECT_THAT(error({{"rope_type", "longrope"}}), HasSubstr("short_factor: expected a list of numbers"));
    EXPECT_THAT(error({{"rope_type", "longrope"}, {"short_factor", {1, 0}}, {"long_factor", {1, 1}}}), HasSubstr("numbers above 0, found 0"));
    EXPECT_THAT(error({{"rope_type", "llama3"}, {"factor", 8}}), HasSubstr("low_freq_factor"));
    EXPECT_THAT(error({{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}), HasSubstr("more than low_freq_factor"));
}

TEST(ModelShape, BadFieldsAreNamed) {
    for (const char* field : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
        Json json = config();
        json.erase(field);
        EXPECT_THAT(errorOf(json), HasSubstr(std::string("config.json: ") + field + ": expected an integer, found nothing"));
        EXPECT_THAT(errorWith(field, "many"), HasSubstr(std::string(field) + ": expected an integer, found the text"));
        EXPECT_THAT(errorWith(field, 0), HasSubstr(field));
        EXPECT_THAT(errorWith(field, -3), HasSubstr(field));
        EXPECT_THAT(errorWith(field, std::int64_t{1} << 40), HasSubstr(field));
    }
    EXPECT_THAT(errorWith("num_key_value_heads", 4), HasSubstr("expected a divisor of num_attention_heads 6, found 4"));
    EXPECT_THAT(errorWith("head_dim", 9), HasSubstr("head_dim: expected an even number"));
    EXPECT_THAT(errorWith("tie_word_embeddings", "yes"), HasSubstr("tie_word_embeddings: expected true or false"));
    EXPECT_THAT(errorWith("eos_token_id", "</s>"), HasSubstr("eos_token_id: expected token numbers"));
    EXPECT_THAT(errorWith("rms_norm_eps", 0), HasSubstr("rms_norm_eps: expected a number above 0"));
    EXPECT_THAT(errorWith("rope_theta", "1e4"), HasSubstr("rope_theta: expected a number"));
    EXPECT_THAT(errorWith("quantization_config", {{"bits", 4}}, ErrorCode::Unsupported), HasSubstr("quantised"));
    EXPECT_THAT(errorWith("partial_rotary_factor", 0.5, ErrorCode::Unsupported), HasSubstr("partial_rotary_factor"));
    EXPECT_THAT(errorOf(Json::array()), HasSubstr("expected an object"));
    Json odd = config();
    odd.erase("head_dim");
    odd["hidden_size"] = 50;
    EXPECT_THAT(errorOf(odd), HasSubstr("head_dim: is absent, and the hidden size 50 is not a multiple"));
    Json absurd = config();
    absurd["hidden_size"] = absurd["intermediate_size"] = 100'000'000;
    EXPECT_THAT(errorOf(absurd), HasSubstr("one of them must be wrong"));
}

TEST(ModelShape, AnUnknownFamilySaysWhichAreKnown) {
    EXPECT_THAT(errorOf(config("bloom"), nullptr, ErrorCode::Unsupported), HasSubstr("\"bloom\" is not among the families that can be cut: llama, mistral, qwen2, qwen3, gemma"));
    EXPECT_THAT(errorWith("model_type", 3), HasSubstr("model_type: expected a text"));
    EXPECT_THAT(errorOf(config("resect")), HasSubstr("there is no such file beside it"));
}

TEST(ModelShape, ResectJsonGivesEveryBlockItsSizes) {
    ModelShape shape = read(config());
    shape.blocks[0].headsPerKv = {3, 1};
    shape.blocks[0].numHeads = 4;
    shape.blocks[1] = {};
    shape.blocks[1].hasAttention = false;
    shape.blocks[1].headDim = shape.blocks[0].headDim;
    shape.blocks[1].ffnSize = 7;
    shape.blocks[2].hasFfn = false;
    shape.blocks[2].ffnSize = 0;
    const Json resect = resectConfigOf(shape);
    EXPECT_EQ(read(config("resect"), resect), shape);
    EXPECT_EQ(resect["blocks"][1].dump(), R"({"attention":null,"ffn":{"size":7}})");

    Json mixtral = config("mixtral");
    mixtral["num_local_experts"] = 4;
    ModelShape experts = read(mixtral);
    experts.blocks[1].numExperts = 3;
    mixtral["model_type"] = "resect";
    EXPECT_EQ(read(mixtral, resectConfigOf(experts)), experts);
}

TEST(ModelShape, BrokenResectJsonNamesTheBlock) {
    const Json good = resectConfigOf(read(config()));
    const auto error = [&](auto change, ErrorCode code = ErrorCode::BadInput) {
        Json resect = good;
        change(resect);
        return errorOf(config("resect"), resect, code);
    };
    EXPECT_THAT(error([](Json& r) { r["resect"] = 2; }, ErrorCode::Unsupported), HasSubstr("resect.json: resect: expected version 1"));
    EXPECT_THAT(error([](Json& r) { r.erase("model_type"); }), HasSubstr("resect.json: model_type"));
    EXPECT_THAT(error([](Json& r) { r.erase("blocks"); }), HasSubstr("resect.json: blocks"));
    EXPECT_THAT(error([](Json& r) { r["blocks"].erase(0); }), HasSubstr("expected num_hidden_layers 3 entries, found 2"));
    EXPECT_THAT(error([](Json& r) { r["blocks"][1].erase("ffn"); }), HasSubstr("blocks[1]: ffn: expected an object, or null"));
    EXPECT_THAT(error([](Json& r) { r["blocks"][1]["attention"]["heads_per_kv"] = Json::array(); }), HasSubstr("blocks[1]: attention: heads_per_kv"));
    EXPECT_THAT(error([](Json& r) { r["blocks"][1]["attention"]["heads_per_kv"] = {3, 0}; }), HasSubstr("found 0"));
    EXPECT_THAT(error([](Json& r) { r["blocks"][2]["ffn"]["size"] = 1.5; }), HasSubstr("blocks[2]: ffn: size: expected an integer"));
}

TEST(ModelShape, GoldenConfigsAreUnderstood) {
    for (const auto& entry : std::filesystem::directory_iterator(test::ownData("golden"))) {
        if (!std::filesystem::exists(entry.path() / "config.json")) continue;  // pictures
        EXPECT_NO_THROW(read(readJsonFile(entry.path() / "config.json"))) << entry.path();
    }
}

}  // namespace
}  // namespace resect
