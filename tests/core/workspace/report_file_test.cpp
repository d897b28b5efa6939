#include "core/base/error.h"
#include "core/workspace/report_file.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <thread>

namespace resect {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Report sample() {
    Report report;
    report.method = "llm-drop";
    report.parameters = Json{{"windows", true}, {"name", "é"}};
    report.modelFingerprint = "sha256:1";
    report.dataFingerprint = "sha256:2";
    report.dataDescription = "stories.txt: 5 rows";
    report.dtype = "f32";
    report.seed = 18446744073709551615ull;
    report.version = "0.1.0";
    report.samplesDone = 3;
    report.samplesTotal = 5;
    ReportDataset window;
    window.name = "similarity/window";
    window.kind = DatasetKind::Matrix;
    window.title = "Windows";
    window.unit = "1 - cosine";
    window.help = "How much a run of blocks changes the stream.";
    window.higher = Direction::Keep;
    window.axes = {{"block", "block", {0, 2}}, {"span", "", {1, 2, 3}}};
    window.shape = {2, 3};
    window.values = {0.1, 0.2, 0.3, 0.4, kNaN, kNaN};
    window.errors = {0, 0.01, 0.02, 0.03, kNaN, kNaN};
    window.samples = 3;
    ReportDataset block = window;
    block.name = "similarity/block";
    block.kind = DatasetKind::Bars;
    block.higher = Direction::Removable;
    block.axes = {{"block", "block", {}}};
    block.shape = {3};
    block.values = {1, kNaN, -1e-300};
    block.errors.clear();
    report.datasets = {window, block};
    report.notes.push_back({Severity::Warning, "block 0", "odd", "look"});
    return report;
}

std::string bytesOf(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

Error errorOf(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error;
    }
    ADD_FAILURE() << "no error";
    return Error(ErrorCode::Internal, "", "");
}

/// Changes a written file as somebody with HDF5 tools could.
void edit(const fs::path& file, const std::function<void(hid_t)>& change) {
    const hid_t id = H5Fopen(file.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    ASSERT_GE(id, 0);
    change(id);
    H5Fclose(id);
}

class ReportFile : public testing::Test {
protected:
    test::TempFolder m_folder;
    fs::path m_file = m_folder / "a.h5";
    void SetUp() override { writeReport(m_file, sample()); }
};

TEST_F(ReportFile, GivesBackWhatWasWritten) {
    const Report back = readReport(m_file);
    EXPECT_EQ(toJson(back).dump(), toJson(sample()).dump());
    EXPECT_EQ(back.seed, 18446744073709551615ull);
    EXPECT_EQ(back.datasets[1].values[2], -1e-300);
    EXPECT_TRUE(std::isnan(back.datasets[1].values[1]));
    EXPECT_TRUE(back.partial());
}

TEST_F(ReportFile, ReadsHeadersWithoutValues) {
    const Report header = readReportHeader(m_file);
    EXPECT_EQ(header.datasets[0].shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_TRUE(header.datasets[0].values.empty());
    const auto message = describeReport(m_file);
    EXPECT_EQ(message.datasets[0].minimum, 0.1);
    EXPECT_EQ(message.datasets[0].maximum, 0.4);
    EXPECT_TRUE(message.datasets[0].hasErrors);
    EXPECT_FALSE(message.datasets[1].hasErrors);
    EXPECT_EQ(message.datasets[0].axes[1].ids, (std::vector<std::int64_t>{1, 2, 3}));
    EXPECT_EQ(message.created.size(), 20u);
    EXPECT_EQ(message.notes.size(), 1u);
}

TEST_F(ReportFile, ReadsOneRectangle) {
    const auto part = readRectangle(m_file, "similarity/window", {0, 1}, {2, 2});
    EXPECT_EQ(part.values[0], 0.2);
    EXPECT_EQ(part.values[1], 0.3);
    EXPECT_TRUE(std::isnan(part.values[2]));
    EXPECT_EQ(part.errors[1], 0.02);
    EXPECT_TRUE(readRectangle(m_file, "similarity/block", {3}, {0}).values.empty());
    EXPECT_EQ(errorOf([&] { readRectangle(m_file, "similarity/window", {1, 1}, {2, 2}); }).code(), ErrorCode::Usage);
    EXPECT_EQ(errorOf([&] { readRectangle(m_file, "similarity/window", {0}, {1}); }).code(), ErrorCode::Usage);
    EXPECT_EQ(errorOf([&] { readRectangle(m_file, "similarity/window", {0, 0}, {2, 3}, 5); }).code(), ErrorCode::Usage);
    EXPECT_EQ(errorOf([&] { readRectangle(m_file, "nothing", {0}, {1}); }).code(), ErrorCode::NotFound);
}

TEST_F(ReportFile, TheSameReportGivesTheSameBytes) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1100));
    writeReport(m_folder / "b.h5", sample());
    EXPECT_EQ(bytesOf(m_file), bytesOf(m_folder / "b.h5"));
}

