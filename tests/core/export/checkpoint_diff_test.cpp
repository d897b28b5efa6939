#include "core/export/checkpoint_diff.h"

#include "core/anatomy/anatomy.h"
#include "core/export/hf_writer.h"
#include "core/surgery/edit_plan.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace resect::test {
namespace {

using Kind = TensorDifference::Kind;

CheckpointDiff diffOf(const Checkpoint& a, const Checkpoint& b) { return diffCheckpoints(a, b, DiffContent::Read, {}); }

Checkpoint exported(const TinyCheckpoint& source, const std::vector<EditPointer>& edits, const std::filesystem::path& to) {
    const auto checkpoint = source.open();
    const auto anatomy = Anatomy::of(checkpoint);
    EditPlan plan;
    plan.edits = edits;
    exportHuggingFace(checkpoint, anatomy, cutOf(plan, anatomy.shape()), to, {}, {});
    return Checkpoint::open(to);
}

TEST(CheckpointDiff, OfACheckpointWithItselfIsEmpty) {
    const auto model = tinyLlama();
    const auto diff = diffOf(model.open(), model.open());
    EXPECT_TRUE(diff.same());
    EXPECT_EQ(diff.equalTensors, static_cast<std::int64_t>(model.tensors.size()));
    for (const auto& pair : diff.blocks) EXPECT_EQ(pair.a, pair.b);
}

TEST(CheckpointDiff, MeasuresTheRelativeChange) {
    const auto a = tinyLlama();
    auto b = tinyLlama();
    const std::string name = "model.layers.1.mlp.down_proj.weight";
    double squares = 0;
    for (const double value : a.tensors.at(name).values) squares += value * value;
    b.tensor(name).at(2, 3) += 0.5;
    b.tensor(name).at(7, 1) -= 0.25;
    b.config["rope_theta"] = 20000.0;
    b.save();
    const auto diff = diffOf(a.open(), b.open());
    ASSERT_EQ(diff.tensors.size(), 1u);
    const auto& found = diff.tensors.front();
    EXPECT_EQ(found.kind, Kind::Changed);
    EXPECT_EQ(found.a, name);
    EXPECT_EQ(found.changedElements, 2);
    EXPECT_NEAR(found.relative, std::sqrt((0.25 + 0.0625) / squares), 1e-6);
    EXPECT_NEAR(found.largest, 0.5, 1e-6);
    ASSERT_EQ(diff.config.size(), 1u);
    EXPECT_EQ(diff.config.front().field, "rope_theta");
}

TEST(CheckpointDiff, FindsTheBlocksThatAreLeft) {
    TinyOptions options;
    options.numBlocks = 7;
    const auto model = tinyLlama(options);
    const TempFolder folder;
    const auto cut = exported(model, {dropBlocks({1, 4})}, folder / "cut");
    const auto diff = diffOf(model.open(), cut);
    std::vector<std::pair<int, int>> pairs;
    for (const auto& pair : diff.blocks) pairs.emplace_back(pair.a, pair.b);
    using P = std::pair<int, int>;
    EXPECT_THAT(pairs, testing::ElementsAre(P{0, 0}, P{1, -1}, P{2, 1}, P{3, 2}, P{4, -1}, P{5, 3}, P{6, 4}));
    for (const auto& entry : diff.tensors) EXPECT_EQ(entry.kind, Kind::Removed) << entry.a;
    EXPECT_EQ(diff.equalTensors, static_cast<std::int64_t>(cut.tensors().size()));
    // The other way round they are added.
    for (const auto& entry : diffOf(cut, model.open()).tensors) EXPECT_EQ(entry.kind, Kind::Added) << entry.b;
}

TEST(CheckpointDiff, NamesReshapedTensorsAndAddedOnes) {
    const auto model = tinyLlama();
    const TempFolder folder;
    const auto cut = exported(model, {dropChannels(2, {3, 17})}, folder / "cut");
    const auto diff = diffOf(model.open(), cut);
    ASSERT_EQ(diff.tensors.size(), 3u);  // gate, up, down
    for (const auto& entry : diff.tensors) {
        EXPECT_EQ(entry.kind, Kind::Reshaped);
        EXPECT_THAT(entry.a, testing::HasSubstr("layers.2.mlp"));
        EXPECT_NE(entry.shapeA, entry.shapeB);
    }
}

TEST(CheckpointDiff, ComparesAcrossNumberTypesByValue) {
    TinyOptions options;
    const auto wide = tinyLlama(options);
    options.dtype = DType::BF16;
    const auto narrow = tinyLlama(options);
    const auto diff = diffOf(wide.open(), narrow.open());
    EXPECT_EQ(diff.equalTensors, 0);
    for (const auto& entry : diff.tensors) {
        EXPECT_EQ(entry.kind, Kind::Changed);
        EXPECT_NE(entry.dtypeA, entry.dtypeB);
        EXPECT_LE(entry.relative, 1.0 / 256) << entry.a;  // half a unit in the last of eight bits
    }
}

TEST(CheckpointDiff, ToldToStopItSaysThatItIsNotComplete) {
    const auto model = tinyLlama();
    std::stop_source source;
    source.request_stop();
    const auto diff = diffCheckpoints(model.open(), model.open(), DiffContent::Read, JobContext(source.get_token(), {}));
    EXPECT_FALSE(diff.complete);
    EXPECT_FALSE(diff.same());
    EXPECT_TRUE(diffCheckpoints(model.open(), model.open(), DiffContent::Skip, {}).complete);
}

}  // namespace
}  // namespace resect::test
