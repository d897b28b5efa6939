#include "core/base/error.h"
#include "core/models/rope.h"
#include "core/protocol/json.h"
#include "tests/core/models/tensor_matchers.h"
#include "tests/support/test_data.h"

namespace resect {
namespace {

RopeScaling scalingOf(const Json& json) {
    RopeScaling scaling;
    if (json.is_null()) {
        return scaling;
    }
    const std::map<std::string, RopeScaling::Kind> kinds{{"linear", RopeScaling::Kind::Linear}, {"dynamic", RopeScaling::Kind::Dynamic},
                                                         {"llama3", RopeScaling::Kind::Llama3}, {"yarn", RopeScaling::Kind::Yarn}};
    scaling.kind = kinds.at(json.at("rope_type"));
    scaling.factor = json.value("factor", 1.0);
    scaling.lowFreqFactor = json.value("low_freq_factor", 1.0);
    scaling.highFreqFactor = json.value("high_freq_factor", 4.0);
    scaling.originalMaxPositions = json.value("original_max_position_embeddings", std::int64_t{0});
    scaling.betaFast = json.value("beta_fast", 32.0);
    scaling.betaSlow = json.value("beta_slow", 1.0);
    if (json.contains("attention_factor")) {
        scaling.attentionFactor = json.at("attention_factor").get<double>();
    }
    return scaling;
}

TEST(Rope, FrequenciesOfEveryScalingKindAgreeWithTheReference) {
    const Json rows = readJsonFile(test::ownData("golden/rope_inv_freq.json")).at("rows");
    int compared = 0;
    for (const Json& row : rows) {
        const std::string kind = row.at("rope_type");
        SCOPED_TRACE(kind + ", head_dim " + row.at("head_dim").dump());
        ModelShape shape;
        shape.ropeTheta = row.at("rope_theta");
        shape.maxPositions = row.at("max_position_embeddings");
        shape.ropeScaling = scalingOf(row.at("rope_scaling"));
        const std::int64_t length = row.at("seq_len").is_null() ? 0 : row.at("seq_len").get<std::int64_t>();
        const RopeFrequencies rope = ropeFrequencies(shape, row.at("head_dim"), length);
        EXPECT_NEAR(rope.attentionFactor, row.at("attention_factor").get<double>(), 1e-12);
        const auto expected = row.at("inv_freq").get<std::vector<double>>();
        ASSERT_EQ(rope.inverse.size(), expected.size());
        for (std::size_t i = 0; i < expected.size(); ++i) {
            EXPECT_NEAR(rope.inverse[i] / expected[i], 1, 2e-6) << i;
        }
        ++compared;
    }
    EXPECT_EQ(compared, 9);
}

/// Phi-3's form: every frequency divided by its factor, another list past the original length, cos and sin scaled by sqrt(1 + ln s / ln L).
TEST(Rope, LongRopeDividesEachFrequencyAndChangesListsPastTheOriginalLength) {
    ModelShape shape;
    shape.modelType = "phi3";
    shape.maxPositions = 128;
    shape.ropeScaling = {.kind = RopeScaling::Kind::LongRope, .factor = 4, .originalMaxPositions = 32, .attentionFactor = {}, .mscale = {}, .mscaleAllDim = {},
                         .shortFactor = {1, 1.5, 2}, .longFactor = {1, 3, 9}};
    const auto plain = [](int i) { return 1 / std::pow(10000.0, i / 3.0); };
    const RopeFrequencies within = ropeFrequencies(shape, 6, 32), beyond = ropeFrequencies(shape, 6, 33);
    for (int i = 0; i < 3; ++i) {
        EXPECT_NEAR(within.inverse[static_cast<std::size_t>(i)] / (plain(i) / shape.ropeScaling.shortFactor[static_cast<std::size_t>(i)]), 1, 1e-6);
        EXPECT_NEAR(beyond.inverse[static_cast<std::size_t>(i)] / (plain(i) / shape.ropeScaling.longFactor[static_cast<std::size_t>(i)]), 1, 1e-6);
    }
    EXPECT_NEAR(within.attentionFactor, std::sqrt(1 + std::log(4.0) / std::log(32.0)), 1e-12);
    EXPECT_THROW(ropeFrequencies(shape, 8, 1), Error);
    RotaryTable table(shape, 6, torch::kCPU);
    const auto before = table.range(3, 2).cos.clone();
    EXPECT_GT(test::distance(table.range(3, 60).cos.narrow(1, 0, 2), before), 1e-4);
    EXPECT_TENSOR_NEAR(table.range(3, 2).cos, before, 0);
}

TEST(Rope, TableGrowsAndTheDynamicKindFollowsTheLength) {
    ModelShape shape;
    shape.maxPositions = 300;
    shape.ropeScaling.kind = RopeScaling::Kind::Dynamic;
    shape.ropeScaling.factor = 2;
    RotaryTable table(shape, 6, torch::kCPU);
    const auto before = table.range(10, 4).cos.clone();
    const auto stretched = table.range(10, 500).cos.narrow(1, 0, 4).clone();
    EXPECT_GT(test::distance(before, stretched), 1e-6);
    EXPECT_TENSOR_NEAR(table.range(10, 4).cos, before, 0);
    const auto positions = torch::tensor({{12, 10}, {13, 11}}, torch::kInt64);
    EXPECT_TENSOR_NEAR(table.at(positions, 14).cos[1][0], before[0][3], 0);
}

}  // namespace
}  // namespace resect
