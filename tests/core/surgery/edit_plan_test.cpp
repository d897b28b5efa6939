#include "core/base/error.h"
#include "core/surgery/edit_plan.h"
#include "tests/core/surgery/shapes.h"

#include <gmock/gmock.h>

namespace resect::test {
namespace {

using testing::HasSubstr;

EditPlan planOf(std::vector<EditPointer> edits) { return EditPlan{"", std::move(edits), nullptr}; }

const char* const kPlanText = R"({"resect_plan": 1, "source": {"fingerprint": "sha256:ab"},
 "edits": [{"op": "drop_blocks", "blocks": [3, 4]}, {"op": "drop_attention", "blocks": [2]}, {"op": "drop_mlp", "blocks": [1]},
           {"op": "drop_kv_groups", "block": 0, "groups": [1]}, {"op": "drop_heads", "block": 1, "heads": [1, 5]},
           {"op": "drop_channels", "block": 2, "channels": [7, 9]}],
 "notes": {"method": "llm-drop"}})";

TEST(EditPlan, ReadsAndWritesTheSameJson) {
    const Json json = parseJson(kPlanText, "plan.json");
    const EditPlan plan = EditPlan::fromJson(json, "plan.json");
    EXPECT_EQ(plan.fingerprint, "sha256:ab");
    ASSERT_EQ(plan.edits.size(), 6u);
    EXPECT_EQ(plan.toJson(), json);
    EXPECT_EQ(EditPlan::fromJson(plan.toJson(), "again").toJson(), json);
}

TEST(EditPlan, BadJsonIsAnErrorThatNamesEntryAndField) {
    const auto failure = [](const char* text) -> std::string {
        try {
            EditPlan::fromJson(parseJson(text, "p.json"), "p.json");
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::BadInput) << text;
            return error.what();
        }
        return "no error";
    };
    EXPECT_THAT(failure("[1]"), HasSubstr("expected an edit plan"));
    EXPECT_THAT(failure(R"({"edits": []})"), HasSubstr("resect_plan"));
    EXPECT_THAT(failure(R"({"resect_plan": 2, "edits": []})"), HasSubstr("expected version 1, found 2"));
    EXPECT_THAT(failure(R"({"resect_plan": 1})"), HasSubstr("edits: expected a list"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": {}})"), HasSubstr("edits: expected a list"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [], "edit": 1})"), HasSubstr("p.json: edit:"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [], "source": "x"})"), HasSubstr("p.json: source"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [{"op": "drop_blocks", "blocks": [1]}, 7]})"), HasSubstr("edits[1]"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [{"blocks": [1]}]})"), HasSubstr("edits[0]: op"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [{"op": "drop_rows", "rows": [1]}]})"),
                HasSubstr("unknown operation \"drop_rows\"; known are drop_attention"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [{"op": "drop_blocks"}]})"),
                HasSubstr("edits[0]: blocks: expected a list"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [{"op": "drop_blocks", "blocks": 3}]})"),
                HasSubstr("edits[0]: blocks: expected a list"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [{"op": "drop_blocks", "blocks": [1, 2.5]}]})"),
                HasSubstr("edits[0]: blocks[1]: expected an index"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [{"op": "drop_blocks", "blocks": [99999999999]}]})"),
                HasSubstr("blocks[0]: expected an index"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [{"op": "drop_blocks", "block": 1, "blocks": [1]}]})"),
                HasSubstr("edits[0]: block: drop_blocks has no such field"));
    EXPECT_THAT(failure(R"({"resect_plan": 1, "edits": [{"op": "drop_heads", "heads": [1]}]})"),
                HasSubstr("edits[0]: block: expected the block's index"));
}

TEST(EditPlan, HashIgnoresOrderAndSpellingButNotTheCut) {
    const std::string hash = planOf({dropBlocks({3, 4}), dropHeads(1, {5, 1}), dropAttention({2})}).hash();
    EXPECT_THAT(hash, testing::StartsWith("sha256:"));
    EXPECT_EQ(planOf({dropAttention({2}), dropBlocks({4}), dropHeads(1, {1}), dropHeads(1, {5}), dropBlocks({3})}).hash(),
              hash);
    EXPECT_EQ(planOf({dropBlocks({3, 4}), dropHeads(1, {5, 1}), dropAttention({2, 3}), dropHeads(2, {0}), dropChannels(4, {1})})
                  .hash(),
              hash);
    EXPECT_NE(planOf({dropBlocks({3, 4}), dropHeads(1, {5}), dropAttention({2})}).hash(), hash);
    EXPECT_NE(planOf({dropBlocks({3, 4}), dropChannels(1, {5, 1}), dropAttention({2})}).hash(), hash);
    EXPECT_EQ(planOf({}).hash(), planOf({}).hash());
}

TEST(EditOperation, TitlesReadLikeSentences) {
    EXPECT_EQ(dropBlocks({22, 21})->title(), "Drop blocks 21, 22");
    EXPECT_EQ(dropBlocks({7})->title(), "Drop block 7");
    EXPECT_EQ(dropAttention({18, 19, 20, 22})->title(), "Drop attention of blocks 18-20, 22");
    EXPECT_EQ(dropMlp({25})->title(), "Drop MLP of block 25");
    EXPECT_EQ(dropKvGroups(2, {0})->title(), "Drop kv group 0 of block 2");
    EXPECT_EQ(dropHeads(3, {1, 5})->title(), "Drop heads 1, 5 of block 3");
    EXPECT_EQ(dropChannels(4, std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8, 9})->title(), "Drop 9 channels of block 4");
}

/// What a plugin would add: drops every second block.
class DropEverySecond final : public EditOperation {
public:
    std::string_view op() const noexcept override { return "test_drop_every_second"; }
    Json toJson() const override { return Json{{"op", op()}}; }
    std::string title() const override { return "Drop every second block"; }
    std::vector<Problem> check(const ModelShape&) const override { return {}; }
    void addTo(Cut& cut, const ModelShape&) const override {
        for (std::size_t b = 1; b < cut.blocks.size(); b += 2) cut.blocks[b].block = true;
    }
};

TEST(OperationRegistry, PluginsAddOperationsUnderTheirOwnName) {
    OperationRegistry::instance().add("test_drop_every_second",
                                      [](const Json&, const std::string&) { return std::make_shared<DropEverySecond>(); });
    const EditPlan plan =
        EditPlan::fromJson(parseJson(R"({"resect_plan": 1, "edits": [{"op": "test_drop_every_second"}]})", "p"), "p");
    EXPECT_THAT(keptBlocks(cutOf(plan, stockShape())), testing::ElementsAre(0, 2, 4));
    EXPECT_EQ(plan.toJson()["edits"][0]["op"], "test_drop_every_second");
    EXPECT_THROW(OperationRegistry::instance().add("drop_heads", {}), Error);
}

}  // namespace
}  // namespace resect::test
