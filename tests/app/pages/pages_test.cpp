#include "app/pages/block_strip_panel.h"
#include "app/pages/channels_page.h"
#include "app/pages/heads_page.h"
#include "app/pages/overview_page.h"
#include "app/pages/similarity_page.h"
#include "app/pages/text_page.h"
#include "tests/widgets/plots/pictures.h"
#include "tests/widgets/plots/sample_model.h"

#include <QComboBox>
#include <QPushButton>
#include <QSignalSpy>
#include <QTableWidget>
#include <QTest>
#include <QTreeWidget>
#include <gtest/gtest.h>

#include <cmath>

namespace resect::ui {
namespace {

constexpr int kBlocks = 14;

class Pages : public testing::Test {
protected:
    void SetUp() override {
        client.setProgram(QCoreApplication::applicationFilePath(), {QStringLiteral("serve")});
        client.start();
        document.setModel(test::sampleModel(kBlocks));
        document.setWorkspace(QStringLiteral("/data/sample.resect"));
    }
    void measured() { document.setMeasures(test::sampleMeasures(*document.model())); }
    void prepare(Page& page, QSize size = {1000, 640}) {
        page.resize(size);
        page.show();
        ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
        settle();
    }
    static void settle() {
        for (int i = 0; i < 4; ++i) QApplication::processEvents();
    }
    static void drag(QWidget& widget, QPointF from, QPointF to, Qt::KeyboardModifiers modifiers = Qt::NoModifier) {
        QTest::mousePress(&widget, Qt::LeftButton, modifiers, from.toPoint());
        for (int i = 1; i <= 5; ++i) {
            const QPointF at = from + (to - from) * i / 5.0;
            QMouseEvent move(QEvent::MouseMove, at, widget.mapToGlobal(at), Qt::NoButton, Qt::LeftButton, modifiers);
            QApplication::sendEvent(&widget, &move);
        }
        QTest::mouseRelease(&widget, Qt::LeftButton, modifiers, to.toPoint());
        settle();
    }
    static void savePage(QWidget& page, const std::string& name) {
        test::savePictures(page, name, {1024, 520});
        test::savePictures(page, name, {1600, 800});
    }
    SelectionModel& selection() { return document.selection(); }
    Document document;
    WorkerClient client;
};

TEST_F(Pages, SimilaritySelectsSpans) {
    measured();
    SimilarityPage page(document, selection(), client);
    prepare(page);
    SpanMatrix& matrix = page.matrix();
    ASSERT_EQ(matrix.rows(), kBlocks);
    matrix.replot();
    EXPECT_EQ(matrix.spanOf({3, 1}), (BlockSpan{3, 2}));
    QTest::mouseClick(&matrix, Qt::LeftButton, {}, matrix.cellRect({3, 1}).center().toPoint());
    EXPECT_EQ(selection().refs(), (RefSet{blockRef(3), blockRef(4)}));
    drag(matrix, matrix.cellRect({5, 0}).center(), matrix.cellRect({5, 3}).center());
    EXPECT_EQ(selection().refs(), (RefSet{blockRef(5), blockRef(6), blockRef(7), blockRef(8)}));
    EXPECT_EQ(matrix.selectedSpan(), (BlockSpan{5, 4}));
    QTest::keyClick(&matrix, Qt::Key_Right);
    EXPECT_EQ(matrix.selectedSpan(), (BlockSpan{5, 5}));
    QTest::keyClick(&matrix, Qt::Key_Up);
    EXPECT_EQ(matrix.selectedSpan(), (BlockSpan{4, 5}));
    selection().select({blockRef(1), blockRef(4)});
    EXPECT_FALSE(matrix.selectedSpan());
}

TEST_F(Pages, SimilarityCurveHoldsTheBestSpanOfEachLength) {
    measured();
    SimilarityPage page(document, selection(), client);
    prepare(page);
    for (int column = 0; column < page.matrix().columns(); ++column) {
        double best = std::numeric_limits<double>::infinity();
        for (int row = 0; row + column < kBlocks; ++row) best = std::min(best, page.matrix().value({row, column}));
        EXPECT_EQ(page.curve().table().at(column, 0), best);
        EXPECT_EQ(page.curve().x(column), column + 1);
    }
    Q_EMIT page.curve().pointClicked(2);
    EXPECT_EQ(selection().refs().size(), 3u);
    selection().select(page.matrix().partsOf({8, 4}));
    document.drop({blockRef(3)});
    settle();
    savePage(page, "similarity");
}

TEST_F(Pages, EmptyPagesOfferToMeasureAndFillThemselves) {
    protocol::DataMessage data;
    data.file = "/text.txt";
    SimilarityPage page(document, selection(), client);
    prepare(page);
    EXPECT_EQ(page.matrix().notice().kind, CanvasNotice::Empty);
    EXPECT_EQ(page.matrix().notice().action, QStringLiteral("Measure"));
    savePage(page, "similarity-empty");
    Q_EMIT page.matrix().noticeActionTriggered();
    EXPECT_EQ(page.matrix().notice().kind, CanvasNotice::Error) << "no calibration text chosen";
    document.setData(data);
    Q_EMIT page.matrix().noticeActionTriggered();
    EXPECT_EQ(page.matrix().notice().kind, CanvasNotice::Loading);
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.matrix().empty(); }, 10000));
    EXPECT_EQ(page.matrix().notice().kind, CanvasNotice::None);
}

