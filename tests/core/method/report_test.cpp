#include "core/base/error.h"
#include "core/method/method.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace resect {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Report sample() {
    Report report;
    report.method = "llm-drop";
    report.parameters = Json{{"windows", true}, {"epsilon", 1e-9}};
    report.modelFingerprint = "sha256:1";
    report.dataFingerprint = "sha256:2";
    report.dataDescription = "text";
    report.dtype = "f32";
    report.seed = 7;
    report.version = "0.1.0";
    report.samplesDone = 3;
    report.samplesTotal = 5;
    ReportDataset window;
    window.name = "similarity/window";
    window.kind = DatasetKind::Matrix;
    window.higher = Direction::Removable;
    window.axes = {{"block", "block", {0, 2}}, {"span", "", {1, 2, 3}}};
    window.shape = {2, 3};
    window.values = {0.1, 0.2, 0.3, 0.4, kNaN, kNaN};
    window.errors = {0, 0.01, 0.02, 0.03, kNaN, kNaN};
    window.samples = 3;
    report.datasets.push_back(window);
    report.notes.push_back({Severity::Warning, "block 0", "odd", "look"});
    return report;
}

std::string messageOf(const Json& json) {
    try {
        reportFromJson(json, "r.json");
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::BadInput);
        return error.what();
    }
    return "";
}

TEST(Report, IndexesRowMajorAndKeepsMissingValuesOutOfTheRange) {
    const Report report = sample();
    EXPECT_EQ(report.dataset("similarity/window").at({1, 0}), 0.4);
    EXPECT_EQ(report.datasets[0].minimum(), 0.1);
    EXPECT_EQ(report.datasets[0].maximum(), 0.4);
    EXPECT_TRUE(report.partial());
    EXPECT_EQ(report.find("nothing"), nullptr);
    EXPECT_THROW(report.datasets[0].at({2, 0}), Error);
    try {
        report.dataset("nothing");
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::NotFound);
        EXPECT_THAT(error.what(), testing::HasSubstr("similarity/window"));
    }
}

TEST(Report, SurvivesJsonWithMissingValuesAsNull) {
    const Json json = parseJson(toJson(sample()).dump(), "r.json");
    EXPECT_TRUE(json["datasets"][0]["values"][4].is_null());
    EXPECT_TRUE(json["partial"].get<bool>());
    const Report back = reportFromJson(json, "r.json");
    EXPECT_EQ(toJson(back).dump(), toJson(sample()).dump());
    EXPECT_TRUE(std::isnan(back.datasets[0].values[4]));
    EXPECT_EQ(back.datasets[0].axes[0].ids, (std::vector<std::int64_t>{0, 2}));
}

TEST(Report, RefusesJsonThatContradictsItself) {
    const Json good = toJson(sample());
    Json bad = good;
    bad["datasets"][0]["shape"] = {2, 4};
    EXPECT_THAT(messageOf(bad), testing::HasSubstr("calls for 8 values, found 6"));
    bad = good;
    bad["datasets"][0]["kind"] = "pie";
    EXPECT_THAT(messageOf(bad), testing::HasSubstr("found \"pie\""));
    bad = good;
    bad["datasets"][0]["axes"][1]["ids"] = {1};
    EXPECT_THAT(messageOf(bad), testing::HasSubstr("1 ids for 3"));
    bad = good;
    bad["datasets"][0]["values"][0] = "x";
    EXPECT_THAT(messageOf(bad), testing::HasSubstr("expected a number or null"));
    bad = good;
    bad["resect_report"] = 2;
    EXPECT_THAT(messageOf(bad), testing::HasSubstr("version 1"));
    bad = good;
    bad["datasets"] = "none";
    EXPECT_THAT(messageOf(bad), testing::HasSubstr("array"));
    EXPECT_THAT(messageOf(Json(3)), testing::HasSubstr("object"));
}

class NamedMethod : public Method {
public:
    explicit NamedMethod(std::string id) { m_info.id = std::move(id); }
    const MethodInfo& info() const noexcept override { return m_info; }
    Report analyse(ModelRun&, const Parameters&, const JobContext&) const override { return {}; }
    EditPlan plan(const Anatomy&, const Report&, const Parameters&) const override { return {}; }

private:
    MethodInfo m_info;
};

TEST(MethodRegistry, FindsByIdAndRefusesARepeatedOne) {
    MethodRegistry registry, other;
    registry.add(std::make_unique<NamedMethod>("a"));
    EXPECT_EQ(registry.find("a")->info().id, "a");
    EXPECT_EQ(registry.find("b"), nullptr);
    EXPECT_THROW(registry.add(std::make_unique<NamedMethod>("a")), Error);
    other.add(std::make_unique<NamedMethod>("b"));
    other.add(std::make_unique<NamedMethod>("a"));
    EXPECT_THROW(registry.merge(std::move(other)), Error);
    EXPECT_EQ(registry.methods().size(), 1u) << "all or nothing";
    try {
        registry.method("zzz");
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Usage);
        EXPECT_THAT(error.what(), testing::HasSubstr("there are a"));
    }
}

}  // namespace
}  // namespace resect
