#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/chat_template.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace resect {
namespace {

namespace fs = std::filesystem;
using test::ownData;
using test::sharedData;
using test::TempFolder;
using testing::ElementsAre;
using testing::HasSubstr;

std::string render(const std::string& source, const Json& fields = Json::object()) {
    return ChatTemplate(source, "t").render(fields).text;
}

Error errorOf(const std::string& source, const Json& fields = Json::object()) {
    try {
        render(source, fields);
    } catch (const Error& error) {
        return error;
    }
    return Error(ErrorCode::Internal, "", "nothing was thrown");
}

// ---- against jinja2

/// Every case of a folder of templates; returns how many there were.
int runCases(const fs::path& folder) {
    const Json file = readJsonFile(folder / "chat_template_cases.json");
    int count = 0;
    for (const Json& one : file["cases"]) {
        const std::string name = one["template"];
        const std::string source =
            name.starts_with("inline:") ? file["inline_templates"][name.substr(7)].get<std::string>() : readFile(folder / name);
        const std::string where = name + ": " + one["case"].get<std::string>();
        if (one.contains("error")) {
            const std::string expected = one["error"].get<std::string>().substr(std::string("TemplateError: ").size());
            EXPECT_EQ(errorOf(source, one["context"]).message(), expected) << where;
        } else {
            try {
                EXPECT_EQ(render(source, one["context"]), one["expected"].get<std::string>()) << where;
            } catch (const Error& error) {
                ADD_FAILURE() << where << ": " << error.what();
            }
        }
        ++count;
    }
    return count;
}

TEST(ChatTemplateCases, MatchJinja2) { EXPECT_EQ(runCases(ownData("chat")), 81); }

TEST(ChatTemplateCases, MatchJinja2WithTheTemplatesOfModels) {
    RESECT_NEED_SHARED_DATA("chat/chat_template_cases.json");
    EXPECT_EQ(runCases(sharedData("chat")), 200);
}

// ---- the language, piece by piece: what jinja2 3.1 gives

struct Rendering {
    const char *source, *expected;
};

void expectAll(std::initializer_list<Rendering> renderings, const Json& fields = Json::object()) {
    for (const auto& [source, expected] : renderings) {
        try {
            EXPECT_EQ(render(source, fields), expected) << source;
        } catch (const Error& error) {
            ADD_FAILURE() << source << ": " << error.what();
        }
    }
}

TEST(JinjaText, WhiteSpaceFollowsTransformersSettings) {
    expectAll({{"a\n", "a"},
               {"a\n\n", "a\n"},
               {"  {% if true %}\n  x\n  {% endif %}\ny", "  x\ny"},
               {"a {% if true %} b {% endif %}\n c", "a  b  c"},
               {"a\n  {%+ if true %}b{% endif +%}\nc", "a\n  b\nc"},
               {"a  {%- if true -%}  b  {%- endif -%}  c", "abc"},
               {"a \n {{- 'x' -}} \n b", "axb"},
               {"  {{ 'x' }}\n", "  x"},
               {"  {# gone #}\nx{# a\nb #}y", "xy"},
               {"a {#- c -#} b", "ab"},
               {"{% raw %}{{ x }}{% endraw %}!", "{{ x }}!"},
               {"a\r\nb\rc", "a\nb\nc"},
               {"{% set x = 1 %}\n\n{{ x }}", "\n1"},
               {"{{ {'a': {'b': 1}}}}", "{'a': {'b': 1}}"}});
}

TEST(JinjaExpressions, HaveJinjasPrecedence) {
    expectAll({{"{{ 1 + 2 * 3 }}", "7"},
               {"{{ 'a' ~ 1 + 2 ~ none }}", "a12None"},
               {"{{ 2 ** 3 ** 2 }}", "64"},
               {"{{ -2 ** 2 }}", "4"},
               {"{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 6 / 2 }}", "3 -4 1 2 3.5 3.0"},
               {"{{ not false and 1 < 2 <= 2 }}", "True"},
               {"{{ 'a' in 'cat' and 'z' not in ['a'] }}", "True"},
               {"{{ 1 if false else 2 if false else 3 }}", "3"},
               {"[{{ 1 if false }}]", "[]"},
               {"{{ 'x' | upper ~ 'y' }}", "Xy"},
               {"{{ -1 | abs }}", "1"},
               {"{{ not x is defined }}", "True"},
               {"{{ 3 is odd and 4 is not odd }}", "True"},
               {"{{ 12 is divisibleby 4 }}{{ 12 is divisibleby(5) }}", "TrueFalse"},
               {"{{ (1, 2) }}{{ (1,) }}{{ () }}", "(1, 2)(1,)()"},
               {"{{ [1, 'a', none, true, 1.5, {'k': \"it's\"}] }}", "[1, 'a', None, True, 1.5, {'k': \"it's\"}]"},
               {"{{ 'a' 'b' }}", "ab"},
               {"{{ '\\n\\t\\x41\\u00e9\\q' }}", "\n\tA\u00e9\\q"},
               {"{{ 'ab' * 3 }}{{ [1] * 2 }}{{ [1] + [2] }}", "ababab[1, 1][1, 2]"},
               {"{{ 1e3 }} {{ 1.0 }} {{ 1e16 }} {{ 0.0001 }} {{ 1.5e-7 }} {{ 1e22 }}", "1000.0 1.0 1e+16 0.0001 1.5e-07 1e+22"},
               {"{{ true + 1 }} {{ true == 1 }} {{ 1 == 1.0 }} {{ '1' == 1 }}", "2 True True False"}});
}

TEST(JinjaExpressions, ConcatenationBindsTighterThanPlus) {
    expectAll({{"{{ 1 ~ 2 }}", "12"}, {"{{ 'a' + 1 ~ 2 }}", "a12"}, {"{{ none ~ 'x' ~ missing }}", "Nonex"}});
}

TEST(JinjaExpressions, SlicesAndItemsFollowPython) {
    expectAll({{"{{ 'h\u00e9llo'[1] }}{{ 'h\u00e9llo'[-1] }}{{ 'h\u00e9llo'[1:3] }}{{ 'h\u00e9llo'[::-1] }}",
                "\u00e9o\u00e9loll\u00e9h"},
               {"{{ [1,2,3,4][1:] }}{{ [1,2,3,4][:-1] }}{{ [1,2,3,4][::2] }}{{ [1,2,3,4][-1:0:-2] }}{{ [1][5:] }}",
                "[2, 3, 4][1, 2, 3][1, 3][4, 2][]"},
               {"{{ 'abc'[-10:2] }}{{ 'abc'[2:1] }}{{ 'abc'[10:] }}", "ab"},
               {"[{{ [1][3] }}][{{ {}.x }}][{{ {'a': 1}['a'] }}][{{ {'a': [5]}.a.0 }}]", "[][][1][5]"},
               {"{{ {'items': 3}['items'] }}{{ {'k': 3}.items() | list }}", "3[('k', 3)]"}});
}

TEST(JinjaStatements, LoopsScopesAndNamespaces) {
    expectAll(
        {{"{% for x in [1,2,3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ "
          "loop.length }};{% endfor %}",
          "103TrueFalse3;212FalseFalse3;321FalseTrue3;"},
         {"{% for x in [1,2,3] if x != 2 %}{{ x }}/{{ loop.length }} {% endfor %}", "1/2 3/2 "},
         {"{% for x in [] %}a{% else %}none{% endfor %}", "none"},
         {"{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "a1b2"},
         {"{% for a, b in [[1, 2]] %}{{ a + b }}{% endfor %}", "3"},
         {"{% for x in [1,2,3,4] %}{% if x == 2 %}{% continue %}{% elif x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
          "13"},
         {"{% set n = 0 %}{% for x in [1,2] %}{% set n = n + x %}{{ n }}{% endfor %}{{ n }}", "120"},
         {"{% set ns = namespace(n=0) %}{% for x in [1,2] %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "3"},
         {"{% if true %}{% set a = 5 %}{% endif %}{{ a }}", "5"},
         {"{% set a, b = 1, 2 %}{{ a }}{{ b }}", "12"},
         {"{% set t %}x{{ 1 }}{% endset %}{{ t | length }}", "2"},
         {"{% set t | upper %}abc{% endset %}{{ t }}", "ABC"},
         {"{% filter upper %}abc{% endfilter %}", "ABC"},
         {"{% for x in 'ab' %}{{ loop.previtem is defined }}{{ loop.nextitem }}{{ loop.cycle('p', 'q') }}{% endfor %}",
          "FalsebpTrueq"},
         {"{% for x in [1,1,2] %}{{ loop.changed(x) }}{% endfor %}", "TrueFalseTrue"},
         {"{% for x in [[1,2],[3]] %}{% for y in x %}{{ loop.depth }}{{ y }}{% endfor %}{% endfor %}", "111213"}});
}

TEST(JinjaStatements, MacrosTakeDefaultsNamesAndCallers) {
    expectAll({{"{% macro f(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ f(1) }} {{ f(1, b=3) }} {{ f(a='x') }}", "1-2 1-3 x-2"},
               {"{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "3210"},
               {"{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{% endcall %}", "<in>"},
               {"{% set x = 1 %}{% macro f() %}{{ x }}{% endmacro %}{{ f() ~ f() }}", "11"}});
}

TEST(JinjaLibrary, FiltersFollowJinja2) {
    const Json fields{
        {"m", {{{"r", "u"}, {"n", 2}}, {{"r", "a"}, {"n", 1}}}}, {"d", {{"b", 1}, {"A", 2}}}, {"e", Json::object()}};
    expectAll(
        {{"{{ m | map(attribute='r') | join('|') }}", "u|a"},
         {"{{ m | selectattr('r', 'equalto', 'u') | list | length }}{{ m | rejectattr('r', 'in', ['u']) | list }}",
          "1[{'r': 'a', 'n': 1}]"},
         {"{{ m | sort(attribute='n') | map(attribute='n') | list }}{{ [3,1,2] | sort(reverse=true) }}", "[1, 2][3, 2, 1]"},
         {"{{ ['b', 'A'] | sort }}{{ ['b', 'A'] | sort(case_sensitive=true) }}", "['A', 'b']['A', 'b']"},
         {"{{ [1, 2, 3] | select('odd') | list }}{{ [1, 2, 3] | reject('odd') | list }}{{ [0, 1] | select | list }}",
          "[1, 3][2][1]"},
         {"{{ ['a', 'b'] | map('upper') | list }}", "['A', 'B']"},
         {"{{ missing | default('x') }}{{ '' | default('y') }}{{ '' | default('z', true) }}{{ none | d('q') }}", "xzNone"},
         {"{{ [1,2] | first }}{{ [1,2] | last }}{{ 'abc' | first }}{{ [1,2] | sum }}{{ [1,3,2] | max }}{{ [1,3,2] | min }}",
          "12a331"},
         {"{{ '  x ' | trim }}|{{ 'xxaxx' | trim('x') }}", "x|a"},
         {"{{ 'hello wORLD' | title }} {{ 'hELLO' | capitalize }} {{ 'a' | upper }} {{ '\u00df' | upper }}",
          "Hello World Hello A SS"},
         {"{{ 'aab' | replace('a', 'x') }}{{ 'aab' | replace('a', 'x', 1) }}", "xxbxab"},
         {"{{ '42' | int + 1 }}{{ 'x' | int }}{{ 'x' | int(7) }}{{ 3.9 | int }}{{ '1.5' | float }}{{ 2.5 | round }}", "43073"
                                                                                                                      "1.52.0"},
         {"{{ d | dictsort }}{{ d | items | list }}{{ d | list }}{{ d | length }}",
          "[('A', 2), ('b', 1)][('b', 1), ('A', 2)]['b', 'A']2"},
         {"{{ [1, 1, 2] | unique | list }}{{ [1, 2] | reverse | list }}{{ 'ab' | reverse }}", "[1, 2][2, 1]ba"},
         {"{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}", "a\n    b\n\n    c|  a\n  b"},
         {"{{ '<a>' | e }}{{ '<a>' | safe }}{{ 5 | string | length }}{{ 'a b' | wordcount }}", "&lt;a&gt;<a>12"}},
        fields);
}

TEST(JinjaLibrary, JsonIsWrittenAsPythonDoes) {
    const Json fields{
        {"v", {{"a", {1, 2.0, nullptr, true}}, {"b", "\u00e9\"\\\n\x01<"}, {"c", Json::object()}, {"d", Json::array()}}}};
    expectAll(
        {{"{{ v | tojson }}", "{\"a\": [1, 2.0, null, true], \"b\": \"\u00e9\\\"\\\\\\n\\u0001<\", \"c\": {}, \"d\": []}"},
         {"{{ {'b': 1, 'a': [1, {}]} | tojson(indent=2) }}", "{\n  \"b\": 1,\n  \"a\": [\n    1,\n    {}\n  ]\n}"},
         {"{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", "{\"a\":2,\"b\":1}"},
         {"{{ '\u00e9\U0001F600' | tojson(ensure_ascii=true) }}", "\"\\u00e9\\ud83d\\ude00\""}},
        fields);
}

TEST(JinjaLibrary, TextMethodsFollowPython) {
    expectAll(
        {{"{{ ' a b  c '.split() }}{{ 'a,b,,c'.split(',') }}{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.rsplit(',', 1) }}",
          "['a', 'b', 'c']['a', 'b', '', 'c']['a', 'b,c']['a,b', 'c']"},
         {"{{ 'x</think>y'.split('</think>')[-1].lstrip('\\n') }}", "y"},
         {"{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('x') "
          "}}",
          "TrueTruebcabc"},
         {"{{ ' a '.strip() }}|{{ ' a '.rstrip() }}|{{ 'xxa'.lstrip('x') }}", "a| a|a"},
         {"{{ 'a\nb\r\nc'.splitlines() }}{{ 'abab'.find('b') }}{{ 'abab'.rfind('b') }}{{ 'abab'.count('ab') }}{{ "
          "','.join(['a', 'b']) }}",
          "['a', 'b', 'c']132a,b"},
         {"{{ 'Ab'.upper() }}{{ 'Ab'.lower() }}{{ '12'.isdigit() }}{{ 'a1'.isalnum() }}{{ 'a1'.isalpha() }}{{ ' '.isspace() }}",
          "ABabTrueTrueFalseTrue"},
         {"{{ {'a': 1}.get('a') }}{{ {'a': 1}.get('b') }}{{ {'a': 1}.get('b', 2) }}{{ {'a': 1}.keys() | list }}{{ {'a': "
          "1}.values() | list }}",
          "1None2['a'][1]"},
         {"{{ [1, 2, 1].count(1) }}{{ [1, 2].index(2) }}", "21"},
         {"{{ range(3) | list }}{{ range(1, 7, 3) | list }}{{ range(2, 0, -1) | list }}{{ dict(a=1) }}",
          "[0, 1, 2][1, 4][2, 1]{'a': 1}"}});
}

TEST(JinjaLibrary, TestsKnowTheTypes) {
    const Json fields{{"s", "x"}, {"l", {1}}, {"d", {{"a", 1}}}, {"i", 1}, {"f", 1.5}, {"n", nullptr}, {"b", true}};
    expectAll(
        {{"{{ s is string }}{{ l is sequence }}{{ d is mapping }}{{ l is mapping }}{{ s is iterable }}{{ i is iterable }}",
          "TrueTrueTrueFalseTrueFalse"},
         {"{{ i is number }}{{ i is integer }}{{ f is float }}{{ b is boolean }}{{ b is integer }}{{ n is none }}{{ n is "
          "defined }}{{ q is undefined }}",
          "TrueTrueTrueTrueFalseTrueTrueTrue"},
         {"{{ 2 is eq 2 }}{{ 2 is gt(1) }}{{ 1 is in [1] }}{{ s is sameas 'x' }}{{ range is callable }}",
          "TrueTrueTrueTrueTrue"}},
        fields);
}

TEST(JinjaTime, IsTheOneThatIsGiven) {
    ChatTemplate chat("{{ strftime_now('%Y') }}", "t");
    chat.setNow(86400 * 200);
    EXPECT_EQ(chat.render(Json::object()).text, "1970");
}

// ---- errors

TEST(JinjaErrors, NameTheLineAndWhatIsWrong) {
    const struct {
        const char *source, *line, *message;
    } cases[] = {{"a\n{{ x", "line 2", "not closed with '}}'"},
                 {"a\n\n{% if x %}", "line 3", "'endif' is expected"},
                 {"{% endif %}", "line 1", "unknown block 'endif'"},
                 {"{% nonsense %}", "line 1", "unknown block 'nonsense'"},
                 {"{% include 'x' %}", "line 1", "not supported"},
                 {"{{ 'x }}", "line 1", "quotation mark"},
                 {"{{ ) }}", "line 1", "unexpected ')'"},
                 {"{{ 1 + }}", "line 1", "expected a value, found '}}'"},
                 {"{{ a ? b }}", "line 1", "unexpected character '?'"},
                 {"{# x", "line 1", "not closed with '#}'"},
                 {"\n{{ missing.field }}", "line 2", "'missing' is not defined"},
                 {"{{ {}.x.y }}", "line 1", "the field 'x' is not defined"},
                 {"{{ 'a' + none }}", "line 1", "'+' cannot join a str and a NoneType"},
                 {"{{ 'a' + missing }}", "line 1", "'missing' is not defined"},
                 {"{{ 1 / 0 }}", "line 1", "division by zero"},
                 {"{{ 9223372036854775807 + 1 }}", "line 1", "64 bits"},
                 {"{{ 'a' < 1 }}", "line 1", "cannot be ordered"},
                 {"{{ missing() }}", "line 1", "'missing' is not defined, but called"},
                 {"{{ x | nonsense }}", "line 1", "no filter 'nonsense'"},
                 {"{{ x is nonsense }}", "line 1", "no test 'nonsense'"},
                 {"{{ [].append(1) }}", "line 1", "may not do"},
                 {"{{ missing | tojson }}", "line 1", "not defined"},
                 {"{% set x.y = 1 %}", "line 1", "no namespace"},
                 {"{% set a, b = [1] %}", "line 1", "expected 2 values"},
                 {"{% for x in 5 %}{% endfor %}", "line 1", "cannot be walked"},
                 {"{% break %}", "line 1", "outside of a loop"},
                 {"\n\n{{ raise_exception('no ' ~ 'way') }}", "line 3", "no way"}};
    for (const auto& [source, line, message] : cases) {
        const Error error = errorOf(source);
        EXPECT_EQ(error.code(), ErrorCode::BadInput) << source << ": " << error.what();
        EXPECT_EQ(error.subject(), std::string("t: ") + line) << source;
        EXPECT_THAT(error.message(), HasSubstr(message)) << source;
    }
}

std::string repeated(const std::string& text, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += text;
    return out;
}

TEST(JinjaLimits, EndWhatWouldNotEnd) {
    const std::string sources[] = {
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ range(1000000) }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% set ns.x = [ns.x].copy %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% for y in [ns.x, 1] %}{% set ns.x = loop %}{% endfor %}{% "
        "endfor %}",
        "{{ 'x' * 999999999999 }}",
        "{{ [[1]] * 99999999 }}",
        "{{ ('a' * 1000000).replace('', 'b' * 1000) }}",
        "{{ ('a' * 200000000) | list }}",
        "{{ 2 ** 9999999999 }}",
        "{{ 'x' | tojson(indent=999999999) }}",
        "{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}",
        "{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}",
        "{{ " + repeated("not ", 5000) + "1 }}",
        "{{ " + repeated("-", 5000) + "1 }}",
        "{{ 1" + repeated(" + 1", 5000) + " }}",
        "{{ x" + repeated(".a", 5000) + " }}",
        "{{ x" + repeated(" | trim", 5000) + " }}",
        "{{ 1" + repeated(" if 1 else 1", 5000) + " }}",
        repeated("{% if 1 %}", 5000) + repeated("{% endif %}", 5000),
        "{{ ['a'] | map('map'" + repeated(", 'map'", 5000) + ") }}",
        "{{ 99999999999999999999 }}"};
    for (const std::string& source : sources) EXPECT_EQ(errorOf(source).code(), ErrorCode::BadInput) << source.substr(0, 120);
    EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns.me.me is defined }}"), "True");  // freed all the same
}

/// Broken templates give text or an error, never anything else.
TEST(JinjaLimits, MutatedTemplatesNeverCrash) {
    const fs::path folder = ownData("chat");
    const Json file = readJsonFile(folder / "chat_template_cases.json");
    std::vector<std::pair<std::string, Json>> seeds;
    std::string last;
    for (const Json& one : file["cases"]) {
        const std::string name = one["template"];
        if (name == last) continue;
        last = name;
        seeds.emplace_back(name.starts_with("inline:") ? file["inline_templates"][name.substr(7)].get<std::string>()
                                                       : readFile(folder / name),
                           one["context"]);
    }
    static constexpr const char* kPieces[] = {"{{",
                                              "}}",
                                              "{%",
                                              "%}",
                                              "-",
                                              "(",
                                              ")",
                                              "[",
                                              "]",
                                              "{",
                                              "}",
                                              "'",
                                              "\"",
                                              "|",
                                              ".",
                                              ",",
                                              ":",
                                              "=",
                                              "~",
                                              "*",
                                              "**",
                                              "//",
                                              "%",
                                              " if ",
                                              " else ",
                                              " for x in messages ",
                                              " in ",
                                              " not ",
                                              " is ",
                                              "loop",
                                              "namespace(",
                                              "range(9)",
                                              "{% endif %}",
                                              "{% endfor %}",
                                              "{% macro f(a) %}",
                                              "{% endmacro %}",
                                              "{% set ns.x = ",
                                              "messages",
                                              "| tojson",
                                              "| list",
                                              "| join",
                                              "[::-1]",
                                              "[1:]",
                                              "\xff",
                                              "\xc3\xa9",
                                              "\n",
                                              "9999999999",
                                              "0",
                                              "{#",
                                              "#}",
                                              "{% raw %}",
                                              "{% generation %}"};
    std::mt19937 random(static_cast<std::mt19937::result_type>(testing::UnitTest::GetInstance()->random_seed() + 7));
    const auto pick = [&](std::size_t count) { return static_cast<std::size_t>(random() % count); };
    int rendered = 0, refused = 0;
    for (int round = 0; round < 4000; ++round) {
        const auto& [seed, context] = seeds[pick(seeds.size())];
        std::string source = seed;
        for (std::size_t edits = 1 + pick(4); edits > 0; --edits) {
            const std::size_t at = pick(source.size() + 1), length = std::min(pick(12), source.size() - at);
            switch (pick(4)) {
            case 0:
                source.erase(at, length);
                break;
            case 1:
                source.insert(at, kPieces[pick(std::size(kPieces))]);
                break;
            case 2:
                source.replace(at, length, kPieces[pick(std::size(kPieces))]);
                break;
            default:
                source.insert(pick(source.size() + 1), source.substr(at, length));
                break;
            }
        }
        try {
            render(source, context);
            ++rendered;
        } catch (const Error& error) {
            ++refused;
            ASSERT_EQ(error.code(), ErrorCode::BadInput) << error.what();
        }
    }
    EXPECT_GT(rendered, 100);
    EXPECT_GT(refused, 100);
}

// ---- what a checkpoint folder holds

class TemplateFolder : public testing::Test {
protected:
    void write(const std::string& name, const std::string& content) {
        fs::create_directories((m_folder / name).parent_path());
        writeFileAtomically(m_folder / name, content);
    }
    std::string rendered(const std::string& name = "default") {
        const auto found = ChatTemplate::find(m_folder.path(), name);
        return found ? found->renderMessages(Json::array(), false).text : "(none)";
    }
    TempFolder m_folder;
};

TEST_F(TemplateFolder, IsSearchedAsTransformersDoes) {
    EXPECT_EQ(rendered(), "(none)");
    write(
        "tokenizer_config.json",
        R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null, "chat_template": "{{ bos_token }}config{{ eos_token }}{{ pad_token }}"})");
    EXPECT_EQ(rendered(), "<s>config</s>");
    write("chat_template.json", R"({"chat_template": "json"})");
    EXPECT_EQ(rendered(), "json");
    write("chat_template.jinja", "{{ bos_token }}jinja\n");
    EXPECT_EQ(rendered(), "<s>jinja");
    write("additional_chat_templates/rag.jinja", "rag");
    EXPECT_EQ(rendered("rag"), "rag");
}

