#include "app/pages/router_page.h"
#include "core/base/error.h"
#include "tests/app/pages/page_fixture.h"
#include "tests/widgets/plots/sample_experts.h"

#include <QLineEdit>
#include <QSignalSpy>
#include <QToolButton>

namespace resect::ui {
namespace {

TEST(TokenRouting, RefusesWhatDoesNotFit) {
    Json good = {{"tokens", {"a", "b"}}, {"blocks", {{{"block", 2}, {"numExperts", 4}, {"experts", {{3, 1}, {0, 2}}}, {"gates", {{0.7, 0.3}, {0.6, 0.4}}}}}}};
    EXPECT_EQ(tokenRoutingFrom(good).blocks.at(0).experts.at(1).at(0), 0);
    Json bad = good;
    bad["blocks"][0]["experts"] = {{3, 4}, {0, 2}};
    EXPECT_THROW(tokenRoutingFrom(bad), Error);
    bad = good;
    bad["tokens"] = {"a"};
    EXPECT_THROW(tokenRoutingFrom(bad), Error);
    bad = good;
    bad["blocks"][0]["gates"] = {{0.7}, {0.6, 0.4}};
    EXPECT_THROW(tokenRoutingFrom(bad), Error);
}

class Router : public test::PageTest {};

TEST_F(Router, ColoursTokensByTheirFirstExpertAndStepsThroughBlocks) {
    document.setModel(test::sampleMixture());
    RouterPage page(document, selection(), client);
    prepare(page);
    savePage(page, "router-empty");
    page.rerun();
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
    ASSERT_EQ(page.block(), 0);
    const auto& tokens = page.strip().tokens();
    ASSERT_EQ(tokens.size(), 40u);
    EXPECT_EQ(tokens[3].note, QStringLiteral("3"));
    EXPECT_EQ(tokens[3].fill, currentTheme().seriesColour(3));
    EXPECT_EQ(tokens[3].fill, tokens[11].fill) << "token 11 goes to expert 3 too";
    EXPECT_NE(tokens[3].fill, tokens[4].fill);
    EXPECT_EQ(page.legend().size(), 8);
    EXPECT_TRUE(page.tokenSentence(3).contains(QStringLiteral("expert 3 with weight 0.7, expert 4 with weight 0.3"))) << qPrintable(page.tokenSentence(3));
    QTest::keyClick(&page.strip(), Qt::Key_Down);
    EXPECT_EQ(page.block(), 2) << "block 1 is dense";
    EXPECT_EQ(page.strip().tokens()[3].note, QStringLiteral("5"));
    QTest::keyClick(&page.strip(), Qt::Key_Up);
    EXPECT_EQ(page.block(), 0);
    selection().selectOne(expertRef(0, 3));
    settle();
    EXPECT_TRUE(page.strip().tokens()[3].marked);
    EXPECT_TRUE(page.strip().tokens()[2].marked) << "its second expert";
    EXPECT_FALSE(page.strip().tokens()[5].marked);
    savePage(page, "router");
}

TEST_F(Router, TellsWhyItCannotRun) {
    document.setModel(test::sampleModel(6));
    RouterPage page(document, selection(), client);
    prepare(page);
    page.rerun();
    EXPECT_FALSE(page.busy()) << "a dense model has no routers";
    savePage(page, "router-dense");
    document.setModel(test::sampleMixture());
    page.findChild<QLineEdit*>()->setText(QStringLiteral("fail"));
    QSignalSpy messages(&page, &Page::message);
    page.rerun();
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
    EXPECT_EQ(messages.count(), 1);
    const auto labels = page.findChildren<QLabel*>();
    EXPECT_TRUE(std::any_of(labels.begin(), labels.end(), [](QLabel* label) { return label->isVisible() && label->text().contains(QStringLiteral("no tokens")); }));
}

TEST_F(Router, LegendSelectsTheExpert) {
    document.setModel(test::sampleMixture());
    RouterPage page(document, selection(), client);
    prepare(page);
    EXPECT_TRUE(page.reveal(expertRef(4, 1)));
    EXPECT_TRUE(page.busy()) << "nothing was routed yet";
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
    EXPECT_EQ(page.block(), 4);
    auto* entry = page.findChild<QToolButton*>();
    ASSERT_NE(entry, nullptr);
    for (auto* one : page.findChildren<QToolButton*>())
        if (one->text().startsWith(QStringLiteral("expert 2:"))) one->click();
    EXPECT_EQ(selection().refs(), RefSet{expertRef(4, 2)});
    EXPECT_FALSE(page.reveal(headRef(0, 1)));
}

}  // namespace
}  // namespace resect::ui
