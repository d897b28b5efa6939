#include "core/anatomy/anatomy.h"
#include "core/anatomy/cost.h"
#include "core/base/error.h"
#include "tests/support/tiny_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <gmock/gmock.h>
#include <limits>
#include <map>

namespace resect {
namespace {

using namespace test;
using testing::HasSubstr;

std::string textOf(const std::vector<Problem>& problems) {
    std::string text;
    for (const Problem& problem : problems)
        text += std::string(name(problem.severity)) + " " + problem.subject + ": " + problem.message + (problem.advice.empty() ? "" : " -> " + problem.advice) + "\n";
    return text;
}

/// Every element of every tensor must be owned by exactly one component.
void expectPartition(const Checkpoint& checkpoint, const Anatomy& anatomy) {
    std::map<std::string, std::vector<int>> owners;
    for (const TensorInfo& tensor : checkpoint.tensors()) owners[tensor.name].resize(static_cast<std::size_t>(tensor.numel()));
    const std::function<void(const Component&)> visit = [&](const Component& component) {
        for (const TensorSlice& slice : component.slices) {
            const TensorInfo& tensor = *checkpoint.find(slice.tensor);
            auto& marks = owners.at(slice.tensor);
            const std::int64_t columns = tensor.shape.size() == 2 ? tensor.shape[1] : 1;
            for (std::int64_t i = 0; i < tensor.numel(); ++i) {
                const std::int64_t at = slice.axis == 1 ? i % columns : i / columns;
                const bool inside = slice.axis < 0 || std::any_of(slice.ranges.begin(), slice.ranges.end(), [&](IndexRange r) { return r.begin <= at && at < r.end; });
                marks[static_cast<std::size_t>(i)] += inside;
            }
        }
        std::for_each(component.children.begin(), component.children.end(), visit);
    };
    visit(anatomy.root());
    for (const auto& [name, marks] : owners)
        EXPECT_TRUE(std::all_of(marks.begin(), marks.end(), [](int n) { return n == 1; })) << name;
    EXPECT_EQ(anatomy.root().parameters, checkpoint.totalParameters());
    EXPECT_EQ(anatomy.root().bytes, checkpoint.totalBytes());
    EXPECT_EQ(anatomy.root().parameters, costOf(anatomy.shape(), 1).parameters);
}

TEST(Anatomy, EveryParameterBelongsToOneComponent) {
    for (const auto& tiny : {tinyLlama(), tinyLlama({.tied = true, .attentionBias = true, .mlpBias = true}), tinyMistral({.dtype = DType::BF16}), tinyQwen2({.tied = true}),
                             tinyQwen3({.attentionBias = true}), tinyMixtral()}) {
        const auto checkpoint = tiny.open();
        const auto anatomy = Anatomy::of(checkpoint);
        ASSERT_TRUE(anatomy.understood()) << textOf(anatomy.problems());
        EXPECT_TRUE(anatomy.problems().empty()) << textOf(anatomy.problems());
        expectPartition(checkpoint, anatomy);
    }
}

TEST(Anatomy, TheTreeOfADenseModel) {
    const auto tiny = tinyLlama();
    const auto anatomy = Anatomy::of(tiny.open());
    const Component& root = anatomy.root();
    ASSERT_EQ(root.children.size(), 1u + 3 + 2);
    EXPECT_EQ(root.children[0].id.kind, ComponentKind::Embedding);
    EXPECT_EQ(root.children[5].id.kind, ComponentKind::LmHead);
    const Component& block = root.children[2];
    EXPECT_EQ(block.title, "Block 1");
    EXPECT_EQ(block.parameters, blockParameters(anatomy.shape())[1]);
    const Component& attention = block.children[0];
    ASSERT_EQ(attention.children.size(), 2u);
    const Component& head = attention.children[1].children[2];
    EXPECT_EQ(head.id, (ComponentId{ComponentKind::Head, 1, -1, 5}));
    EXPECT_EQ(head.parameters, 2 * 10 * 48);
    EXPECT_EQ(attention.children[1].parameters, 3 * head.parameters + 2 * 10 * 48);
    EXPECT_EQ(block.children[1].id.kind, ComponentKind::FfnLayer);
    EXPECT_EQ(block.children[1].parameters, 3 * 43 * 48 + 48);
}

TEST(Anatomy, SlicesFollowTheCouplingTables) {
    const auto tiny = tinyLlama({.attentionBias = true, .mlpBias = true});
    const auto anatomy = Anatomy::of(tiny.open());
    const auto text = [&](const ComponentId& id) {
        std::string all;
        for (const TensorSlice& slice : anatomy.slices(id)) {
            all += slice.tensor.substr(slice.tensor.find('.', 13) + 1) + "/" + std::to_string(slice.axis);
            for (const IndexRange& range : slice.ranges) all += "[" + std::to_string(range.begin) + "," + std::to_string(range.end) + ")";
            all += " ";
        }
        return all;
    };
    EXPECT_EQ(text({ComponentKind::Head, 1, -1, 4}), "self_attn.q_proj.weight/0[40,50) self_attn.q_proj.bias/0[40,50) self_attn.o_proj.weight/1[40,50) ");
    EXPECT_THAT(text({ComponentKind::KvGroup, 1, -1, 1}),
                HasSubstr("self_attn.k_proj.weight/0[10,20) self_attn.k_proj.bias/0[10,20) self_attn.v_proj.weight/0[10,20) self_attn.v_proj.bias/0[10,20) "
                          "self_attn.q_proj.weight/0[30,40)"));
    EXPECT_EQ(text({ComponentKind::Channel, 2, -1, 7}),
              "mlp.gate_proj.weight/0[7,8) mlp.gate_proj.bias/0[7,8) mlp.up_proj.weight/0[7,8) mlp.up_proj.bias/0[7,8) mlp.down_proj.weight/1[7,8) ");
    EXPECT_EQ(anatomy.parameters({ComponentKind::Channel, 2, -1, 7}), 3 * 48 + 2);
    EXPECT_THROW(anatomy.slices({ComponentKind::Channel, 2, -1, 43}), Error);
    EXPECT_THROW(anatomy.slices({ComponentKind::Head, 2, -1, 6}), Error);
    EXPECT_THROW(anatomy.parameters({ComponentKind::Block, 3, -1, -1}), Error);
}

TEST(Anatomy, ExpertsOwnTheirTensorsAndTakeTheirRouterRow) {
    const auto tiny = tinyMixtral();
    const auto anatomy = Anatomy::of(tiny.open());
    const ComponentId expert{ComponentKind::Expert, 1, 2, -1};
    const auto slices = anatomy.slices(expert);
    ASSERT_EQ(slices.size(), 4u);
    EXPECT_EQ(slices[0].tensor, "model.layers.1.block_sparse_moe.experts.2.w1.weight");
    EXPECT_EQ(slices[3].tensor, "model.layers.1.block_sparse_moe.gate.weight");
    EXPECT_EQ(slices[3].ranges, (std::vector<IndexRange>{{2, 3}}));
    EXPECT_EQ(anatomy.parameters(expert), 3 * 43 * 48);
    EXPECT_EQ(anatomy.parameters({ComponentKind::Router, 1, -1, -1}), 4 * 48);
    EXPECT_EQ(anatomy.slices({ComponentKind::Channel, 1, 3, 5}).size(), 3u);
}

TEST(Anatomy, MissingAndUnexpectedAndMisshapenTensorsAreNamed) {
    auto tiny = tinyLlama();
    tiny.tensors.erase("model.layers.1.mlp.up_proj.weight");
    tiny.tensors.erase("lm_head.weight");
    tiny.tensors["model.layers.0.self_attn.extra.weight"] = {DType::F32, {2}, {1, 2}};
    tiny.tensor("model.norm.weight") = {DType::F32, {47}, std::vector<double>(47)};
    tiny.tensor("model.layers.2.input_layernorm.weight").dtype = DType::I8;
    tiny.save();
    const auto checkpoint = tiny.open();
    const auto anatomy = Anatomy::of(checkpoint);
    EXPECT_FALSE(anatomy.understood());
    const std::string text = textOf(anatomy.problems());
    EXPECT_THAT(text, HasSubstr("error model.layers.1.mlp.up_proj.weight: expected [43, 48], but the tensor is missing"));
    EXPECT_THAT(text, HasSubstr("error lm_head.weight: expected [61, 48], but the tensor is missing -> If the model shares"));
    EXPECT_THAT(text, HasSubstr("error model.layers.0.self_attn.extra.weight: config.json does not call for this tensor [2]"));
    EXPECT_THAT(text, HasSubstr("error model.norm.weight: expected [48], found [47]"));
    EXPECT_THAT(text, HasSubstr("error model.layers.2.input_layernorm.weight: expected floating-point numbers, found I8"));
    EXPECT_THROW(anatomy.shape(), Error);
    EXPECT_EQ(anatomy.root().children.size(), 3u) << "blocks can still be looked at";
    EXPECT_EQ(anatomy.root().bytes, checkpoint.totalBytes());
}

TEST(Anatomy, ManyProblemsOfOneKindAreSummed) {
    auto tiny = tinyLlama({.numBlocks = 20, .ffnSize = 5});
    tiny.config["intermediate_size"] = 6;
    tiny.config["hidden_size"] = 60;
    tiny.save();
    const auto problems = Anatomy::of(tiny.open()).problems();
    EXPECT_EQ(problems.size(), 101u);
    EXPECT_THAT(problems.back().message, HasSubstr("83 more tensors do not have the shape"));
}

TEST(Anatomy, AStoredTiedHeadMustEqualTheEmbedding) {
    auto tiny = tinyLlama({.tied = true});
    tiny.tensors["lm_head.weight"] = tiny.tensor("model.embed_tokens.weight");
    tiny.save();
    const auto equal = Anatomy::of(tiny.open());
    EXPECT_TRUE(equal.understood());
    EXPECT_THAT(textOf(equal.problems()), HasSubstr("note lm_head.weight: is stored although it is tied"));
    tiny.tensor("lm_head.weight").values[17] += 1;
    tiny.save();
    const auto different = Anatomy::of(tiny.open());
    EXPECT_FALSE(different.understood());
    EXPECT_THAT(textOf(different.problems()), HasSubstr("error lm_head.weight: config.json says that it is tied to model.embed_tokens.weight, but their values differ"));
}

TEST(Anatomy, StoredRotaryTablesAreANote) {
    auto tiny = tinyLlama();
    tiny.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {DType::F32, {5}, {1, 2, 3, 4, 5}};
    tiny.save();
    const auto anatomy = Anatomy::of(tiny.open());
    EXPECT_TRUE(anatomy.understood());
    EXPECT_THAT(textOf(anatomy.problems()), HasSubstr("self_attn.rotary_emb.inv_freq: 1 stored rotary or mask tables are ignored"));
}

TEST(Anatomy, AnUnknownFamilyCanBeInspectedAndSaysWhyItCannotBeCut) {
    auto tiny = tinyLlama();
    tiny.config["model_type"] = "gpt_neox";
    tiny.save();
    const auto checkpoint = tiny.open();
    const auto anatomy = Anatomy::of(checkpoint);
    EXPECT_FALSE(anatomy.understood());
    EXPECT_THAT(textOf(anatomy.problems()), HasSubstr("error config.json: model_type: \"gpt_neox\" is not among the families that can be cut"));
    EXPECT_EQ(anatomy.root().children.size(), 3u);
    EXPECT_EQ(anatomy.root().children[1].title, "Block 1");
    EXPECT_EQ(anatomy.root().parameters, checkpoint.totalParameters());
    try {
        anatomy.shape();
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Unsupported);
    }
}

TEST(Anatomy, ABadOrAbsentConfigIsAProblemNotAnException) {
    auto tiny = tinyLlama();
    tiny.config["num_attention_heads"] = "six";
    tiny.save();
    EXPECT_THAT(textOf(Anatomy::of(tiny.open()).problems()), HasSubstr("error config.json: num_attention_heads: expected an integer, found the text \"six\""));
    std::filesystem::remove(tiny.path() / "config.json");
    EXPECT_THAT(textOf(Anatomy::of(tiny.open()).problems()), HasSubstr("error config.json: is missing"));
}

TEST(Anatomy, ACheckpointThatContradictsItselfIsNotUnderstood) {
    auto tiny = tinyLlama({.shardBytes = 40'000});
    const auto shard = tiny.open().shards()[0].path();
    const std::filesystem::path index = tiny.path() / "model.safetensors.index.json";
    Json json = readJsonFile(index);
    std::filesystem::copy_file(shard, tiny.path() / "twice.safetensors");
    json["weight_map"]["twice"] = "twice.safetensors";
    writeJsonFile(index, json);
    const auto checkpoint = tiny.open();
    EXPECT_TRUE(hasErrors(checkpoint.problems()));
    EXPECT_FALSE(Anatomy::of(checkpoint).understood());
}

TEST(Anatomy, CutShapesAreReadFromResectJson) {
    auto tiny = tinyLlama();
    for (const char* name : {"input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.o_proj.weight"})
        tiny.tensors.erase("model.layers.1." + std::string(name));
    ModelShape shape = readModelShape(tiny.config, nullptr, "c");
    shape.blocks[1].hasAttention = false;
    tiny.config["model_type"] = "resect";
    tiny.save();
    writeJsonFile(tiny.path() / "resect.json", resectConfigOf(shape));
    const auto checkpoint = tiny.open();
    const auto anatomy = Anatomy::of(checkpoint);
    ASSERT_TRUE(anatomy.understood()) << textOf(anatomy.problems());
    EXPECT_EQ(anatomy.root().children[2].children.size(), 1u);
    expectPartition(checkpoint, anatomy);
}

TEST(FindNonFinite, NamesTensorPositionAndCount) {
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F64}) {
        auto tiny = tinyLlama({.dtype = dtype});
        EXPECT_TRUE(findNonFinite(tiny.open(), {}).empty());
        tiny.tensor("model.layers.1.mlp.down_proj.weight").at(5, 40) = std::nan("");
        tiny.tensor("model.layers.1.mlp.down_proj.weight").at(7, 2) = -std::numeric_limits<double>::infinity();
        tiny.save();
        const auto problems = findNonFinite(tiny.open(), {});
        ASSERT_EQ(problems.size(), 1u);
        EXPECT_EQ(problems[0].subject, "model.layers.1.mlp.down_proj.weight");
        EXPECT_THAT(problems[0].message, HasSubstr("2 of 2064 values are NaN or infinite, the first at [5, 40]"));
    }
}

TEST(FindNonFinite, StopsOnRequestWithANote) {
    std::stop_source stop;
    stop.request_stop();
    const auto problems = findNonFinite(tinyLlama().open(), JobContext(stop.get_token(), {}));
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_EQ(problems[0].severity, Severity::Note);
}

TEST(Anatomy, GoldenCheckpointsAreUnderstood) {
    for (const auto& entry : std::filesystem::directory_iterator(ownData("golden"))) {
        if (!std::filesystem::exists(entry.path() / "config.json")) continue;  // pictures
        const auto checkpoint = Checkpoint::open(entry.path());
        const auto anatomy = Anatomy::of(checkpoint);
        ASSERT_TRUE(anatomy.understood()) << entry.path() << "\n" << textOf(anatomy.problems());
        expectPartition(checkpoint, anatomy);
    }
}

TEST(Anatomy, RealCheckpointsAreUnderstood) {
    RESECT_NEED_SHARED_DATA("models");
    for (const char* name : {"llama-stories-12l", "qwen2-stories-8l", "mixtral-stories-6l", "gpt2-stories-8l", "vit-mnist-8l", "stories260K-hf"}) {
        const auto checkpoint = Checkpoint::open(sharedData(std::string("models/") + name));
        const auto anatomy = Anatomy::of(checkpoint);
        EXPECT_TRUE(anatomy.understood()) << name << "\n" << textOf(anatomy.problems());
        EXPECT_TRUE(findNonFinite(checkpoint, {}).empty());
        EXPECT_EQ(anatomy.root().parameters, checkpoint.totalParameters());
    }
}

}  // namespace
}  // namespace resect