TEST_F(TemplateFolder, ChoosesAmongNamedTemplates) {
    write(
        "tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "a{{ tools is none }}"}, {"name": "tool_use", "template": "b"}]})");
    EXPECT_EQ(rendered(), "aTrue");
    EXPECT_EQ(rendered("tool_use"), "b");
    try {
        rendered("rag");
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::NotFound);
        EXPECT_THAT(error.message(), HasSubstr("'default', 'tool_use'"));
    }
}

TEST_F(TemplateFolder, NamesFileFieldAndLineOfABrokenTemplate) {
    write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "x\n{{ "}]})");
    try {
        rendered();
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.subject(), HasSubstr("tokenizer_config.json: chat_template[0] ('default'): line 2"));
    }
    write("tokenizer_config.json", R"({"chat_template": 5})");
    EXPECT_THROW(rendered(), Error);
}

TEST(GenerationBlocks, GiveTheirBytes) {
    const ChatTemplate chat("{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content "
                            "}}</s>{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
                            "t");
    EXPECT_TRUE(chat.marksGeneration());
    const Json messages = Json::array({{{"role", "user"}, {"content", "\u00e9"}},
                                       {{"role", "assistant"}, {"content", "Hi"}},
                                       {{"role", "user"}, {"content", "x"}},
                                       {{"role", "assistant"}, {"content", "Ho"}}});
    const RenderedChat out = chat.renderMessages(messages, false);
    std::vector<std::string> parts;
    for (const ByteRange& range : out.generated) parts.push_back(out.text.substr(range.begin, range.end - range.begin));
    EXPECT_THAT(parts, ElementsAre("Hi</s>", "Ho</s>"));
    EXPECT_FALSE(ChatTemplate("x", "t").marksGeneration());
}

}  // namespace
}  // namespace resect
