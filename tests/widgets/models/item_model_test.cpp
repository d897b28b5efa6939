#include "tests/widgets/models/tiny_model.h"
#include "widgets/forms/parameter_form.h"
#include "widgets/models/message_model.h"
#include "widgets/models/plan_model.h"
#include "widgets/models/structure_model.h"
#include "widgets/views/plan_view.h"
#include "widgets/views/structure_view.h"

#include <QAbstractItemModelTester>
#include <QComboBox>
#include <QLineEdit>
#include <QMimeData>
#include <QSignalSpy>
#include <QSpinBox>
#include <QTest>
#include <QTreeView>

#include <gtest/gtest.h>

#include <ctime>

using namespace resect;
using namespace resect::ui;

namespace {

constexpr auto kStrict = QAbstractItemModelTester::FailureReportingMode::Fatal;

struct Models : testing::Test {
    Document document;
};

}  // namespace

TEST_F(Models, StructureKeepsTheRulesWhileEverythingChanges) {
    StructureModel model(document);
    QAbstractItemModelTester tester(&model, kStrict);
    tester.setUseFetchMore(false);   // it would fetch in the midst of a reset, and then complain about it
    document.setModel(test::tinyMessage());
    ASSERT_EQ(model.rowCount(), 1);
    // Embedding, blocks 0-2 folded, block 3, block 4, final norm, output head.
    EXPECT_EQ(model.rowCount(model.index(0, 0)), 6);
    EXPECT_EQ(model.index(1, 0, model.index(0, 0)).data().toString(), "Blocks 0-2 (3 alike)");
    model.fetchEverything();
    document.drop({headRef(1, 0)});
    document.undoStack().undo();
    document.closeModel();
    EXPECT_EQ(model.rowCount(), 0);
}

TEST_F(Models, TheFilteredStructureKeepsTheRulesToo) {
    StructureModel model(document);
    StructureFilter filter(document);
    filter.setSourceModel(&model);
    QAbstractItemModelTester tester(&filter, kStrict);
    tester.setUseFetchMore(false);
    document.setModel(test::tinyMessage());
    filter.setText("head");
    EXPECT_EQ(filter.rowCount(), 1);
    document.drop({headRef(1, 0)});
    filter.setText("dropped");
    document.undoStack().undo();
    EXPECT_EQ(filter.rowCount(), 0);
    filter.setText("");
    document.closeModel();
    EXPECT_EQ(filter.rowCount(), 0);
}

TEST_F(Models, StructureFindsLazyRowsAndShowsDrops) {
    document.setModel(test::tinyMessage());
    StructureModel model(document);
    const QModelIndex head = model.indexOf(headRef(1, 3), StructureModel::Keep);
    ASSERT_TRUE(head.isValid());
    EXPECT_EQ(head.parent().siblingAtColumn(0).data().toString(), "Key group 1");
    EXPECT_TRUE(model.setData(head, Qt::Unchecked, Qt::CheckStateRole));
    EXPECT_TRUE(document.isDropped(headRef(1, 3)));
    EXPECT_EQ(model.indexOf(blockRef(1), StructureModel::Keep).data(Qt::CheckStateRole).toInt(), Qt::PartiallyChecked);
    EXPECT_TRUE(model.setData(model.indexOf(blockRef(1), StructureModel::Keep), Qt::Checked, Qt::CheckStateRole));
    EXPECT_TRUE(document.planIsEmpty());
    EXPECT_FALSE(model.indexOf(headRef(4, 5)).isValid());
    EXPECT_FALSE(model.flags(model.indexOf({PartKind::Embedding}, StructureModel::Keep)) & Qt::ItemIsUserCheckable);
}

