#include "app/pages/tensors_page.h"
#include "tests/app/pages/page_fixture.h"
#include "tests/widgets/plots/sample_model.h"

#include <QAbstractItemModelTester>
#include <QLabel>
#include <QLineEdit>
#include <QScrollBar>
#include <QTableView>

namespace resect::ui {
namespace {

/// Answers as the worker does, from `total` made-up tensors, when pump() is called.
struct Source {
    int total = 100'000, asked = 0;
    std::vector<std::pair<Json, std::function<void(const Json&)>>> waiting;

    TensorTableModel::Ask ask() {
        return [this](const Json& args, std::function<void(const Json&)> done) {
            ++asked;
            waiting.emplace_back(args, std::move(done));
        };
    }
    void pump() {
        for (auto& [args, done] : std::exchange(waiting, {})) {
            const bool down = args["descending"];
            Json rows = Json::array();
            for (int i = args["offset"]; i < std::min<int>(total, int(args["offset"]) + int(args["count"])); ++i)
                rows.push_back({{"name", "t" + std::to_string(down ? total - 1 - i : i)}, {"dtype", "F32"}, {"shape", {2, i + 1}}, {"bytes", 8 * (i + 1)}, {"file", "a.safetensors"}});
            done({{"total", total}, {"rows", rows}});
        }
    }
};

QString name(const TensorTableModel& model, int row) { return model.index(row, TensorTableModel::Name).data().toString(); }

TEST(TensorTable, AsksForWhatIsLookedAtOnly) {
    Source source;
    TensorTableModel model(source.ask());
    const QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::Fatal);
    EXPECT_EQ(model.rowCount(), 0);
    model.reload(true);
    source.pump();
    ASSERT_EQ(model.rowCount(), 100'000);
    EXPECT_EQ(name(model, 3), QStringLiteral("t3"));
    EXPECT_EQ(model.index(3, TensorTableModel::Shape).data().toString(), QStringLiteral("2 \u00d7 4"));
    EXPECT_EQ(model.index(3, TensorTableModel::Elements).data().toString(), QStringLiteral("8"));
    QTest::qWait(60);
    source.pump();
    const int before = source.asked;
    EXPECT_EQ(name(model, 70'000), QStringLiteral("\u2026")) << "not known yet";
    EXPECT_EQ(model.row(70'001), nullptr);
    QTest::qWait(60);
    EXPECT_EQ(source.asked, before + 1) << "both rows lie in one part";
    source.pump();
    EXPECT_EQ(name(model, 70'000), QStringLiteral("t70000"));
}

TEST(TensorTable, AsksAgainForWhatFailed) {
    Source source;
    TensorTableModel model(source.ask());
    model.reload(true);
    source.pump();
    EXPECT_EQ(model.row(5000), nullptr);
    QTest::qWait(60);
    ASSERT_EQ(source.waiting.size(), 1u);
    std::exchange(source.waiting, {}).front().second(Json());
    EXPECT_FALSE(model.waiting());
    EXPECT_EQ(model.row(5000), nullptr);
    QTest::qWait(60);
    source.pump();
    EXPECT_EQ(name(model, 5000), QStringLiteral("t5000"));
}

TEST(TensorTable, SortsAndFiltersAtTheSource) {
    Source source;
    TensorTableModel model(source.ask());
    model.reload(true);
    source.pump();
    model.sort(TensorTableModel::Bytes, Qt::DescendingOrder);
    ASSERT_EQ(source.waiting.size(), 1u);
    EXPECT_EQ(source.waiting[0].first["sort"], "bytes");
    EXPECT_EQ(source.waiting[0].first["descending"], true);
    source.pump();
    EXPECT_EQ(name(model, 0), QStringLiteral("t99999"));
    model.setFilter(QStringLiteral("proj"));
    EXPECT_EQ(source.waiting.back().first["filter"], "proj");
    auto late = std::exchange(source.waiting, {});
    model.setFilter(QStringLiteral("norm"));
    late.front().second({{"total", 7}, {"rows", Json::array()}});
    EXPECT_EQ(model.rowCount(), 0) << "an answer to an older question is dropped";
    source.total = 5;
    source.pump();
    EXPECT_EQ(model.rowCount(), 5);
    model.reload(false);
    EXPECT_EQ(model.rowCount(), 0);
}

TEST(TensorTable, ScrollsThroughAHundredThousandRowsFluently) {
    Source source;
    TensorTableModel model(source.ask());
    model.reload(true);
    source.pump();
    QTableView view;
    view.setModel(&model);
    view.resize(700, 500);
    view.show();
    QApplication::processEvents();
    QElapsedTimer timer;
    timer.start();
    constexpr int kSteps = 60;
    for (int step = 0; step < kSteps; ++step) {
        view.verticalScrollBar()->setValue(view.verticalScrollBar()->maximum() * step / kSteps);
        view.viewport()->repaint();
        source.pump();
    }
    EXPECT_LT(double(timer.elapsed()) / kSteps, 50.0) << "ms a step";
}

class Tensors : public test::PageTest {};

TEST_F(Tensors, ShowsNumbersPictureAndDistributionOfTheOneInFocus) {
    document.setModel(test::sampleModel(6));
    TensorsPage page(document, selection(), client);
    prepare(page);
    ASSERT_TRUE(QTest::qWaitFor([&] { return page.table().rowCount() == 300 && !page.picture().empty() && !page.busy(); }, 10000));
    EXPECT_EQ(page.picture().rows(), 32);
    EXPECT_EQ(page.picture().columns(), 48);
    EXPECT_EQ(page.histogram().points(), 60);
    EXPECT_TRUE(page.numbers().text().contains(QStringLiteral("not finite: 2")));
    EXPECT_TRUE(page.numbers().text().contains(QStringLiteral("mean <b>0.25</b>")));
    savePage(page, "tensors");
    page.filterLine().setText(QStringLiteral("t1"));
    ASSERT_TRUE(QTest::qWaitFor([&] { return page.table().rowCount() == 111 && !page.busy(); }, 10000));
}

TEST_F(Tensors, ReadsLargeOnesOnlyWhenAsked) {
    document.setModel(test::sampleModel(6));
    TensorsPage page(document, selection(), client);
    prepare(page);
    ASSERT_TRUE(QTest::qWaitFor([&] { return page.table().rowCount() == 300 && !page.busy(); }, 10000));
    page.choose(299);
    ASSERT_TRUE(QTest::qWaitFor([&] { return page.picture().notice().action == QStringLiteral("Read it"); }, 10000));
    EXPECT_FALSE(page.busy());
    EXPECT_TRUE(page.picture().empty());
    Q_EMIT page.picture().noticeActionTriggered();
    EXPECT_TRUE(page.busy());
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.picture().empty(); }, 10000));
}

TEST_F(Tensors, SaysWhenNothingIsOpen) {
    TensorsPage page(document, selection(), client);
    prepare(page);
    EXPECT_EQ(page.picture().notice().kind, CanvasNotice::Empty);
    EXPECT_EQ(page.table().rowCount(), 0);
    savePage(page, "tensors-none");
}

}  // namespace
}  // namespace resect::ui
