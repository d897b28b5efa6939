#pragma once
#include "core/data/jinja_syntax.h"
#include "core/data/jinja_value.h"

#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace resect::jinja {

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

inline ScopePtr inside(const ScopePtr& outer) { return std::make_shared<Scope>(Scope{outer, {}}); }

/// Computes expressions. Everything that one rendering shares is here, too.
class ExpressionEvaluator {
protected:
    /// `now` is what strftime_now() tells.
    explicit ExpressionEvaluator(std::time_t now) : m_now(now) {}
    ~ExpressionEvaluator();
    ExpressionEvaluator(const ExpressionEvaluator&) = delete;
    ExpressionEvaluator& operator=(const ExpressionEvaluator&) = delete;

    /// Counts how deep expressions, blocks and macros are inside each other: each costs a few stack frames.
    class Level {
    public:
        explicit Level(ExpressionEvaluator& evaluator);
        ~Level() { --m_evaluator.m_level; }
        Level(const Level&) = delete;
        Level& operator=(const Level&) = delete;

    private:
        ExpressionEvaluator& m_evaluator;
    };

    Value eval(const Expr& expr, const ScopePtr& scope);
    Arguments argumentsOf(const Expr& expr, const ScopePtr& scope);
    Value called(const Value& callee, const Expr& call, const Arguments& arguments);
    static Value function(std::string name, std::function<Value(const Arguments&, Work&)> call);

    Work m_work;

private:
    Value named(const std::string& name, const ScopePtr& scope);
    Value makeNamespace(const Arguments& arguments);
    Value wholeNumber(const Expr& expr);
    Value dict(const Expr& expr, const ScopePtr& scope);
    Value compared(const Expr& expr, const ScopePtr& scope);

    std::time_t m_now;
    std::vector<std::shared_ptr<Namespace>> m_namespaces;  ///< all that were made
    int m_level = 0;
};

}  // namespace resect::jinja
