#include "core/export/drop_lists.h"
#include "core/base/error.h"
#include "core/export/manifest.h"
#include "tests/core/surgery/shapes.h"
#include "tests/support/tiny_checkpoint.h"

#include <gtest/gtest.h>

namespace resect {
namespace {

Json config(const char* attention, const char* mlp) {
    return {{"num_hidden_layers", 5}, {"drop_attn_list", Json::parse(attention)}, {"drop_mlp_list", Json::parse(mlp)}};
}

TEST(DropLists, IndicesAndBooleansMeanTheSame) {
    const DropLists expected{{1, 3}, {4}};
    EXPECT_EQ(readDropLists(config("[3, 1]", "[4]"), 5, "config.json"), expected);
    EXPECT_EQ(readDropLists(config("[false, true, false, true, false]", "[false, false, false, false, true]"), 5, "config.json"), expected);
    EXPECT_EQ(readDropLists(config("[]", "null"), 5, "config.json"), DropLists{});
    EXPECT_EQ(readDropLists(config("[0, 1]", "[false, false, false, false, false]"), 5, "config.json"), (DropLists{{0, 1}, {}})) << "numbers 0 and 1 are blocks, not flags";
    EXPECT_EQ(planOf(expected).hash(), planOf(readDropLists(config("[false,true,false,true,false]", "[4]"), 5, "x")).hash());
}

TEST(DropLists, SayWhatIsWrongWithThem) {
    const auto refusal = [](const Json& json) -> std::string {
        try {
            readDropLists(json, 5, "config.json");
        } catch (const Error& error) {
            return error.what();
        }
        return "accepted";
    };
    EXPECT_NE(refusal(config("[5]", "[]")).find("config.json: drop_attn_list[0]: expected 0 to 4, found 5"), std::string::npos);
    EXPECT_NE(refusal(config("[-1]", "[]")).find("found -1"), std::string::npos);
    EXPECT_NE(refusal(config("[]", "[2, 2]")).find("drop_mlp_list[1]: block 2 stands in the list twice"), std::string::npos);
    EXPECT_NE(refusal(config("[true, false]", "[]")).find("expected 5 booleans"), std::string::npos);
    EXPECT_NE(refusal(config("[true, 1, false, false, false]", "[]")).find("drop_attn_list[1]"), std::string::npos);
    EXPECT_NE(refusal(config("[1, true]", "[]")).find("expected a block number"), std::string::npos);
    EXPECT_NE(refusal(config("\"1\"", "[]")).find("found string"), std::string::npos);
    EXPECT_NE(refusal({{"num_hidden_layers", 5}}).find("neither"), std::string::npos);
    EXPECT_NE(refusal({{"num_hidden_layers", 6}, {"drop_attn_list", {1}}}).find("5 blocks"), std::string::npos);
}

TEST(DropLists, AreWrittenAndReadBack) {
    const ModelShape shape = test::stockShape();
    EditPlan plan;
    plan.edits = {dropBlocks({2}), dropAttention({1, 4}), dropMlp({0})};
    const DropLists lists = dropListsOf(plan, shape);
    EXPECT_EQ(lists, (DropLists{{1, 2, 4}, {0, 2}}));
    EXPECT_EQ(planOf(lists).hash(), plan.hash());
    std::vector<Problem> notes;
    const Json written = dropListConfig({{"model_type", "llama"}, {"num_hidden_layers", 5}}, shape, lists, notes);
    EXPECT_EQ(readDropLists(written, 5, "config.json"), lists);
    EXPECT_EQ(written["num_hidden_layers"], 5) << "blocks keep their numbers";
    EXPECT_EQ(written["auto_map"]["AutoModelForCausalLM"], "modeling_dropped_llama.LlamaForCausalLM");
    ASSERT_EQ(notes.size(), 1u);
    EXPECT_EQ(notes[0].severity, Severity::Warning);
    EXPECT_THROW(dropListConfig({}, test::stockShape("qwen2"), lists, notes), Error);
    plan.edits.push_back(dropChannels(3, {1}));
    EXPECT_THROW(dropListsOf(plan, shape), Error);
    EXPECT_EQ(dropListsOf({}, shape), DropLists{});
}

TEST(DropLists, ReservedLayersCountAsPublished) {
    EXPECT_EQ(reservedLayers({{1, 3}, {}}, 5), Json::array({0, 2, 4}));
    EXPECT_EQ(reservedLayers({{}, {4}}, 5), Json::array({0, 1, 2, 3}));
    EXPECT_EQ(reservedLayers({{1}, {4}}, 5), Json::array({0, 2, 3, 4, 5, 6, 7, 8}));
    EXPECT_EQ(reservedLayers({{1, 2}, {1, 2}}, 5), Json::array({0, 3, 4}));
    EXPECT_EQ(layerMapping({{1, 2}, {1, 2}}, 5), Json::parse(R"({"0": 0, "3": 1, "4": 2})"));
    EXPECT_TRUE(layerMapping({{1}, {}}, 5).is_null());
    using enum ReservedLayers;
    EXPECT_EQ(readReservedLayers({0, 2, 4}, Attention, 5, "reserved_layers.json"), (DropLists{{1, 3}, {}}));
    EXPECT_EQ(readReservedLayers({0, 1, 2, 3}, Mlp, 5, "x"), (DropLists{{}, {4}}));
    EXPECT_EQ(readReservedLayers({0, 3, 4}, Blocks, 5, "x"), (DropLists{{1, 2}, {1, 2}}));
    EXPECT_EQ(readReservedLayers({0, 2, 3, 4, 5, 6, 7, 8}, Joint, 5, "x"), (DropLists{{1}, {4}}));
    EXPECT_THROW(readReservedLayers({0, 7}, Attention, 5, "x"), Error);
    EXPECT_THROW(readReservedLayers(Json::object(), Joint, 5, "x"), Error);
}

TEST(DropLists, TheFolderHoldsWhatIsLeftUnderItsOwnNames) {
    const auto tiny = test::tinyLlama({.numBlocks = 3});
    const Checkpoint source = tiny.open();
    const Anatomy anatomy = Anatomy::of(source);
    const test::TempFolder folder;
    const DropLists lists{{1, 2}, {2}};
    exportDropLists(source, anatomy, lists, folder / "dropped", DropListWeights::Left, {});
    EXPECT_TRUE(checkManifest(folder / "dropped", {}).empty());
    EXPECT_EQ(readDropLists(readJsonFile(folder / "dropped/config.json"), 3, "config.json"), lists);
    const Checkpoint written = Checkpoint::open(folder / "dropped");
    for (const auto& [name, tensor] : tiny.tensors) {
        const bool attention = name.find("self_attn") != std::string::npos || name.find("input_layernorm") != std::string::npos;
        const bool gone = name.find("layers.2.") != std::string::npos || (name.find("layers.1.") != std::string::npos && attention);
        EXPECT_EQ(written.find(name) == nullptr, gone) << name;
        if (!gone) { EXPECT_EQ(test::valuesOf(written, name), test::valuesOf(source, name)) << name; }
    }
    EXPECT_THROW(exportDropLists(source, anatomy, lists, folder / "dropped", DropListWeights::None, {}), Error) << "exists already";
    std::stop_source stop;
    stop.request_stop();
    EXPECT_THROW(exportDropLists(source, anatomy, lists, folder / "stopped", DropListWeights::Left, JobContext(stop.get_token(), {})), Error);
    EXPECT_FALSE(std::filesystem::exists(folder / "stopped"));
}

}  // namespace
}  // namespace resect