TEST_F(Pages, AFailedMeasurementIsToldInPlace) {
    protocol::DataMessage data;
    data.file = "/bad.txt";
    document.setData(data);
    HeadsPage page(document, selection(), client);
    QSignalSpy messages(&page, &Page::message);
    prepare(page);
    page.rerun();
    ASSERT_TRUE(QTest::qWaitFor([&] { return page.map().notice().kind == CanvasNotice::Error; }, 10000));
    EXPECT_TRUE(page.map().notice().text.contains(QStringLiteral("holds no text")));
    EXPECT_EQ(messages.count(), 1);
}

TEST_F(Pages, HeadsTakeGroupsAndWarnOfUnequalOnes) {
    measured();
    HeadsPage page(document, selection(), client);
    prepare(page);
    HeadsMap& map = page.map();
    ASSERT_EQ(map.columns(), 12);
    map.replot();
    EXPECT_EQ(map.notice().kind, CanvasNotice::None);
    const auto buttons = page.findChildren<QPushButton*>();
    EXPECT_TRUE(std::any_of(buttons.begin(), buttons.end(),
                            [](QPushButton* button) { return button->isVisible() && button->text().contains(QStringLiteral("40 of 64 samples")); }));
    QTest::mouseClick(&map, Qt::LeftButton, {}, map.cellRect({2, 4}).center().toPoint());
    settle();
    EXPECT_EQ(selection().refs(), RefSet{headRef(2, 4)});
    EXPECT_TRUE(map.rowWarnings().contains(2));
    EXPECT_TRUE(map.rowWarnings().value(2).contains(QStringLiteral("2 and 3 query heads")));
    QTest::mouseClick(&map, Qt::LeftButton, Qt::ShiftModifier, map.cellRect({2, 4}).center().toPoint());
    settle();
    EXPECT_EQ(selection().refs(), (RefSet{headRef(2, 3), headRef(2, 4), headRef(2, 5)}));
    EXPECT_TRUE(map.rowWarnings().isEmpty()) << "whole groups leave equal ones";
    selection().select({headRef(2, 4), headRef(3, 1), headRef(3, 2)});
    document.drop({headRef(6, 0), headRef(6, 1), headRef(6, 2), attentionRef(9)});
    selection().setHover(headRef(4, 7));
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
    QTest::qWait(400);
    savePage(page, "heads");
}

TEST(Snapping, KeepsToTheGridButReachesTheFullWidth) {
    EXPECT_EQ(snappedWidth(1000, 256, 1376), 1024);
    EXPECT_EQ(snappedWidth(1370, 256, 1376), 1376);
    EXPECT_EQ(snappedWidth(1300, 256, 1376), 1280);
    EXPECT_EQ(snappedWidth(1220, 256, 1376), 1280);
    EXPECT_EQ(snappedWidth(-40, 256, 1376), 256);
    EXPECT_EQ(snappedWidth(3, 0, 1376), 3);
    EXPECT_EQ(snappedWidth(-3, 0, 1376), 1);
    EXPECT_EQ(snappedWidth(9999, 64, 1376), 1376);
    EXPECT_EQ(snappedWidth(10, 64, 40), 40) << "a block narrower than the grid stays whole";
    EXPECT_EQ(snappedWidth(10, 64, 0), 0);
}

