#include "core/base/error.h"
#include "core/data/byte_level.h"
#include "core/data/text_steps.h"

#include <algorithm>

namespace resect {
namespace {

void replaceWith(std::vector<std::string>& tokens, std::string whole) {
    tokens.clear();
    tokens.push_back(std::move(whole));
}

std::string joined(const std::vector<std::string>& tokens) {
    std::string out;
    for (const std::string& token : tokens) out += token;
    return out;
}

struct DecoderSequence final : TokenDecoder {
    void apply(std::vector<std::string>& tokens) const override {
        for (const auto& step : steps) step->apply(tokens);
    }
    std::vector<std::unique_ptr<TokenDecoder>> steps;
};

struct ByteLevelDecoder final : TokenDecoder {
    void apply(std::vector<std::string>& tokens) const override {
        std::string bytes;
        for (const std::string& token : tokens) bytes += fromByteCharacters(token).value_or(token);
        replaceWith(tokens, replaceInvalidUtf8(bytes));
    }
};

/// A run of "<0x..>" tokens becomes its character, or one U+FFFD per byte when the run is not well-formed.
struct ByteFallbackDecoder final : TokenDecoder {
    void apply(std::vector<std::string>& tokens) const override {
        std::vector<std::string> out;
        std::string run;
        const auto flush = [&] {
            if (run.empty()) return;
            if (!findInvalidUtf8(run))
                out.push_back(run);
            else
                out.insert(out.end(), run.size(), "\xEF\xBF\xBD");
            run.clear();
        };
        for (std::string& token : tokens) {
            if (const auto byte = byteFallbackToken(token)) {
                run += static_cast<char>(*byte);
            } else {
                flush();
                out.push_back(std::move(token));
            }
        }
        flush();
        tokens = std::move(out);
    }
};

struct FuseDecoder final : TokenDecoder {
    void apply(std::vector<std::string>& tokens) const override { replaceWith(tokens, joined(tokens)); }
};

struct ReplaceDecoder final : TokenDecoder {
    ReplaceDecoder(TextPattern pattern, std::string content) : m_pattern(std::move(pattern)), m_content(std::move(content)) {}
    void apply(std::vector<std::string>& tokens) const override {
        for (std::string& token : tokens) {
            std::string out;
            std::size_t from = 0;
            for (const ByteRange& match : m_pattern.matches(token)) {
                out.append(token, from, match.begin - from).append(m_content);
                from = match.end;
            }
            if (from > 0) token = out.append(token, from);
        }
    }
    TextPattern m_pattern;
    std::string m_content;
};

struct StripDecoder final : TokenDecoder {
    StripDecoder(std::string content, std::int64_t start, std::int64_t stop)
        : m_content(std::move(content)), m_start(start), m_stop(stop) {}
    void apply(std::vector<std::string>& tokens) const override {
        for (std::string& token : tokens) {
            std::string_view rest = token;
            for (std::int64_t i = 0; i < m_start && rest.starts_with(m_content); ++i) rest.remove_prefix(m_content.size());
            for (std::int64_t i = 0; i < m_stop && rest.ends_with(m_content); ++i) rest.remove_suffix(m_content.size());
            token = std::string(rest);
        }
    }
    std::string m_content;
    std::int64_t m_start, m_stop;
};

struct MetaspaceDecoder final : TokenDecoder {
    MetaspaceDecoder(std::string replacement, bool dropsLeading)
        : m_replacement(std::move(replacement)), m_dropsLeading(dropsLeading) {}
    void apply(std::vector<std::string>& tokens) const override {
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            std::string out;
            std::string_view rest = tokens[i];
            while (!rest.empty()) {
                if (rest.starts_with(m_replacement)) {
                    if (i > 0 || !m_dropsLeading) out += ' ';
                    rest.remove_prefix(m_replacement.size());
                } else {
                    out += rest.front();
                    rest.remove_prefix(1);
                }
            }
            tokens[i] = std::move(out);
        }
    }
    std::string m_replacement;
    bool m_dropsLeading;
};

/// The end-of-word suffix becomes a space, and nothing at the very end.
struct SuffixDecoder final : TokenDecoder {
    explicit SuffixDecoder(std::string suffix) : m_suffix(std::move(suffix)) {}
    void apply(std::vector<std::string>& tokens) const override {
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            const char* with = i + 1 == tokens.size() ? "" : " ";
            for (auto at = tokens[i].find(m_suffix); at != std::string::npos; at = tokens[i].find(m_suffix, at)) {
                tokens[i].replace(at, m_suffix.size(), with);
            }
        }
    }
    std::string m_suffix;
};

std::unique_ptr<TokenDecoder> readMetaspaceDecoder(const Json& json, const std::string& subject) {
    requireKnownFields(json, {"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"}, subject);
    const std::string scheme = stringField(json, "prepend_scheme", subject, "");
    const bool never = scheme.empty() ? !boolField(json, "add_prefix_space", subject, true) : scheme == "never";
    const std::string replacement = stringField(json, "replacement", subject, "\xE2\x96\x81");
    if (replacement.empty())
        throw Error(ErrorCode::BadInput, subject + ".replacement", "expected a character, found an empty string");
    return std::make_unique<MetaspaceDecoder>(replacement, !never);
}

}  // namespace

std::unique_ptr<TokenDecoder> readDecoder(const Json& json, const std::string& subject) {
    if (json.is_null()) return nullptr;
    if (!json.is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object or null");
    const std::string type = stringField(json, "type", subject);
    if (type == "Sequence") {
        requireKnownFields(json, {"type", "decoders"}, subject);
        auto sequence = std::make_unique<DecoderSequence>();
        std::size_t index = 0;
        for (const Json& step : stepsOf(json, "decoders", subject)) {
            auto read = readDecoder(step, subject + ".decoders[" + std::to_string(index++) + "]");
            if (read) sequence->steps.push_back(std::move(read));
        }
        return sequence;
    }
    if (type == "ByteLevel") {
        requireKnownFields(json, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, subject);
        return std::make_unique<ByteLevelDecoder>();
    }
    if (type == "ByteFallback") {
        requireKnownFields(json, {"type"}, subject);
        return std::make_unique<ByteFallbackDecoder>();
    }
    if (type == "Fuse") {
        requireKnownFields(json, {"type"}, subject);
        return std::make_unique<FuseDecoder>();
    }
    if (type == "Replace") {
        requireKnownFields(json, {"type", "pattern", "content"}, subject);
        return std::make_unique<ReplaceDecoder>(readPattern(json, subject), stringField(json, "content", subject));
    }
    if (type == "Strip") {
        requireKnownFields(json, {"type", "content", "start", "stop"}, subject);
        const std::string content = stringField(json, "content", subject);
        if (content.empty())
            throw Error(ErrorCode::BadInput, subject + ".content", "expected a character, found an empty string");
        return std::make_unique<StripDecoder>(content, intField(json, "start", subject, 0), intField(json, "stop", subject, 0));
    }
    if (type == "Metaspace") return readMetaspaceDecoder(json, subject);
    if (type == "BPEDecoder") {
        requireKnownFields(json, {"type", "suffix"}, subject);
        const std::string suffix = stringField(json, "suffix", subject, "</w>");
        if (suffix.empty()) throw Error(ErrorCode::BadInput, subject + ".suffix", "expected a text, found an empty string");
        return std::make_unique<SuffixDecoder>(suffix);
    }
    throw Error(ErrorCode::Unsupported, subject, "the decoder '" + type + "' is not supported");
}

}  // namespace resect
