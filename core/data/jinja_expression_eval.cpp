#include "core/data/jinja_expression_eval.h"

#include "core/base/numbers.h"
#include "core/data/jinja_library.h"

#include <algorithm>

namespace resect::jinja {
namespace {

constexpr int kMaxDepth = 600;

}  // namespace

ExpressionEvaluator::~ExpressionEvaluator() {
    for (const auto& made : m_namespaces) made->members.clear();  // they may hold each other
}

ExpressionEvaluator::Level::Level(ExpressionEvaluator& evaluator) : m_evaluator(evaluator) {
    if (++evaluator.m_level > kMaxDepth) evaluator.m_work.fail("expressions, blocks and macros are nested too deep");
}

Value ExpressionEvaluator::function(std::string name, std::function<Value(const Arguments&, Work&)> call) {
    return Value::Data(std::make_shared<const Function>(Function{std::move(name), std::move(call), 0}));
}

Arguments ExpressionEvaluator::argumentsOf(const Expr& expr, const ScopePtr& scope) {
    Arguments arguments;
    for (const ExprPtr& argument : expr.arguments) arguments.values.push_back(eval(*argument, scope));
    for (const auto& [name, argument] : expr.named) arguments.named.emplace_back(name, eval(*argument, scope));
    return arguments;
}

Value ExpressionEvaluator::called(const Value& callee, const Expr& call, const Arguments& arguments) {
    if (const auto* function = callee.function()) {
        const Level level(*this);
        return function->call(arguments, m_work);
    }
    if (const auto* missing = callee.get<Undefined>()) m_work.fail(missing->what + " is not defined, but called");
    m_work.fail("a " + std::string(callee.typeName()) + " is called" +
                (call.children[0]->text.empty() ? "" : " ('" + call.children[0]->text + "')"));
}

Value ExpressionEvaluator::makeNamespace(const Arguments& arguments) {
    auto made = std::make_shared<Namespace>();
    if (!arguments.values.empty()) {
        const Mapping* first = arguments.values[0].mapping();
        if (!first || arguments.values.size() > 1) m_work.fail("namespace() expects names with values, or one dict");
        for (const auto& [key, value] : first->entries) made->members.emplace_back(toPythonText(key, m_work), value);
    }
    for (const auto& entry : arguments.named) made->members.push_back(entry);
    m_work.keep(256);
    m_namespaces.push_back(made);
    return Value::Data(std::move(made));
}

Value ExpressionEvaluator::named(const std::string& name, const ScopePtr& scope) {
    if (const Value* found = scope->find(name)) return *found;
    if (name == "namespace")
        return function(name, [this](const Arguments& arguments, Work&) { return makeNamespace(arguments); });
    return functionNamed(name, m_now);
}

Value ExpressionEvaluator::eval(const Expr& expr, const ScopePtr& scope) {
    const Level level(*this);
    m_work.step();
    m_work.line = expr.line;
    const auto child = [&](std::size_t i) { return eval(*expr.children[i], scope); };
    const auto optionalChild = [&](std::size_t i) { return expr.children[i] ? child(i) : Value(); };
    switch (expr.kind) {
    case ExprKind::None:
        return Value();
    case ExprKind::True:
        return true;
    case ExprKind::False:
        return false;
    case ExprKind::Integer:
        return wholeNumber(expr);
    case ExprKind::Float:
        return parseDouble(expr.text).value_or(0);
    case ExprKind::String:
        return madeText(expr.text, m_work);
    case ExprKind::Name:
        return named(expr.text, scope);
    case ExprKind::List:
    case ExprKind::Tuple: {
        List items;
        for (std::size_t i = 0; i < expr.children.size(); ++i) items.push_back(child(i));
        return makeList(std::move(items), m_work, expr.kind == ExprKind::Tuple);
    }
    case ExprKind::Dict:
        return dict(expr, scope);
    case ExprKind::Attribute:
        return attributeOf(child(0), expr.text, m_work);
    case ExprKind::Item: {
        const Value whole = child(0);
        return itemOf(whole, child(1), m_work);
    }
    case ExprKind::Slice: {
        const Value whole = child(0), from = optionalChild(1), to = optionalChild(2);
        return sliceOf(whole, from, to, optionalChild(3), m_work);
    }
    case ExprKind::Call: {
        const Value callee = child(0);
        const Arguments arguments = argumentsOf(expr, scope);
        m_work.line = expr.line;
        return called(callee, expr, arguments);
    }
    case ExprKind::Filter: {
        const Value value = child(0);
        const Arguments arguments = argumentsOf(expr, scope);
        m_work.line = expr.line;
        return applyFilter(expr.text, value, arguments, m_work);
    }
    case ExprKind::Test: {
        const Value value = child(0);
        return applyTest(expr.text, value, argumentsOf(expr, scope), m_work);
    }
    case ExprKind::Not:
        return !truth(child(0));
    case ExprKind::Negative:
        return applyBinary("-", Value(0), child(0), m_work);
    case ExprKind::Positive:
        return applyBinary("+", Value(0), child(0), m_work);
    case ExprKind::And: {
        Value left = child(0);
        return truth(left) ? child(1) : left;
    }
    case ExprKind::Or: {
        Value left = child(0);
        return truth(left) ? left : child(1);
    }
    case ExprKind::Binary: {
        const Value left = child(0), right = child(1);
        m_work.line = expr.line;
        return applyBinary(expr.text, left, right, m_work);
    }
    case ExprKind::Compare:
        return compared(expr, scope);
    case ExprKind::Conditional:
        if (truth(child(1))) return child(0);
        return expr.children[2] ? child(2) : Value(Value::Data(Undefined{"the value of an inline 'if' without 'else'"}));
    }
    m_work.fail("unknown expression");
}

Value ExpressionEvaluator::wholeNumber(const Expr& expr) {
    const auto value = parseInt(expr.text);
    if (!value) m_work.fail("'" + expr.text + "' is larger than a whole number can be");
    return *value;
}

Value ExpressionEvaluator::dict(const Expr& expr, const ScopePtr& scope) {
    Entries entries;
    for (std::size_t i = 0; i + 1 < expr.children.size(); i += 2) {
        Value key = eval(*expr.children[i], scope);
        if (!key.text() && !key.isNumber() && !key.isNone())
            m_work.fail(std::string("a ") + key.typeName() + " cannot be the key of a dict");
        Value value = eval(*expr.children[i + 1], scope);
        const auto known =
            std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return equal(entry.first, key, m_work); });
        if (known != entries.end())
            known->second = std::move(value);
        else
            entries.emplace_back(std::move(key), std::move(value));
    }
    return makeDict(std::move(entries), m_work);
}

Value ExpressionEvaluator::compared(const Expr& expr, const ScopePtr& scope) {
    Value left = eval(*expr.children[0], scope);
    for (std::size_t i = 0; i < expr.operators.size(); ++i) {
        Value right = eval(*expr.children[i + 1], scope);
        m_work.line = expr.line;
        if (!compare(expr.operators[i], left, right, m_work)) return false;
        left = std::move(right);
    }
    return true;
}

}  // namespace resect::jinja
