#pragma once
#include "core/data/unicode.h"
#include "core/protocol/json.h"

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

namespace resect {

// The parts of a tokenizer.json that come before and after its model. Each reader takes the JSON of its part (null gives
// nothing) and throws Unsupported naming the part when the type, or a field that changes the result, is not known; BadInput
// when a field has the wrong type. All steps are immutable and thread-safe.

/// Throws Unsupported for a field of `part` outside `known`, unless it is null, false, empty or 0 and so without effect.
void requireKnownFields(const Json& part, std::initializer_list<std::string_view> known, const std::string& subject);

/// `step.pattern`: {"String": ...} or {"Regex": ...}.
TextPattern readPattern(const Json& step, const std::string& subject);
/// `object[field]`, which must be an array.
const Json& stepsOf(const Json& object, const char* field, const std::string& subject);

class Normalizer {
public:
    virtual ~Normalizer() = default;
    virtual void apply(std::string& text) const = 0;
};
/// Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip.
std::unique_ptr<Normalizer> readNormalizer(const Json& json, const std::string& subject);

/// A text cut into words. Ranges ascend; bytes between them were removed.
struct Words {
    std::string text;
    std::vector<ByteRange> ranges;
    bool atStart = false;  ///< the first range begins where the whole input began
};

class PreTokenizer {
public:
    virtual ~PreTokenizer() = default;
    virtual void apply(Words& words) const = 0;
};
/// Sequence, ByteLevel, Split, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation.
std::unique_ptr<PreTokenizer> readPreTokenizer(const Json& json, const std::string& subject);

class TokenDecoder {
public:
    virtual ~TokenDecoder() = default;
    virtual void apply(std::vector<std::string>& tokens) const = 0;
};
/// Sequence, ByteLevel, ByteFallback, Metaspace, Replace, Fuse, Strip, BPEDecoder.
std::unique_ptr<TokenDecoder> readDecoder(const Json& json, const std::string& subject);

}  // namespace resect
