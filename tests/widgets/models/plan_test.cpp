#include "core/base/error.h"
#include "tests/widgets/models/tiny_model.h"
#include "widgets/models/document.h"

#include <QSignalSpy>

#include <gtest/gtest.h>

using namespace resect;
using namespace resect::ui;

namespace {

struct PlanOf : testing::Test {
    Document document;
    void SetUp() override { document.setModel(test::tinyMessage()); }
    std::string plan() { return document.planJson().at("edits").dump(); }
};

}  // namespace

TEST(EditTitles, AreSentences) {
    EXPECT_EQ(editTitle({{"op", "drop_attention"}, {"blocks", {22, 18, 19, 20}}}), "Drop attention of blocks 18-20, 22");
    EXPECT_EQ(editTitle({{"op", "drop_blocks"}, {"blocks", {3}}}), "Drop block 3");
    EXPECT_EQ(editTitle({{"op", "drop_heads"}, {"block", 12}, {"heads", {3, 7}}}), "Remove heads 3, 7 of block 12");
    EXPECT_EQ(editTitle({{"op", "merge_experts"}}), "merge_experts");
    EXPECT_EQ(editTitle(Json::array()), "Edit without an operation");
    EXPECT_EQ(rangesText({5, 1, 2, 3, 5}), "1-3, 5");
}

TEST_F(PlanOf, DropMakesTheFewestEdits) {
    document.drop({blockRef(1), blockRef(0), headRef(1, 2), headRef(2, 0), headRef(2, 1), headRef(2, 4), channelRef(2, 7)});
    // Head 2 of block 1 goes with its block; heads 0 and 1 of block 2 are its whole key group 0.
    EXPECT_EQ(plan(), R"([{"op":"drop_blocks","blocks":[0,1]},{"op":"drop_heads","block":2,"heads":[4]},{"op":"drop_kv_groups","block":2,"groups":[0]},{"op":"drop_channels","block":2,"channels":[7]}])");
    EXPECT_EQ(document.undoStack().count(), 1);
}

TEST_F(PlanOf, FurtherDropsFoldIntoTheirEdit) {
    document.drop({blockRef(0)});
    document.drop({blockRef(2)});
    document.drop({blockRef(2)});   // without effect: no step
    EXPECT_EQ(plan(), R"([{"op":"drop_blocks","blocks":[0,2]}])");
    EXPECT_EQ(document.undoStack().count(), 2);
    EXPECT_EQ(document.undoStack().undoText(), "Drop block 2");
}

TEST_F(PlanOf, EveryCommandIsUndoneAndRedone) {
    const std::vector<std::function<void()>> commands = {
        [&] { document.drop({headRef(1, 3), headRef(1, 4), headRef(0, 1)}); },
        [&] { document.drop({attentionRef(2), mlpRef(0)}); },
        [&] { document.undrop({headRef(1, 4)}); },
        [&] { document.addEdits({Json{{"op", "x"}}}, "Something of a plugin", "plugin"); },
        [&] { document.moveEntry(0, 2); },
        [&] { document.setEntryEnabled(1, false); },
        [&] { document.setEntryNote(0, "why"); },
        [&] { document.replaceEntry(0, {Json{{"op", "drop_mlp"}, {"blocks", {1}}}}, "Replace"); },
        [&] { document.setDroppedChannels(2, {1, 2, 3}); },
        [&] { document.removeEntries({0, 1}); },
        [&] { document.replacePlan({planEntry({{"op", "drop_blocks"}, {"blocks", {4}}})}, "Open plan"); },
        [&] { document.clearPlan(); },
    };
    std::vector<std::string> states{planToFile(document.plan(), "").dump()};
    for (const auto& command : commands) {
        command();
        states.push_back(planToFile(document.plan(), "").dump());
        EXPECT_NE(states[states.size() - 1], states[states.size() - 2]) << "command " << states.size() - 2;
        EXPECT_FALSE(document.undoStack().undoText().isEmpty());
    }
    ASSERT_EQ(document.undoStack().count(), static_cast<int>(commands.size()));
    for (size_t i = states.size() - 1; i-- > 0;) {
        document.undoStack().undo();
        EXPECT_EQ(planToFile(document.plan(), "").dump(), states[i]) << "undo to " << i;
    }
    for (size_t i = 1; i < states.size(); ++i) {
        document.undoStack().redo();
        EXPECT_EQ(planToFile(document.plan(), "").dump(), states[i]) << "redo to " << i;
    }
}

