#include "tests/widgets/models/tiny_model.h"
#include "widgets/models/selection_model.h"

#include <QSignalSpy>
#include <QTest>

#include <gtest/gtest.h>

#include <ctime>

using namespace resect;
using namespace resect::ui;

namespace {

struct Selection : testing::Test {
    SelectionModel selection;
    void SetUp() override { selection.setModel(std::make_shared<const protocol::ModelMessage>(test::tinyMessage())); }
};

}  // namespace

TEST_F(Selection, ClickToggleAndRange) {
    selection.click(headRef(1, 1), Qt::NoModifier);
    selection.click(headRef(2, 3), Qt::ShiftModifier);
    EXPECT_EQ(selection.refs().size(), 6u);   // 2 blocks x heads 1..3
    selection.click(headRef(1, 2), Qt::ControlModifier);
    EXPECT_FALSE(selection.contains(headRef(1, 2)));
    selection.click(blockRef(0), Qt::ShiftModifier);   // another kind: starts anew
    EXPECT_EQ(selection.refs(), RefSet{blockRef(0)});
}

TEST_F(Selection, RectanglesReplaceAddAndRemove) {
    selection.select({headRef(0, 0), headRef(0, 1)}, SelectionModel::rectangleGesture(Qt::NoModifier));
    selection.select({headRef(0, 1), headRef(0, 2)}, SelectionModel::rectangleGesture(Qt::ControlModifier));
    EXPECT_EQ(selection.refs().size(), 3u);
    selection.select({headRef(0, 0)}, SelectionModel::rectangleGesture(Qt::AltModifier));
    EXPECT_EQ(selection.refs(), (RefSet{headRef(0, 1), headRef(0, 2)}));
    selection.select({headRef(4, 5), headRef(9, 0)});   // block 4 has four heads
    EXPECT_TRUE(selection.isEmpty());
}

TEST_F(Selection, BroadcastsOncePerTurn) {
    QTest::qWait(1);
    QSignalSpy changed(&selection, &SelectionModel::selectionChanged), hovered(&selection, &SelectionModel::hoverChanged);
    for (int i = 0; i < 5; ++i) {
        selection.selectOne(blockRef(i));
        selection.setHover(blockRef(i));
    }
    EXPECT_EQ(changed.count(), 0);
    QTest::qWait(1);
    EXPECT_EQ(changed.count(), 1);
    EXPECT_EQ(hovered.count(), 1);
}

TEST_F(Selection, HistoryHoldsSixtyFourSteps) {
    for (int i = 0; i < 70; ++i) selection.selectOne(headRef(i % 3, i % 4));
    int steps = 0;
    while (selection.canGoBack()) selection.goBack(), ++steps;
    EXPECT_EQ(steps, 64);
    selection.goForward();
    selection.selectOne(blockRef(0));
    EXPECT_FALSE(selection.canGoForward());
}

TEST_F(Selection, ALiveGestureIsOneStep) {
    selection.beginLiveGesture();
    for (int i = 0; i < 4; ++i) selection.select({blockRef(i)});
    selection.endLiveGesture();
    selection.goBack();
    EXPECT_TRUE(selection.isEmpty());
    EXPECT_FALSE(selection.canGoBack());
}

TEST_F(Selection, NarrowGrowSpreadInvertStep) {
    selection.select({blockRef(4)});
    selection.narrow(PartKind::Head);
    EXPECT_EQ(selection.refs().size(), 4u);
    selection.select({headRef(0, 2)});
    selection.growToLegalGroups();
    EXPECT_EQ(selection.refs(), (RefSet{headRef(0, 2), headRef(0, 3)}));
    selection.select({headRef(0, 5)});
    selection.spreadToOtherBlocks();
    EXPECT_EQ(selection.refs().size(), 4u);   // not in block 4
    selection.select({blockRef(0), blockRef(1)});
    selection.invert();
    EXPECT_EQ(selection.blocks(), (std::vector<int>{2, 3, 4}));
    selection.stepBlock(1);
    EXPECT_EQ(selection.blocks(), (std::vector<int>{2, 3, 4}));   // the end
    selection.stepBlock(-2);
    EXPECT_EQ(selection.blocks(), (std::vector<int>{0, 1, 2}));
}

TEST_F(Selection, WordsNameKindsBlocksAndShare) {
    EXPECT_EQ(selection.words(), "Nothing selected");
    selection.select({headRef(0, 0), headRef(0, 1), headRef(2, 5)});
    EXPECT_TRUE(selection.words().startsWith("3 query heads in 2 blocks, 1 whole key group, ")) << qPrintable(selection.words());
    selection.select({blockRef(0), blockRef(1), blockRef(3)});
    EXPECT_TRUE(selection.words().startsWith("3 blocks (0, 1, 3), ")) << qPrintable(selection.words());
    selection.select({mlpRef(1)});
    EXPECT_TRUE(selection.words().startsWith("Block 1 MLP, ")) << qPrintable(selection.words());
}

TEST_F(Selection, ParametersCountNestedPartsOnce) {
    const auto& model = *selection.model();
    selection.select({blockRef(0), headRef(0, 1), channelRef(0, 3)});
    EXPECT_DOUBLE_EQ(selection.parameters(), static_cast<double>(model.blocks[0].parameters));
    RefSet heads;
    for (int head = 0; head < 6; ++head) heads.push_back(headRef(0, head));
    selection.select(heads);
    EXPECT_DOUBLE_EQ(selection.parameters(), static_cast<double>(model.blocks[0].attentionParameters));
    EXPECT_TRUE(selection.contains(headRef(0, 0)));
    selection.select({attentionRef(2)});
    EXPECT_TRUE(selection.covers(headRef(2, 3)));
    EXPECT_FALSE(selection.covers(channelRef(2, 3)));
}

TEST_F(Selection, ALargeRectangleStaysWithinItsBudget) {
    auto model = test::tinyMessage();
    model.blocks.clear();
    for (int i = 0; i < 128; ++i) {
        protocol::BlockMessage block;
        block.index = i, block.numHeads = block.numKvHeads = 1, block.ffnSize = 64, block.numExperts = 1024, block.parameters = 10;
        model.blocks.push_back(block);
    }
    selection.setModel(std::make_shared<const protocol::ModelMessage>(model));
    std::vector<ComponentRef> refs;
    for (int block = 0; block < 128; ++block)
        for (int expert = 0; expert < 1024; ++expert) refs.push_back(expertRef(block, expert));
    const std::clock_t start = std::clock();   // processor time: the machine may be busy with other things
    selection.select(refs);
    EXPECT_LT(1000.0 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 33 * 2);
    EXPECT_EQ(selection.refs().size(), 128u * 1024u);
}

TEST(ComponentRefs, AreNamedByDatasetCells) {
    protocol::DatasetMessage heads;
    heads.axes = {{"block", "block", {2, 5}}, {"head", "head", {}}};
    EXPECT_EQ(cellRef(heads, {1, 3}), headRef(5, 3));
    EXPECT_FALSE(cellRef(heads, {2, 0}));
    protocol::DatasetMessage spans;
    spans.axes = {{"span length", "", {}}};
    EXPECT_FALSE(cellRef(spans, {1}));
    protocol::DatasetMessage layers;
    layers.axes = {{"block", "ffn", {}}};
    EXPECT_EQ(cellRef(layers, {4}), mlpRef(4));
    EXPECT_EQ(text(headRef(3, 5)), "block 3 head 5");
}
