#include "core/anatomy/cost.h"
#include "core/anatomy/family.h"

#include <gtest/gtest.h>
#include <numeric>

namespace resect {
namespace {

Json llamaConfig(int vocab, int hidden, int ffn, int blocks, int heads, int kvHeads) {
    return {{"model_type", "llama"}, {"vocab_size", vocab}, {"hidden_size", hidden}, {"intermediate_size", ffn},
            {"num_hidden_layers", blocks}, {"num_attention_heads", heads}, {"num_key_value_heads", kvHeads}};
}

// Sizes as in the public models' config.json.
ModelShape llama2_7b() { return readModelShape(llamaConfig(32000, 4096, 11008, 32, 32, 32), {}, "c"); }
ModelShape llama3_8b() { return readModelShape(llamaConfig(128256, 4096, 14336, 32, 32, 8), {}, "c"); }
ModelShape tinyLlama_1b() { return readModelShape(llamaConfig(32000, 2048, 5632, 22, 32, 4), {}, "c"); }
ModelShape mixtral_8x7b() {
    Json config = llamaConfig(32000, 4096, 14336, 32, 32, 8);
    config["model_type"] = "mixtral";
    config["num_local_experts"] = 8;
    config["num_experts_per_tok"] = 2;
    return readModelShape(config, {}, "c");
}

std::int64_t countOf(const ModelShape& shape) {
    std::int64_t total = 0;
    for (const ExpectedTensor& tensor : expectedTensors(shape))
        total += std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::int64_t{1}, std::multiplies<>());
    return total;
}

// The published parameter counts, and arithmetic from them: inference-efficiency notes, oracles 1, 3, 4, 6.
TEST(Cost, ParametersOfPublicModels) {
    EXPECT_EQ(costOf(llama2_7b(), 1).parameters, 6'738'415'616);
    EXPECT_EQ(costOf(llama3_8b(), 1).parameters, 8'030'261'248);
    EXPECT_EQ(costOf(tinyLlama_1b(), 1).parameters, 1'100'048'384);
    EXPECT_EQ(costOf(mixtral_8x7b(), 1).parameters, 46'702'792'704);
    EXPECT_EQ(costOf(mixtral_8x7b(), 1).activeParameters, 12'879'925'248);
    for (const auto& shape : {llama2_7b(), llama3_8b(), tinyLlama_1b(), mixtral_8x7b()}) EXPECT_EQ(costOf(shape, 1).parameters, countOf(shape));
}

TEST(Cost, KvCachePerToken) {
    EXPECT_EQ(2 * costOf(llama2_7b(), 1).kvElementsPerToken, 524'288);
    EXPECT_EQ(2 * costOf(llama3_8b(), 1).kvElementsPerToken, 131'072);
    EXPECT_EQ(2 * costOf(llama3_8b(), 1).kvElementsPerToken * 8192, std::int64_t{1} << 30);
}

TEST(Cost, FlopsOfLlama3) {
    const Cost cost = costOf(llama3_8b(), 1024);
    EXPECT_EQ(cost.linearFlopsPerToken, 15'009'316'864.0);
    EXPECT_EQ(cost.decodeFlops, 15'546'187'776.0);
    EXPECT_EQ(cost.prefillFlops, 14'294'701'834'240.0 + 275'146'342'400.0);
}

TEST(Cost, DroppedBlocksAreSubtracted) {
    ModelShape shape = llama3_8b();
    shape.blocks.resize(28);
    EXPECT_EQ(costOf(shape, 1).parameters, 7'157'813'248);
    EXPECT_EQ(2 * costOf(shape, 1).kvElementsPerToken, 114'688);
}

TEST(Cost, ATiedEmbeddingCountsOnceAndItsProductStays) {
    ModelShape shape = llama3_8b();
    const Cost untied = costOf(shape, 7);
    shape.tiedEmbeddings = true;
    const Cost tied = costOf(shape, 7);
    EXPECT_EQ(untied.parameters - tied.parameters, 128256 * 4096);
    EXPECT_EQ(tied.linearFlopsPerToken, untied.linearFlopsPerToken);
    EXPECT_EQ(tied.decodeFlops, untied.decodeFlops);
}

TEST(Cost, ASlidingWindowBoundsTheScores) {
    ModelShape shape = llama2_7b();
    const double linear = costOf(shape, 1).linearFlopsPerToken, perPosition = 4.0 * 4096 * 32;
    for (BlockShape& block : shape.blocks) block.slidingWindow = 3;
    EXPECT_EQ(costOf(shape, 5).decodeFlops, linear + 3 * perPosition);
    EXPECT_EQ(costOf(shape, 2).decodeFlops, linear + 2 * perPosition);
    const double head = 2.0 * 32000 * 4096;
    EXPECT_EQ(costOf(shape, 5).prefillFlops, 5 * (linear - head) + head + (1 + 2 + 3 + 3 + 3) * perPosition);
}

TEST(Cost, UnequalBlocksAreSummedOverTheirOwnSizes) {
    ModelShape shape = llama3_8b();
    shape.qkvBias = shape.outputBias = shape.mlpBias = shape.qkNorm = true;
    shape.blocks[3].hasAttention = false;
    shape.blocks[4].hasFfn = false;
    shape.blocks[5].headsPerKv = {4, 1};
    shape.blocks[5].numHeads = 5;
    shape.blocks[5].numKvHeads = 2;
    shape.blocks[6].ffnSize = 77;
    EXPECT_EQ(costOf(shape, 1).parameters, countOf(shape));
    EXPECT_EQ(costOf(shape, 1).kvElementsPerToken, 2 * 128 * (30 * 8 + 2));
    const auto blocks = blockParameters(shape);
    std::int64_t rest = 0;
    for (const ExpectedTensor& tensor : expectedTensors(shape))
        if (tensor.block == 5) rest += std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::int64_t{1}, std::multiplies<>());
    EXPECT_EQ(blocks[5], rest);
    EXPECT_EQ(std::accumulate(blocks.begin(), blocks.end(), std::int64_t{0}), costOf(shape, 1).parameters - 2 * 128256 * 4096 - 4096);
}

}  // namespace
}  // namespace resect
