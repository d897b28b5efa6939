#include "core/surgery/block_quant.h"
#include "core/surgery/convert.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace resect::test {
namespace {

using Block = std::array<float, 32>;

std::vector<std::byte> encoded(GgufType type, const std::vector<float>& values) {
    const GgufTypeInfo& sizes = info(type);
    std::vector<std::byte> bytes(values.size() / sizes.blockElements * sizes.blockBytes);
    EXPECT_EQ(encodeBlocks(type, values.data(), values.size(), bytes.data()), -1);
    return bytes;
}

std::vector<float> decoded(GgufType type, const std::vector<std::byte>& bytes, std::size_t count) {
    std::vector<float> values(count);
    decodeBlocks(type, bytes.data(), count, values.data());
    return values;
}

/// 0, 1, ..., 31 less 16: the extremes are -16 and 15.
std::vector<float> ramp() {
    std::vector<float> values;
    for (int i = 0; i < 32; ++i) values.push_back(static_cast<float>(i - 16));
    return values;
}

TEST(BlockQuant, Q8HoldsTheScaleAndRoundedSteps) {
    const auto bytes = encoded(GgufType::Q8_0, ramp());
    ASSERT_EQ(bytes.size(), 34u);
    std::uint16_t scale;
    std::memcpy(&scale, bytes.data(), 2);
    EXPECT_EQ(scale, toFloat16(16.0f / 127));
    for (int i = 0; i < 32; ++i)  // 127/16 steps each, halves away from zero
        EXPECT_EQ(static_cast<std::int8_t>(bytes[static_cast<std::size_t>(2 + i)]), std::lround((i - 16) * (1.0f / (16.0f / 127)))) << i;
}

TEST(BlockQuant, Q4TakesTheSignedExtremeAndPairsHalves) {
    const auto bytes = encoded(GgufType::Q4_0, ramp());
    ASSERT_EQ(bytes.size(), 18u);
    std::uint16_t scale;
    std::memcpy(&scale, bytes.data(), 2);
    EXPECT_EQ(fromFloat16(scale), 2.0f);  // -16 / -8
    for (int i = 0; i < 16; ++i) {
        const unsigned byte = std::to_integer<unsigned>(bytes[static_cast<std::size_t>(2 + i)]);
        EXPECT_EQ(static_cast<int>(byte & 15), std::min(15, static_cast<int>((i - 16) / 2.0f + 8.5f))) << i;
        EXPECT_EQ(static_cast<int>(byte >> 4), std::min(15, static_cast<int>(i / 2.0f + 8.5f))) << i;
    }
    std::vector<float> positive(32, 0.0f);
    positive[5] = 4;
    positive[6] = -4;  // the first of equals gives the sign
    const auto other = encoded(GgufType::Q4_0, positive);
    std::memcpy(&scale, other.data(), 2);
    EXPECT_EQ(fromFloat16(scale), -0.5f);
}

TEST(BlockQuant, DecodesWithinTheAllowedErrorAtAnyMagnitude) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (const GgufType type : {GgufType::Q8_0, GgufType::Q4_0, GgufType::F16, GgufType::BF16, GgufType::F32}) {
        for (const float magnitude : {0.0f, 1e-42f, 1e-30f, 1e-7f, 1e-5f, 0.02f, 1.0f, 300.0f}) {
            std::vector<float> values(64);
            for (float& value : values) value = magnitude * normal(random);
            const auto bytes = encoded(type, values);
            const auto back = decoded(type, bytes, values.size());
            if (plainType(type)) {
                EXPECT_EQ(encoded(type, back), bytes);
                continue;
            }
            for (std::size_t i = 0; i < values.size(); ++i)
                EXPECT_LE(std::fabs(values[i] - back[i]), encodingError(type, bytes.data() + i / 32 * info(type).blockBytes)) << info(type).name << " " << magnitude;
        }
    }
}

TEST(BlockQuant, ZerosStayZeros) {
    for (const GgufType type : {GgufType::Q8_0, GgufType::Q4_0})
        EXPECT_EQ(decoded(type, encoded(type, std::vector<float>(32, 0.0f)), 32), std::vector<float>(32, 0.0f));
}

TEST(BlockQuant, SaysWhichValueCannotBeStored) {
    std::vector<std::byte> bytes(2 * 34);
    for (const GgufType type : {GgufType::Q8_0, GgufType::Q4_0})
        for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 1e30f}) {
            std::vector<float> values(64, 1.0f);
            values[41] = bad;
            EXPECT_EQ(encodeBlocks(type, values.data(), values.size(), bytes.data()), 41) << bad;
        }
}

}  // namespace
}  // namespace resect::test
