#include "core/data/jinja_expression_parser.h"

#include <algorithm>
#include <array>

namespace resect::jinja {
namespace {

constexpr int kMaxDepth = 200;
constexpr std::size_t kMaxArguments = 100;

template <class... Children>
ExprPtr make(ExprKind kind, int line, std::string text, Children... children) {
    auto made = std::make_unique<Expr>();
    made->kind = kind;
    made->line = line;
    made->text = std::move(text);
    (made->children.push_back(std::move(children)), ...);
    return made;
}

/// Called when a node is complete. Depth is bounded because walking and freeing a tree recurse.
ExprPtr measured(ExprPtr made) {
    const auto add = [&](const ExprPtr& child) {
        if (child) made->depth = std::max(made->depth, child->depth + 1);
    };
    for (const auto& child : made->children) add(child);
    for (const auto& argument : made->arguments) add(argument);
    for (const auto& entry : made->named) add(entry.second);
    if (made->depth > kMaxDepth) fail(made->line, "the expression is nested more than " + std::to_string(kMaxDepth) + " deep");
    return made;
}

}  // namespace

/// Counts how deep the parser is in itself.
class ExpressionParser::Level {
public:
    explicit Level(ExpressionParser& parser) : m_parser(parser) {
        if (++parser.m_level > kMaxDepth)
            fail(parser.current().line, "the expression is nested more than " + std::to_string(kMaxDepth) + " deep");
    }
    ~Level() { --m_parser.m_level; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

private:
    ExpressionParser& m_parser;
};

std::string ExpressionParser::describe(const Token& token) {
    switch (token.kind) {
    case TokenKind::End:
        return "the end of the template";
    case TokenKind::Text:
        return "text";
    case TokenKind::OutputBegin:
        return "'{{'";
    case TokenKind::OutputEnd:
        return "'}}'";
    case TokenKind::BlockBegin:
        return "'{%'";
    case TokenKind::BlockEnd:
        return "'%}'";
    case TokenKind::String:
        return "a text in quotation marks";
    default:
        return "'" + token.text + "'";
    }
}

Token ExpressionParser::take() {
    Token token = m_tokens[m_at];
    if (m_at + 1 < m_tokens.size()) ++m_at;
    return token;
}

Token ExpressionParser::expect(TokenKind kind, std::string_view what) {
    if (current().kind != kind) fail(current().line, "expected " + std::string(what) + ", found " + describe(current()));
    return take();
}

void ExpressionParser::expectOperator(std::string_view text) {
    if (!takeOperator(text)) fail(current().line, "expected '" + std::string(text) + "', found " + describe(current()));
}

bool ExpressionParser::takeOperator(std::string_view text) {
    if (!isOperator(text)) return false;
    take();
    return true;
}

bool ExpressionParser::takeName(std::string_view text) {
    if (!isName(text)) return false;
    take();
    return true;
}

ExprPtr ExpressionParser::parseTuple(Conditionals conditionals) {
    const int line = current().line;
    ExprPtr first = parseExpression(conditionals);
    if (!isOperator(",")) return first;
    auto tuple = make(ExprKind::Tuple, line, "", std::move(first));
    while (takeOperator(",")) {
        const TokenKind kind = current().kind;
        if (kind == TokenKind::BlockEnd || kind == TokenKind::OutputEnd || isOperator(")")) break;
        tuple->children.push_back(parseExpression(conditionals));
    }
    return measured(std::move(tuple));
}

ExprPtr ExpressionParser::parseExpression(Conditionals conditionals) {
    const Level level(*this);
    ExprPtr value = parseOr();
    while (conditionals == Conditionals::Take && isName("if")) {
        const int line = take().line;
        ExprPtr condition = parseOr();
        ExprPtr otherwise = takeName("else") ? parseExpression() : nullptr;
        value = measured(make(ExprKind::Conditional, line, "", std::move(value), std::move(condition), std::move(otherwise)));
    }
    return value;
}

ExprPtr ExpressionParser::parseOr() {
    ExprPtr left = parseAnd();
    while (isName("or")) {
        const int line = take().line;
        ExprPtr right = parseAnd();
        left = measured(make(ExprKind::Or, line, "", std::move(left), std::move(right)));
    }
    return left;
}

ExprPtr ExpressionParser::parseAnd() {
    ExprPtr left = parseNot();
    while (isName("and")) {
        const int line = take().line;
        ExprPtr right = parseNot();
        left = measured(make(ExprKind::And, line, "", std::move(left), std::move(right)));
    }
    return left;
}

ExprPtr ExpressionParser::parseNot() {
    if (!isName("not")) return parseCompare();
    const Level level(*this);
    const int line = take().line;
    return measured(make(ExprKind::Not, line, "", parseNot()));
}

ExprPtr ExpressionParser::parseCompare() {
    static constexpr std::array kOperators = {"==", "!=", "<", "<=", ">", ">="};
    const int line = current().line;
    ExprPtr first = parseBinary(0);
    auto chain = make(ExprKind::Compare, line, "");
    for (;;) {
        std::string op;
        if (current().kind == TokenKind::Operator &&
            std::find(kOperators.begin(), kOperators.end(), current().text) != kOperators.end()) {
            op = take().text;
        } else if (takeName("in")) {
            op = "in";
        } else if (isName("not") && m_at + 1 < m_tokens.size() && m_tokens[m_at + 1].kind == TokenKind::Name &&
                   m_tokens[m_at + 1].text == "in") {
            take();
            take();
            op = "not in";
        } else {
            break;
        }
        if (chain->children.empty()) chain->children.push_back(std::move(first));
        chain->operators.push_back(op);
        chain->children.push_back(parseBinary(0));
    }
    return chain->children.empty() ? std::move(first) : measured(std::move(chain));
}

/// Operators of the same level associate to the left, ** too, as in Jinja2.
ExprPtr ExpressionParser::parseBinary(int level) {
    static const std::array<std::vector<std::string_view>, 4> kLevels = {{{"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}}};
    if (level == static_cast<int>(kLevels.size())) return parseUnary(true);
    const auto& operators = kLevels[static_cast<std::size_t>(level)];
    ExprPtr left = parseBinary(level + 1);
    while (current().kind == TokenKind::Operator &&
           std::find(operators.begin(), operators.end(), current().text) != operators.end()) {
        const Token op = take();
        ExprPtr right = parseBinary(level + 1);
        left = measured(make(ExprKind::Binary, op.line, op.text, std::move(left), std::move(right)));
    }
    return left;
}

ExprPtr ExpressionParser::parseUnary(bool withFilters) {
    const Level level(*this);
    const int line = current().line;
    ExprPtr value;
    if (takeOperator("-"))
        value = measured(make(ExprKind::Negative, line, "", parseUnary(false)));
    else if (takeOperator("+"))
        value = measured(make(ExprKind::Positive, line, "", parseUnary(false)));
    else
        value = parsePrimary();
    value = parsePostfix(std::move(value));
    while (withFilters) {
        if (isOperator("|"))
            value = parseFilters(std::move(value), false);
        else if (isName("is"))
            value = parseTest(std::move(value));
        else if (isOperator("("))
            value = parseCall(std::move(value));
        else
            break;
    }
    return value;
}

ExprPtr ExpressionParser::parsePrimary() {
    const Token token = take();
    if (token.kind == TokenKind::Name) {
        if (token.text == "true" || token.text == "True") return make(ExprKind::True, token.line, "");
        if (token.text == "false" || token.text == "False") return make(ExprKind::False, token.line, "");
        if (token.text == "none" || token.text == "None") return make(ExprKind::None, token.line, "");
        return make(ExprKind::Name, token.line, token.text);
    }
    if (token.kind == TokenKind::String) {
        std::string text = token.text;
        while (current().kind == TokenKind::String) text += take().text;
        return make(ExprKind::String, token.line, std::move(text));
    }
    if (token.kind == TokenKind::Integer) return make(ExprKind::Integer, token.line, token.text);
    if (token.kind == TokenKind::Float) return make(ExprKind::Float, token.line, token.text);
    if (token.kind == TokenKind::Operator) {
        if (token.text == "[") return parseList(ExprKind::List, "]", token.line);
        if (token.text == "{") return parseDict(token.line);
        if (token.text == "(") {
            if (takeOperator(")")) return make(ExprKind::Tuple, token.line, "");
            ExprPtr inner = parseTuple();
            expectOperator(")");
            return inner;
        }
    }
    fail(token.line, "expected a value, found " + describe(token));
}

ExprPtr ExpressionParser::parseList(ExprKind kind, std::string_view close, int line) {
    auto list = make(kind, line, "");
    while (!takeOperator(close)) {
        if (!list->children.empty()) expectOperator(",");
        if (takeOperator(close)) break;
        list->children.push_back(parseExpression());
    }
    return measured(std::move(list));
}

ExprPtr ExpressionParser::parseDict(int line) {
    auto dict = make(ExprKind::Dict, line, "");
    while (!takeOperator("}")) {
        if (!dict->children.empty()) expectOperator(",");
        if (takeOperator("}")) break;
        dict->children.push_back(parseExpression());
        expectOperator(":");
        dict->children.push_back(parseExpression());
    }
    return measured(std::move(dict));
}

ExprPtr ExpressionParser::parsePostfix(ExprPtr value) {
    for (;;) {
        const int line = current().line;
        if (takeOperator(".")) {
            const Token name = take();
            if (name.kind == TokenKind::Name)
                value = measured(make(ExprKind::Attribute, line, name.text, std::move(value)));
            else if (name.kind == TokenKind::Integer)
                value = measured(make(ExprKind::Item, line, "", std::move(value), make(ExprKind::Integer, line, name.text)));
            else
                fail(line, "expected a name or a number behind '.', found " + describe(name));
        } else if (takeOperator("[")) {
            value = parseSubscript(std::move(value), line);
        } else if (isOperator("(")) {
            value = parseCall(std::move(value));
        } else {
            return value;
        }
    }
}

ExprPtr ExpressionParser::parseSubscript(ExprPtr value, int line) {
    const auto part = [&]() -> ExprPtr { return isOperator(":") || isOperator("]") ? nullptr : parseExpression(); };
    ExprPtr first = part();
    if (!first && isOperator("]")) fail(line, "expected an index between '[' and ']'");
    ExprPtr made;
    if (takeOperator(":")) {
        ExprPtr second = part();
        ExprPtr third = takeOperator(":") ? part() : nullptr;
        made = make(ExprKind::Slice, line, "", std::move(value), std::move(first), std::move(second), std::move(third));
    } else {
        made = make(ExprKind::Item, line, "", std::move(value), std::move(first));
    }
    expectOperator("]");
    return measured(std::move(made));
}

ExprPtr ExpressionParser::parseCall(ExprPtr callee) {
    auto call = make(ExprKind::Call, current().line, "", std::move(callee));
    parseArguments(*call);
    return measured(std::move(call));
}

void ExpressionParser::parseArguments(Expr& call) {
    expectOperator("(");
    for (bool first = true; !takeOperator(")"); first = false) {
        if (!first) expectOperator(",");
        if (takeOperator(")")) return;
        if (call.arguments.size() + call.named.size() >= kMaxArguments)
            fail(current().line, "a call has more than " + std::to_string(kMaxArguments) + " arguments");
        if (isOperator("*") || isOperator("**")) fail(current().line, "unpacking arguments with '*' is not supported");
        const bool named = current().kind == TokenKind::Name && m_tokens[m_at + 1].kind == TokenKind::Operator &&
                           m_tokens[m_at + 1].text == "=";
        if (named) {
            std::string name = take().text;
            take();
            call.named.emplace_back(std::move(name), parseExpression());
        } else {
            if (!call.named.empty()) fail(current().line, "an argument without a name follows one with a name");
            call.arguments.push_back(parseExpression());
        }
    }
}

ExprPtr ExpressionParser::parseFilters(ExprPtr value, bool first) {
    while (first || takeOperator("|")) {
        first = false;
        const Token name = expect(TokenKind::Name, "the name of a filter");
        auto filter = make(ExprKind::Filter, name.line, name.text, std::move(value));
        if (isOperator("(")) parseArguments(*filter);
        value = measured(std::move(filter));
    }
    return value;
}

ExprPtr ExpressionParser::parseTest(ExprPtr value) {
    const int line = take().line;
    const bool negated = takeName("not");
    const Token name = expect(TokenKind::Name, "the name of a test");
    auto test = make(ExprKind::Test, line, name.text, std::move(value));
    const Token& next = current();
    const bool plainName = next.kind == TokenKind::Name && next.text != "else" && next.text != "or" && next.text != "and" &&
                           next.text != "if" && next.text != "is" && next.text != "not" && next.text != "in";
    const bool value_ = plainName || next.kind == TokenKind::String || next.kind == TokenKind::Integer ||
                        next.kind == TokenKind::Float || isOperator("[") || isOperator("{");
    if (isOperator("("))
        parseArguments(*test);
    else if (value_)
        test->arguments.push_back(parsePostfix(parsePrimary()));
    ExprPtr made = measured(std::move(test));
    return negated ? measured(make(ExprKind::Not, line, "", std::move(made))) : std::move(made);
}

}  // namespace resect::jinja