TEST_F(Models, FilterUnderstandsComparisons) {
    document.setModel(test::tinyMessage());
    StructureModel model(document);
    StructureFilter filter(document);
    filter.setSourceModel(&model);
    model.setScores({{blockRef(0), 0.1}, {blockRef(1), 0.9}}, "Influence", "");
    const auto matching = [&](const QString& text) {
        filter.setText(text);
        std::vector<int> blocks;
        for (int i = 0; i < 5; ++i)
            if (filter.matches(model.indexOf(blockRef(i)))) blocks.push_back(i);
        return blocks;
    };
    EXPECT_EQ(matching("score<0.2"), (std::vector<int>{0}));
    EXPECT_EQ(matching("block>=3"), (std::vector<int>{3, 4}));
    EXPECT_EQ(matching("params>5k"), (std::vector<int>{}));
    EXPECT_EQ(matching("block>1 size<14KB"), (std::vector<int>{3, 4}));
    document.drop({blockRef(2)});
    EXPECT_EQ(matching("dropped"), (std::vector<int>{2}));
    EXPECT_EQ(matching("kept block<2"), (std::vector<int>{0, 1}));
    EXPECT_TRUE(filter.problem().isEmpty());
    matching("colour=3");
    EXPECT_TRUE(filter.problem().contains("colour"));
    matching("score<x");
    EXPECT_TRUE(filter.problem().contains("not a number"));
}

TEST_F(Models, StructureOfALargeModelIsBuiltInTime) {
    auto message = test::tinyMessage();
    message.blocks.clear();
    for (int i = 0; i < 64; ++i) {
        protocol::BlockMessage block;
        block.index = i, block.numHeads = 64, block.numKvHeads = 8, block.headDim = 128, block.ffnSize = 1024, block.numExperts = 512, block.parameters = 1'000'000;
        message.blocks.push_back(block);
    }
    // Processor time: the machine may be busy with other things.
    auto milliseconds = [start = std::clock()]() mutable { return 1000.0 * static_cast<double>(std::clock() - std::exchange(start, std::clock())) / CLOCKS_PER_SEC; };
    document.setModel(message);
    StructureModel model(document);
    EXPECT_LT(milliseconds(), 200);
    model.fetchEverything();
    EXPECT_LT(milliseconds(), 1500);
    document.drop({blockRef(3)});
    EXPECT_LT(milliseconds(), 200);
}

TEST_F(Models, PlanRowsMoveByDragAsAnUndoStep) {
    document.setModel(test::tinyMessage());
    PlanModel model(document);
    QAbstractItemModelTester tester(&model, kStrict);
    document.drop({blockRef(0)});
    document.drop({headRef(1, 0)});
    document.drop({mlpRef(2)});
    std::unique_ptr<QMimeData> mime(model.mimeData({model.index(0)}));
    model.dropMimeData(mime.get(), Qt::MoveAction, 3, 0, {});
    EXPECT_EQ(model.index(2).data().toString(), "Drop block 0");
    document.undoStack().undo();
    EXPECT_EQ(model.index(0).data().toString(), "Drop block 0");
    model.setData(model.index(1), Qt::Unchecked, Qt::CheckStateRole);
    EXPECT_FALSE(document.isDropped(headRef(1, 0)));
    EXPECT_EQ(model.index(0).data(PlanModel::OriginRole).toString(), "by hand");
}

TEST_F(Models, PlanRowsCarryTheWorstProblem) {
    document.setModel(test::tinyMessage());
    PlanModel model(document);
    document.drop({blockRef(0)});
    document.drop({headRef(1, 0)});
    document.setEntryEnabled(0, false);
    protocol::PlanCheckMessage check;
    check.problems.push_back({{"note", "", "a note", ""}, 0, {}, {}});
    check.problems.push_back({{"error", "block 1", "too few heads", ""}, 0, {}, {}});
    document.setCheck(check, document.planRevision());
    EXPECT_EQ(model.index(0).data(PlanModel::SeverityRole).toString(), "");
    EXPECT_EQ(model.index(1).data(PlanModel::SeverityRole).toString(), "error");
    EXPECT_TRUE(model.index(1).data(PlanModel::ProblemRole).toString().contains("too few heads"));
}

