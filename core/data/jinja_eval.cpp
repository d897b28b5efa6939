#include "core/data/jinja_eval.h"

#include "core/data/jinja_expression_eval.h"
#include "core/data/jinja_library.h"

#include <algorithm>

namespace resect::jinja {
namespace {

enum class Flow { On, Break, Continue };

class Evaluator : ExpressionEvaluator {
public:
    Evaluator(const Json& context, std::time_t now) : ExpressionEvaluator(now) {
        for (const auto& [name, value] : context.items()) m_top->set(name, fromJson(value, m_work));
    }

    Rendered render(const Body& body) {
        run(body, m_top);
        return std::move(m_out);
    }

private:
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
        case StatementKind::Text:
            write(statement.text);
            break;
        case StatementKind::Output:
            write(toPythonText(eval(*statement.value, scope), m_work));
            break;
        case StatementKind::If:
            for (const Branch& branch : statement.branches)
                if (!branch.condition || truth(eval(*branch.condition, scope))) return run(branch.body, scope);
            break;
        case StatementKind::For:
            runFor(statement, scope);
            break;
        case StatementKind::Set:
            assign(statement, eval(*statement.value, scope), scope);
            break;
        case StatementKind::SetBlock: {
            Value text(captured(statement.body, inside(scope)));
            assign(statement, statement.value ? filtered(*statement.value, text, scope) : text, scope);
            break;
        }
        case StatementKind::Macro:
            scope->set(statement.text, macro(statement, scope));
            break;
        case StatementKind::CallBlock:
            runCall(statement, scope);
            break;
        case StatementKind::FilterBlock:
            write(toPythonText(filtered(*statement.value, Value(captured(statement.body, inside(scope))), scope), m_work));
            break;
        case StatementKind::Generation: {
            const std::size_t begin = m_out.text.size();
            const Flow flow = run(statement.body, inside(scope));
            m_out.generated.push_back({begin, m_out.text.size()});
            return flow;
        }
        case StatementKind::Break:
            return Flow::Break;
        case StatementKind::Continue:
            return Flow::Continue;
        }
        return Flow::On;
    }

    void assign(const Statement& statement, Value value, const ScopePtr& scope) {
        if (!statement.text.empty()) {
            const Value* held = scope->find(statement.targets[0]);
            Namespace* target = held ? held->nameSpace() : nullptr;
            if (!target)
                m_work.fail("'" + statement.targets[0] + "' is no namespace, so that its attribute '" + statement.text +
                            "' cannot be set");
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
            m_work.fail("expected " + std::to_string(statement.targets.size()) + " values to unpack, found " +
                        std::to_string(items.size()));
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
        Entries fields = {{"index0", index},           {"index", index + 1}, {"revindex0", count - index - 1},
                          {"revindex", count - index}, {"first", i == 0},    {"last", index + 1 == count},
                          {"length", count},           {"depth0", 0},        {"depth", 1}};
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
            m_work.fail("the macro '" + statement.text + "' takes " + std::to_string(parameters.size()) + " values, found " +
                        std::to_string(arguments.values.size()));
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            if (const Value* given = arguments.find(i, parameters[i].name))
                scope.set(parameters[i].name, *given);
            else
                scope.set(parameters[i].name, parameters[i].fallback
                                                  ? eval(*parameters[i].fallback, inner)
                                                  : Value(Value::Data(Undefined{"'" + parameters[i].name + "'"})));
        }
        for (const auto& entry : arguments.named) {
            const bool known = entry.first == "caller" ||
                               std::any_of(parameters.begin(), parameters.end(),
                                           [&](const Parameter& parameter) { return parameter.name == entry.first; });
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

    ScopePtr m_top = std::make_shared<Scope>();
    Rendered m_out;
};

}  // namespace

Rendered render(const Body& body, const Json& context, std::time_t now) { return Evaluator(context, now).render(body); }

}  // namespace resect::jinja
