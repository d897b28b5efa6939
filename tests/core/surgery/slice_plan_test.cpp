#include "core/base/error.h"
#include "core/surgery/edit_plan.h"
#include "core/surgery/slice_plan.h"
#include "tests/core/surgery/slices.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

namespace resect::test {
namespace {

/// One checkpoint, opened, with its plan.
struct Case {
    TinyCheckpoint tiny;
    Checkpoint checkpoint = tiny.open();
    Anatomy anatomy = Anatomy::of(checkpoint);
    explicit Case(TinyCheckpoint made) : tiny(std::move(made)) {}

    SlicePlan plan(std::vector<EditPointer> edits, SliceWay way = SliceWay::Exact) const {
        return slicePlan(checkpoint, anatomy, cutOf({"", std::move(edits), nullptr}, anatomy.shape()), way);
    }
    std::map<std::string, TinyTensor> cut(std::vector<EditPointer> edits, SliceWay way = SliceWay::Exact,
                                          std::optional<DType> dtype = {}) const {
        return materialised(checkpoint, plan(std::move(edits), way), dtype);
    }
};

void expectSame(const std::map<std::string, TinyTensor>& found, const std::string& name, const TinyTensor& expected) {
    const auto at = found.find(name);
    ASSERT_NE(at, found.end()) << name << " is missing";
    EXPECT_EQ(at->second.shape, expected.shape) << name;
    EXPECT_EQ(at->second.dtype, expected.dtype) << name;
    EXPECT_EQ(at->second.values, expected.values) << name;
}

TEST(SlicePlan, CuttingNothingReturnsTheSameBytes) {
    for (const TinyCheckpoint& tiny : {tinyLlama({.tied = true, .dtype = DType::BF16}), tinyMistral({.dtype = DType::F16}),
                                       tinyQwen2(), tinyQwen3(), tinyMixtral()})
        for (SliceWay way : {SliceWay::Exact, SliceWay::Padded, SliceWay::Zeroed}) {
            const Case model(tiny);
            const SlicePlan plan = model.plan({}, way);
            EXPECT_EQ(plan.shape, model.anatomy.shape());
            EXPECT_EQ(plan.tensors.size(), model.checkpoint.tensors().size());
            for (const SlicedTensor& tensor : plan.tensors) {
                EXPECT_EQ(tensor.source, tensor.name);
                std::vector<std::byte> bytes;
                streamSlice(model.checkpoint, tensor, tensor.dtype).produce([&](auto piece) {
                    bytes.insert(bytes.end(), piece.begin(), piece.end());
                });
                const auto original = model.checkpoint.bytes(*model.checkpoint.find(tensor.name));
                EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), original.begin(), original.end())) << tensor.name;
            }
        }
}

TEST(SlicePlan, DroppedBlocksAreGoneAndTheOthersRenumbered) {
    const Case model(tinyLlama({.numBlocks = 4}));
    const auto result = model.cut({dropBlocks({1, 2})});
    EXPECT_EQ(model.plan({dropBlocks({1, 2})}).shape.numBlocks(), 2);
    for (const auto& [name, tensor] : model.tiny.tensors) {
        const int block = name.starts_with("model.layers.") ? name[13] - '0' : -1;
        if (block == 1 || block == 2) continue;
        std::string expected = name;
        if (block == 3) expected[13] = '1';
        expectSame(result, expected, tensor);
    }
    EXPECT_EQ(result.size(), 2u * 9 + 3) << "2 of 4 blocks of 9 tensors, and 3 others";
}

