#include "app/pages/experts_page.h"
#include "tests/app/pages/page_fixture.h"
#include "tests/widgets/plots/sample_experts.h"

#include <QCheckBox>
#include <QPushButton>

namespace resect::ui {
namespace {

double score(const ComponentRef& expert) { return test::sampleExpertValue("expert/load", {expert.block, expert.expert}, {6, 8}); }

int lowest(int block) {
    int best = 0;
    for (int expert = 1; expert < 8; ++expert)
        if (score(expertRef(block, expert)) < score(expertRef(block, best))) best = expert;
    return best;
}

TEST(EqualProposal, TakesAsManyOfTheLowestInEveryOtherBlockWithExperts) {
    Document document;
    document.setModel(test::sampleMixture());
    const RefSet picked = {expertRef(3, 1), expertRef(3, 6)};
    const RefSet proposal = equalProposal(document, picked, {}, score);
    EXPECT_EQ(proposal.size(), 8u) << "two in each of blocks 0, 2, 4, 5; block 1 is dense";
    for (const int block : {0, 2, 4, 5}) EXPECT_TRUE(contains(proposal, expertRef(block, lowest(block))));
    const auto left = expertsLeft(document, united(picked, proposal));
    EXPECT_EQ(left.least, 6);
    EXPECT_EQ(left.most, 6);
    EXPECT_TRUE(equalProposal(document, {}, {}, score).empty());
}

TEST(EqualProposal, CountsWhatThePlanDropsAndPassesOverRefusedOnes) {
    Document document;
    document.setModel(test::sampleMixture());
    document.drop({expertRef(0, 2), mlpRef(4)});
    const RefSet proposal = equalProposal(document, {expertRef(3, 1)}, {expertRef(2, lowest(2))}, score);
    EXPECT_EQ(proposal.size(), 2u) << "block 0 has lost one already, block 4 has no MLP any more";
    EXPECT_FALSE(contains(proposal, expertRef(2, lowest(2))));
    EXPECT_TRUE(contains(proposal, expertRef(5, lowest(5))));
}

TEST(EqualCountLock, FollowsGestures) {
    Document document;
    document.setModel(test::sampleMixture());
    EqualCountLock lock;
    const int other = (lowest(3) + 1) % 8, third = (lowest(3) + 2) % 8;
    RefSet now = lock.extended(document, {expertRef(3, other)}, score);
    EXPECT_EQ(now.size(), 5u);
    EXPECT_EQ(lock.extended(document, now, score), now) << "nothing more is proposed for what it proposed itself";
    now = lock.extended(document, united(now, {expertRef(3, third)}), score);
    EXPECT_EQ(now.size(), 10u);
    // A proposal that is taken back is replaced by the next one.
    const ComponentRef refused = expertRef(2, lowest(2));
    now = lock.extended(document, subtracted(now, {refused}), score);
    EXPECT_EQ(now.size(), 10u);
    EXPECT_FALSE(contains(now, refused));
    now = lock.extended(document, {expertRef(5, 0)}, score);
    EXPECT_EQ(now.size(), 5u) << "a plain click begins anew";
    EXPECT_TRUE(lock.extended(document, subtracted(now, {expertRef(5, 0)}), score).empty()) << "proposals go with what they were for";
    EXPECT_EQ(lock.extended(document, {blockRef(2)}, score), RefSet{blockRef(2)});
}

class Experts : public test::PageTest {
protected:
    void open() {
        document.setModel(test::sampleMixture());
        document.setMeasures({test::sampleExpertMeasure()});
    }
};

TEST_F(Experts, SelectsDropsAndShowsTheBlockInFocus) {
    open();
    ExpertsPage page(document, selection(), client);
    prepare(page, {1000, 700});
    HeatmapView& map = page.map();
    ASSERT_EQ(map.rows(), 6);
    ASSERT_EQ(map.columns(), 8);
    map.replot();
    QTest::mouseClick(&map, Qt::LeftButton, {}, map.cellRect({3, 5}).center().toPoint());
    settle();
    EXPECT_EQ(selection().refs().size(), 5u) << "one in each block with experts";
    EXPECT_EQ(page.block(), 3);
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
    EXPECT_EQ(page.pairs().rows(), 8);
    EXPECT_EQ(page.load().points(), 8);
    EXPECT_TRUE(page.dropButton().text().contains(QStringLiteral("5 experts")));
    savePage(page, "experts");
    page.dropButton().click();
    EXPECT_TRUE(document.isDropped(expertRef(3, 5)));
    EXPECT_EQ(document.plan().size(), 5u);
    EXPECT_EQ(document.plan().front()->edit.at("op"), "drop_experts");
    EXPECT_EQ(document.undoStack().count(), 1) << "one click is one step";
    settle();
    savePage(page, "experts-dropped");
}

TEST_F(Experts, WithoutTheLockItSaysWhatUnequalCountsCost) {
    open();
    ExpertsPage page(document, selection(), client);
    prepare(page);
    page.equalCounts().setChecked(false);
    page.map().setFocus();
    selection().selectOne(expertRef(2, 4));
    settle();
    EXPECT_EQ(selection().refs().size(), 1u);
    const auto labels = page.findChildren<QLabel*>();
    EXPECT_TRUE(std::any_of(labels.begin(), labels.end(), [](QLabel* label) { return label->isVisible() && label->text().contains(QStringLiteral("7 to 8 experts")); }));
    savePage(page, "experts-unequal");
}

TEST_F(Experts, TheKeyboardMovesAndSelects) {
    open();
    ExpertsPage page(document, selection(), client);
    prepare(page);
    page.equalCounts().setChecked(false);
    QTest::keyClick(&page.map(), Qt::Key_Right);
    QTest::keyClick(&page.map(), Qt::Key_Right);
    QTest::keyClick(&page.map(), Qt::Key_Space);
    EXPECT_EQ(selection().refs(), RefSet{expertRef(0, 1)});
}

TEST_F(Experts, APairSelectsBoth) {
    open();
    ExpertsPage page(document, selection(), client);
    prepare(page, {1000, 700});
    page.equalCounts().setChecked(false);
    page.pairs().replot();
    QTest::mouseClick(&page.pairs(), Qt::LeftButton, {}, page.pairs().cellRect({2, 6}).center().toPoint());
    EXPECT_EQ(selection().refs(), (RefSet{expertRef(0, 2), expertRef(0, 6)}));
    page.pairs().setFocus();
    QTest::keyClick(&page.pairs(), Qt::Key_End);
    QTest::keyClick(&page.pairs(), Qt::Key_End);
    QTest::keyClick(&page.pairs(), Qt::Key_Down);
    ASSERT_TRUE(page.pairs().current());
    const Cell cell = *page.pairs().current();
    EXPECT_EQ(cell.column, 7);
    QTest::keyClick(&page.pairs(), Qt::Key_Space);
    EXPECT_EQ(selection().refs(), (RefSet{expertRef(0, cell.row), expertRef(0, 7)}));
}

TEST_F(Experts, SteppingBackInTheHistoryIsNotUndoneByTheLock) {
    open();
    ExpertsPage page(document, selection(), client);
    prepare(page);
    selection().selectOne(expertRef(2, 4));
    settle();
    selection().goBack();
    settle();
    EXPECT_EQ(selection().refs(), RefSet{expertRef(2, 4)});
    selection().goBack();
    settle();
    EXPECT_TRUE(selection().isEmpty());
}

TEST_F(Experts, ADenseModelIsToldApartFromAnUnmeasuredOne) {
    document.setModel(test::sampleModel(6));
    ExpertsPage page(document, selection(), client);
    prepare(page);
    EXPECT_EQ(page.map().notice().kind, CanvasNotice::Empty);
    EXPECT_TRUE(page.map().notice().text.contains(QStringLiteral("no experts")));
    EXPECT_TRUE(page.map().notice().action.isEmpty());
    savePage(page, "experts-dense");
    document.setModel(test::sampleMixture());
    settle();
    EXPECT_EQ(page.map().notice().action, QStringLiteral("Measure"));
    protocol::DataMessage data;
    data.file = "/text.txt";
    document.setData(data);
    page.rerun();
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.map().empty() && !page.busy(); }, 10000));
    EXPECT_EQ(page.map().notice().kind, CanvasNotice::None);
}

}  // namespace
}  // namespace resect::ui
