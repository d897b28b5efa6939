#include "core/base/files.h"
#include "core/export/peft_adapter.h"
#include "tests/core/export/exported.h"

#include <fstream>
#include <numeric>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

LoraPair pairOf(const std::string& module, std::int64_t rank, double alpha, std::int64_t in = 48, std::int64_t out = 60) {
    LoraPair pair{module, rank, in, out, alpha, {}, {}};
    pair.a.resize(static_cast<std::size_t>(rank * in));
    pair.b.resize(static_cast<std::size_t>(out * rank));
    std::iota(pair.a.begin(), pair.a.end(), 0.5f);
    std::iota(pair.b.begin(), pair.b.end(), -7.25f);
    return pair;
}

LoraAdapter sample() {
    LoraAdapter adapter{"/models/cut", 3, 0.05, {}};
    for (int b = 0; b < 3; ++b) {
        adapter.pairs.push_back(pairOf("model.layers." + std::to_string(b) + ".self_attn.q_proj", b == 1 ? 2 : 4, 8));
        adapter.pairs.push_back(pairOf("model.layers." + std::to_string(b) + ".mlp.down_proj", 4, b == 2 ? 3.5 : 8, 43, 48));
    }
    return adapter;
}

TEST(PeftAdapter, ReadsBackWhatItWrites) {
    const TempFolder out;
    LoraAdapter adapter = sample();
    exportLoraAdapter(out / "adapter", adapter);
    const LoraAdapter back = readLoraAdapter(out / "adapter");
    EXPECT_EQ(back.base, "/models/cut");
    EXPECT_EQ(back.dropout, 0.05);
    ASSERT_EQ(back.pairs.size(), adapter.pairs.size());
    for (std::size_t i = 0; i < back.pairs.size(); ++i) {
        EXPECT_EQ(back.pairs[i].module, adapter.pairs[i].module);
        EXPECT_EQ(back.pairs[i].rank, adapter.pairs[i].rank);
        EXPECT_EQ(back.pairs[i].alpha, adapter.pairs[i].alpha);
        EXPECT_EQ(back.pairs[i].a, adapter.pairs[i].a);
        EXPECT_EQ(back.pairs[i].b, adapter.pairs[i].b);
    }
}