TEST_F(PlanOf, StepsOfOneDragMerge) {
    const int gesture = document.newGesture();
    document.setDroppedChannels(1, {1}, gesture);
    document.setDroppedChannels(1, {1, 2}, gesture);
    document.setDroppedChannels(1, {1, 2, 3}, gesture);
    EXPECT_EQ(document.undoStack().count(), 1);
    EXPECT_EQ(document.drops().keptChannels(1), 17);
    document.setDroppedChannels(1, {4}, document.newGesture());
    EXPECT_EQ(document.undoStack().count(), 2);
    document.undoStack().undo();
    document.undoStack().undo();
    EXPECT_TRUE(document.plan().empty());
}

TEST_F(PlanOf, KeepingOneHeadOfADroppedGroupDropsTheOthers) {
    document.drop({kvGroupRef(0, 1)});
    document.undrop({headRef(0, 2)});
    EXPECT_EQ(plan(), R"([{"op":"drop_heads","block":0,"heads":[3]}])");
    EXPECT_EQ(document.dropState(kvGroupRef(0, 1)), DropState::Partly);
    document.undrop({kvGroupRef(0, 1)});
    EXPECT_TRUE(document.planIsEmpty());
}

TEST_F(PlanOf, KeepingAPartOfADroppedBlockBringsTheBlockBack) {
    document.drop({blockRef(0), blockRef(1)});
    document.undrop({headRef(1, 0)});
    EXPECT_EQ(plan(), R"([{"op":"drop_blocks","blocks":[0]}])");
}

TEST_F(PlanOf, DropStatesNest) {
    document.drop({headRef(1, 0)});
    EXPECT_EQ(document.dropState(blockRef(1)), DropState::Partly);
    EXPECT_EQ(document.dropState(attentionRef(1)), DropState::Partly);
    EXPECT_EQ(document.dropState(mlpRef(1)), DropState::Kept);
    document.drop({attentionRef(3)});
    EXPECT_TRUE(document.isDropped(headRef(3, 5)));
    EXPECT_TRUE(document.isDropped(blockRef(3)));   // it has no MLP
    document.drop({kvGroupRef(2, 0), kvGroupRef(2, 1), kvGroupRef(2, 2)});
    EXPECT_TRUE(document.isDropped(attentionRef(2)));
    EXPECT_EQ(document.dropState(blockRef(2)), DropState::Partly);
    EXPECT_FALSE(document.isDropped(headRef(99, 0)));
    EXPECT_FALSE(document.isDropped(headRef(0, 99)));
}

TEST_F(PlanOf, SwitchedOffRowsAreKeptButNotSent) {
    document.drop({blockRef(0)});
    document.drop({headRef(1, 0)});
    document.setEntryEnabled(0, false);
    EXPECT_EQ(document.planJson().at("edits").size(), 1u);
    EXPECT_EQ(document.rowOfEdit(0), 1);
    EXPECT_EQ(document.rowOfEdit(1), -1);
    EXPECT_FALSE(document.isDropped(blockRef(0)));
    const Plan again = planFromFile(planToFile(document.plan(), "sha256:abc"), "plan.json");
    ASSERT_EQ(again.size(), 2u);
    EXPECT_TRUE(*again[0] == *document.plan()[0]);
    EXPECT_TRUE(*again[1] == *document.plan()[1]);
}

TEST_F(PlanOf, BadPlanFilesAreNamed) {
    for (const char* text : {R"([])", R"({"edits": []})", R"({"resect_plan": 2, "edits": []})", R"({"resect_plan": 1})", R"({"resect_plan": 1, "edits": [{}]})", R"({"resect_plan": 1, "edits": [3]})"})
        EXPECT_THROW(planFromFile(Json::parse(text), "plan.json"), Error) << text;
    EXPECT_EQ(planFromFile(Json::parse(R"({"resect_plan": 1, "edits": [{"op": "drop_blocks", "blocks": [1]}], "notes": {"rows": 3}})"), "p").size(), 1u);
}

TEST_F(PlanOf, StaleChecksAreIgnored) {
    const int old = document.planRevision();
    document.drop({blockRef(0)});
    document.setCheck({}, old);
    EXPECT_EQ(document.check(), nullptr);
    document.setCheck({}, document.planRevision());
    EXPECT_NE(document.check(), nullptr);
    document.undoStack().undo();
    EXPECT_EQ(document.check(), nullptr);
}

TEST_F(PlanOf, ANewModelForgetsEverything) {
    document.drop({blockRef(0)});
    document.selection().selectOne(blockRef(1));
    QSignalSpy changed(&document, &Document::modelChanged);
    document.setModel(test::tinyMessage());
    EXPECT_EQ(changed.count(), 1);
    EXPECT_TRUE(document.plan().empty());
    EXPECT_FALSE(document.undoStack().canUndo());
    EXPECT_TRUE(document.selection().isEmpty());
    document.closeModel();
    document.drop({blockRef(0)});
    EXPECT_TRUE(document.plan().empty());
}
