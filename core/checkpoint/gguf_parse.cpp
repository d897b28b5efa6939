#include "core/checkpoint/gguf_parse.h"

#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/checkpoint/safetensors_file.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

namespace resect {

namespace {

constexpr std::uint64_t kMaxElements = 1 << 24;  // of an array of texts or arrays: each costs memory beyond its bytes in the file
constexpr int kMaxDepth = 4;
constexpr std::uint32_t kMaxDimensions = 4;
constexpr std::uint64_t kMinEntryBytes = 8 + 4 + 1, kMinTensorBytes = 8 + 4 + 8 + 4 + 8;

class Parser {
public:
    Parser(std::span<const std::byte> file, const std::string& subject) : m_file(file), m_subject(subject) {}

    GgufHeader run() && {
        readCounts();
        std::set<std::string, std::less<>> keys;
        for (std::uint64_t i = 0; i < m_numEntries; ++i) readEntry(i, keys);
        std::set<std::string, std::less<>> names;
        for (std::uint64_t i = 0; i < m_numTensors; ++i) readTensor(i, names);
        m_where.clear();
        readAlignment();
        m_header.dataBegin = (m_at + m_header.alignment - 1) / m_header.alignment * m_header.alignment;
        checkRanges();
        return std::move(m_header);
    }

private:
    [[noreturn]] void corrupt(const std::string& message) const {
        throw Error(ErrorCode::Corrupt, m_where.empty() ? m_subject : m_subject + ": " + m_where, message);
    }
    std::uint64_t left() const noexcept { return m_file.size() - m_at; }

    std::span<const std::byte> take(std::uint64_t bytes, const char* what) {
        if (bytes > left())
            corrupt(std::string(what) + " takes " + std::to_string(bytes) + " bytes, but only " + toText(left()) + " are left: the file is truncated or damaged");
        const auto part = m_file.subspan(m_at, bytes);
        m_at += bytes;
        return part;
    }
    template <class T>
    T number(const char* what) {
        T value;
        std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
        return value;
    }
    std::string text(const char* what) {
        const auto part = take(number<std::uint64_t>(what), what);
        return {reinterpret_cast<const char*>(part.data()), part.size()};
    }

    void readCounts() {
        constexpr std::string_view kMagic = "GGUF";
        if (m_file.size() < kMagic.size() || std::memcmp(m_file.data(), kMagic.data(), kMagic.size()) != 0)
            corrupt("expected a GGUF file, which begins with the letters GGUF");
        m_at = kMagic.size();
        const auto version = number<std::uint32_t>("the version");
        if (version > 0xffff) throw Error(ErrorCode::Unsupported, m_subject, "the file is big-endian; only little-endian GGUF is read");
        if (version != 2 && version != 3) throw Error(ErrorCode::Unsupported, m_subject, "expected GGUF version 2 or 3, found " + toText(version));
        m_header.version = static_cast<int>(version);
        m_numTensors = number<std::uint64_t>("the number of tensors");
        m_numEntries = number<std::uint64_t>("the number of metadata entries");
        const auto absurd = [&](std::uint64_t count, std::uint64_t bytesEach, const char* what) {
            if (count > left() / bytesEach) corrupt("it says that it holds " + std::to_string(count) + " " + what + ", for which its " + toText(m_file.size()) + " bytes are too few");
        };
        absurd(m_numEntries, kMinEntryBytes, "metadata entries");
        absurd(m_numTensors, kMinTensorBytes, "tensors");
    }

    GgufValueType valueType() {
        const auto type = number<std::uint32_t>("the value's type");
        if (type > static_cast<std::uint32_t>(GgufValueType::F64)) corrupt("unknown value type " + toText(type));
        return static_cast<GgufValueType>(type);
    }

    void readEntry(std::uint64_t index, std::set<std::string, std::less<>>& keys) {
        m_where = "metadata entry " + toText(index);
        std::string key = text("the key");
        m_where = key;
        if (key.empty()) corrupt("metadata entry " + toText(index) + " has an empty key");
        if (!keys.insert(key).second) corrupt("the key stands there twice");
        const GgufValueType type = valueType();
        m_header.metadata.push_back({std::move(key), value(type)});
    }

    GgufValue value(GgufValueType type) {
        switch (type) {
        case GgufValueType::String: return GgufValue::of(text("the text"));
        case GgufValueType::Array: return GgufValue::of(array(1));
        case GgufValueType::F32: return GgufValue::ofNumber(type, number<float>("the value"));
        case GgufValueType::F64: return GgufValue::ofNumber(type, number<double>("the value"));
        case GgufValueType::I8: return GgufValue::ofInteger(type, static_cast<std::uint64_t>(std::int64_t{number<std::int8_t>("the value")}));
        case GgufValueType::I16: return GgufValue::ofInteger(type, static_cast<std::uint64_t>(std::int64_t{number<std::int16_t>("the value")}));
        case GgufValueType::I32: return GgufValue::ofInteger(type, static_cast<std::uint64_t>(std::int64_t{number<std::int32_t>("the value")}));
        case GgufValueType::U16: return GgufValue::ofInteger(type, number<std::uint16_t>("the value"));
        case GgufValueType::U32: return GgufValue::ofInteger(type, number<std::uint32_t>("the value"));
        case GgufValueType::U64:
        case GgufValueType::I64: return GgufValue::ofInteger(type, number<std::uint64_t>("the value"));
        case GgufValueType::U8: return GgufValue::ofInteger(type, number<std::uint8_t>("the value"));
        case GgufValueType::Bool: {
            const auto byte = number<std::uint8_t>("the value");
            if (byte > 1) corrupt("expected 0 or 1 for true or false, found " + toText(int{byte}));
            return GgufValue::ofInteger(type, byte);
        }
        }
        corrupt("unknown value type");
    }

