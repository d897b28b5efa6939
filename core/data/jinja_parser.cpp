#include "core/data/jinja_expression_parser.h"

#include <algorithm>
#include <array>

namespace resect::jinja {
namespace {

constexpr int kMaxBlocks = 60;  // blocks inside blocks

class Parser : ExpressionParser {
public:
    explicit Parser(const std::string& source) : ExpressionParser(tokenize(source)) {}

    Body run() {
        std::string end;
        return parseBody({}, end);
    }

private:
    /// Reads up to a block tag whose name is in `ends`, which is taken and left in `end`; its own end is not taken.
    Body parseBody(const std::vector<std::string_view>& ends, std::string& end) {
        const int line = current().line;
        if (++m_blocks > kMaxBlocks) fail(line, "blocks are nested more than " + std::to_string(kMaxBlocks) + " deep");
        Body body;
        for (;;) {
            const Token& token = current();
            if (token.kind == TokenKind::End) {
                if (!ends.empty())
                    fail(token.line, "the template ends where '" + std::string(ends.back()) + "' is expected (block of line " +
                                         std::to_string(line) + ")");
                break;
            }
            if (token.kind == TokenKind::Text) {
                Statement text = statement(StatementKind::Text);
                text.text = take().text;
                body.push_back(std::move(text));
            } else if (token.kind == TokenKind::OutputBegin) {
                Statement output = statement(StatementKind::Output);
                take();
                output.value = parseTuple();
                expect(TokenKind::OutputEnd, "'}}'");
                body.push_back(std::move(output));
            } else {
                expect(TokenKind::BlockBegin, "text or a tag");
                const Token name = expect(TokenKind::Name, "the name of a block");
                if (std::find(ends.begin(), ends.end(), name.text) != ends.end()) {
                    end = name.text;
                    break;
                }
                body.push_back(parseStatement(name));
            }
        }
        --m_blocks;
        return body;
    }

    Statement statement(StatementKind kind) const {
        Statement made;
        made.kind = kind;
        made.line = current().line;
        return made;
    }

    void closeTag() { expect(TokenKind::BlockEnd, "'%}'"); }

    /// The rest of a block whose head has been read: body, and the tag that ends it.
    Body bodyUntil(std::string_view name) {
        std::string end;
        closeTag();
        Body body = parseBody({name}, end);
        closeTag();
        return body;
    }

    Statement parseStatement(const Token& name) {
        if (name.text == "if") return parseIf(name);
        if (name.text == "for") return parseFor(name);
        if (name.text == "set") return parseSet(name);
        if (name.text == "macro") return parseMacro(name);
        Statement made = statement(StatementKind::Generation);
        made.line = name.line;
        if (name.text == "generation") {
            made.body = bodyUntil("endgeneration");
        } else if (name.text == "call") {
            made.kind = StatementKind::CallBlock;
            if (isOperator("(")) fail(name.line, "a call block with parameters is not supported");
            made.value = parseExpression();
            if (made.value->kind != ExprKind::Call) fail(name.line, "expected a call behind 'call'");
            made.body = bodyUntil("endcall");
        } else if (name.text == "filter") {
            made.kind = StatementKind::FilterBlock;
            made.value = parseFilters(nullptr, /*first=*/true);
            made.body = bodyUntil("endfilter");
        } else if (name.text == "break" || name.text == "continue") {
            if (m_loops == 0) fail(name.line, "'" + name.text + "' stands outside of a loop");
            made.kind = name.text == "break" ? StatementKind::Break : StatementKind::Continue;
            closeTag();
        } else {
            static constexpr std::array kUnsupported = {"include", "import",     "from", "extends", "block",
                                                        "with",    "autoescape", "do",   "trans"};
            if (std::find(kUnsupported.begin(), kUnsupported.end(), name.text) != kUnsupported.end())
                fail(name.line, "the block '" + name.text + "' is not supported in chat templates");
            fail(name.line, "unknown block '" + name.text + "'");
        }
        return made;
    }

    Statement parseIf(const Token& name) {
        Statement made = statement(StatementKind::If);
        made.line = name.line;
        std::string end = "if";
        while (end != "endif") {
            Branch branch;
            if (end != "else") branch.condition = parseTuple();
            closeTag();
            const bool last = end == "else";
            branch.body = last ? parseBody({"endif"}, end) : parseBody({"elif", "else", "endif"}, end);
            made.branches.push_back(std::move(branch));
        }
        closeTag();
        return made;
    }

    Statement parseFor(const Token& name) {
        Statement made = statement(StatementKind::For);
        made.line = name.line;
        parseTargets(made);
        if (!takeName("in")) fail(current().line, "expected 'in', found " + describe(current()));
        made.value = parseTuple(Conditionals::Leave);
        if (takeName("if")) made.condition = parseExpression();
        if (isName("recursive")) fail(current().line, "recursive loops are not supported");
        std::string end;
        closeTag();
        ++m_loops;
        made.body = parseBody({"else", "endfor"}, end);
        --m_loops;
        if (end == "else") {
            closeTag();
            made.otherwise = parseBody({"endfor"}, end);
        }
        closeTag();
        return made;
    }

    void parseTargets(Statement& made) {
        const bool bracket = takeOperator("(");
        do {
            if (made.targets.size() > 0 && (isName("in") || isOperator("=") || isOperator(")"))) break;
            const Token target = expect(TokenKind::Name, "a name to set");
            static constexpr std::array kConstants = {"true", "false", "none", "True", "False", "None"};
            if (std::find(kConstants.begin(), kConstants.end(), target.text) != kConstants.end())
                fail(target.line, "'" + target.text + "' cannot be set");
            made.targets.push_back(target.text);
            made.unpack = isOperator(",");
        } while (takeOperator(","));
        made.unpack = made.unpack || made.targets.size() > 1;
        if (bracket) expectOperator(")");
    }

    Statement parseSet(const Token& name) {
        Statement made = statement(StatementKind::Set);
        made.line = name.line;
        parseTargets(made);
        if (made.targets.size() == 1 && !made.unpack && takeOperator("."))
            made.text = expect(TokenKind::Name, "the name of an attribute").text;
        if (takeOperator("=")) {
            made.value = parseTuple();
            closeTag();
            return made;
        }
        made.kind = StatementKind::SetBlock;
        if (made.unpack) fail(name.line, "a block can be set to one name only");
        if (isOperator("|")) made.value = parseFilters(nullptr, /*first=*/false);
        made.body = bodyUntil("endset");
        return made;
    }

    Statement parseMacro(const Token& name) {
        Statement made = statement(StatementKind::Macro);
        made.line = name.line;
        made.text = expect(TokenKind::Name, "the name of the macro").text;
        expectOperator("(");
        while (!takeOperator(")")) {
            if (!made.parameters.empty()) expectOperator(",");
            Parameter parameter{expect(TokenKind::Name, "the name of a parameter").text, nullptr};
            if (takeOperator("="))
                parameter.fallback = parseExpression();
            else if (!made.parameters.empty() && made.parameters.back().fallback)
                fail(current().line, "a parameter without default follows one with a default");
            made.parameters.push_back(std::move(parameter));
        }
        const int loops = std::exchange(m_loops, 0);
        made.body = bodyUntil("endmacro");
        m_loops = loops;
        return made;
    }

    int m_blocks = 0, m_loops = 0;
};

}  // namespace

Body parse(const std::string& source) { return Parser(source).run(); }

}  // namespace resect::jinja
