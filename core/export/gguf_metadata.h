#pragma once
#include "core/checkpoint/gguf_types.h"
#include "core/export/gguf_architecture.h"

#include <cstdint>
#include <string>
#include <vector>

namespace resect {

/// What the general.* keys say beyond the shape.
struct GgufGeneral {
    std::string title;             ///< general.name
    std::int64_t parameters = 0;   ///< of all tensors but the rotary factors
    std::int64_t expertParameters = 0;  ///< of them, those of experts
    std::uint32_t fileType = 0;    ///< general.file_type
};

/// general.* and ARCH.* keys of a model of this shape, in the order of llama.cpp's own converter. `config` is the config.json of what is written, for
/// the fields that only llama.cpp's graph for the family needs. `notes` tell where llama.cpp computes the same only within limits.
GgufMetadata ggufMetadata(const GgufArchitecture& architecture, const ModelShape& shape, const Json& config, const GgufGeneral& general, std::vector<Problem>& notes);

/// "stories260K-hf" -> "stories260K Hf".
std::string ggufTitle(std::string folderName);
/// "260K", "7.2B", "8x1.2M".
std::string ggufSizeLabel(std::int64_t parameters, std::int64_t expertParameters, int numExperts);
/// general.file_type for the type of most matrices.
std::uint32_t ggufFileType(GgufType type) noexcept;

}  // namespace resect
