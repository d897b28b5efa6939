#include "tests/widgets/plots/pictures.h"
#include "tests/widgets/plots/sample_model.h"
#include "widgets/plots/block_strip.h"
#include "widgets/plots/canvas_with_table.h"
#include "widgets/plots/dataset_plot.h"
#include "widgets/plots/heatmap_view.h"
#include "widgets/plots/interval_bars.h"
#include "widgets/plots/token_strip.h"

#include <QSignalSpy>
#include <QTableView>
#include <QTest>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace resect::ui {
namespace {

using test::sampleDataset;
using test::sampleModel;
using test::sampleValues;

void settle() {
    for (int i = 0; i < 3; ++i) QApplication::processEvents();
}

void drag(QWidget& widget, QPointF from, QPointF to, Qt::KeyboardModifiers modifiers = Qt::NoModifier) {
    QTest::mousePress(&widget, Qt::LeftButton, modifiers, from.toPoint());
    for (int i = 1; i <= 4; ++i) {
        const QPointF at = from + (to - from) * i / 4.0;
        QMouseEvent move(QEvent::MouseMove, at, widget.mapToGlobal(at), Qt::NoButton, Qt::LeftButton, modifiers);
        QApplication::sendEvent(&widget, &move);
    }
    QTest::mouseRelease(&widget, Qt::LeftButton, modifiers, to.toPoint());
    settle();
}

TEST(CellOutline, OfASingleCellHasFourEdges) {
    CellMask mask(3, 4);
    mask.set(1, 2);
    const auto edges = outline(mask);
    ASSERT_EQ(edges.size(), 4u);
    EXPECT_EQ(edges[0], (CellEdge{1, 2, 1, 3}));
    EXPECT_EQ(edges[1], (CellEdge{2, 2, 2, 3}));
}

TEST(CellOutline, OfTheWholeMatrixIsItsBorder) {
    CellMask mask(5, 7);
    for (int row = 0; row < 5; ++row)
        for (int column = 0; column < 7; ++column) mask.set(row, column);
    EXPECT_EQ(outline(mask).size(), 4u);
    EXPECT_EQ(runs(mask).size(), 5u);
}

class HeatmapTest : public testing::Test {
protected:
    void SetUp() override {
        document.setModel(sampleModel(9, 6, 2));
        info = sampleDataset("head/act", "matrix", "activation", {{"block", "block", {}}, {"head", "head", {}}}, {9, 6});
        view.resize(700, 500);
        view.show();
        view.setMatrix(info, sampleValues(info));
        settle();
    }
    QPointF centre(int row, int column) const { return view.cellRect({row, column}).center(); }
    SelectionModel& selection() { return document.selection(); }
    Document document;
    protocol::DatasetMessage info;
    HeatmapView view{document};
};

TEST_F(HeatmapTest, MapsPixelsToCellsAndBackAtEveryPixelRatio) {
    for (const double ratio : {1.0, 1.5, 2.0, 3.0}) {
        view.setBufferDevicePixelRatio(ratio);
        view.replot();
        for (int row = 0; row < view.rows(); ++row)
            for (int column = 0; column < view.columns(); ++column) {
                const QRectF rect = view.cellRect({row, column});
                for (const QPointF at : {rect.center(), rect.topLeft() + QPointF(1, 1), rect.bottomRight() - QPointF(1.5, 1.5)})
                    EXPECT_EQ(view.cellAt(at), (Cell{row, column})) << row << "," << column << " at ratio " << ratio;
            }
    }
    EXPECT_LT(view.cellRect({0, 0}).top(), view.cellRect({8, 0}).top()) << "rows go down";
    EXPECT_FALSE(view.cellAt(QPointF(1, 1)));
}

TEST_F(HeatmapTest, PaintsTheColourOfTheValueIntoItsCell) {
    view.replot();
    const QImage image = view.toPixmap(view.width(), view.height()).toImage();
    const QCPRange range = view.colourRange();
    for (const Cell cell : {Cell{0, 0}, Cell{3, 5}, Cell{8, 2}}) {
        const QColor seen = image.pixelColor(view.cellRect(cell).center().toPoint());
        const QColor expected = colourAt(ColourMap::Viridis, currentTheme(), (view.value(cell) - range.lower) / range.size());
        EXPECT_NEAR(seen.red(), expected.red(), 4);
        EXPECT_NEAR(seen.green(), expected.green(), 4);
        EXPECT_NEAR(seen.blue(), expected.blue(), 4);
    }
}

TEST_F(HeatmapTest, ClickControlAndShiftSelect) {
    QTest::mouseClick(&view, Qt::LeftButton, {}, centre(2, 1).toPoint());
    EXPECT_EQ(selection().refs(), RefSet{headRef(2, 1)});
    QTest::mouseClick(&view, Qt::LeftButton, Qt::ControlModifier, centre(4, 3).toPoint());
    EXPECT_EQ(selection().refs(), (RefSet{headRef(2, 1), headRef(4, 3)}));
    QTest::mouseClick(&view, Qt::LeftButton, Qt::ControlModifier, centre(2, 1).toPoint());
    EXPECT_EQ(selection().refs(), RefSet{headRef(4, 3)});
    QTest::mouseClick(&view, Qt::LeftButton, {}, centre(1, 1).toPoint());
    QTest::mouseClick(&view, Qt::LeftButton, Qt::ShiftModifier, centre(2, 3).toPoint());
    EXPECT_EQ(selection().refs().size(), 6u);
}

TEST_F(HeatmapTest, RectanglesReplaceAddAndRemoveAsOneStepEach) {
    drag(view, centre(1, 1), centre(3, 2));
    EXPECT_EQ(selection().refs().size(), 6u);
    drag(view, centre(6, 4), centre(7, 5), Qt::ControlModifier);
    EXPECT_EQ(selection().refs().size(), 10u);
    drag(view, centre(1, 1), centre(3, 1), Qt::AltModifier);
    EXPECT_EQ(selection().refs().size(), 7u);
    selection().goBack();
    EXPECT_EQ(selection().refs().size(), 10u);
    selection().goBack();
    EXPECT_EQ(selection().refs().size(), 6u);
}

TEST_F(HeatmapTest, EscapeGivesUpADragAndThenClears) {
    QTest::mouseClick(&view, Qt::LeftButton, {}, centre(0, 0).toPoint());
    QTest::mousePress(&view, Qt::LeftButton, {}, centre(1, 1).toPoint());
    const QPointF to = centre(5, 4);
    QMouseEvent move(QEvent::MouseMove, to, view.mapToGlobal(to), Qt::NoButton, Qt::LeftButton, {});
    QApplication::sendEvent(&view, &move);
    EXPECT_EQ(selection().refs().size(), 20u);
    QTest::keyClick(&view, Qt::Key_Escape);
    EXPECT_EQ(selection().refs(), RefSet{headRef(0, 0)});
    QTest::keyClick(&view, Qt::Key_Escape);
    EXPECT_TRUE(selection().isEmpty());
}

TEST_F(HeatmapTest, KeysMoveExtendAndToggle) {
    QTest::keyClick(&view, Qt::Key_Right);  // enters at the first cell
    EXPECT_EQ(selection().hover(), headRef(0, 0));
    QTest::keyClick(&view, Qt::Key_Right);
    QTest::keyClick(&view, Qt::Key_Down);
    EXPECT_EQ(selection().hover(), headRef(1, 1));
    QTest::keyClick(&view, Qt::Key_Space);
    EXPECT_EQ(selection().refs(), RefSet{headRef(1, 1)});
    QTest::keyClick(&view, Qt::Key_Right, Qt::ShiftModifier);
    QTest::keyClick(&view, Qt::Key_Down, Qt::ShiftModifier);
    EXPECT_EQ(selection().refs().size(), 4u);
    QTest::keyClick(&view, Qt::Key_End);
    EXPECT_EQ(view.cursorPart(), headRef(2, 5));
}

TEST_F(HeatmapTest, HoverIsSharedAndDrawsNoDataAnew) {
    const QPointF at = centre(4, 2);
    QMouseEvent move(QEvent::MouseMove, at, view.mapToGlobal(at), Qt::NoButton, Qt::NoButton, {});
    QApplication::sendEvent(&view, &move);
    settle();
    EXPECT_EQ(selection().hover(), headRef(4, 2));
    QSignalSpy replots(&view, &QCustomPlot::afterReplot);
    selection().setHover(headRef(5, 5));
    settle();
    EXPECT_EQ(replots.count(), 0);
}

TEST_F(HeatmapTest, NaNTakesTheNoValueColourAndHasNoRank) {
    auto values = sampleValues(info);
    values[7] = std::nan("");
    view.setMatrix(info, values);
    view.replot();
    EXPECT_EQ(view.rankOf({1, 1}), 0);
    EXPECT_EQ(view.finiteCount(), 53);
    const QImage image = view.toPixmap(view.width(), view.height()).toImage();
    EXPECT_EQ(image.pixelColor(centre(1, 1).toPoint()), currentTheme().nan);
}

TEST_F(HeatmapTest, TableTwinSharesTheSelection) {
    CanvasWithTable twin(new HeatmapView(document));
    auto* map = static_cast<HeatmapView*>(twin.widget(0));
    map->setMatrix(info, sampleValues(info));
    selection().selectOne(headRef(2, 3));
    twin.showTable(true);
    ASSERT_EQ(twin.table().model()->rowCount(), 9);
    EXPECT_TRUE(twin.table().selectionModel()->isSelected(twin.table().model()->index(2, 3)));
    twin.table().selectionModel()->select(twin.table().model()->index(5, 1), QItemSelectionModel::ClearAndSelect);
    EXPECT_EQ(selection().refs(), RefSet{headRef(5, 1)});
}

TEST_F(HeatmapTest, DrawsALargeMatrixWithinTheBudget) {
    document.setModel(sampleModel(128, 1024, 256));
    auto large = sampleDataset("head/act", "matrix", "activation", {{"block", "block", {}}, {"head", "head", {}}}, {128, 1024});
    view.setMatrix(large, sampleValues(large));
    selection().selectAll(PartKind::Head);
    settle();
    QElapsedTimer timer;
    timer.start();
    view.selectionLayer()->replot();
    EXPECT_LT(timer.elapsed(), 200);
}

class StripTest : public testing::TestWithParam<int> {
protected:
    void SetUp() override {
        const auto model = sampleModel(GetParam());
        const auto measures = test::sampleMeasures(model);
        document.setModel(model);
        strip.resize(1000, 170);
        strip.show();
        const std::array rows = {std::pair{BlockStrip::Redundancy, 0}, std::pair{BlockStrip::Attention, 1}, std::pair{BlockStrip::Mlp, 2}};
        for (const auto& [row, index] : rows) {
            const auto& info = measures[0].datasets[std::size_t(index)];
            strip.setScores(row, info, sampleValues(info));
        }
        settle();
        strip.replot();
    }
    QPointF centre(BlockStrip::Row row, int position) const { return strip.columnRect(row, position).center(); }
    SelectionModel& selection() { return document.selection(); }
    int blocks() const { return GetParam(); }
    Document document;
    BlockStrip strip{document};
};

TEST_P(StripTest, EachRowNamesItsPart) {
    EXPECT_EQ(strip.partAt(centre(BlockStrip::Attention, 3)), attentionRef(3));
    EXPECT_EQ(strip.partAt(centre(BlockStrip::Mlp, blocks() - 1)), mlpRef(blocks() - 1));
    EXPECT_EQ(strip.partAt(centre(BlockStrip::Redundancy, 0)), blockRef(0));
    EXPECT_FALSE(strip.partAt(QPointF(3, 3)));
}

TEST_P(StripTest, ColumnsOfAllRowsLineUpAndFillTheWidth) {
    for (int position = 0; position < blocks(); ++position)
        for (const auto row : {BlockStrip::Mlp, BlockStrip::Width, BlockStrip::Redundancy})
            EXPECT_NEAR(strip.columnRect(row, position).left(), strip.columnRect(BlockStrip::Attention, position).left(), 0.01);
    EXPECT_LT(strip.columnRect(BlockStrip::Attention, 0).left(), 150);
    EXPECT_GT(strip.columnRect(BlockStrip::Attention, blocks() - 1).right(), 970);
}

TEST_P(StripTest, ARectangleOverBothScoresTakesBlocks) {
    drag(strip, centre(BlockStrip::Attention, 2), centre(BlockStrip::Mlp, 5));
    EXPECT_EQ(selection().refs(), (RefSet{blockRef(2), blockRef(3), blockRef(4), blockRef(5)}));
    drag(strip, centre(BlockStrip::Mlp, 1), centre(BlockStrip::Mlp, 2));
    EXPECT_EQ(selection().refs(), (RefSet{mlpRef(1), mlpRef(2)}));
}

TEST_P(StripTest, TheThresholdSelectsEverythingBelowItLiveAndAsOneStep) {
    const QPointF rest = strip.handlePosition(BlockStrip::Attention);
    const QRectF row = strip.columnRect(BlockStrip::Attention, 0);
    drag(strip, rest, QPointF(rest.x(), row.top() + row.height() * 0.4));
    const double at = strip.threshold(BlockStrip::Attention);
    ASSERT_TRUE(std::isfinite(at));
    EXPECT_EQ(selection().refs(), normalised(strip.belowThreshold(BlockStrip::Attention, at)));
    EXPECT_GT(selection().refs().size(), 1u);
    EXPECT_LT(int(selection().refs().size()), blocks());
    selection().goBack();
    settle();
    EXPECT_TRUE(selection().isEmpty());
    EXPECT_TRUE(std::isnan(strip.threshold(BlockStrip::Attention))) << "another selection sends the handle home";
}

TEST_P(StripTest, PlusAndMinusMoveTheThreshold) {
    strip.setFocus();
    for (int i = 0; i < 60; ++i) QTest::keyClick(&strip, Qt::Key_Plus);
    const std::size_t many = selection().refs().size();
    EXPECT_GT(many, 0u);
    for (int i = 0; i < 30; ++i) QTest::keyClick(&strip, Qt::Key_Minus);
    EXPECT_LE(selection().refs().size(), many);
}

TEST_P(StripTest, ZoomKeepsAllRowsTogetherAndInsideTheModel) {
    const QPointF at = centre(BlockStrip::Mlp, blocks() / 2);
    QWheelEvent wheel(at, strip.mapToGlobal(at), {}, QPoint(0, 120), Qt::NoButton, Qt::NoModifier, Qt::NoScrollPhase, false);
    for (int i = 0; i < 3; ++i) QApplication::sendEvent(&strip, &wheel);
    strip.replot();
    EXPECT_NEAR(strip.columnRect(BlockStrip::Width, 1).left(), strip.columnRect(BlockStrip::Attention, 1).left(), 0.01);
    EXPECT_TRUE(strip.reveal(blockRef(0)));
    strip.replot();
    EXPECT_GE(strip.columnRect(BlockStrip::Attention, 0).left(), 20);
    strip.resetZoom();
}

TEST_P(StripTest, ShowsThePlanInTheWidthRow) {
    document.drop({mlpRef(1)});
    settle();
    EXPECT_EQ(strip.table().at(1, BlockStrip::Width), 0);
    EXPECT_EQ(strip.table().at(2, BlockStrip::Width), 1);
}

TEST_P(StripTest, PicturesAreSavedOnRequest) {
    document.drop({attentionRef(blocks() / 2), mlpRef(blocks() / 2 + 1), blockRef(blocks() - 3)});
    document.setDroppedChannels(2, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
    selection().select({attentionRef(3), attentionRef(4), blockRef(6)});
    selection().setHover(mlpRef(8));
    settle();
    const std::string name = "strip-" + std::to_string(blocks());
    test::savePictures(strip, name, {640, 140});
    strip.setThreshold(BlockStrip::Attention, 0.05);
    settle();
    test::savePictures(strip, name + "-threshold", {1200, 200});
}

INSTANTIATE_TEST_SUITE_P(Blocks, StripTest, testing::Values(12, 80));

TEST(BlockStripWithoutScores, ShowsSharesOfParameters) {
    Document document;
    BlockStrip strip(document);
    strip.resize(700, 150);
    EXPECT_EQ(strip.blocks(), 0);
    document.setModel(sampleModel(7));
    EXPECT_EQ(strip.blocks(), 7);
    EXPECT_FALSE(strip.hasScores(BlockStrip::Attention));
    EXPECT_NEAR(strip.table().at(3, BlockStrip::Mlp), double(document.model()->blocks[3].ffnParameters) / double(document.model()->parameters), 1e-12);
    test::savePictures(strip, "strip-unmeasured", {700, 120});
}

TEST(DatasetPlotTest, BarsArePartsAndCurvesAreNot) {
    Document document;
    document.setModel(sampleModel(11));
    DatasetPlot plot(document);
    plot.resize(600, 300);
    plot.show();
    auto bars = sampleDataset("similarity/attention", "bars", "influence", {{"block", "attention", {}}}, {11});
    plot.setDataset(bars, sampleValues(bars), std::vector<double>(11, 0.01));
    settle();
    plot.replot();
    const QPointF at(plot.xAxis->coordToPixel(4), plot.axisRect()->center().y());
    QTest::mouseClick(&plot, Qt::LeftButton, {}, at.toPoint());
    EXPECT_EQ(document.selection().refs(), RefSet{attentionRef(4)});
    EXPECT_EQ(plot.table().columns.size(), 2);
    auto curve = sampleDataset("best", "curve", "best", {{"length", "", {1, 2, 3, 4}}}, {4});
    plot.setDataset(curve, {1, 2, std::nan(""), 3});
    EXPECT_EQ(plot.x(0), 1);
    EXPECT_FALSE(plot.partAt(at));
}

TEST(TokenStripTest, WrapsFindsAndMarksTokens) {
    TokenStrip strip;
    strip.resize(260, 120);
    strip.show();
    std::vector<StripToken> tokens;
    for (int i = 0; i < 400; ++i) tokens.push_back({i % 50 == 49 ? QStringLiteral("\n") : QStringLiteral(" word%1").arg(i), i / 400.0, false, {}});
    strip.setTokens(tokens);
    EXPECT_GT(strip.lineCount(), 20);
    EXPECT_EQ(strip.tokenAt(strip.tokenRect(3).center()), 3);
    EXPECT_EQ(strip.tokenAt(QPoint(2000, 10)), -1);
    strip.appendToken({QStringLiteral(" end"), 0.5, true, {}});
    EXPECT_EQ(strip.tokens().size(), 401u);
    EXPECT_TRUE(strip.plainText().endsWith(QStringLiteral(" end")));
    strip.setColoured(true);
    test::savePictures(strip, "tokens", {500, 240});
}

TEST(TokenStripTest, MakesRoomForNotesAndFillsTokens) {
    TokenStrip strip;
    strip.resize(400, 200);
    strip.show();
    StripToken first, second;
    first.text = QStringLiteral(" I");
    first.fill = QColor(200, 30, 40);
    second.text = QStringLiteral("\n");
    strip.setTokens({first, second, first});
    const int step = strip.tokenRect(2).top() - strip.tokenRect(0).top(), width = strip.tokenRect(0).width();
    first.note = QStringLiteral("expert 127");
    strip.setTokens({first, second, first});
    EXPECT_GT(strip.tokenRect(2).top() - strip.tokenRect(0).top(), step) << "notes stand between the lines";
    EXPECT_GT(strip.tokenRect(0).width(), width) << "a note is not cut";
    EXPECT_EQ(strip.viewport()->grab().toImage().pixelColor(strip.tokenRect(0).right() - 2, strip.tokenRect(0).center().y()), first.fill);
}

TEST(TokenDifferenceTest, MarksWhatIsNotShared) {
    const auto difference = tokenDifference({QStringLiteral("a"), QStringLiteral("b"), QStringLiteral("c")}, {QStringLiteral("a"), QStringLiteral("x"), QStringLiteral("c"), QStringLiteral("d")});
    EXPECT_EQ(difference.left, (std::vector<bool>{false, true, false}));
    EXPECT_EQ(difference.right, (std::vector<bool>{false, true, false, true}));
}

TEST(IntervalBarsTest, SayTheirNumbersInWords) {
    IntervalBars bars;
    bars.setRows({{QStringLiteral("uncut"), 6.1, 6.0, 6.2, 4}, {QStringLiteral("candidate"), 7.9, 7.6, 8.3, 5}});
    EXPECT_TRUE(bars.accessibleDescription().contains(QStringLiteral("candidate: 7.9 (7.6 to 8.3)")));
    test::savePictures(bars, "intervals", {360, 60});
}

TEST(PlotTableTest, CsvQuotesAndLeavesGapsEmpty) {
    PlotTable table{QStringLiteral("block"), {QStringLiteral("a,b"), QStringLiteral("c")}, {QStringLiteral("0")}, {1.5, std::nan("")}};
    EXPECT_EQ(toCsv(table), QStringLiteral("block,\"a,b\",c\n0,1.5,\n"));
    EXPECT_EQ(shortNumber(0.00012345), QStringLiteral("0.0001234"));
    EXPECT_EQ(shortNumber(14336), QStringLiteral("14336"));
    EXPECT_EQ(shortNumber(std::nan("")), QStringLiteral("-"));
}

}  // namespace
}  // namespace resect::ui