TEST(PeftAdapter, UsesTheNamesAndFieldsOfPeft) {
    const TempFolder out;
    exportLoraAdapter(out / "adapter", sample(), DType::BF16);
    const Json config = readJsonFile(out / "adapter" / "adapter_config.json");
    EXPECT_EQ(config["peft_type"], "LORA");
    EXPECT_EQ(config["task_type"], "CAUSAL_LM");
    EXPECT_EQ(config["base_model_name_or_path"], "/models/cut");
    EXPECT_EQ(config["r"], 4);
    EXPECT_EQ(config["lora_alpha"], 8);
    EXPECT_EQ(config["target_modules"], (Json{"down_proj", "q_proj"}));
    EXPECT_EQ(config["rank_pattern"], (Json{{"layers\\.1\\.self_attn\\.q_proj", 2}}));
    EXPECT_EQ(config["alpha_pattern"], (Json{{"layers\\.2\\.mlp\\.down_proj", 3.5}}));
    const SafetensorsFile file = SafetensorsFile::open(out / "adapter" / "adapter_model.safetensors");
    const TensorInfo* a = file.find("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    ASSERT_TRUE(a);
    EXPECT_EQ(a->shape, (std::vector<std::int64_t>{4, 48}));
    EXPECT_EQ(a->dtype, DType::BF16);
    EXPECT_EQ(file.find("base_model.model.model.layers.2.mlp.down_proj.lora_B.weight")->shape,
              (std::vector<std::int64_t>{48, 4}));
}

TEST(PeftAdapter, NamesLayersInFullWhenNotAllBlocksAreAdapted) {
    const TempFolder out;
    LoraAdapter adapter = sample();
    adapter.pairs.erase(adapter.pairs.begin());
    exportLoraAdapter(out / "adapter", adapter);
    const Json names = readJsonFile(out / "adapter" / "adapter_config.json")["target_modules"];
    EXPECT_EQ(names.size(), 5u);
    EXPECT_EQ(names[0], "model.layers.0.mlp.down_proj");
}

TEST(PeftAdapter, RefusesPairsWhoseSizesContradictTheirValues) {
    const TempFolder out;
    LoraAdapter adapter = sample();
    adapter.pairs[0].a.pop_back();
    EXPECT_THAT(errorOf([&] { exportLoraAdapter(out / "a", adapter); }).what(), HasSubstr("model.layers.0.self_attn.q_proj"));
    adapter = sample();
    adapter.pairs.push_back(adapter.pairs[0]);
    EXPECT_THAT(errorOf([&] { exportLoraAdapter(out / "a", adapter); }).what(), HasSubstr("twice"));
    EXPECT_THROW(exportLoraAdapter(out / "a", {}), Error);
    EXPECT_FALSE(fs::exists(out / "a"));
    exportLoraAdapter(out / "a", sample());
    EXPECT_THAT(errorOf([&] { exportLoraAdapter(out / "a", sample()); }).what(), HasSubstr("exists already"));
}

TEST(PeftAdapter, RefusesWhatItDoesNotUnderstandAndNamesTheField) {
    const TempFolder out;
    exportLoraAdapter(out / "adapter", sample());
    const fs::path path = out / "adapter" / "adapter_config.json";
    const Json good = readJsonFile(path);
    const auto failure = [&](const char* field, Json value) {
        Json config = good;
        config[field] = std::move(value);
        writeJsonFile(path, config);
        return errorOf([&] { readLoraAdapter(out / "adapter"); });
    };
    for (const auto& [field, value] : std::vector<std::pair<const char*, Json>>{{"peft_type", "IA3"},
                                                                                {"bias", "all"},
                                                                                {"use_dora", true},
                                                                                {"modules_to_save", {"lm_head"}}}) {
        const Error error = failure(field, value);
        EXPECT_EQ(error.code(), ErrorCode::Unsupported) << field;
        EXPECT_THAT(error.subject(), HasSubstr(field));
    }
    EXPECT_THAT(failure("r", 5).what(), HasSubstr("the configuration says rank 5, the tensor has 4"));
    EXPECT_THAT(failure("rank_pattern", Json{{"(", 2}}).what(), HasSubstr("not a regular expression"));
    writeText(path, "{");
    EXPECT_EQ(errorOf([&] { readLoraAdapter(out / "adapter"); }).code(), ErrorCode::BadInput);
    fs::remove(path);
    EXPECT_EQ(errorOf([&] { readLoraAdapter(out / "adapter"); }).code(), ErrorCode::NotFound);
}

TEST(PeftAdapter, RankStabilisedScalingComesBackAsItsAlpha) {
    const TempFolder out;
    exportLoraAdapter(out / "adapter", sample());
    const fs::path path = out / "adapter" / "adapter_config.json";
    Json config = readJsonFile(path);
    config["use_rslora"] = true;
    writeJsonFile(path, config);
    const LoraAdapter back = readLoraAdapter(path);
    EXPECT_DOUBLE_EQ(back.pairs[0].alpha / 4, 8 / 2.0) << "alpha / sqrt(rank)";
}

TEST(PeftAdapter, HalfAPairIsAnError) {
    const TempFolder out;
    exportLoraAdapter(out / "adapter", sample());
    for (const char* name : {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                             "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"}) {
        writeRawSafetensors(out / "adapter" / "adapter_model.safetensors",
                            R"({")" + std::string(name) + R"(":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})",
                            "12345678");
        EXPECT_THAT(errorOf([&] { readLoraAdapter(out / "adapter"); }).what(), HasSubstr("has no lora_"));
    }
}

TEST(CheckLoraAdapter, FindsModulesAndShapesThatDoNotFit) {
    const TinyCheckpoint tiny = tinyLlama();
    const Checkpoint checkpoint = tiny.open();
    const Anatomy anatomy = Anatomy::of(checkpoint);
    EXPECT_EQ(listed(checkLoraAdapter(sample(), anatomy)), "");
    LoraAdapter wrong = sample();
    wrong.pairs[0].module = "model.layers.3.self_attn.q_proj";
    wrong.pairs[1].in = 44;
    const std::string found = listed(checkLoraAdapter(wrong, anatomy));
    EXPECT_THAT(found, HasSubstr("model.layers.3.self_attn.q_proj: The base has no such layer"));
    EXPECT_THAT(found, HasSubstr("made for 48 x 44, the base has 48 x 43"));
}

}  // namespace
}  // namespace resect::test
