#include "app/pages/compare_page.h"
#include "tests/app/pages/page_fixture.h"
#include "tests/widgets/plots/sample_model.h"

#include <QAbstractItemModelTester>
#include <QCheckBox>
#include <QClipboard>
#include <QLabel>
#include <QSettings>
#include <QSignalSpy>
#include <QTemporaryDir>

namespace resect::ui {
namespace {

/// A has blocks 0..2, B lacks block 1; one weight of block 2 changed, one has another shape, a setting differs.
Json sampleDiff() {
    const auto tensor = [](const char* kind, Json row) {
        row["kind"] = kind;
        return row;
    };
    const Json shape = {4, 6}, other = {3, 6};
    return {{"same", false}, {"complete", true}, {"equalTensors", 3}, {"comparedTensors", 4},
            {"config", {{{"field", "num_hidden_layers"}, {"a", 3}, {"b", 2}}}},
            {"blocks", {{{"stack", "model.layers"}, {"a", 0}, {"b", 0}}, {{"stack", "model.layers"}, {"a", 1}, {"b", nullptr}}, {{"stack", "model.layers"}, {"a", 2}, {"b", 1}}}},
            {"tensors",
             {tensor("removed", {{"a", "model.layers.1.mlp.up_proj.weight"}, {"shapeA", shape}, {"dtypeA", "F32"}}),
              tensor("changed", {{"a", "model.layers.2.mlp.up_proj.weight"}, {"shapeA", shape}, {"dtypeA", "F32"}, {"b", "model.layers.1.mlp.up_proj.weight"}, {"shapeB", shape}, {"dtypeB", "F32"}, {"relative", 0.04}, {"largest", 0.5}, {"changedElements", 1234}}),
              tensor("reshaped", {{"a", "lm_head.weight"}, {"shapeA", shape}, {"dtypeA", "F32"}, {"b", "lm_head.weight"}, {"shapeB", other}, {"dtypeB", "F32"}})}},
            {"left", {{"folder", "/models/a"}, {"parameters", 100}, {"bytes", 400}, {"tensors", 6}}},
            {"right", {{"folder", "/models/b"}, {"parameters", 80}, {"bytes", 320}, {"tensors", 5}}},
            {"unchanged",
             {{{"a", "model.embed_tokens.weight"}, {"b", "model.embed_tokens.weight"}, {"shape", shape}, {"dtype", "F32"}},
              {{"a", "model.layers.0.mlp.up_proj.weight"}, {"b", "model.layers.0.mlp.up_proj.weight"}, {"shape", shape}, {"dtype", "F32"}},
              {{"a", "model.layers.2.mlp.down_proj.weight"}, {"b", "model.layers.1.mlp.down_proj.weight"}, {"shape", shape}, {"dtype", "F32"}}}}};
}

TEST(DiffTree, PutsMatchedBlocksBesideEachOther) {
    DiffTreeModel model;
    const QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::Fatal);
    model.setComparison(comparisonFrom(sampleDiff()));
    const auto text = [&](int row, int column, const QModelIndex& parent = {}) { return model.index(row, column, parent).data().toString(); };
    ASSERT_EQ(model.rowCount(), 3) << "block 0 is equal and not shown";
    EXPECT_EQ(text(0, DiffTreeModel::Original), QStringLiteral("Outside the blocks"));
    EXPECT_EQ(text(1, DiffTreeModel::Original), QStringLiteral("Block 1"));
    EXPECT_EQ(text(1, DiffTreeModel::Change), QStringLiteral("only in the original"));
    EXPECT_EQ(text(2, DiffTreeModel::Original), QStringLiteral("Block 2"));
    EXPECT_EQ(text(2, DiffTreeModel::Other), QStringLiteral("Block 1"));
    EXPECT_EQ(text(2, DiffTreeModel::Change), QStringLiteral("1 of 2 tensors differ"));
    const QModelIndex block = model.index(2, 0);
    ASSERT_EQ(model.rowCount(block), 1);
    EXPECT_EQ(text(0, DiffTreeModel::Original, block), QStringLiteral("mlp.up_proj.weight"));
    EXPECT_EQ(text(0, DiffTreeModel::OtherType, block), QStringLiteral("F32 [4, 6]"));
    EXPECT_EQ(text(0, DiffTreeModel::Change, block), QStringLiteral("0.04"));
    EXPECT_EQ(model.index(0, DiffTreeModel::Change, block).data(Qt::ToolTipRole).toString(), QStringLiteral("1,234 numbers changed"));
    EXPECT_NEAR(model.index(0, DiffTreeModel::Change, block).data(DiffTreeModel::ShareRole).toDouble(), 0.2, 1e-12);
    model.setShowAll(true);
    EXPECT_EQ(model.rowCount(), 4);
    EXPECT_EQ(model.rowCount(model.index(3, 0)), 2);
    EXPECT_EQ(text(1, DiffTreeModel::Change), QStringLiteral("equal"));
}

TEST(DiffTree, SaysItInSentences) {
    const auto comparison = comparisonFrom(sampleDiff());
    const QString words = summaryOf(comparison);
    for (const char* part : {"lacks block 1.", "block 2 carry other numbers", "1 with another shape", "1 with other values", "3 equal to the byte", "0.04, of model.layers.2.mlp.up_proj.weight", "One setting differs."})
        EXPECT_TRUE(words.contains(QLatin1String(part))) << part << " in " << qPrintable(words);
    const QString text = textOf(comparison);
    EXPECT_TRUE(text.contains(QStringLiteral("reshaped\tlm_head.weight\tF32 [4, 6]\tlm_head.weight\tF32 [3, 6]")));
    EXPECT_FALSE(text.contains(QStringLiteral("embed_tokens")));
    Json same = {{"complete", true}, {"equalTensors", 6}};
    EXPECT_TRUE(comparisonFrom(same).same());
    EXPECT_TRUE(summaryOf(comparisonFrom(same)).contains(QStringLiteral("the same")));
    same["complete"] = false;
    EXPECT_TRUE(summaryOf(comparisonFrom(same)).contains(QStringLiteral("Stopped")));
}

TEST(DiffTree, TakesAHundredThousandTensorsInAMoment) {
    Json result = {{"complete", true}, {"blocks", Json::array()}, {"unchanged", Json::array()}};
    for (int block = 0; block < 64; ++block) {
        result["blocks"].push_back({{"stack", "model.layers"}, {"a", block}, {"b", block}});
        for (int expert = 0; expert < 1536; ++expert) {
            const std::string name = "model.layers." + std::to_string(block) + ".mlp.experts." + std::to_string(expert) + ".up_proj.weight";
            result["unchanged"].push_back({{"a", name}, {"b", name}, {"shape", {8, 8}}, {"dtype", "F32"}});
        }
    }
    QElapsedTimer timer;
    timer.start();
    DiffTreeModel model;
    model.setComparison(comparisonFrom(result));
    model.setShowAll(true);
    EXPECT_EQ(model.rowCount(model.index(5, 0)), 1536);
    EXPECT_LT(timer.elapsed(), 4000);
}

class Compare : public test::PageTest {
protected:
    void SetUp() override {
        QSettings::setDefaultFormat(QSettings::IniFormat);
        QSettings::setPath(QSettings::IniFormat, QSettings::UserScope, place.path());
        PageTest::SetUp();
    }
    QTemporaryDir place;
};

TEST_F(Compare, ShowsTheAnswerAndCopiesIt) {
    document.setModel(test::sampleModel(6));
    ComparePage page(document, selection(), client);
    prepare(page);
    EXPECT_TRUE(page.summary().text().isEmpty());
    savePage(page, "compare-empty");
    page.compareWith(place.path());
    EXPECT_TRUE(page.busy());
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
    EXPECT_GT(page.tree().rowCount(), 0);
    EXPECT_TRUE(page.summary().text().contains(QStringLiteral("settings differ")) || page.summary().text().contains(QStringLiteral("setting differs")));
    page.copyText();
    EXPECT_TRUE(QApplication::clipboard()->text().contains(QStringLiteral("num_hidden_layers")));
    savePage(page, "compare");
    page.showAll().setChecked(true);
    savePage(page, "compare-all");
    ComparePage other(document, selection(), client);
    EXPECT_EQ(other.findChild<QComboBox*>()->itemText(0), place.path()) << "compared once, offered again";
    document.setModel(test::sampleModel(5));
    EXPECT_EQ(page.tree().rowCount(), 0) << "a comparison belongs to the model that was open";
}

TEST_F(Compare, TellsWhatWentWrongInPlace) {
    document.setModel(test::sampleModel(6));
    ComparePage page(document, selection(), client);
    QSignalSpy messages(&page, &Page::message);
    prepare(page);
    page.compareWith(QStringLiteral("/nowhere"));
    ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
    EXPECT_TRUE(page.summary().text().contains(QStringLiteral("no checkpoint here")));
    EXPECT_EQ(messages.count(), 1);
    EXPECT_EQ(page.findChild<QComboBox*>()->count(), 0) << "not worth offering again";
}

}  // namespace
}  // namespace resect::ui
