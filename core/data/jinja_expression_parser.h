#pragma once
#include "core/data/jinja_lexer.h"
#include "core/data/jinja_syntax.h"

#include <string_view>

namespace resect::jinja {

/// Reads expressions with the precedence of Jinja2's parser (its parser.py is the reference), from loose to tight: inline if,
/// or, and, not, comparisons, + and -, ~, * / // %, **, sign, attributes and calls, filters and tests.
class ExpressionParser {
protected:
    explicit ExpressionParser(std::vector<Token> tokens) : m_tokens(std::move(tokens)) {}

    /// Whether an `if` behind the expression belongs to it; in `for x in y if z` it does not.
    enum class Conditionals { Take, Leave };
    /// One expression, or several with commas between as a tuple.
    ExprPtr parseTuple(Conditionals conditionals = Conditionals::Take);
    ExprPtr parseExpression(Conditionals conditionals = Conditionals::Take);
    /// `name(arguments) | name ...` applied to `value`; the "|" before the first is not there when `first`.
    ExprPtr parseFilters(ExprPtr value, bool first);

    const Token& current() const { return m_tokens[m_at]; }
    Token take();
    Token expect(TokenKind kind, std::string_view what);
    void expectOperator(std::string_view text);
    bool isOperator(std::string_view text) const { return current().kind == TokenKind::Operator && current().text == text; }
    bool isName(std::string_view text) const { return current().kind == TokenKind::Name && current().text == text; }
    bool takeOperator(std::string_view text);
    bool takeName(std::string_view text);
    static std::string describe(const Token& token);  ///< for messages: "'}'", "the end of the template"

private:
    class Level;
    ExprPtr parseOr();
    ExprPtr parseAnd();
    ExprPtr parseNot();
    ExprPtr parseCompare();
    ExprPtr parseBinary(int level);
    ExprPtr parseUnary(bool withFilters);
    ExprPtr parsePrimary();
    ExprPtr parsePostfix(ExprPtr value);
    ExprPtr parseSubscript(ExprPtr value, int line);
    ExprPtr parseCall(ExprPtr callee);
    ExprPtr parseTest(ExprPtr value);
    ExprPtr parseDict(int line);
    ExprPtr parseList(ExprKind kind, std::string_view close, int line);
    void parseArguments(Expr& call);

    std::vector<Token> m_tokens;
    std::size_t m_at = 0;
    int m_level = 0;
};

}  // namespace resect::jinja