TEST_F(ReportFile, LeavesNothingBesideTheFile) {
    EXPECT_EQ(std::distance(fs::directory_iterator(m_folder.path()), {}), 1);
    Report bad = sample();
    bad.datasets[1].values.pop_back();
    EXPECT_EQ(errorOf([&] { writeReport(m_folder / "c.h5", bad); }).code(), ErrorCode::BadInput);
    bad = sample();
    bad.datasets[1].name = bad.datasets[0].name;
    EXPECT_EQ(errorOf([&] { writeReport(m_folder / "c.h5", bad); }).code(), ErrorCode::BadInput);
    bad.datasets[1].name = "../x";
    EXPECT_EQ(errorOf([&] { writeReport(m_folder / "c.h5", bad); }).code(), ErrorCode::BadInput);
    EXPECT_EQ(std::distance(fs::directory_iterator(m_folder.path()), {}), 1);
}

TEST_F(ReportFile, IsShownByH5dumpWithItsDescription) {
    if (std::system("h5dump --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "needs h5dump";
    const std::string output = m_folder / "dump.txt";
    ASSERT_EQ(std::system(("h5dump '" + m_file.string() + "' > '" + output + "' 2>&1").c_str()), 0);
    const std::string dump = bytesOf(output);
    for (const char* part : {"DATASET \"window\"", "\"similarity/window\"", "ATTRIBUTE \"kind\"", "\"matrix\"", "\"1 - cosine\"", "\"3 of 5\"", "ATTRIBUTE \"ids_1\"",
                             "ATTRIBUTE \"model_fingerprint\"", "nan", "H5T_IEEE_F64LE", "ATTRIBUTE \"samples\"", "ATTRIBUTE \"components\"", "\"keep\""})
        EXPECT_THAT(dump, HasSubstr(part));
}

TEST_F(ReportFile, RefusesEveryTruncation) {
    const std::string whole = bytesOf(m_file);
    for (std::size_t size = 0; size < whole.size(); size += 97) {
        std::ofstream(m_folder / "cut.h5", std::ios::binary) << whole.substr(0, size);
        const Error error = errorOf([&] { readReport(m_folder / "cut.h5"); });
        EXPECT_TRUE(error.code() == ErrorCode::Corrupt || error.code() == ErrorCode::BadInput) << size << ": " << error.what();
        EXPECT_THAT(error.what(), HasSubstr("cut.h5"));
    }
}

TEST_F(ReportFile, RefusesOtherFiles) {
    EXPECT_EQ(errorOf([&] { readReport(m_folder / "missing.h5"); }).code(), ErrorCode::NotFound);
    std::ofstream(m_folder / "text.h5") << "no HDF5";
    EXPECT_EQ(errorOf([&] { readReport(m_folder / "text.h5"); }).code(), ErrorCode::Corrupt);
    const hid_t other = H5Fcreate((m_folder / "other.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(other);
    EXPECT_THAT(errorOf([&] { readReport(m_folder / "other.h5"); }).what(), HasSubstr("expected a measurement of Resect"));
}

TEST_F(ReportFile, NamesTheDatasetThatContradictsTheRest) {
    edit(m_file, [](hid_t file) { H5Adelete_by_name(file, "similarity/window", "kind", H5P_DEFAULT); });
    EXPECT_THAT(errorOf([&] { readReport(m_file); }).what(), HasSubstr("similarity/window: attribute kind"));
    writeReport(m_file, sample());
    edit(m_file, [](hid_t file) { H5Ldelete(file, "similarity/block", H5P_DEFAULT); });
    EXPECT_THAT(errorOf([&] { readReport(m_file); }).what(), HasSubstr("similarity/block: the dataset is missing"));
    writeReport(m_file, sample());
    edit(m_file, [](hid_t file) {
        H5Ldelete(file, "standard_errors/similarity/window", H5P_DEFAULT);
        H5Lcreate_soft("/similarity/block", file, "standard_errors/similarity/window", H5P_DEFAULT, H5P_DEFAULT);
    });
    EXPECT_THAT(errorOf([&] { readReport(m_file); }).what(), HasSubstr("differ in shape"));
}

TEST_F(ReportFile, NamesTheFolderThatCannotBeWritten) {
    const Error error = errorOf([&] { writeReport("/proc/resect/a.h5", sample()); });
    EXPECT_THAT(error.what(), HasSubstr("/proc/resect"));
}

}  // namespace
}  // namespace resect
