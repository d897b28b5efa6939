#include "core/data/jinja_library.h"
#include "core/data/jinja_text.h"

#include <algorithm>
#include <cmath>

namespace resect::jinja {
namespace {

constexpr std::int64_t kMaxRange = 100'000;  // as Jinja2's sandbox

[[noreturn]] void wrongTypes(const std::string& op, const Value& a, const Value& b, Work& work) {
    for (const Value* side : {&a, &b})
        if (const auto* missing = side->get<Undefined>())
            work.fail(missing->what + " is not defined, but '" + op + "' is applied to it");
    work.fail("'" + op + "' cannot join a " + std::string(a.typeName()) + " and a " + b.typeName());
}

Value wholeResult(const std::string& op, std::int64_t a, std::int64_t b, Work& work) {
    std::int64_t out = 0;
    bool overflow = false;
    if (op == "+")
        overflow = __builtin_add_overflow(a, b, &out);
    else if (op == "-")
        overflow = __builtin_sub_overflow(a, b, &out);
    else if (op == "*")
        overflow = __builtin_mul_overflow(a, b, &out);
    else {
        if (b == 0) work.fail("division by zero");
        if (b == -1) {  // the one quotient that could overflow
            if (op == "%") return 0;
            overflow = __builtin_sub_overflow(std::int64_t{0}, a, &out);
        } else {
            const std::int64_t quotient = a / b, rest = a % b;
            const bool below = rest != 0 && (rest < 0) != (b < 0);
            out = op == "//" ? quotient - (below ? 1 : 0) : rest + (below ? b : 0);
        }
    }
    if (overflow) work.fail("a whole number is larger than 64 bits hold");
    return out;
}

Value power(const Value& a, const Value& b, Work& work) {
    if (!a.integer() || !b.integer() || *b.integer() < 0) return std::pow(*a.number(), *b.number());
    std::int64_t out = 1;
    for (std::int64_t i = 0; i < *b.integer(); ++i) {
        work.step();
        if (__builtin_mul_overflow(out, *a.integer(), &out)) work.fail("a whole number is larger than 64 bits hold");
        if (out == 0 || (out == 1 && *a.integer() == 1)) break;
    }
    return out;
}

Value numberResult(const std::string& op, const Value& a, const Value& b, Work& work) {
    if (op == "**") return power(a, b, work);
    const double x = *a.number(), y = *b.number();
    if (op == "/") {
        if (y == 0) work.fail("division by zero");
        return x / y;
    }
    if (a.integer() && b.integer()) return wholeResult(op, *a.integer(), *b.integer(), work);
    if (op == "+") return x + y;
    if (op == "-") return x - y;
    if (op == "*") return x * y;
    if (y == 0) work.fail("division by zero");
    const double whole = std::floor(x / y);
    return op == "//" ? whole : x - whole * y;
}

Value repeated(const Value& value, std::int64_t times, Work& work) {
    const auto count = static_cast<std::uint64_t>(std::max<std::int64_t>(times, 0));
    const std::uint64_t size = value.text() ? value.text()->size() : value.sequence()->items.size() * sizeof(Value);
    if (size > 0 && count > (1u << 28) / size)
        work.fail("a text or list repeated " + std::to_string(times) + " times is too large");
    work.keep(size * count);
    work.handle(size * count);
    if (size == 0) return value;
    if (const auto* text = value.text()) {
        std::string out;
        for (std::uint64_t i = 0; i < count; ++i) out += *text;
        return Value(std::move(out));
    }
    List items;
    for (std::uint64_t i = 0; i < count; ++i)
        items.insert(items.end(), value.sequence()->items.begin(), value.sequence()->items.end());
    return makeList(std::move(items), work, value.sequence()->tuple);
}

bool contains(const Value& whole, const Value& part, Work& work) {
    if (const auto* text = whole.text()) {
        if (!part.text()) wrongTypes("in", part, whole, work);
        work.handle(text->size());
        return text->find(*part.text()) != text->npos;
    }
    if (const auto* mapping = whole.mapping()) return findKey(*mapping, part, work) != nullptr;
    if (const auto* sequence = whole.sequence())
        return std::any_of(sequence->items.begin(), sequence->items.end(),
                           [&](const Value& item) { return equal(item, part, work); });
    if (whole.isUndefined()) return false;
    work.fail(std::string("'in' expects a text, list or dict behind it, found a ") + whole.typeName());
}

Value makeRange(const Arguments& arguments, Work& work) {
    const auto whole = [&](std::size_t i) {
        if (!arguments.values[i].integer()) work.fail("range() expects whole numbers");
        return *arguments.values[i].integer();
    };
    const std::size_t count = arguments.values.size();
    if (count < 1 || count > 3 || !arguments.named.empty()) work.fail("range() expects one to three whole numbers");
    const std::int64_t from = count > 1 ? whole(0) : 0, to = whole(count > 1 ? 1 : 0), step = count > 2 ? whole(2) : 1;
    if (step == 0) work.fail("range(): the step is 0");
    List items;
    for (std::int64_t at = from; step > 0 ? at < to : at > to;) {
        if (static_cast<std::int64_t>(items.size()) >= kMaxRange) work.fail("range() gives more than 100,000 numbers");
        items.emplace_back(at);
        if (__builtin_add_overflow(at, step, &at)) break;
    }
    work.step(items.size() / 4);
    return makeList(std::move(items), work);
}

Value makeDictionary(const Arguments& arguments, Work& work) {
    Entries entries;
    if (!arguments.values.empty()) {
        if (arguments.values.size() > 1 || !arguments.values[0].mapping())
            work.fail("dict() expects names with values, or one dict");
        entries = arguments.values[0].mapping()->entries;
    }
    for (const auto& [name, value] : arguments.named) entries.emplace_back(Value(name), value);
    return makeDict(std::move(entries), work);
}

Value timeText(const Arguments& arguments, std::time_t now, Work& work) {
    const std::string format = textArgument(arguments, 0, "format", "", work);
    if (format.size() > 200) work.fail("strftime_now(): the format is longer than 200 characters");
    std::tm local{};
    localtime_r(&now, &local);
    char out[4096];
    const std::size_t size = std::strftime(out, sizeof out, format.c_str(), &local);
    return Value(std::string(out, size));
}

}  // namespace

Value applyBinary(const std::string& op, const Value& a, const Value& b, Work& work) {
    work.step();
    if (op == "~") return Value(toPythonText(a, work) + toPythonText(b, work));
    if (a.number() && b.number()) return numberResult(op, a, b, work);
    if (op == "+" && a.text() && b.text()) {
        work.handle(a.text()->size() + b.text()->size());
        return madeText(*a.text() + *b.text(), work);
    }
    if (op == "+" && a.sequence() && b.sequence() && a.sequence()->tuple == b.sequence()->tuple) {
        List items = a.sequence()->items;
        items.insert(items.end(), b.sequence()->items.begin(), b.sequence()->items.end());
        work.step(items.size() / 16);
        return makeList(std::move(items), work, a.sequence()->tuple);
    }
    if (op == "*") {
        if ((a.text() || a.sequence()) && b.integer()) return repeated(a, *b.integer(), work);
        if ((b.text() || b.sequence()) && a.integer()) return repeated(b, *a.integer(), work);
    }
    wrongTypes(op, a, b, work);
}

bool compare(const std::string& op, const Value& a, const Value& b, Work& work) {
    if (op == "==") return equal(a, b, work);
    if (op == "!=") return !equal(a, b, work);
    if (op == "<") return less(a, b, work);
    if (op == ">") return less(b, a, work);
    if (op == "<=") return less(a, b, work) || equal(a, b, work);
    if (op == ">=") return less(b, a, work) || equal(a, b, work);
    return contains(b, a, work) == (op == "in");
}

Value functionNamed(const std::string& name, std::time_t now) {
    const auto made = [&](std::function<Value(const Arguments&, Work&)> call) {
        return Value(Value::Data(std::make_shared<const Function>(Function{name, std::move(call), 0})));
    };
    if (name == "range") return made(makeRange);
    if (name == "dict") return made(makeDictionary);
    if (name == "raise_exception")
        return made([](const Arguments& arguments, Work& work) -> Value {
            work.fail(textArgument(arguments, 0, "message", "the template raised an exception", work));
        });
    if (name == "strftime_now")
        return made([now](const Arguments& arguments, Work& work) { return timeText(arguments, now, work); });
    return Value::Data(Undefined{"'" + name + "'"});
}

std::int64_t lengthOf(const Value& value, Work& work) {
    if (value.isUndefined()) return 0;
    if (const auto* sequence = value.sequence()) return static_cast<std::int64_t>(sequence->items.size());
    if (const auto* mapping = value.mapping()) return static_cast<std::int64_t>(mapping->entries.size());
    if (const auto* text = value.text()) {
        work.handle(text->size());
        return countCodePoints(*text);
    }
    work.fail(std::string("a ") + value.typeName() + " has no length");
}

Value madeText(std::string text, Work& work) {
    work.keep(text.size() + 64);
    return Value(std::move(text));
}

void requireArguments(const std::string& what, const Arguments& arguments, std::initializer_list<std::string_view> names,
                      const Work& work) {
    if (arguments.values.size() > names.size())
        work.fail(what + " takes at most " + std::to_string(names.size()) + " arguments, found " +
                  std::to_string(arguments.values.size()));
    for (const auto& entry : arguments.named)
        if (std::find(names.begin(), names.end(), entry.first) == names.end())
            work.fail(what + " has no argument '" + entry.first + "'");
}

std::string textArgument(const Arguments& arguments, std::size_t index, std::string_view name, std::string fallback,
                         Work& work) {
    const Value* given = arguments.find(index, name);
    return given ? toPythonText(*given, work) : fallback;
}

std::int64_t wholeArgument(const Arguments& arguments, std::size_t index, std::string_view name, std::int64_t fallback,
                           Work& work) {
    const Value* given = arguments.find(index, name);
    if (!given) return fallback;
    if (!given->integer()) work.fail("the argument '" + std::string(name) + "' is no whole number but a " + given->typeName());
    return *given->integer();
}

bool flagArgument(const Arguments& arguments, std::size_t index, std::string_view name, bool fallback) {
    const Value* given = arguments.find(index, name);
    return given ? truth(*given) : fallback;
}

}  // namespace resect::jinja
