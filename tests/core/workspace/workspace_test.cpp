#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/version.h"
#include "core/workspace/report_file.h"
#include "core/workspace/workspace.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace resect {
namespace {

namespace fs = std::filesystem;

Report sample() {
    Report report;
    report.method = "m";
    report.parameters = Json{{"a", 1}, {"b", 2}};
    report.modelFingerprint = "sha256:model";
    report.dataFingerprint = "sha256:data";
    report.dtype = "f32";
    report.seed = 3;
    report.version = versionText();
    report.samplesDone = report.samplesTotal = 4;
    return report;
}

TEST(MeasureKey, ChangesWithEachIngredientAndNotWithTheOrderOfParameters) {
    const MeasureKey key = keyOf(sample());
    std::set<std::string> keys{key.hex()};
    const auto add = [&](auto change) {
        MeasureKey other = key;
        change(other);
        EXPECT_TRUE(keys.insert(other.hex()).second) << other.hex();
    };
    add([](MeasureKey& k) { k.method = "n"; });
    add([](MeasureKey& k) { k.parameters["a"] = 2; });
    add([](MeasureKey& k) { k.parameters["c"] = 0; });
    add([](MeasureKey& k) { k.modelFingerprint = "sha256:other"; });
    add([](MeasureKey& k) { k.dataFingerprint = "sha256:other"; });
    add([](MeasureKey& k) { k.dtype = "bf16"; });
    add([](MeasureKey& k) { k.seed = 4; });
    add([](MeasureKey& k) { std::swap(k.modelFingerprint, k.dataFingerprint); });
    MeasureKey reordered = key;
    reordered.parameters = Json{{"b", 2}, {"a", 1}};
    EXPECT_EQ(reordered.hex(), key.hex());
    EXPECT_EQ(key.hex().size(), 32u);
}

class WorkspaceFolder : public testing::Test {
protected:
    test::TempFolder m_folder;
    fs::path m_path = m_folder / "demo.resect";
    protocol::WorkspaceFile info() const {
        protocol::WorkspaceFile info;
        info.checkpoint = m_folder / "model";
        info.fingerprint = "sha256:model";
        info.selections["worst"] = Json::array({"block:3"});
        info.layout = Json{{"docks", "AAAA"}};
        return info;
    }
};

TEST_F(WorkspaceFolder, KeepsWhatItWasGiven) {
    Workspace::create(m_path, info());
    const Workspace workspace = Workspace::open(m_path);
    EXPECT_EQ(workspace.info().checkpoint, m_folder / "model");
    EXPECT_EQ(workspace.info().fingerprint, "sha256:model");
    EXPECT_EQ(workspace.info().selections, info().selections);
    EXPECT_EQ(workspace.info().layout, info().layout);
    for (const char* name : {"plans", "measures", "runs", "exports"}) EXPECT_TRUE(fs::is_directory(m_path / name));
    EXPECT_THROW(Workspace::create(m_path, info()), Error) << "in use";
    EXPECT_THROW(Workspace::open(m_folder / "nothing"), Error);
}

TEST_F(WorkspaceFolder, FindsTheCheckpointAgainWhenBothWereMoved) {
    fs::create_directories(m_folder / "model");
    Workspace::create(m_path, info());
    const test::TempFolder elsewhere;
    fs::copy(m_folder.path(), elsewhere / "moved", fs::copy_options::recursive);
    fs::remove_all(m_folder / "model");
    EXPECT_EQ(Workspace::open(elsewhere / "moved/demo.resect").info().checkpoint, fs::canonical(elsewhere / "moved/model"));
}

TEST_F(WorkspaceFolder, LeavesFieldsOfANewerVersionAlone) {
    Workspace::create(m_path, info());
    Json json = readJsonFile(m_path / "workspace.json");
    json["from_the_future"] = 5;
    writeJsonFile(m_path / "workspace.json", json);
    Workspace workspace = Workspace::open(m_path);
    workspace.save(info());
    EXPECT_EQ(readJsonFile(m_path / "workspace.json")["from_the_future"], 5);
}

TEST_F(WorkspaceFolder, NamesTheFieldThatIsWrong) {
    Workspace::create(m_path, info());
    const Json good = readJsonFile(m_path / "workspace.json");
    for (const auto& [field, value] : {std::pair<const char*, Json>{"resect_workspace", 2}, {"checkpoint", 7}, {"selections", Json::array()}}) {
        Json bad = good;
        bad[field] = value;
        writeJsonFile(m_path / "workspace.json", bad);
        try {
            Workspace::open(m_path);
            FAIL() << field;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), value == 2 ? ErrorCode::Unsupported : ErrorCode::BadInput);
            EXPECT_THAT(error.what(), testing::HasSubstr(field));
        }
    }
}

