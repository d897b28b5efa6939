#include "core/data/jinja_eval.h"

#include "core/base/numbers.h"
#include "core/data/jinja_library.h"

#include <algorithm>

namespace resect::jinja {
namespace {

constexpr int kMaxDepth = 600;  // expressions, blocks and macros inside each other: each costs a few stack frames

/// Names set in one block; looked up from the inside out.
struct Scope {
    std::shared_ptr<Scope> outer;
    std::vector<std::pair<std::string, Value>> names;

    const Value* find(const std::string& name) const {
        for (const Scope* scope = this; scope; scope = scope->outer.get())
            for (const auto& [known, value] : scope->names)
                if (known == name) return &value;
        return nullptr;
    }
    void set(const std::string& name, Value value) {
        for (auto& [known, held] : names)
            if (known == name) {
                held = std::move(value);
                return;
            }
        names.emplace_back(name, std::move(value));
    }
};
using ScopePtr = std::shared_ptr<Scope>;

ScopePtr inside(const ScopePtr& outer) { return std::make_shared<Scope>(Scope{outer, {}}); }

enum class Flow { On, Break, Continue };

class Evaluator {
public:
    Evaluator(const Json& context, std::time_t now) : m_now(now), m_top(std::make_shared<Scope>()) {
        for (const auto& [name, value] : context.items()) m_top->set(name, fromJson(value, m_work));
    }
    ~Evaluator() {
        for (const auto& made : m_namespaces) made->members.clear();  // they may hold each other
    }
    Evaluator(const Evaluator&) = delete;
    Evaluator& operator=(const Evaluator&) = delete;

    Rendered render(const Body& body) {
        run(body, m_top);
        return std::move(m_out);
    }

private:
    class Level {
    public:
        explicit Level(Evaluator& evaluator) : m_evaluator(evaluator) {
            if (++evaluator.m_level > kMaxDepth) evaluator.m_work.fail("expressions, blocks and macros are nested too deep");
        }
        ~Level() { --m_evaluator.m_level; }
        Level(const Level&) = delete;
        Level& operator=(const Level&) = delete;

    private:
        Evaluator& m_evaluator;
    };

    void write(std::string_view text) {
        m_work.keep(text.size());
        m_work.handle(text.size());
        m_out.text += text;
    }

    /// What the body writes, instead of writing it.
    std::string captured(const Body& body, const ScopePtr& scope) {
        Rendered outside = std::exchange(m_out, {});
        run(body, scope);
        return std::exchange(m_out, std::move(outside)).text;
    }

    Flow run(const Body& body, const ScopePtr& scope) {
        const Level level(*this);
        for (const Statement& statement : body) {
            m_work.line = statement.line;
            m_work.step();
            if (const Flow flow = run(statement, scope); flow != Flow::On) return flow;
        }
        return Flow::On;
    }

    Flow run(const Statement& statement, const ScopePtr& scope) {
        switch (statement.kind) {
        case StatementKind::Text: write(statement.text); break;
        case StatementKind::Output: write(toPythonText(eval(*statement.value, scope), m_work)); break;
        case StatementKind::If:
            for (const Branch& branch : statement.branches)
                if (!branch.condition || truth(eval(*branch.condition, scope))) return run(branch.body, scope);
            break;
        case StatementKind::For: runFor(statement, scope); break;
        case StatementKind::Set: assign(statement, eval(*statement.value, scope), scope); break;
        case StatementKind::SetBlock: {
            Value text(captured(statement.body, inside(scope)));
            assign(statement, statement.value ? filtered(*statement.value, text, scope) : text, scope);
            break;
        }
        case StatementKind::Macro: scope->set(statement.text, macro(statement, scope)); break;
        case StatementKind::CallBlock: runCall(statement, scope); break;
        case StatementKind::FilterBlock: write(toPythonText(filtered(*statement.value, Value(captured(statement.body, inside(scope))), scope), m_work)); break;
        case StatementKind::Generation: {
            const std::size_t begin = m_out.text.size();
            run(statement.body, inside(scope));
            m_out.generated.push_back({begin, m_out.text.size()});
            break;
        }
        case StatementKind::Break: return Flow::Break;
        case StatementKind::Continue: return Flow::Continue;
        }
        return Flow::On;
    }

    void assign(const Statement& statement, Value value, const ScopePtr& scope) {
        if (!statement.text.empty()) {
            const Value* held = scope->find(statement.targets[0]);
            Namespace* target = held ? held->nameSpace() : nullptr;
            if (!target) m_work.fail("'" + statement.targets[0] + "' is no namespace, so that its attribute '" + statement.text + "' cannot be set");
            for (auto& [name, member] : target->members)
                if (name == statement.text) {
                    member = std::move(value);
                    return;
                }
            target->members.emplace_back(statement.text, std::move(value));
            return;
        }
        bind(statement, value, *scope);
    }