/// Query heads: rows of q (and its bias), columns of o; the bias of o stays.
TEST(SlicePlan, HeadsTakeTheirRowsOfQAndColumnsOfO) {
    const Case model(tinyLlama({.attentionBias = true}));
    const auto result = model.cut({dropHeads(1, {0, 4})});
    const std::vector<int> rows = rowsOf({1, 2, 3, 5}, 10);
    auto& t = model.tiny.tensors;
    expectSame(result, blockName(1, "self_attn.q_proj.weight"), picked(t.at(blockName(1, "self_attn.q_proj.weight")), rows));
    expectSame(result, blockName(1, "self_attn.q_proj.bias"), picked(t.at(blockName(1, "self_attn.q_proj.bias")), rows));
    expectSame(result, blockName(1, "self_attn.o_proj.weight"),
               picked(t.at(blockName(1, "self_attn.o_proj.weight")), {}, rows));
    for (const char* untouched : {"self_attn.o_proj.bias", "self_attn.k_proj.weight", "self_attn.k_proj.bias",
                                  "self_attn.v_proj.weight", "mlp.up_proj.weight"})
        expectSame(result, blockName(1, untouched), t.at(blockName(1, untouched)));
    expectSame(result, blockName(0, "self_attn.q_proj.weight"), t.at(blockName(0, "self_attn.q_proj.weight")));
}

TEST(SlicePlan, KvGroupsTakeTheirQueryHeadsWithThem) {
    const Case model(tinyQwen2());
    const auto result = model.cut({dropKvGroups(2, {0})});
    const std::vector<int> heads = rowsOf({3, 4, 5}, 10), group = rowsOf({1}, 10);
    auto& t = model.tiny.tensors;
    for (const char* name : {"self_attn.q_proj.weight", "self_attn.q_proj.bias"})
        expectSame(result, blockName(2, name), picked(t.at(blockName(2, name)), heads));
    for (const char* name :
         {"self_attn.k_proj.weight", "self_attn.k_proj.bias", "self_attn.v_proj.weight", "self_attn.v_proj.bias"})
        expectSame(result, blockName(2, name), picked(t.at(blockName(2, name)), group));
    expectSame(result, blockName(2, "self_attn.o_proj.weight"),
               picked(t.at(blockName(2, "self_attn.o_proj.weight")), {}, heads));
}

TEST(SlicePlan, DroppingEveryHeadOfAGroupDropsItsKeyAndValue) {
    const Case model(tinyQwen3());
    const auto byHeads = model.cut({dropHeads(1, {0, 1, 2})}), byGroup = model.cut({dropKvGroups(1, {0})});
    ASSERT_EQ(byHeads.size(), byGroup.size());
    for (const auto& [name, tensor] : byGroup) expectSame(byHeads, name, tensor);
    expectSame(byHeads, blockName(1, "self_attn.q_norm.weight"),
               model.tiny.tensors.at(blockName(1, "self_attn.q_norm.weight")));
}

TEST(SlicePlan, ChannelsTakeRowsOfGateAndUpAndColumnsOfDown) {
    const Case model(tinyLlama({.mlpBias = true, .dtype = DType::BF16}));
    const auto result = model.cut({dropChannels(0, {0, 3, 4, 5, 42})});
    std::vector<int> kept;
    for (int c = 0; c < 43; ++c)
        if (c != 0 && c != 42 && (c < 3 || c > 5)) kept.push_back(c);
    auto& t = model.tiny.tensors;
    for (const char* name : {"mlp.gate_proj.weight", "mlp.gate_proj.bias", "mlp.up_proj.weight", "mlp.up_proj.bias"})
        expectSame(result, blockName(0, name), picked(t.at(blockName(0, name)), kept));
    expectSame(result, blockName(0, "mlp.down_proj.weight"), picked(t.at(blockName(0, "mlp.down_proj.weight")), {}, kept));
    expectSame(result, blockName(0, "mlp.down_proj.bias"), t.at(blockName(0, "mlp.down_proj.bias")));
}

TEST(SlicePlan, DroppedLayersTakeTheirNormWithThem) {
    const Case model(tinyLlama());
    const auto result = model.cut({dropAttention({1}), dropMlp({2})});
    EXPECT_FALSE(result.contains(blockName(1, "input_layernorm.weight")));
    EXPECT_FALSE(result.contains(blockName(1, "self_attn.q_proj.weight")));
    EXPECT_TRUE(result.contains(blockName(1, "post_attention_layernorm.weight")));
    EXPECT_FALSE(result.contains(blockName(2, "post_attention_layernorm.weight")));
    EXPECT_FALSE(result.contains(blockName(2, "mlp.down_proj.weight")));
    EXPECT_EQ(result.size(), model.tiny.tensors.size() - 5 - 4);
}