TEST(DescendingOrder, KeepsUnmeasuredChannelsAndTies) {
    EXPECT_EQ(descendingOrder({1, std::nan(""), 3, 1}), (std::vector<int>{1, 2, 0, 3}));
}

TEST_F(Pages, ChannelsPlanTheWidthThatIsDragged) {
    measured();
    ChannelsPage page(document, selection(), client);
    prepare(page);
    ImportanceCurve& curve = page.curve();
    ASSERT_EQ(curve.full(), 1376);
    EXPECT_EQ(curve.kept(), 1376);
    curve.replot();
    page.setGrid(128);
    const auto at = [&](double width) { return QPointF(curve.xAxis->coordToPixel(width), curve.axisRect()->center().y()); };
    drag(curve, at(1376), at(1010));
    EXPECT_EQ(document.drops().keptChannels(0), 1024);
    EXPECT_EQ(curve.kept(), 1024);
    EXPECT_EQ(document.undoStack().count(), 1) << "one drag is one undo step";
    document.undoStack().undo();
    EXPECT_EQ(document.drops().keptChannels(0), 1376);
    EXPECT_EQ(curve.kept(), 1376);
}

TEST_F(Pages, ChannelBarsMoveAllSelectedBlocksWithShift) {
    measured();
    ChannelsPage page(document, selection(), client);
    prepare(page);
    WidthBars& bars = page.widths();
    bars.replot();
    selection().select({mlpRef(2), mlpRef(3), mlpRef(7)});
    page.setGrid(32);
    drag(bars, bars.topOf(3), QPointF(bars.topOf(3).x(), bars.yAxis->coordToPixel(960)), Qt::ShiftModifier);
    ASSERT_TRUE(QTest::qWaitFor([&] { return document.drops().keptChannels(7) == 960; }, 10000));
    EXPECT_EQ(document.drops().keptChannels(2), 960);
    EXPECT_EQ(document.drops().keptChannels(3), 960);
    EXPECT_EQ(document.drops().keptChannels(4), 1376);
    // The dropped ones are the least important ones.
    double mostDropped = 0, leastKept = 1e9;
    for (int channel = 0; channel < 1376; ++channel) {
        const double value = test::sampleValue("channel/act", {3, channel}, {kBlocks, 1376});
        if (document.isDropped(channelRef(3, channel))) mostDropped = std::max(mostDropped, value);
        else leastKept = std::min(leastKept, value);
    }
    EXPECT_LE(mostDropped, leastKept);
    page.setBlock(3);
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
    savePage(page, "channels");
}

TEST_F(Pages, TextShowsColumnsAndMarksWhatDiffers) {
    document.drop({attentionRef(5)});
    TextPage page(document, selection(), client);
    prepare(page);
    EXPECT_TRUE(page.arguments(TextPage::Candidate).contains("plan"));
    EXPECT_FALSE(page.arguments(TextPage::Original).contains("plan"));
    page.generate();
    EXPECT_TRUE(page.busy());
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
    const auto& original = page.strip(TextPage::Original).tokens();
    const auto& candidate = page.strip(TextPage::Candidate).tokens();
    ASSERT_EQ(original.size(), 30u);
    ASSERT_EQ(candidate.size(), 30u);
    EXPECT_FALSE(candidate[11].marked);
    EXPECT_TRUE(candidate[12].marked);
    EXPECT_TRUE(original[12].marked);
    EXPECT_NEAR(original[3].value, std::exp(-0.3), 1e-9);
    EXPECT_TRUE(original[3].tip.contains(QStringLiteral("74.1")));
    savePage(page, "text");
}

TEST_F(Pages, TextNeedsATokenizer) {
    auto model = test::sampleModel(5);
    model.hasTokenizer = false;
    document.setModel(model);
    TextPage page(document, selection(), client);
    prepare(page);
    page.generate();
    EXPECT_FALSE(page.busy());
}

