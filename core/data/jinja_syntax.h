#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

// The syntax tree of a template. Nodes are plain data; jinja_parser makes them and jinja_eval walks them.

namespace resect::jinja {

enum class ExprKind {
    None,
    True,
    False,
    Integer,
    Float,
    String,
    Name,
    List,
    Tuple,
    Dict,
    Attribute,  ///< children[0].text
    Item,       ///< children[0][children[1]]
    Slice,      ///< children[0][1:2:3], absent parts are null
    Call,       ///< children[0](arguments)
    Filter,     ///< children[0] | text(arguments); children[0] is null in a `{% filter %}` or `{% set %}` block
    Test,       ///< children[0] is text(arguments)
    Not,
    Negative,
    Positive,
    And,
    Or,
    Binary,       ///< text: + - * / // % ** ~
    Compare,      ///< children[0] text children[1] names[0] children[2] ...: a chain as in Python
    Conditional,  ///< children[0] if children[1] else children[2]; the last may be null
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
    ExprKind kind = ExprKind::None;
    int line = 0;
    std::string text;
    std::vector<ExprPtr> children;                       ///< Dict: key, value, key, value, ...
    std::vector<ExprPtr> arguments;                      ///< of a call, filter or test
    std::vector<std::pair<std::string, ExprPtr>> named;  ///< keyword arguments
    std::vector<std::string> operators;                  ///< Compare: one per step; "in", "not in", "==", ...
    int depth = 1;                                       ///< of the tree below, itself included
};

enum class StatementKind { Text, Output, If, For, Set, SetBlock, Macro, CallBlock, FilterBlock, Generation, Break, Continue };

struct Statement;
using Body = std::vector<Statement>;

/// A condition and what follows from it; `else` has no condition.
struct Branch;

struct Parameter {
    std::string name;
    ExprPtr fallback;  ///< null when it has none
};

struct Statement {
    StatementKind kind = StatementKind::Text;
    int line = 0;
    std::string text;   ///< Text; name of a Macro; attribute of a Set on a namespace, else empty
    ExprPtr value;      ///< Output, For (what is walked), Set, CallBlock (the call), FilterBlock, filter of a SetBlock
    ExprPtr condition;  ///< For: `if` behind it, or null
    std::vector<std::string> targets;   ///< For, Set: one name, or several to unpack into
    bool unpack = false;                ///< `a, = x` unpacks though there is one target
    std::vector<Branch> branches;       ///< If
    std::vector<Parameter> parameters;  ///< Macro
    Body body;
    Body otherwise;  ///< For: else
};

struct Branch {
    ExprPtr condition;
    Body body;
};

/// Throws BadInput with the subject "line N" for what is no Jinja, for tags that chat templates do not use (include, import,
/// extends, block, ...), and for trees deeper than 200 levels.
Body parse(const std::string& source);

}  // namespace resect::jinja