TEST(SlicePlan, CuttingTwiceIsCuttingTheUnion) {
    const Case model(tinyLlama({.numBlocks = 4, .attentionBias = true}));
    const auto once = model.cut({dropBlocks({1}), dropHeads(2, {0, 3, 5}), dropChannels(3, {1, 2, 40})});

    TinyCheckpoint first = model.tiny;  // the first cut, written as a checkpoint of its own
    first.folder = std::make_shared<TempFolder>();
    const SlicePlan plan = model.plan({dropBlocks({1}), dropHeads(2, {3})});
    first.tensors = materialised(model.checkpoint, plan);
    first.config["num_hidden_layers"] = 3;
    first.config["model_type"] = "resect";
    first.save();
    writeText(first.path() / "resect.json",
              R"({"resect": 1, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "blocks": [
              {"attention": {"heads_per_kv": [3, 3]}, "ffn": {"size": 43}}, {"attention": {"heads_per_kv": [3, 2]}, "ffn": {"size": 43}},
              {"attention": {"heads_per_kv": [3, 3]}, "ffn": {"size": 43}}]})");
    const Case again(first);
    ASSERT_TRUE(again.anatomy.understood());
    EXPECT_EQ(again.anatomy.shape().blocks, plan.shape.blocks);
    const auto twice = again.cut({dropHeads(1, {0, 4}), dropChannels(2, {1, 2, 40})});
    ASSERT_EQ(twice.size(), once.size());
    for (const auto& [name, tensor] : once) expectSame(twice, name, tensor);
}

TEST(SlicePlan, PaddingFillsEveryGroupUpToTheLargestKeptSizes) {
    const Case model(tinyQwen3({.numBlocks = 4}));  // 2 groups of 3 heads, 43 channels
    const SlicePlan plan = model.plan({dropHeads(0, {2, 4}), dropHeads(1, {0, 1, 3, 4}), dropHeads(2, {1, 5}), dropBlocks({3}),
                                       dropChannels(0, {9}), dropChannels(1, {1, 2, 3}), dropChannels(2, {0, 42})},
                                      SliceWay::Padded);
    ASSERT_EQ(plan.shape.numBlocks(), 3);
    for (const BlockShape& block : plan.shape.blocks) {
        EXPECT_EQ(block.headsPerKv, (std::vector<int>{2, 2}));
        EXPECT_EQ(block.ffnSize, 42);
    }
    const auto result = materialised(model.checkpoint, plan);
    auto& t = model.tiny.tensors;
    const std::vector<int> rows = rowsOf({2, -1, 5, -1}, 10);  // block 1 keeps heads 2 | 5
    expectSame(result, blockName(1, "self_attn.q_proj.weight"), picked(t.at(blockName(1, "self_attn.q_proj.weight")), rows));
    expectSame(result, blockName(1, "self_attn.o_proj.weight"),
               picked(t.at(blockName(1, "self_attn.o_proj.weight")), {}, rows));
    expectSame(result, blockName(0, "self_attn.q_proj.weight"),
               picked(t.at(blockName(0, "self_attn.q_proj.weight")), rowsOf({0, 1, 3, 5}, 10)));
    std::vector<int> channels{0};
    for (int c = 4; c < 43; ++c) channels.push_back(c);
    channels.resize(42, -1);
    expectSame(result, blockName(1, "mlp.up_proj.weight"), picked(t.at(blockName(1, "mlp.up_proj.weight")), channels));
    expectSame(result, blockName(1, "mlp.down_proj.weight"), picked(t.at(blockName(1, "mlp.down_proj.weight")), {}, channels));
}

TEST(SlicePlan, PaddingPutsZeroGroupsAfterTheKeptOnes) {
    const Case model(tinyQwen3());
    const auto result = model.cut({dropKvGroups(1, {0})}, SliceWay::Padded);
    auto& t = model.tiny.tensors;
    expectSame(result, blockName(1, "self_attn.k_proj.weight"),
               picked(t.at(blockName(1, "self_attn.k_proj.weight")), rowsOf({1, -1}, 10)));
    expectSame(result, blockName(1, "self_attn.q_proj.weight"),
               picked(t.at(blockName(1, "self_attn.q_proj.weight")), rowsOf({3, 4, 5, -1, -1, -1}, 10)));
}