TEST_F(Models, CostsShowChangesAndThePreview) {
    document.setModel(test::tinyMessage());
    CostModel model(document);
    QAbstractItemModelTester tester(&model, kStrict);
    EXPECT_EQ(model.rowCount(), 0);
    protocol::PlanCheckMessage check;
    check.legal = true;
    check.before.parameters = check.before.activeParameters = 8'030'000'000;
    check.after.parameters = check.after.activeParameters = 7'430'000'000;
    check.before.bytes = 16'060'000'000, check.after.bytes = 14'860'000'000;
    document.setCheck(check, document.planRevision());
    EXPECT_EQ(model.index(0, CostModel::Before).data().toString(), "8.03 B");
    EXPECT_EQ(model.index(0, CostModel::Change).data().toString(), "-7.5 %");
    const int rows = model.rowCount();
    protocol::PreviewMessage preview;
    preview.rowsDone = 8, preview.rowsTotal = 64;
    preview.baseline = 7.2, preview.baselineLow = 7.1, preview.baselineHigh = 7.3;
    preview.perplexity = std::numeric_limits<double>::quiet_NaN();
    document.setPreview(preview, document.planRevision());
    ASSERT_EQ(model.rowCount(), rows + 2);
    EXPECT_EQ(model.index(rows, CostModel::Before).data().toString(), "7.2 ± 0.1");
    EXPECT_EQ(model.index(rows, CostModel::After).data().toString(), "not a number");
    EXPECT_TRUE(model.index(rows, 0).data(Qt::ToolTipRole).toString().contains("8 of 64"));
}

TEST_F(Models, CostsShowAccuracyAndLossOfImages) {
    document.setModel(test::tinyMessage());
    CostModel model(document);
    QAbstractItemModelTester tester(&model, kStrict);
    protocol::PlanCheckMessage check;
    check.legal = true;
    document.setCheck(check, document.planRevision());
    const int rows = model.rowCount();
    protocol::PreviewMessage preview;
    preview.unit = "images";
    preview.rowsDone = preview.rowsTotal = 1000;
    preview.baselineAccuracy = 0.97, preview.baselineAccuracyLow = 0.96, preview.baselineAccuracyHigh = 0.98;
    preview.accuracy = 0.85, preview.accuracyLow = 0.83, preview.accuracyHigh = 0.87;
    preview.baseline = 1, preview.perplexity = std::exp(0.5);
    document.setPreview(preview, document.planRevision());
    ASSERT_EQ(model.rowCount(), rows + 3);
    EXPECT_EQ(model.index(rows, 0).data().toString(), "Accuracy");
    EXPECT_EQ(model.index(rows, CostModel::Before).data().toString(), "0.97 ± 0.01");
    EXPECT_EQ(model.index(rows, CostModel::After).data().toString(), "0.85 ± 0.02");
    EXPECT_EQ(model.index(rows, CostModel::Change).data().toString(), "-12.0 points");
    EXPECT_TRUE(model.index(rows, 0).data(Qt::ToolTipRole).toString().contains("1000 of 1000 images"));
    EXPECT_EQ(model.index(rows + 1, 0).data().toString(), "Loss");
    EXPECT_EQ(model.index(rows + 1, CostModel::After).data().toString(), "0.5");
    EXPECT_EQ(model.index(rows + 2, 0).data().toString(), "KL per image");
    preview.accuracy = std::numeric_limits<double>::quiet_NaN();   // pictures without labels
    document.setPreview(preview, document.planRevision());
    EXPECT_EQ(model.rowCount(), rows + 1);
}

TEST(Messages, RepeatsCountUp) {
    MessageModel model;
    QAbstractItemModelTester tester(&model, kStrict);
    model.add({"error", "a", "broke", "Try again."});
    model.add({"error", "a", "broke", "Try again."});
    model.add({"note", "", "fine", ""});
    EXPECT_EQ(model.rowCount(), 2);
    EXPECT_EQ(model.unread(), 3);
    EXPECT_EQ(model.index(1).data().toString(), "a: broke Try again. (2 times)");
    for (int i = 0; i < 600; ++i) model.add({"note", "", std::to_string(i), ""});
    EXPECT_EQ(model.rowCount(), 500);
    model.markRead();
    EXPECT_EQ(model.unread(), 0);
}

