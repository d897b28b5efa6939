#include "core/base/error.h"
#include "core/base/files.h"
#include "core/protocol/json.h"
#include "core/protocol/messages.h"
#include "core/protocol/run_files.h"
#include "tests/support/test_data.h"

#include <cmath>
#include <gmock/gmock.h>
#include <limits>

namespace resect {
namespace {

using testing::HasSubstr;

std::string errorOf(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::BadInput);
        return error.what();
    }
    ADD_FAILURE() << "expected an Error";
    return {};
}
std::string parseError(std::string_view text) {
    return errorOf([&] { parseJson(text, "f.json"); });
}

TEST(Json, KeepsTheOrderOfKeys) {
    EXPECT_EQ(parseJson(R"({"z": 1, "a": [true, null, "x", -2, 1.5, {"k": {}}], "m": []})", "f").dump(),
              R"({"z":1,"a":[true,null,"x",-2,1.5,{"k":{}}],"m":[]})");
    EXPECT_EQ(parseJson(" 7 ", "f"), 7);
}

TEST(Json, SaysWhereADocumentBreaks) {
    EXPECT_THAT(parseError("{\"a\": 1,\n \"b\": }"), HasSubstr("f.json: line 2, column 7: not valid JSON: syntax error"));
    EXPECT_THAT(parseError(""), HasSubstr("line 1, column 1"));
    EXPECT_THAT(parseError("{} x"), HasSubstr("line 1, column 4"));
    EXPECT_THAT(parseError("[1, 2"), HasSubstr("line 1"));
    EXPECT_THAT(parseError("NaN"), HasSubstr("not valid JSON"));
    EXPECT_THAT(parseError("[1e999]"), HasSubstr("line 1, column"));
    EXPECT_THAT(parseError(std::string_view("{}\0{}", 5)), HasSubstr("line 1, column 3: not valid JSON: a zero byte"));
}

TEST(Json, RefusesTextThatIsNotUtf8) {
    EXPECT_THAT(parseError("{\"a\": \"\xff\"}"), HasSubstr("UTF-8"));
    EXPECT_THAT(parseError("{\"\xc3\": 1}"), HasSubstr("UTF-8"));
    EXPECT_THAT(parseError(R"(["\ud800"])"), HasSubstr("surrogate"));
}

TEST(Json, RefusesRepeatedKeys) {
    EXPECT_THAT(parseError("{\"a\": 1,\n\"b\": {\"c\": 1, \"c\": 2}}"), HasSubstr("line 2, column 17: the key \"c\" appears twice"));
    EXPECT_EQ(parseJson(R"([{"a": 1}, {"a": 2}])", "f").size(), 2u) << "the same key in different objects is fine";
    std::string large = "{";
    for (int i = 0; i < 100; ++i) large += "\"k" + std::to_string(i) + "\": 0, ";
    EXPECT_EQ(parseJson(large + "\"last\": 0}", "f").size(), 101u);
    EXPECT_THAT(parseError(large + "\"k57\": 0}"), HasSubstr("\"k57\" appears twice"));
}

TEST(Json, RefusesBottomlessNesting) {
    EXPECT_NO_THROW(parseJson(std::string(200, '[') + std::string(200, ']'), "f"));
    EXPECT_THAT(parseError(std::string(201, '[') + std::string(201, ']')), HasSubstr("nested deeper than 200"));
    EXPECT_THAT(parseError(std::string(1'000'000, '[')), HasSubstr("nested deeper"));
}

TEST(Json, ALargeObjectTakesLinearTime) {
    std::string text = "{";
    for (int i = 0; i < 200'000; ++i) text += "\"token" + std::to_string(i) + "\":" + std::to_string(i) + ",";
    EXPECT_EQ(parseJson(text + "\"end\":0}", "f").size(), 200'001u);
}

TEST(Json, FieldsAreTypedAndNamedInErrors) {
    const Json json = parseJson(R"({"n": 3, "x": 2.5, "s": "t", "b": true, "z": null, "huge": 18446744073709551615})", "f");
    EXPECT_EQ(intField(json, "n", "c.json"), 3);
    EXPECT_EQ(numberField(json, "n", "c.json"), 3.0);
    EXPECT_EQ(stringField(json, "s", "c.json"), "t");
    EXPECT_EQ(intField(json, "none", "c.json", 9), 9);
    EXPECT_EQ(intField(json, "z", "c.json", 9), 9);
    EXPECT_TRUE(boolField(json, "b", "c.json", false));
    EXPECT_EQ(errorOf([&] { intField(json, "x", "c.json"); }), "c.json: x: expected an integer, found 2.5");
    EXPECT_EQ(errorOf([&] { intField(json, "none", "c.json"); }), "c.json: none: expected an integer, found nothing");
    EXPECT_EQ(errorOf([&] { intField(json, "s", "c.json", 1); }), "c.json: s: expected an integer, found the text \"t\"");
    EXPECT_THAT(errorOf([&] { intField(json, "huge", "c.json"); }), HasSubstr("18446744073709551615"));
    EXPECT_THAT(errorOf([&] { boolField(json, "n", "c.json", true); }), HasSubstr("true or false"));
    EXPECT_THAT(errorOf([&] { intField(Json::array(), "n", "c.json"); }), HasSubstr("expected an object, found a list"));
}

TEST(Json, FilesAreWrittenReadablyAndReadBack) {
    test::TempFolder folder;
    Json json = {{"b", 1}, {"a", std::numeric_limits<double>::infinity()}};
    writeJsonFile(folder / "x.json", json);
    EXPECT_EQ(readFile(folder / "x.json"), "{\n  \"b\": 1,\n  \"a\": null\n}\n");
    EXPECT_TRUE(readJsonFile(folder / "x.json").at("a").is_null());
}

TEST(Messages, SurviveTheWireAndTolerateUnknownFields) {
    protocol::PreviewMessage preview;
    preview.rowsDone = 3;
    preview.perplexity = std::nan("");
    Json json = preview;
    const std::string line = json.dump();
    json = parseJson(line, "wire");
    json["later"] = "version";
    const auto back = json.get<protocol::PreviewMessage>();
    EXPECT_EQ(back.rowsDone, 3);
    EXPECT_TRUE(std::isnan(back.perplexity));
    json["rowsDone"] = "three";
    EXPECT_THAT(errorOf([&] { json.get<protocol::PreviewMessage>(); }), HasSubstr("rowsDone"));
}

}  // namespace
}  // namespace resect