TEST_F(Pages, OverviewListsResultsAndHealth) {
    measured();
    auto model = *document.model();
    model.tensorCounts = {true, 129, 0, 0, 0, 0};
    model.problems.push_back({"warning", "lm_head.weight", "is stored twice with the same content", "Nothing needs to be done."});
    document.setModel(model);
    measured();
    OverviewPage page(document, selection(), client);
    prepare(page);
    auto* tree = page.findChild<QTreeWidget*>();
    ASSERT_EQ(tree->topLevelItemCount(), 2);
    EXPECT_EQ(tree->topLevelItem(0)->childCount(), 3) << "newest first";
    EXPECT_EQ(tree->topLevelItem(1)->childCount(), 5);
    savePage(page, "overview");
    page.rerun();
    ASSERT_TRUE(QTest::qWaitFor([&] {
        for (QLabel* label : page.findChildren<QLabel*>())
            if (label->text().contains(QStringLiteral("holds 4 values that are not numbers"))) return true;
        return false;
    }, 10000));
    settle();   // new labels are shown with the next layout
    const auto says = [&](const char* words) {
        const auto labels = page.findChildren<QLabel*>();
        return std::any_of(labels.begin(), labels.end(), [&](QLabel* label) { return label->isVisible() && label->text().contains(QLatin1String(words)); });
    };
    EXPECT_TRUE(says("All weights were read: one tensor holds"));
    EXPECT_TRUE(says("All 129 tensors that the configuration calls for are there"));
    model.tensorCounts.missing = 2, model.tensorCounts.unexpected = 1, model.tied = true;
    document.setModel(model);
    settle();
    EXPECT_TRUE(says("Of 129 tensors that the configuration calls for: 2 missing, 1 not called for."));
    EXPECT_TRUE(says("are tied"));
    measured();
    tree->setCurrentItem(tree->topLevelItem(1)->child(3));
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
    settle();
    savePage(page, "overview-matrix");
}

TEST_F(Pages, WishesMeasureThenOpenTheirPage) {
    protocol::DataMessage data;
    data.file = "/text.txt";
    document.setData(data);
    OverviewPage page(document, selection(), client);
    prepare(page);
    QSignalSpy opened(&page, &Page::openRequested);
    for (QPushButton* button : page.findChildren<QPushButton*>())
        if (button->text() == QStringLiteral("Make it smaller")) button->click();
    ASSERT_TRUE(QTest::qWaitFor([&] { return opened.count() > 0; }, 10000));
    EXPECT_EQ(opened[0][0].toString(), QStringLiteral("similarity"));
    EXPECT_EQ(document.measures().size(), 1u);
}

TEST_F(Pages, StripPanelShowsScoresAsTheyCome) {
    BlockStripPanel panel(document, selection(), client);
    panel.resize(900, 160);
    panel.show();
    EXPECT_FALSE(panel.strip().hasScores(BlockStrip::Attention));
    measured();
    ASSERT_TRUE(QTest::qWaitFor([&] { return !panel.busy(); }, 10000));
    EXPECT_TRUE(panel.strip().hasScores(BlockStrip::Attention));
    EXPECT_TRUE(panel.strip().hasScores(BlockStrip::Redundancy));
    EXPECT_TRUE(panel.strip().sentence(attentionRef(3)).contains(QStringLiteral("64 samples")));
    test::savePictures(panel, "panel", {900, 160});
    document.setModel(test::sampleModel(6));
    EXPECT_FALSE(panel.strip().hasScores(BlockStrip::Attention)) << "scores belong to the model that was measured";
}

TEST_F(Pages, WithoutAModelEveryPageSaysSo) {
    Document empty;
    HeadsPage heads(empty, empty.selection(), client);
    OverviewPage overview(empty, empty.selection(), client);
    TextPage text(empty, empty.selection(), client);
    ChannelsPage channels(empty, empty.selection(), client);
    SimilarityPage similarity(empty, empty.selection(), client);
    for (QWidget* page : std::initializer_list<QWidget*>{&heads, &overview, &text, &channels, &similarity}) {
        page->resize(900, 500);
        page->show();
    }
    settle();
    EXPECT_EQ(heads.map().notice().kind, CanvasNotice::Empty);
    EXPECT_TRUE(heads.map().notice().action.isEmpty());
    savePage(overview, "overview-none");
    savePage(heads, "heads-none");
}

}  // namespace
}  // namespace resect::ui