    GgufArray array(int depth) {
        if (depth > kMaxDepth) corrupt("arrays are nested deeper than " + toText(kMaxDepth) + " levels");
        GgufArray result;
        result.type = valueType();
        const auto count = number<std::uint64_t>("the array's length");
        const std::size_t each = sizeOf(result.type);
        const std::uint64_t least = each ? each : result.type == GgufValueType::String ? 8 : 12;
        if (count > left() / least || (!each && count > kMaxElements))
            corrupt("an array of " + std::to_string(count) + " elements does not fit the " + toText(left()) + " bytes that are left");
        if (each) {
            const auto part = take(count * each, "the array");
            result.numbers.assign(part.begin(), part.end());
        } else if (result.type == GgufValueType::String) {
            result.strings.reserve(count);
            for (std::uint64_t i = 0; i < count; ++i) result.strings.push_back(text("a text of the array"));
        } else {
            for (std::uint64_t i = 0; i < count; ++i) result.arrays.push_back(array(depth + 1));
        }
        return result;
    }

    void readTensor(std::uint64_t index, std::set<std::string, std::less<>>& names) {
        m_where = "tensor " + toText(index);
        GgufTensor tensor;
        tensor.name = text("the name");
        m_where = tensor.name;
        if (tensor.name.empty()) corrupt("tensor " + toText(index) + " has an empty name");
        if (!names.insert(tensor.name).second) corrupt("the tensor stands there twice");
        const auto dimensions = number<std::uint32_t>("the number of dimensions");
        if (dimensions > kMaxDimensions) corrupt("expected at most " + toText(kMaxDimensions) + " dimensions, found " + toText(dimensions));
        std::int64_t elements = 1;
        for (std::uint32_t d = 0; d < dimensions; ++d) {
            const auto size = number<std::uint64_t>("a dimension");
            if (size == 0 || size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) ||
                __builtin_mul_overflow(elements, static_cast<std::int64_t>(size), &elements))
                corrupt("dimension " + toText(d) + " is " + std::to_string(size) + ", which no tensor can have");
            tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(size));
        }
        const auto type = number<std::uint32_t>("the type");
        const GgufTypeInfo* known = findGgufType(type);
        if (!known) throw Error(ErrorCode::Unsupported, m_subject + ": " + tensor.name, "unknown tensor type " + toText(type));
        tensor.type = known->type;
        const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
        if (row % known->blockElements != 0)
            corrupt("shape " + shapeText(tensor.shape) + ": rows of " + std::string(known->name) + " must be multiples of " + toText(known->blockElements));
        if (__builtin_mul_overflow(static_cast<std::uint64_t>(elements / known->blockElements), std::uint64_t{known->blockBytes}, &tensor.bytes))
            corrupt("shape " + shapeText(tensor.shape) + " of " + std::string(known->name) + " overflows 64 bits");
        tensor.offset = number<std::uint64_t>("the offset");
        m_header.tensors.push_back(std::move(tensor));
    }

    void readAlignment() {
        for (const GgufEntry& entry : m_header.metadata) {
            if (entry.key != "general.alignment") continue;
            m_where = entry.key;
            constexpr std::uint64_t kMost = 1 << 20;
            const std::uint64_t value = entry.value.bits();
            if (entry.value.type() != GgufValueType::U32 || value == 0 || value > kMost || value % 8 != 0)
                corrupt("expected a u32 that is a multiple of 8, found " + entry.value.shown());
            m_header.alignment = value;
        }
        m_where.clear();
    }

    void checkRanges() {
        auto& tensors = m_header.tensors;
        std::stable_sort(tensors.begin(), tensors.end(), [](const GgufTensor& a, const GgufTensor& b) { return a.offset < b.offset; });
        const std::uint64_t available = m_file.size() > m_header.dataBegin ? m_file.size() - m_header.dataBegin : 0;
        const GgufTensor* before = nullptr;
        for (const GgufTensor& tensor : tensors) {
            m_where = tensor.name;
            if (tensor.offset % m_header.alignment != 0)
                corrupt("its data begins at " + std::to_string(tensor.offset) + ", which is not a multiple of the alignment " + toText(m_header.alignment));
            if (before && tensor.offset < before->offset + before->bytes)
                corrupt("its data begins at " + std::to_string(tensor.offset) + " and overlaps \"" + before->name + "\", which ends at " + std::to_string(before->offset + before->bytes));
            if (tensor.offset > available || tensor.bytes > available - tensor.offset)
                corrupt("its data, " + std::to_string(tensor.bytes) + " bytes from " + std::to_string(tensor.offset) + ", reaches past the " + toText(available) +
                        " data bytes of the file: truncated or damaged");
            before = &tensor;
        }
        m_where.clear();
    }

    std::span<const std::byte> m_file;
    const std::string& m_subject;
    std::string m_where;  ///< key or tensor that is being read
    std::uint64_t m_at = 0, m_numTensors = 0, m_numEntries = 0;
    GgufHeader m_header;
};

}  // namespace

GgufHeader parseGgufHeader(std::span<const std::byte> file, const std::string& subject) { return Parser(file, subject).run(); }

}  // namespace resect
