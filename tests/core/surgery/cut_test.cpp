#include "core/surgery/cut.h"
#include "tests/core/surgery/shapes.h"

#include <gmock/gmock.h>

#include <random>
#include <set>

namespace resect::test {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(IndexSet, BehavesLikeASetUnderRandomInsertions) {
    std::mt19937 random(3);
    for (int round = 0; round < 50; ++round) {
        IndexSet mine;
        std::set<int> reference;
        for (int step = 0; step < 20; ++step) {
            std::vector<int> some(random() % 7);
            for (int& index : some) index = static_cast<int>(random() % 30);
            if (random() % 2) std::sort(some.begin(), some.end());
            mine.insert(some);
            reference.insert(some.begin(), some.end());
            ASSERT_EQ(mine.values(), std::vector<int>(reference.begin(), reference.end()));
        }
        for (int i = -1; i < 31; ++i) EXPECT_EQ(mine.contains(i), reference.contains(i));
    }
}

TEST(Cut, KeepsHeadsOutsideDroppedGroupsAndTheGroupsThatHaveHeadsLeft) {
    const BlockShape block = stockShape().blocks[0];  // heads 0-2 | 3-5
    EXPECT_THAT(keptHeads(block, {.heads = {1, 4}}), ElementsAre(0, 2, 3, 5));
    EXPECT_THAT(keptHeads(block, {.heads = {1}, .kvGroups = {1}}), ElementsAre(0, 2));
    EXPECT_THAT(keptKvGroups(block, {.heads = {3, 4, 5}}), ElementsAre(0));
    EXPECT_THAT(keptKvGroups(block, {.kvGroups = {0}}), ElementsAre(1));
    EXPECT_THAT(keptHeads(block, {.attention = true}), IsEmpty());
    EXPECT_THAT(keptHeads(block, {.block = true}), IsEmpty());
    EXPECT_EQ(keptChannels(block, {.channels = {0, 42}}).size(), 41u);
    EXPECT_THAT(keptChannels(block, {.ffn = true}), IsEmpty());
}

TEST(Cut, FindsTheGroupOfAHeadWhenGroupsDiffer) {
    BlockShape block = stockShape().blocks[0];
    block.headsPerKv = {1, 4};
    block.numHeads = 5;
    EXPECT_EQ(groupOfHead(block, 0), 0);
    EXPECT_EQ(groupOfHead(block, 1), 1);
    EXPECT_EQ(groupOfHead(block, 4), 1);
    EXPECT_EQ(firstHeadOfGroup(block, 1), 1);
}

TEST(ShapeAfter, RenumbersBlocksAndMarksAbsentLayers) {
    const ModelShape source = stockShape();
    Cut cut = emptyCut(source);
    cut.blocks[0].block = true;
    cut.blocks[1].attention = true;
    cut.blocks[2].ffn = true;
    cut.blocks[3] = {.heads = {5}, .channels = {7, 9}};
    const ModelShape after = shapeAfter(source, cut);
    ASSERT_EQ(after.numBlocks(), 4);
    EXPECT_FALSE(after.blocks[0].hasAttention);
    EXPECT_EQ(after.blocks[0].numHeads, 0);
    EXPECT_EQ(after.blocks[0].headDim, 10);
    EXPECT_EQ(after.blocks[0].ffnSize, 43);
    EXPECT_FALSE(after.blocks[1].hasFfn);
    EXPECT_EQ(after.blocks[1].ffnSize, 0);
    EXPECT_THAT(after.blocks[2].headsPerKv, ElementsAre(3, 2));
    EXPECT_EQ(after.blocks[2].numHeads, 5);
    EXPECT_EQ(after.blocks[2].numKvHeads, 2);
    EXPECT_EQ(after.blocks[2].ffnSize, 41);
    EXPECT_EQ(after.blocks[3], source.blocks[4]);
    EXPECT_EQ(shapeAfter(source, emptyCut(source)), source);
}

}  // namespace resect::test
