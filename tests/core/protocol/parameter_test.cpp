#include "core/base/error.h"
#include "core/protocol/parameter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace resect {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<ParameterInfo>& declared() {
    static const std::vector<ParameterInfo> kDeclared{
        {"count", "Count", "How many.", ParameterType::Integer, "blocks", 8, 0, 100, {}, false},
        {"rate", "Rate", "", ParameterType::Real, "", 0.5, 0, 1, {}, false},
        {"windows", "Windows", "", ParameterType::Boolean, "", true, -1e300, 1e300, {}, false},
        {"target", "Target", "", ParameterType::Choice, "", "attn", -1e300, 1e300, {"attn", "mlp"}, false},
        {"protect", "Protect", "", ParameterType::IntegerList, "", Json::array(), 0, 9, {}, true},
        {"note", "Note", "", ParameterType::Text, "", "", -1e300, 1e300, {}, false},
    };
    return kDeclared;
}

TEST(Parameters, FillsInDefaultsInDeclaredOrder) {
    const Parameters parameters(declared(), Json::object());
    EXPECT_EQ(parameters.json().dump(), R"({"count":8,"rate":0.5,"windows":true,"target":"attn","protect":[],"note":""})");
    EXPECT_EQ(Parameters(declared(), Json()).json(), parameters.json());
    EXPECT_EQ(Parameters(declared(), Json{{"count", nullptr}}).integer("count"), 8);
}

TEST(Parameters, ConvertsTextAsTheCommandLinePassesIt) {
    const Parameters parameters(declared(), Json{{"count", "12"}, {"rate", "1e-3"}, {"windows", "off"}, {"target", "mlp"}, {"protect", "0, 3-5"}, {"note", "12"}});
    EXPECT_EQ(parameters.integer("count"), 12);
    EXPECT_EQ(parameters.real("rate"), 1e-3);
    EXPECT_FALSE(parameters.boolean("windows"));
    EXPECT_EQ(parameters.text("target"), "mlp");
    EXPECT_THAT(parameters.integers("protect"), ElementsAre(0, 3, 4, 5));
    EXPECT_EQ(parameters.text("note"), "12");
    EXPECT_EQ(parameters.real("count"), 12) << "a whole number is a number";
    EXPECT_TRUE(Parameters(declared(), Json{{"protect", ""}}).integers("protect").empty());
    EXPECT_EQ(Parameters(declared(), Json{{"count", 3.0}}).integer("count"), 3);
}

TEST(Parameters, ListsEveryProblemAtOnce) {
    const Json bad{{"count", 101}, {"rate", "nan"}, {"windows", "maybe"}, {"target", "all"}, {"protect", "3-1"}, {"note", 5}, {"cuont", 1}};
    const auto problems = checkParameters(declared(), bad);
    ASSERT_EQ(problems.size(), 7u);
    EXPECT_EQ(problems[0].subject, "cuont");
    EXPECT_THAT(problems[0].message, HasSubstr("there are count, rate"));
    EXPECT_THAT(problems[1].message, HasSubstr("a whole number from 0 to 100, found 101"));
    EXPECT_THAT(problems[4].message, HasSubstr("one of attn, mlp"));
    try {
        Parameters(declared(), bad);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Usage);
        for (const char* name : {"cuont", "count", "rate", "windows", "target", "protect", "note"}) EXPECT_THAT(error.message(), HasSubstr(name));
    }
}

TEST(Parameters, RefusesValuesOfOtherTypes) {
    for (const Json& value : {Json(1.5), Json("1.5"), Json("x"), Json(true), Json::array({1}), Json(18446744073709551615ull)})
        EXPECT_EQ(checkParameters(declared(), Json{{"count", value}}).size(), 1u) << value;
    for (const Json& value : {Json("1,,2"), Json("a"), Json::array({"1"}), Json::array({10}), Json("-1"), Json("0-99999999999")})
        EXPECT_EQ(checkParameters(declared(), Json{{"protect", value}}).size(), 1u) << value;
    EXPECT_EQ(checkParameters(declared(), Json::array()).size(), 1u);
}

TEST(Parameters, TravelToTheFormWithTheirBounds) {
    const Json json = toJson(declared()[0]);
    EXPECT_EQ(json["type"], "integer");
    EXPECT_EQ(json["maximum"], 100);
    EXPECT_EQ(json["defaultValue"], 8);
    EXPECT_TRUE(toJson(declared()[2])["minimum"].is_null());
}

TEST(Parameters, AskingForWhatWasNotDeclaredIsOurMistake) {
    const Parameters parameters(declared(), {});
    EXPECT_THROW(parameters.integer("nothing"), Error);
    EXPECT_THROW(parameters.integer("target"), Error);
}

}  // namespace
}  // namespace resect
