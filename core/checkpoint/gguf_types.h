#pragma once
#include "core/checkpoint/dtype.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// Element types of GGUF tensors, numbered as in the file. Rows of a block type are whole numbers of blocks.
enum class GgufType : std::uint32_t {
    F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q8_1 = 9,
    Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14, Q8_K = 15,
    IQ2_XXS = 16, IQ2_XS = 17, IQ3_XXS = 18, IQ1_S = 19, IQ4_NL = 20, IQ3_S = 21, IQ2_S = 22, IQ4_XS = 23,
    I8 = 24, I16 = 25, I32 = 26, I64 = 27, F64 = 28, IQ1_M = 29, BF16 = 30, TQ1_0 = 34, TQ2_0 = 35, MXFP4 = 39,
};

struct GgufTypeInfo {
    GgufType type;
    std::string_view name;        ///< "Q8_0"
    std::uint32_t blockElements;  ///< 1 for plain types
    std::uint32_t blockBytes;
};
/// Null when no type has this number.
const GgufTypeInfo* findGgufType(std::uint32_t number) noexcept;
const GgufTypeInfo& info(GgufType type) noexcept;
/// "f32", "Q8_0": case does not matter. Nullopt when there is no such type.
std::optional<GgufType> ggufTypeFromName(std::string_view name) noexcept;
/// F32, F16 and BF16; nullopt for the others.
std::optional<DType> plainType(GgufType type) noexcept;
GgufType ggufTypeOf(DType dtype) noexcept;  ///< of F32, F16, BF16; F32 for any other

/// Types of metadata values, numbered as in the file.
enum class GgufValueType : std::uint32_t { U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64 };
std::string_view name(GgufValueType type) noexcept;  ///< "u32", "string"
/// Bytes of one value; 0 for String and Array.
std::size_t sizeOf(GgufValueType type) noexcept;

class GgufValue;

/// A metadata array. Numbers stay packed as in the file: a vocabulary is a hundred thousand of them.
struct GgufArray {
    GgufValueType type = GgufValueType::U32;
    std::vector<std::byte> numbers;    ///< little-endian; empty for String and Array
    std::vector<std::string> strings;
    std::vector<GgufArray> arrays;
    std::size_t size() const noexcept;
    double number(std::size_t index) const;  ///< of a number or Bool array; index < size()
    bool operator==(const GgufArray&) const = default;
};

/// One metadata value. Integers keep all 64 bits, floats of 32 bit are exact as doubles.
class GgufValue {
public:
    GgufValue() = default;
    static GgufValue ofInteger(GgufValueType type, std::uint64_t bits);  ///< two's complement for signed types; Bool too
    static GgufValue ofNumber(GgufValueType type, double value);         ///< F32 (rounded), F64
    static GgufValue of(std::uint32_t value) { return ofInteger(GgufValueType::U32, value); }
    static GgufValue of(float value) { return ofNumber(GgufValueType::F32, value); }
    static GgufValue of(bool value) { return ofInteger(GgufValueType::Bool, value); }
    static GgufValue of(std::string text);
    static GgufValue of(GgufArray array);
    static GgufValue ofTexts(std::vector<std::string> texts);
    static GgufValue ofU32(const std::vector<std::uint32_t>& values);
    static GgufValue ofI32(const std::vector<std::int32_t>& values);
    static GgufValue ofF32(const std::vector<float>& values);

    GgufValueType type() const noexcept { return m_type; }
    bool isNumber() const noexcept { return m_type != GgufValueType::String && m_type != GgufValueType::Array; }
    std::uint64_t bits() const noexcept { return m_bits; }  ///< of integers and Bool
    double number() const noexcept;                         ///< of any number
    const std::string& text() const noexcept { return m_text; }
    const GgufArray& array() const noexcept { return m_array; }
    /// For people: numbers, texts in quotes, arrays as "[512 strings: ...]". Long ones are shortened.
    std::string shown() const;
    bool operator==(const GgufValue&) const = default;

private:
    GgufValueType m_type = GgufValueType::U32;
    std::uint64_t m_bits = 0;
    double m_number = 0;
    std::string m_text;
    GgufArray m_array;
};

struct GgufEntry {
    std::string key;
    GgufValue value;
    bool operator==(const GgufEntry&) const = default;
};
/// In file order.
using GgufMetadata = std::vector<GgufEntry>;

inline constexpr std::uint64_t kGgufAlignment = 32;  ///< unless general.alignment says otherwise

}  // namespace resect
