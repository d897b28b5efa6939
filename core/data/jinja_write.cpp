#include "core/data/jinja_text.h"
#include "core/data/jinja_value.h"
#include "core/data/unicode.h"

#include <algorithm>
#include <cmath>

// Values as text: str(), repr() and json.dumps() of Python.

namespace resect::jinja {
namespace {

/// Appends while charging what is written, because shared parts may be written exponentially often.
class Writer {
public:
    explicit Writer(Work& work) : m_work(work) {}
    void add(std::string_view text) {
        m_work.keep(text.size());
        m_work.handle(text.size());
        m_out += text;
    }
    std::string take() { return std::move(m_out); }
    Work& work() { return m_work; }

private:
    Work& m_work;
    std::string m_out;
};

void writeRepr(const Value& value, Writer& out);

void writeText(const Value& value, Writer& out) {
    if (const auto* text = value.text())
        out.add(*text);
    else
        writeRepr(value, out);
}

void writeRepr(const Value& value, Writer& out) {
    if (const auto* text = value.text()) return out.add(quotedText(*text));
    if (value.isUndefined()) return;
    if (value.isNone()) return out.add("None");
    if (const auto* flag = value.get<bool>()) return out.add(*flag ? "True" : "False");
    if (const auto* whole = value.get<std::int64_t>()) return out.add(std::to_string(*whole));
    if (const auto* real = value.get<double>()) return out.add(floatText(*real));
    if (const auto* sequence = value.sequence()) {
        out.add(sequence->tuple ? "(" : "[");
        for (std::size_t i = 0; i < sequence->items.size(); ++i) {
            if (i > 0) out.add(", ");
            writeRepr(sequence->items[i], out);
        }
        if (sequence->tuple && sequence->items.size() == 1) out.add(",");
        return out.add(sequence->tuple ? ")" : "]");
    }
    if (const auto* mapping = value.mapping()) {
        out.add("{");
        for (std::size_t i = 0; i < mapping->entries.size(); ++i) {
            if (i > 0) out.add(", ");
            writeRepr(mapping->entries[i].first, out);
            out.add(": ");
            writeRepr(mapping->entries[i].second, out);
        }
        return out.add("}");
    }
    if (const auto* function = value.function()) return out.add("<function " + function->name + ">");
    out.add("<Namespace>");
}

class JsonWriter {
public:
    JsonWriter(const JsonStyle& style, Work& work) : m_style(style), m_out(work) {}

    void write(const Value& value, int level) {
        if (const auto* text = value.text()) return writeText(*text);
        if (value.isNone()) return m_out.add("null");
        if (const auto* flag = value.get<bool>()) return m_out.add(*flag ? "true" : "false");
        if (const auto* whole = value.get<std::int64_t>()) return m_out.add(std::to_string(*whole));
        if (const auto* real = value.get<double>())
            return m_out.add(std::isnan(*real)   ? "NaN"
                             : std::isinf(*real) ? (*real < 0 ? "-Infinity" : "Infinity")
                                                 : floatText(*real));
        if (const auto* sequence = value.sequence()) {
            writeMany("[", "]", sequence->items.size(), level, [&](std::size_t i) { write(sequence->items[i], level + 1); });
        } else if (const auto* mapping = value.mapping()) {
            std::vector<std::pair<std::string, const Value*>> entries;
            for (const auto& [key, held] : mapping->entries) entries.emplace_back(keyText(key), &held);
            if (m_style.sortKeys)
                std::stable_sort(entries.begin(), entries.end(),
                                 [](const auto& a, const auto& b) { return a.first < b.first; });
            writeMany("{", "}", entries.size(), level, [&](std::size_t i) {
                writeText(entries[i].first);
                m_out.add(m_style.keySeparator);
                write(*entries[i].second, level + 1);
            });
        } else {
            m_out.work().fail(std::string("tojson cannot write ") +
                              (value.isUndefined() ? value.get<Undefined>()->what + ", which is not defined"
                                                   : std::string("a ") + value.typeName()));
        }
    }
    std::string take() { return m_out.take(); }

private:
    template <class One>
    void writeMany(std::string_view open, std::string_view close, std::size_t count, int level, One writeOne) {
        m_out.add(open);
        for (std::size_t i = 0; i < count; ++i) {
            if (i > 0) m_out.add(m_style.itemSeparator);
            newLine(level + 1);
            writeOne(i);
        }
        if (count > 0) newLine(level);
        m_out.add(close);
    }
    void newLine(int level) {
        if (!m_style.indent) return;
        m_out.add("\n");
        for (int i = 0; i < level; ++i) m_out.add(*m_style.indent);
    }
    std::string keyText(const Value& key) {
        if (const auto* text = key.text()) return *text;
        if (!key.isNumber() && !key.isNone())
            m_out.work().fail(std::string("tojson cannot write a key of type ") + key.typeName());
        JsonWriter inner(m_style, m_out.work());
        inner.write(key, 0);
        return inner.take();
    }
    void writeText(const std::string& text) {
        static constexpr std::string_view kPlain = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
        std::string out = "\"";
        for (std::size_t pos = 0; pos < text.size();) {
            const std::size_t begin = pos;
            const char32_t c = nextCodePoint(text, pos);
            if (const auto known = c < 0x80 ? kPlain.find(static_cast<char>(c)) : kPlain.npos; known != kPlain.npos)
                (out += '\\') += kLetters[known];
            else if (c < 0x20 || (m_style.asciiOnly && c > 0x7E))
                escape(c, out);
            else
                out.append(text, begin, pos - begin);
        }
        m_out.add(out += '"');
    }
    static void escape(char32_t c, std::string& out) {
        static constexpr char kDigits[] = "0123456789abcdef";
        if (c > 0xFFFF) {
            escape(0xD800 + ((c - 0x10000) >> 10), out);
            c = 0xDC00 + ((c - 0x10000) & 0x3FF);
        }
        out += "\\u";
        for (int shift = 12; shift >= 0; shift -= 4) out += kDigits[c >> shift & 15];
    }

    const JsonStyle& m_style;
    Writer m_out;
};

}  // namespace

std::string toPythonText(const Value& value, Work& work) {
    Writer out(work);
    writeText(value, out);
    return out.take();
}

std::string toPythonRepr(const Value& value, Work& work) {
    Writer out(work);
    writeRepr(value, out);
    return out.take();
}

std::string toJsonText(const Value& value, const JsonStyle& style, Work& work) {
    JsonWriter writer(style, work);
    writer.write(value, 0);
    return writer.take();
}

}  // namespace resect::jinja
