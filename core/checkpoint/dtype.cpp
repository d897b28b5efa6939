#include "core/checkpoint/dtype.h"

#include <array>

namespace resect {

namespace {

struct Row {
    DType dtype;
    std::string_view name;
    std::size_t size;
    bool isFloat;
};

// In the order of the enumeration.
constexpr std::array<Row, 12> kRows{{{DType::F64, "F64", 8, true},
                                     {DType::F32, "F32", 4, true},
                                     {DType::F16, "F16", 2, true},
                                     {DType::BF16, "BF16", 2, true},
                                     {DType::I64, "I64", 8, false},
                                     {DType::I32, "I32", 4, false},
                                     {DType::I16, "I16", 2, false},
                                     {DType::I8, "I8", 1, false},
                                     {DType::U8, "U8", 1, false},
                                     {DType::Bool, "BOOL", 1, false},
                                     {DType::F8E4M3, "F8_E4M3", 1, true},
                                     {DType::F8E5M2, "F8_E5M2", 1, true}}};

const Row& row(DType dtype) noexcept { return kRows[static_cast<std::size_t>(dtype)]; }

}  // namespace

std::size_t sizeOf(DType dtype) noexcept { return row(dtype).size; }
std::string_view name(DType dtype) noexcept { return row(dtype).name; }
bool isFloat(DType dtype) noexcept { return row(dtype).isFloat; }

std::optional<DType> dtypeFromName(std::string_view name) noexcept {
    for (const Row& row : kRows)
        if (row.name == name) return row.dtype;
    return std::nullopt;
}

}  // namespace resect
