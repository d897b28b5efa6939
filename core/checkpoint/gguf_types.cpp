#include "core/checkpoint/gguf_types.h"

#include "core/base/numbers.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace resect {

namespace {

using enum GgufType;

// Sizes as in the public description of the ggml block formats.
constexpr std::array kTypes{
    GgufTypeInfo{F32, "F32", 1, 4},           GgufTypeInfo{F16, "F16", 1, 2},         GgufTypeInfo{Q4_0, "Q4_0", 32, 18},
    GgufTypeInfo{Q4_1, "Q4_1", 32, 20},       GgufTypeInfo{Q5_0, "Q5_0", 32, 22},     GgufTypeInfo{Q5_1, "Q5_1", 32, 24},
    GgufTypeInfo{Q8_0, "Q8_0", 32, 34},       GgufTypeInfo{Q8_1, "Q8_1", 32, 36},     GgufTypeInfo{Q2_K, "Q2_K", 256, 84},
    GgufTypeInfo{Q3_K, "Q3_K", 256, 110},     GgufTypeInfo{Q4_K, "Q4_K", 256, 144},   GgufTypeInfo{Q5_K, "Q5_K", 256, 176},
    GgufTypeInfo{Q6_K, "Q6_K", 256, 210},     GgufTypeInfo{Q8_K, "Q8_K", 256, 292},   GgufTypeInfo{IQ2_XXS, "IQ2_XXS", 256, 66},
    GgufTypeInfo{IQ2_XS, "IQ2_XS", 256, 74},  GgufTypeInfo{IQ3_XXS, "IQ3_XXS", 256, 98}, GgufTypeInfo{IQ1_S, "IQ1_S", 256, 50},
    GgufTypeInfo{IQ4_NL, "IQ4_NL", 32, 18},   GgufTypeInfo{IQ3_S, "IQ3_S", 256, 110}, GgufTypeInfo{IQ2_S, "IQ2_S", 256, 82},
    GgufTypeInfo{IQ4_XS, "IQ4_XS", 256, 136}, GgufTypeInfo{I8, "I8", 1, 1},           GgufTypeInfo{I16, "I16", 1, 2},
    GgufTypeInfo{I32, "I32", 1, 4},           GgufTypeInfo{I64, "I64", 1, 8},         GgufTypeInfo{F64, "F64", 1, 8},
    GgufTypeInfo{IQ1_M, "IQ1_M", 256, 56},    GgufTypeInfo{BF16, "BF16", 1, 2},       GgufTypeInfo{TQ1_0, "TQ1_0", 256, 54},
    GgufTypeInfo{TQ2_0, "TQ2_0", 256, 66},    GgufTypeInfo{MXFP4, "MXFP4", 32, 17},
};

struct ValueTypeInfo {
    std::string_view name;
    std::size_t bytes;
};
constexpr std::array<ValueTypeInfo, 13> kValueTypes{{{"u8", 1}, {"i8", 1}, {"u16", 2}, {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4}, {"bool", 1},
                                                     {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}}};

template <class T>
T load(const std::byte* at) noexcept {
    T value;
    std::memcpy(&value, at, sizeof(T));
    return value;
}

double numberAt(GgufValueType type, const std::byte* at) noexcept {
    switch (type) {
    case GgufValueType::U8: case GgufValueType::Bool: return load<std::uint8_t>(at);
    case GgufValueType::I8: return load<std::int8_t>(at);
    case GgufValueType::U16: return load<std::uint16_t>(at);
    case GgufValueType::I16: return load<std::int16_t>(at);
    case GgufValueType::U32: return load<std::uint32_t>(at);
    case GgufValueType::I32: return load<std::int32_t>(at);
    case GgufValueType::F32: return load<float>(at);
    case GgufValueType::U64: return static_cast<double>(load<std::uint64_t>(at));
    case GgufValueType::I64: return static_cast<double>(load<std::int64_t>(at));
    case GgufValueType::F64: return load<double>(at);
    default: return 0;
    }
}

template <class T>
GgufValue packed(GgufValueType type, const std::vector<T>& values) {
    GgufArray array;
    array.type = type;
    array.numbers.resize(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(array.numbers.data(), values.data(), array.numbers.size());
    return GgufValue::of(std::move(array));
}

bool isSigned(GgufValueType type) noexcept {
    return type == GgufValueType::I8 || type == GgufValueType::I16 || type == GgufValueType::I32 || type == GgufValueType::I64;
}

std::string quoted(const std::string& text) {
    constexpr std::size_t kMost = 100;
    std::string result = "\"";
    for (const char c : text.substr(0, kMost)) result += c == '\n' ? std::string("\\n") : std::string(1, c);
    return result + (text.size() > kMost ? "...\"" : "\"");
}

std::string shownArray(const GgufArray& array) {
    constexpr std::size_t kMost = 8;
    const std::size_t count = array.size();
    std::string text = "[";
    for (std::size_t i = 0; i < std::min(count, kMost); ++i) {
        text += i ? ", " : "";
        if (array.type == GgufValueType::String) text += quoted(array.strings[i]);
        else if (array.type == GgufValueType::Array) text += shownArray(array.arrays[i]);
        else text += toText(array.number(i));
    }
    if (count > kMost) text += ", ... " + toText(count) + " in all";
    return text + "]";
}

}  // namespace

const GgufTypeInfo* findGgufType(std::uint32_t number) noexcept {
    const auto* row = std::find_if(kTypes.begin(), kTypes.end(), [&](const GgufTypeInfo& type) { return static_cast<std::uint32_t>(type.type) == number; });
    return row == kTypes.end() ? nullptr : row;
}

const GgufTypeInfo& info(GgufType type) noexcept { return *findGgufType(static_cast<std::uint32_t>(type)); }

std::optional<GgufType> ggufTypeFromName(std::string_view name) noexcept {
    const auto upper = [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; };
    for (const GgufTypeInfo& type : kTypes)
        if (std::equal(name.begin(), name.end(), type.name.begin(), type.name.end(), [&](char a, char b) { return upper(a) == b; })) return type.type;
    return std::nullopt;
}

std::optional<DType> plainType(GgufType type) noexcept {
    switch (type) {
    case F32: return DType::F32;
    case F16: return DType::F16;
    case BF16: return DType::BF16;
    default: return std::nullopt;
    }
}

GgufType ggufTypeOf(DType dtype) noexcept { return dtype == DType::F16 ? F16 : dtype == DType::BF16 ? BF16 : F32; }

std::string_view name(GgufValueType type) noexcept { return kValueTypes[static_cast<std::size_t>(type)].name; }
std::size_t sizeOf(GgufValueType type) noexcept { return kValueTypes[static_cast<std::size_t>(type)].bytes; }

std::size_t GgufArray::size() const noexcept {
    if (type == GgufValueType::String) return strings.size();
    if (type == GgufValueType::Array) return arrays.size();
    return numbers.size() / sizeOf(type);
}

double GgufArray::number(std::size_t index) const { return numberAt(type, numbers.data() + index * sizeOf(type)); }

GgufValue GgufValue::ofInteger(GgufValueType type, std::uint64_t bits) {
    GgufValue value;
    value.m_type = type;
    value.m_bits = bits;
    return value;
}

GgufValue GgufValue::ofNumber(GgufValueType type, double number) {
    GgufValue value;
    value.m_type = type;
    value.m_number = type == GgufValueType::F32 ? static_cast<double>(static_cast<float>(number)) : number;
    return value;
}

GgufValue GgufValue::of(std::string text) {
    GgufValue value;
    value.m_type = GgufValueType::String;
    value.m_text = std::move(text);
    return value;
}

GgufValue GgufValue::of(GgufArray array) {
    GgufValue value;
    value.m_type = GgufValueType::Array;
    value.m_array = std::move(array);
    return value;
}

GgufValue GgufValue::ofTexts(std::vector<std::string> texts) {
    GgufArray array;
    array.type = GgufValueType::String;
    array.strings = std::move(texts);
    return of(std::move(array));
}

GgufValue GgufValue::ofU32(const std::vector<std::uint32_t>& values) { return packed(GgufValueType::U32, values); }
GgufValue GgufValue::ofI32(const std::vector<std::int32_t>& values) { return packed(GgufValueType::I32, values); }
GgufValue GgufValue::ofF32(const std::vector<float>& values) { return packed(GgufValueType::F32, values); }

double GgufValue::number() const noexcept {
    if (m_type == GgufValueType::F32 || m_type == GgufValueType::F64) return m_number;
    return isSigned(m_type) ? static_cast<double>(static_cast<std::int64_t>(m_bits)) : static_cast<double>(m_bits);
}

std::string GgufValue::shown() const {
    switch (m_type) {
    case GgufValueType::String: return quoted(m_text);
    case GgufValueType::Array: return shownArray(m_array);
    case GgufValueType::Bool: return m_bits ? "true" : "false";
    case GgufValueType::F32: return toText(m_number, 7);
    case GgufValueType::F64: return toText(m_number);
    default: return isSigned(m_type) ? toText(static_cast<std::int64_t>(m_bits)) : std::to_string(m_bits);
    }
}

}  // namespace resect
