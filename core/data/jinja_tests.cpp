#include "core/data/jinja_library.h"
#include "core/data/jinja_text.h"

#include <map>

namespace resect::jinja {
namespace {

using Test = bool (*)(const Value&, const Arguments&, Work&);

const Value& operand(const Arguments& arguments, Work& work) {
    if (arguments.values.size() != 1) work.fail("this test compares with one value");
    return arguments.values[0];
}

std::int64_t wholeOf(const Value& value, Work& work) {
    if (!value.integer()) work.fail(std::string("this test expects a whole number, found a ") + value.typeName());
    return *value.integer();
}

bool divisible(const Value& value, const Arguments& arguments, Work& work) {
    const std::int64_t by = wholeOf(operand(arguments, work), work);
    if (by == 0) work.fail("division by zero");
    return by == -1 || wholeOf(value, work) % by == 0;
}

bool isIterable(const Value& value) { return value.isUndefined() || value.text() || value.sequence() || value.mapping(); }

Test comparison(std::string_view name) {
    static const std::map<std::string_view, Test> all = {
        {"==", [](const Value& value, const Arguments& arguments,
                  Work& work) { return compare("==", value, operand(arguments, work), work); }},
        {"!=", [](const Value& value, const Arguments& arguments,
                  Work& work) { return compare("!=", value, operand(arguments, work), work); }},
        {"<", [](const Value& value, const Arguments& arguments,
                 Work& work) { return compare("<", value, operand(arguments, work), work); }},
        {"<=", [](const Value& value, const Arguments& arguments,
                  Work& work) { return compare("<=", value, operand(arguments, work), work); }},
        {">", [](const Value& value, const Arguments& arguments,
                 Work& work) { return compare(">", value, operand(arguments, work), work); }},
        {">=", [](const Value& value, const Arguments& arguments,
                  Work& work) { return compare(">=", value, operand(arguments, work), work); }},
        {"in", [](const Value& value, const Arguments& arguments,
                  Work& work) { return compare("in", value, operand(arguments, work), work); }},
    };
    static const std::map<std::string_view, std::string_view> names = {
        {"eq", "=="},      {"equalto", "=="}, {"==", "=="}, {"ne", "!="}, {"!=", "!="}, {"lt", "<"},
        {"lessthan", "<"}, {"<", "<"},        {"le", "<="}, {"<=", "<="}, {"gt", ">"},  {"greaterthan", ">"},
        {">", ">"},        {"ge", ">="},      {">=", ">="}, {"in", "in"}};
    const auto known = names.find(name);
    return known == names.end() ? nullptr : all.at(known->second);
}

const std::map<std::string_view, Test>& tests() {
    static const std::map<std::string_view, Test> all = {
        {"defined", [](const Value& value, const Arguments&, Work&) { return !value.isUndefined(); }},
        {"undefined", [](const Value& value, const Arguments&, Work&) { return value.isUndefined(); }},
        {"none", [](const Value& value, const Arguments&, Work&) { return value.isNone(); }},
        {"boolean", [](const Value& value, const Arguments&, Work&) { return value.get<bool>() != nullptr; }},
        {"true", [](const Value& value, const Arguments&, Work&) { return value.get<bool>() && *value.get<bool>(); }},
        {"false", [](const Value& value, const Arguments&, Work&) { return value.get<bool>() && !*value.get<bool>(); }},
        {"integer", [](const Value& value, const Arguments&, Work&) { return value.get<std::int64_t>() != nullptr; }},
        {"float", [](const Value& value, const Arguments&, Work&) { return value.get<double>() != nullptr; }},
        {"number", [](const Value& value, const Arguments&, Work&) { return value.isNumber(); }},
        {"string", [](const Value& value, const Arguments&, Work&) { return value.text() != nullptr; }},
        {"mapping", [](const Value& value, const Arguments&, Work&) { return value.mapping() != nullptr; }},
        {"sequence", [](const Value& value, const Arguments&, Work&) { return isIterable(value); }},
        {"iterable", [](const Value& value, const Arguments&, Work&) { return isIterable(value); }},
        {"callable", [](const Value& value, const Arguments&, Work&) { return value.function() != nullptr; }},
        {"odd", [](const Value& value, const Arguments&, Work& work) { return wholeOf(value, work) % 2 != 0; }},
        {"even", [](const Value& value, const Arguments&, Work& work) { return wholeOf(value, work) % 2 == 0; }},
        {"divisibleby", divisible},
        {"lower",
         [](const Value& value, const Arguments&, Work& work) {
             const std::string text = toPythonText(value, work);
             return lowerText(text) == text && upperText(text) != text;
         }},
        {"upper",
         [](const Value& value, const Arguments&, Work& work) {
             const std::string text = toPythonText(value, work);
             return upperText(text) == text && lowerText(text) != text;
         }},
        {"sameas",
         [](const Value& value, const Arguments& arguments, Work& work) {
             const Value& other = operand(arguments, work);
             return std::string_view(value.typeName()) == other.typeName() && equal(value, other, work);
         }},
    };
    return all;
}

}  // namespace

bool applyTest(const std::string& name, const Value& value, const Arguments& arguments, Work& work) {
    work.step();
    if (const Test test = comparison(name)) return test(value, arguments, work);
    const auto found = tests().find(name);
    if (found == tests().end()) work.fail("there is no test '" + name + "'");
    return found->second(value, arguments, work);
}

}  // namespace resect::jinja