TEST(SlicePlan, PaddingPutsZeroLayersWhereLayersAreAbsent) {
    const Case model(tinyLlama({.attentionBias = true, .mlpBias = true, .dtype = DType::F16}));
    const auto result = model.cut({dropAttention({1}), dropMlp({2})}, SliceWay::Padded);
    ASSERT_EQ(result.size(), model.tiny.tensors.size());
    for (const auto& [name, tensor] : model.tiny.tensors) {
        const bool dropped = name.starts_with(blockName(1, "self_attn")) || name.starts_with(blockName(2, "mlp"));
        TinyTensor expected = tensor;
        if (dropped) std::fill(expected.values.begin(), expected.values.end(), 0.0);
        expectSame(result, name, expected);
    }
}

/// Llama wants hidden_size to be a multiple of the head count; Qwen2's stock classes derive the head size from both.
TEST(SlicePlan, PaddingGoesUpToAHeadCountThatTheStockClassAccepts) {
    const Case llama(tinyLlama({.hiddenSize = 48, .numHeads = 6, .numKvHeads = 1}));
    std::vector<EditPointer> edits;
    for (int b = 0; b < 3; ++b) edits.push_back(dropHeads(b, {1}));
    EXPECT_EQ(llama.plan(edits).shape.blocks[0].numHeads, 5);
    EXPECT_EQ(llama.plan(edits, SliceWay::Padded).shape.blocks[0].numHeads, 6);
    edits.push_back(dropHeads(0, {2}));
    edits.push_back(dropHeads(1, {2}));
    edits.push_back(dropHeads(2, {2}));
    EXPECT_EQ(llama.plan(edits, SliceWay::Padded).shape.blocks[0].numHeads, 4);
    const Case qwen(tinyQwen2({.hiddenSize = 60, .numHeads = 6, .numKvHeads = 2, .headDim = 10}));
    EXPECT_EQ(qwen.plan({dropKvGroups(0, {0}), dropKvGroups(1, {0}), dropKvGroups(2, {1})}, SliceWay::Padded)
                  .shape.blocks[0]
                  .numHeads,
              6);
}

TEST(SlicePlan, ZeroedKeepsEveryShapeAndZeroesWhatIsRemoved) {
    const Case model(tinyLlama({.numBlocks = 4, .attentionBias = true}));
    const SlicePlan plan = model.plan(
        {dropBlocks({3}), dropAttention({2}), dropHeads(0, {1}), dropKvGroups(1, {1}), dropChannels(0, {5})}, SliceWay::Zeroed);
    EXPECT_EQ(plan.shape, model.anatomy.shape());
    const auto result = materialised(model.checkpoint, plan);
    auto& t = model.tiny.tensors;
    for (const char* zero : {"self_attn.o_proj.weight", "self_attn.o_proj.bias", "self_attn.v_proj.weight"})
        for (int b : {2, 3}) EXPECT_THAT(result.at(blockName(b, zero)).values, testing::Each(0.0));
    EXPECT_THAT(result.at(blockName(3, "mlp.down_proj.weight")).values, testing::Each(0.0));
    expectSame(result, blockName(2, "mlp.down_proj.weight"), t.at(blockName(2, "mlp.down_proj.weight")));
    expectSame(result, blockName(3, "input_layernorm.weight"), t.at(blockName(3, "input_layernorm.weight")));
    expectSame(result, blockName(0, "self_attn.q_proj.weight"),
               picked(t.at(blockName(0, "self_attn.q_proj.weight")), rowsOf({0, -1, 2, 3, 4, 5}, 10)));
    expectSame(result, blockName(1, "self_attn.k_proj.bias"),
               picked(t.at(blockName(1, "self_attn.k_proj.bias")), rowsOf({0, -1}, 10)));
    expectSame(result, blockName(1, "self_attn.o_proj.weight"),
               picked(t.at(blockName(1, "self_attn.o_proj.weight")), {}, rowsOf({0, 1, 2, -1, -1, -1}, 10)));
    expectSame(result, "model.embed_tokens.weight", t.at("model.embed_tokens.weight"));
}

