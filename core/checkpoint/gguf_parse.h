#pragma once
#include "core/checkpoint/gguf_file.h"

#include <span>

namespace resect {

/// What stands before the data of a GGUF file.
struct GgufHeader {
    int version = 3;
    std::uint64_t alignment = kGgufAlignment;
    std::uint64_t dataBegin = 0;  ///< of the file
    GgufMetadata metadata;
    std::vector<GgufTensor> tensors;  ///< ascending by offset
};

/// Checks and reads the header of a whole file in memory. Errors as GgufFile::open.
GgufHeader parseGgufHeader(std::span<const std::byte> file, const std::string& subject);

}  // namespace resect
