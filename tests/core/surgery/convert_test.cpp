#include "core/surgery/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace resect {
namespace {

/// Nearest half by search over all finite ones; ties to the even bit pattern.
std::uint16_t nearestHalf(float value) {
    std::uint16_t best = 0;
    double distance = std::numeric_limits<double>::infinity();
    for (std::uint32_t bits = 0; bits < 0x7c00; ++bits) {
        const double d = std::fabs(std::fabs(double{value}) - double{fromFloat16(static_cast<std::uint16_t>(bits))});
        if (d < distance || (d == distance && bits % 2 == 0)) {
            distance = d;
            best = static_cast<std::uint16_t>(bits);
        }
    }
    if (std::fabs(value) >= 65520.0f) best = 0x7c00;
    return static_cast<std::uint16_t>(best | (std::signbit(value) ? 0x8000 : 0));
}

TEST(Convert, EveryHalfAndBfloatSurvivesARoundTrip) {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const auto half = static_cast<std::uint16_t>(bits);
        const float fromHalf = fromFloat16(half), fromBrain = fromBfloat16(half);
        if (std::isnan(fromHalf))
            EXPECT_TRUE(std::isnan(fromFloat16(toFloat16(fromHalf))));
        else
            EXPECT_EQ(toFloat16(fromHalf), half);
        if (std::isnan(fromBrain))
            EXPECT_TRUE(std::isnan(fromBfloat16(toBfloat16(fromBrain))));
        else
            EXPECT_EQ(toBfloat16(fromBrain), half);
    }
    EXPECT_EQ(fromFloat16(0x3c00), 1.0f);
    EXPECT_EQ(fromFloat16(0x0001), 0x1p-24f);
    EXPECT_EQ(fromFloat16(0x7bff), 65504.0f);
}

TEST(Convert, HalfRoundsToTheNearestAndTiesToEven) {
    std::mt19937 random(5);
    std::uniform_real_distribution<float> mantissa(-2, 2);
    for (int i = 0; i < 300; ++i) {
        const float value = std::ldexp(mantissa(random), static_cast<int>(random() % 44) - 27);
        EXPECT_EQ(toFloat16(value), nearestHalf(value)) << value;
    }
    for (std::uint32_t bits : {0x0000u, 0x0001u, 0x0002u, 0x03feu, 0x03ffu, 0x0400u, 0x3c00u, 0x3c01u, 0x7bfeu}) {
        const float tie =
            (fromFloat16(static_cast<std::uint16_t>(bits)) + fromFloat16(static_cast<std::uint16_t>(bits + 1))) / 2;
        EXPECT_EQ(toFloat16(tie), bits % 2 == 0 ? bits : bits + 1);
    }
    EXPECT_EQ(toFloat16(65519.996f), 0x7bff);
    EXPECT_EQ(toFloat16(65520.0f), 0x7c00);
}

TEST(Convert, BfloatRoundsToTheNearestAndTiesToEven) {
    EXPECT_EQ(toBfloat16(std::bit_cast<float>(0x3f808000u)), 0x3f80);
    EXPECT_EQ(toBfloat16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
    EXPECT_EQ(toBfloat16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
    EXPECT_EQ(toBfloat16(std::bit_cast<float>(0x7f7fffffu)), 0x7f80);
    EXPECT_EQ(toBfloat16(std::bit_cast<float>(0xff800001u)) & 0xffc0, 0xffc0);
}

TEST(Convert, FindsTheFirstValueThatBecomesInfinite) {
    std::vector<float> values(3000, 1.5f);
    values[10] = std::numeric_limits<float>::infinity();
    values[2500] = 1e6f;
    values[2600] = 1e7f;
    std::vector<std::byte> out(values.size() * 2);
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    EXPECT_EQ(convertElements(DType::F32, bytes, DType::F16, out.data(), values.size()), 2500);
    EXPECT_EQ(convertElements(DType::F32, bytes, DType::BF16, out.data(), values.size()), -1);
    EXPECT_EQ(convertElements(DType::F32, bytes, DType::F16, out.data(), 2500), -1);
}

TEST(Convert, GoesBetweenAllFloatingTypes) {
    const std::vector<double> values{0.0, -1.5, 3.140625, 1e-3, -2048};
    for (DType from : {DType::F64, DType::F32, DType::F16, DType::BF16})
        for (DType to : {DType::F32, DType::F16, DType::BF16}) {
            ASSERT_TRUE(canConvert(from, to));
            std::vector<float> floats(values.begin(), values.end()), back(values.size());
            std::vector<std::byte> stored(values.size() * 8), moved(values.size() * 8);
            if (from == DType::F64)
                std::memcpy(stored.data(), values.data(), stored.size());
            else
                convertElements(DType::F32, reinterpret_cast<const std::byte*>(floats.data()), from, stored.data(),
                                values.size());
            convertElements(from, stored.data(), to, moved.data(), values.size());
            convertElements(to, moved.data(), DType::F32, reinterpret_cast<std::byte*>(back.data()), values.size());
            for (std::size_t i = 0; i < values.size(); ++i)
                EXPECT_NEAR(back[i], values[i], std::fabs(values[i]) * 0.004) << name(from) << name(to);
        }
    EXPECT_FALSE(canConvert(DType::I32, DType::F32));
    EXPECT_FALSE(canConvert(DType::F32, DType::F8E4M3));
}

}  // namespace
}  // namespace resect