TEST(SlicePlan, CutsMixtralBlocksAndLayers) {
    const Case model(tinyMixtral({.numBlocks = 4}));
    const auto exact = model.cut({dropBlocks({0}), dropMlp({2}), dropHeads(3, {1})});
    auto& t = model.tiny.tensors;
    expectSame(exact, blockName(0, "block_sparse_moe.experts.3.w2.weight"),
               t.at(blockName(1, "block_sparse_moe.experts.3.w2.weight")));
    expectSame(exact, blockName(2, "block_sparse_moe.gate.weight"), t.at(blockName(3, "block_sparse_moe.gate.weight")));
    EXPECT_FALSE(exact.contains(blockName(1, "block_sparse_moe.gate.weight")));
    const auto padded = model.cut({dropMlp({2})}, SliceWay::Padded);
    EXPECT_EQ(padded.size(), t.size());
    EXPECT_THAT(padded.at(blockName(2, "block_sparse_moe.experts.1.w2.weight")).values, testing::Each(0.0));
    EXPECT_THAT(model.cut({dropMlp({2})}, SliceWay::Zeroed).at(blockName(2, "block_sparse_moe.experts.0.w2.weight")).values,
                testing::Each(0.0));
}

/// The operation for it comes later; the cut and its coupling (router row, expert, renumbering) are whole already.
TEST(SlicePlan, DroppedExpertsLeaveTheRouterAndAreRenumbered) {
    const Case model(tinyMixtral());
    Cut cut = emptyCut(model.anatomy.shape());
    cut.blocks[1].experts = {0, 2};
    const auto result = materialised(model.checkpoint, slicePlan(model.checkpoint, model.anatomy, cut, SliceWay::Exact));
    auto& t = model.tiny.tensors;
    expectSame(result, blockName(1, "block_sparse_moe.gate.weight"),
               picked(t.at(blockName(1, "block_sparse_moe.gate.weight")), {1, 3}));
    expectSame(result, blockName(1, "block_sparse_moe.experts.1.w1.weight"),
               t.at(blockName(1, "block_sparse_moe.experts.3.w1.weight")));
    EXPECT_FALSE(result.contains(blockName(1, "block_sparse_moe.experts.2.w1.weight")));
    EXPECT_THROW(slicePlan(model.checkpoint, model.anatomy, cut, SliceWay::Padded), Error);
    EXPECT_THROW(slicePlan(model.checkpoint, model.anatomy, cut, SliceWay::Zeroed), Error);
}

TEST(StreamSlice, ConvertsOnTheWay) {
    const Case model(tinyLlama());
    const auto result = model.cut({dropChannels(0, {1, 7})}, SliceWay::Exact, DType::BF16);
    const auto exact = model.cut({dropChannels(0, {1, 7})});
    for (const auto& [name, tensor] : exact) {
        EXPECT_EQ(result.at(name).dtype, DType::BF16);
        ASSERT_EQ(result.at(name).values.size(), tensor.values.size());
        for (std::size_t i = 0; i < tensor.values.size(); ++i)
            ASSERT_NEAR(result.at(name).values[i], tensor.values[i], std::fabs(tensor.values[i]) / 256 + 1e-30);
    }
}

TEST(StreamSlice, RefusesAValueThatTheNarrowerTypeCannotHold) {
    TinyCheckpoint tiny = tinyLlama();
    tiny.tensor(blockName(1, "mlp.up_proj.weight")).at(2, 3) = 1e5;
    tiny.save();
    const Case model(tiny);
    try {
        model.cut({}, SliceWay::Exact, DType::F16);
        FAIL() << "accepted";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::BadInput);
        EXPECT_THAT(error.what(), testing::HasSubstr("model.layers.1.mlp.up_proj.weight"));
        EXPECT_THAT(error.what(), testing::HasSubstr("1e+05"));
    }
    EXPECT_THROW(streamSlice(model.checkpoint, model.plan({}).tensors[0], DType::I32), Error);
}

}  // namespace
}  // namespace resect::test