TEST_F(Models, TreeAndSelectionFollowEachOther) {
    document.setModel(test::tinyMessage());
    StructureView view(document, document.selection());
    view.resize(400, 600);
    view.show();
    document.selection().select({blockRef(1), blockRef(4)});
    QTest::qWait(1);
    EXPECT_EQ(view.tree().selectionModel()->selectedRows().size(), 2);
    view.tree().selectionModel()->clearSelection();
    QTest::qWait(1);
    EXPECT_TRUE(document.selection().isEmpty());
    view.filterLine().setText("attention");
    QTest::qWait(1);
    view.tree().selectAll();
    QTest::qWait(1);
    EXPECT_TRUE(document.selection().contains(attentionRef(3)));
}

TEST(Forms, RoundTripEveryType) {
    ParameterForm form;
    using P = protocol::ParameterMessage;
    form.setParameters({P{"count", "Count", "How many.", "integer", "steps", 5, 1, 100, {}, false}, P{"rate", "Rate", "", "real", "", 1e-4, 0.0, 1.0, {}, false},
                        P{"on", "On", "", "boolean", "", true, nullptr, nullptr, {}, false}, P{"mode", "Mode", "", "choice", "", "linear", nullptr, nullptr, {"constant", "linear"}, false},
                        P{"name", "Name", "", "text", "", "", nullptr, nullptr, {}, true}, P{"blocks", "Blocks", "", "integer_list", "", Json::array(), 0, 40, {}, true},
                        P{"file", "File", "", "file", "", "", nullptr, nullptr, {}, true}});
    EXPECT_EQ(form.values(), Json::object());
    EXPECT_EQ(form.allValues(), (Json{{"count", 5}, {"rate", 1e-4}, {"on", true}, {"mode", "linear"}, {"name", ""}, {"blocks", Json::array()}, {"file", ""}}));
    const Json given{{"count", 17}, {"rate", 2.5e-6}, {"on", false}, {"mode", "constant"}, {"name", "x"}, {"blocks", {0, 3, 4, 5}}};
    QSignalSpy changed(&form, &ParameterForm::changed);
    form.setValues(given);
    EXPECT_GT(changed.count(), 0);
    EXPECT_EQ(form.values(), given);
    EXPECT_TRUE(form.problems().isEmpty());
    qobject_cast<QLineEdit*>(form.field("blocks"))->setText("0, 3-5, 39");
    EXPECT_EQ(form.values().at("blocks"), (Json{0, 3, 4, 5, 39}));
    form.setValues({{"count", "many"}, {"unknown", 1}, {"mode", "sideways"}});
    EXPECT_EQ(form.values().at("count"), 17);
    form.reset();
    EXPECT_EQ(form.values(), Json::object());
}

TEST(Forms, SayWhatIsWrong) {
    ParameterForm form;
    using P = protocol::ParameterMessage;
    form.setParameters({P{"rate", "Learning rate", "", "real", "", 1e-4, 0.0, 1.0, {}, false}, P{"blocks", "Blocks", "", "integer_list", "", Json::array(), 0, 40, {}, false},
                        P{"file", "File", "", "file", "", "", nullptr, nullptr, {}, false}});
    form.field("rate")->findChild<QLineEdit*>()->setText("fast");
    qobject_cast<QLineEdit*>(form.field("blocks"))->setText("1, x");
    form.setValues({{"file", "/nowhere/at/all"}});
    const QStringList problems = form.problems();
    ASSERT_EQ(problems.size(), 3);
    EXPECT_EQ(problems[0], "Learning rate: \"fast\" is not a number");
    EXPECT_TRUE(problems[1].startsWith("Blocks: \"x\""));
    EXPECT_TRUE(problems[2].contains("/nowhere/at/all"));
    form.field("rate")->findChild<QLineEdit*>()->setText("2");
    EXPECT_TRUE(form.problems()[0].contains("out of range"));
    form.setParameters({});
    EXPECT_TRUE(form.problems().isEmpty());
}
