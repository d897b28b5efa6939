#include "core/surgery/budget.h"
#include "core/anatomy/cost.h"
#include "core/base/error.h"
#include "core/surgery/edit_plan.h"
#include "tests/core/surgery/shapes.h"

#include <gtest/gtest.h>

namespace resect {
namespace {

TEST(LatencyCurve, LiesOnLinesBetweenItsPoints) {
    const LatencyCurve curve{{{2, 1.0}, {4, 2.0}, {8, 3.0}}};
    EXPECT_EQ(curve.at(0), 0) << "an absent layer";
    EXPECT_DOUBLE_EQ(curve.at(2), 1);
    EXPECT_DOUBLE_EQ(curve.at(3), 1.5);
    EXPECT_DOUBLE_EQ(curve.at(6), 2.5);
    EXPECT_DOUBLE_EQ(curve.at(1), 0.5);
    EXPECT_DOUBLE_EQ(curve.at(12), 4);
    EXPECT_EQ((LatencyCurve{{{4, 0.0}, {8, 2.0}}}).at(1), 0) << "never below zero";
    EXPECT_EQ((LatencyCurve{{{4, 2.0}}}).at(1), 2);
}

TEST(Budget, NamesAreReadBack) {
    for (const BudgetKind kind : {BudgetKind::Parameters, BudgetKind::Bytes, BudgetKind::KvBytes, BudgetKind::Flops, BudgetKind::Latency, BudgetKind::PrefillLatency}) {
        EXPECT_EQ(budgetKind(name(kind), "x"), kind);
        EXPECT_FALSE(unitOf(kind).empty());
    }
    EXPECT_THROW(budgetKind("weight", "x"), Error);
}

TEST(Budget, CountsWhatAPlanLeaves) {
    const ModelShape shape = test::stockShape();
    EditPlan plan;
    plan.edits = {dropBlocks({1}), dropAttention({0})};
    const Cut cut = cutOf(plan, shape);
    const auto after = blocksAfter(shape, cut);
    ASSERT_EQ(after.size(), shape.blocks.size());
    EXPECT_FALSE(after[1].hasAttention || after[1].hasFfn);
    EXPECT_FALSE(after[0].hasAttention);
    EXPECT_TRUE(after[0].hasFfn);
    const auto of = [&](Budget budget) { return budget.of(shape, after); };
    const Cost cost = costOf(shapeAfter(shape, cut), 100);
    EXPECT_EQ(of({.kind = BudgetKind::Parameters}), static_cast<double>(cost.parameters));
    EXPECT_EQ(of({.kind = BudgetKind::Bytes, .bytesPerElement = 4}), 4.0 * static_cast<double>(cost.parameters));
    EXPECT_EQ(of({.kind = BudgetKind::KvBytes, .bytesPerElement = 2}), 2.0 * static_cast<double>(cost.kvElementsPerToken));
    EXPECT_EQ(of({.kind = BudgetKind::Flops, .context = 100}), cost.decodeFlops);
    EXPECT_THROW(of({.kind = BudgetKind::Latency}), Error);
    Budget timed{.kind = BudgetKind::Latency};
    timed.latency.fixed = 0.5;
    timed.latency.attention.assign(shape.blocks.size(), {{{shape.blocks[0].numHeads, 3.0}}});
    timed.latency.ffn.assign(shape.blocks.size(), {{{shape.blocks[0].ffnSize, 2.0}}});
    EXPECT_DOUBLE_EQ(of(timed), 0.5 + 3.0 * static_cast<double>(shape.blocks.size() - 2) + 2.0 * static_cast<double>(shape.blocks.size() - 1));
}

TEST(Budget, BisectionFindsTheFirst) {
    for (std::size_t wanted = 0; wanted <= 10; ++wanted) EXPECT_EQ(smallestThat(10, [&](std::size_t n) { return n >= wanted; }), wanted);
    EXPECT_EQ(smallestThat(10, [](std::size_t) { return false; }), 11u);
}

}  // namespace
}  // namespace resect