TEST_F(WorkspaceFolder, MeasuresOnlyOnce) {
    const Workspace workspace = Workspace::create(m_path, info());
    EXPECT_FALSE(workspace.findMeasure(keyOf(sample())));
    Report partial = sample();
    partial.samplesDone = 2;
    const fs::path half = workspace.writeMeasure(partial);
    EXPECT_FALSE(workspace.findMeasure(keyOf(sample()))) << "a partial result does not count";
    EXPECT_TRUE(readReportHeader(half).partial());
    const fs::path whole = workspace.writeMeasure(sample());
    EXPECT_EQ(workspace.findMeasure(keyOf(sample())), whole);
    EXPECT_EQ(whole.filename(), keyOf(sample()).hex() + ".h5");
    EXPECT_EQ(workspace.measures(), std::vector<fs::path>{whole});
    MeasureKey other = keyOf(sample());
    other.seed = 9;
    EXPECT_FALSE(workspace.findMeasure(other));
    fs::copy_file(whole, m_path / "measures" / (other.hex() + ".h5"));
    EXPECT_FALSE(workspace.findMeasure(other)) << "holds something else";
    std::ofstream(whole, std::ios::trunc) << "damaged";
    EXPECT_FALSE(workspace.findMeasure(keyOf(sample())));
}

TEST_F(WorkspaceFolder, KeepsPlansUnderTheirNames) {
    const Workspace workspace = Workspace::create(m_path, info());
    EditPlan plan;
    plan.fingerprint = "sha256:model";
    plan.edits.push_back(dropBlocks({1}));
    workspace.writePlan("half (try 2)", plan);
    workspace.writePlan("b", {});
    EXPECT_EQ(workspace.planNames(), (std::vector<std::string>{"b", "half (try 2)"}));
    EXPECT_EQ(workspace.readPlan("half (try 2)").toJson(), plan.toJson());
    for (const char* name : {"", "../x", "a/b", ".hidden", "x ", "a\nb"}) EXPECT_THROW(workspace.writePlan(name, plan), Error) << name;
    EXPECT_THROW(workspace.readPlan("nothing"), Error);
    workspace.removePlan("b");
    EXPECT_THROW(workspace.removePlan("b"), Error);
}

TEST_F(WorkspaceFolder, GivesEveryRunAFolderOfItsOwn) {
    const Workspace workspace = Workspace::create(m_path, info());
    std::set<fs::path> folders;
    for (int i = 0; i < 3; ++i) folders.insert(workspace.newRun("lora"));
    EXPECT_EQ(folders.size(), 3u);
    EXPECT_EQ(workspace.runs().size(), 3u);
    EXPECT_EQ(workspace.exportFolder("a").parent_path().filename(), "exports");
    EXPECT_THROW(workspace.exportFolder("../a"), Error);
}

TEST(Workspace, ServesAllCheckpointsWithoutOneOfItsOwn) {
    const test::TempFolder folder;
    Workspace::create(folder / "cache.resect", {});
    EXPECT_TRUE(Workspace::open(folder / "cache.resect").info().checkpoint.empty());
}

TEST(Workspace, IsMadeInAFolderThatAnInterruptedAttemptLeft) {
    const test::TempFolder folder;
    std::filesystem::create_directories(folder / "w.resect" / "measures");
    EXPECT_NO_THROW(Workspace::create(folder / "w.resect", {}));
}

}  // namespace
}  // namespace resect