    void bind(const Statement& statement, const Value& value, Scope& scope) {
        if (!statement.unpack) return scope.set(statement.targets[0], value);
        const List items = itemsOf(value, m_work);
        if (items.size() != statement.targets.size())
            m_work.fail("expected " + std::to_string(statement.targets.size()) + " values to unpack, found " + std::to_string(items.size()));
        for (std::size_t i = 0; i < items.size(); ++i) scope.set(statement.targets[i], items[i]);
    }

    void runFor(const Statement& statement, const ScopePtr& scope) {
        List items = itemsOf(eval(*statement.value, scope), m_work);
        if (statement.condition) {
            List kept;
            for (Value& item : items) {
                const ScopePtr inner = inside(scope);
                bind(statement, item, *inner);
                if (truth(eval(*statement.condition, inner))) kept.push_back(std::move(item));
            }
            items = std::move(kept);
        }
        if (items.empty()) {
            run(statement.otherwise, inside(scope));
            return;
        }
        const auto changed = std::make_shared<std::optional<std::string>>();
        for (std::size_t i = 0; i < items.size(); ++i) {
            m_work.line = statement.line;
            const ScopePtr inner = inside(scope);
            inner->set("loop", loopValue(items, i, changed));
            bind(statement, items[i], *inner);
            if (run(statement.body, inner) == Flow::Break) break;
        }
    }

    Value loopValue(const List& items, std::size_t i, const std::shared_ptr<std::optional<std::string>>& changed) {
        const auto index = static_cast<std::int64_t>(i), count = static_cast<std::int64_t>(items.size());
        Entries fields = {{"index0", index},           {"index", index + 1},        {"revindex0", count - index - 1}, {"revindex", count - index}, {"first", i == 0},
                          {"last", index + 1 == count}, {"length", count},           {"depth0", 0},             {"depth", 1}};
        if (i > 0) fields.emplace_back("previtem", items[i - 1]);
        if (i + 1 < items.size()) fields.emplace_back("nextitem", items[i + 1]);
        fields.emplace_back("cycle", function("cycle", [i](const Arguments& arguments, Work& work) {
                                if (arguments.values.empty()) work.fail("loop.cycle() expects values");
                                return arguments.values[i % arguments.values.size()];
                            }));
        fields.emplace_back("changed", function("changed", [changed](const Arguments& arguments, Work& work) {
                                std::string now;  // not the values: they could hold this function
                                for (const Value& value : arguments.values) now += toPythonRepr(value, work) + "\n";
                                const bool same = *changed == now;
                                *changed = std::move(now);
                                return Value(!same);
                            }));
        m_work.step(8);
        return makeDict(std::move(fields), m_work);
    }

    static Value function(std::string name, std::function<Value(const Arguments&, Work&)> call) {
        return Value::Data(std::make_shared<const Function>(Function{std::move(name), std::move(call), 0}));
    }

    /// Sees the names around its definition, as they are when it is called.
    Value macro(const Statement& statement, const ScopePtr& scope) {
        const std::weak_ptr<Scope> outer = scope;  // the scope holds the macro
        return function(statement.text, [this, &statement, outer](const Arguments& arguments, Work& work) {
            const ScopePtr around = outer.lock();
            if (!around) work.fail("the macro '" + statement.text + "' is called where its block has ended");
            const int line = work.line;
            const ScopePtr inner = inside(around);
            bindParameters(statement, arguments, *inner, inner);
            std::string text = captured(statement.body, inner);
            work.line = line;
            return Value(std::move(text));
        });
    }

    void bindParameters(const Statement& statement, const Arguments& arguments, Scope& scope, const ScopePtr& inner) {
        const auto& parameters = statement.parameters;
        if (arguments.values.size() > parameters.size())
            m_work.fail("the macro '" + statement.text + "' takes " + std::to_string(parameters.size()) + " values, found " + std::to_string(arguments.values.size()));
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            if (const Value* given = arguments.find(i, parameters[i].name))
                scope.set(parameters[i].name, *given);
            else
                scope.set(parameters[i].name, parameters[i].fallback ? eval(*parameters[i].fallback, inner) : Value(Value::Data(Undefined{"'" + parameters[i].name + "'"})));
        }
        for (const auto& entry : arguments.named) {
            const bool known = entry.first == "caller" || std::any_of(parameters.begin(), parameters.end(), [&](const Parameter& parameter) { return parameter.name == entry.first; });
            if (!known) m_work.fail("the macro '" + statement.text + "' has no parameter '" + entry.first + "'");
            if (entry.first == "caller") scope.set("caller", entry.second);
        }
    }

    void runCall(const Statement& statement, const ScopePtr& scope) {
        const Expr& call = *statement.value;
        Arguments arguments = argumentsOf(call, scope);
        const std::weak_ptr<Scope> outer = scope;
        arguments.named.emplace_back("caller", function("caller", [this, &statement, outer](const Arguments&, Work&) {
                                         const ScopePtr around = outer.lock();
                                         return Value(around ? captured(statement.body, inside(around)) : "");
                                     }));
        write(toPythonText(called(eval(*call.children[0], scope), call, arguments), m_work));
    }

    Value filtered(const Expr& filter, const Value& input, const ScopePtr& scope) {
        const Value value = filter.children[0] ? filtered(*filter.children[0], input, scope) : input;
        return applyFilter(filter.text, value, argumentsOf(filter, scope), m_work);
    }

    Arguments argumentsOf(const Expr& expr, const ScopePtr& scope) {
        Arguments arguments;
        for (const ExprPtr& argument : expr.arguments) arguments.values.push_back(eval(*argument, scope));
        for (const auto& [name, argument] : expr.named) arguments.named.emplace_back(name, eval(*argument, scope));
        return arguments;
    }

    Value called(const Value& callee, const Expr& call, const Arguments& arguments) {
        if (const auto* function = callee.function()) {
            const Level level(*this);
            return function->call(arguments, m_work);
        }
        if (const auto* missing = callee.get<Undefined>()) m_work.fail(missing->what + " is not defined, but called");
        m_work.fail("a " + std::string(callee.typeName()) + " is called" + (call.children[0]->text.empty() ? "" : " ('" + call.children[0]->text + "')"));
    }

    Value makeNamespace(const Arguments& arguments) {
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

    Value named(const std::string& name, const ScopePtr& scope) {
        if (const Value* found = scope->find(name)) return *found;
        if (name == "namespace") return function(name, [this](const Arguments& arguments, Work&) { return makeNamespace(arguments); });
        return functionNamed(name, m_now);
    }

    Value eval(const Expr& expr, const ScopePtr& scope) {
        const Level level(*this);
        m_work.step();
        m_work.line = expr.line;
        const auto child = [&](std::size_t i) { return eval(*expr.children[i], scope); };
        const auto optionalChild = [&](std::size_t i) { return expr.children[i] ? child(i) : Value(); };
        switch (expr.kind) {
        case ExprKind::None: return Value();
        case ExprKind::True: return true;
        case ExprKind::False: return false;
        case ExprKind::Integer: return wholeNumber(expr);
        case ExprKind::Float: return parseDouble(expr.text).value_or(0);
        case ExprKind::String: return madeText(expr.text, m_work);
        case ExprKind::Name: return named(expr.text, scope);
        case ExprKind::List:
        case ExprKind::Tuple: {
            List items;
            for (std::size_t i = 0; i < expr.children.size(); ++i) items.push_back(child(i));
            return makeList(std::move(items), m_work, expr.kind == ExprKind::Tuple);
        }
        case ExprKind::Dict: return dict(expr, scope);
        case ExprKind::Attribute: return attributeOf(child(0), expr.text, m_work);
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
        case ExprKind::Not: return !truth(child(0));
        case ExprKind::Negative: return applyBinary("-", Value(0), child(0), m_work);
        case ExprKind::Positive: return applyBinary("+", Value(0), child(0), m_work);
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
        case ExprKind::Compare: return compared(expr, scope);
        case ExprKind::Conditional:
            if (truth(child(1))) return child(0);
            return expr.children[2] ? child(2) : Value(Value::Data(Undefined{"the value of an inline 'if' without 'else'"}));
        }
        m_work.fail("unknown expression");
    }

    Value wholeNumber(const Expr& expr) {
        const auto value = parseInt(expr.text);
        if (!value) m_work.fail("'" + expr.text + "' is larger than a whole number can be");
        return *value;
    }

    Value dict(const Expr& expr, const ScopePtr& scope) {
        Entries entries;
        for (std::size_t i = 0; i + 1 < expr.children.size(); i += 2) {
            Value key = eval(*expr.children[i], scope);
            if (!key.text() && !key.isNumber() && !key.isNone()) m_work.fail(std::string("a ") + key.typeName() + " cannot be the key of a dict");
            Value value = eval(*expr.children[i + 1], scope);
            const auto known = std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return equal(entry.first, key, m_work); });
            if (known != entries.end())
                known->second = std::move(value);
            else
                entries.emplace_back(std::move(key), std::move(value));
        }
        return makeDict(std::move(entries), m_work);
    }

    Value compared(const Expr& expr, const ScopePtr& scope) {
        Value left = eval(*expr.children[0], scope);
        for (std::size_t i = 0; i < expr.operators.size(); ++i) {
            Value right = eval(*expr.children[i + 1], scope);
            m_work.line = expr.line;
            if (!compare(expr.operators[i], left, right, m_work)) return false;
            left = std::move(right);
        }
        return true;
    }

    Work m_work;
    std::time_t m_now;
    ScopePtr m_top;
    Rendered m_out;
    std::vector<std::shared_ptr<Namespace>> m_namespaces;
    int m_level = 0;
};

}  // namespace

Rendered render(const Body& body, const Json& context, std::time_t now) { return Evaluator(context, now).render(body); }

}  // namespace resect::jinja
