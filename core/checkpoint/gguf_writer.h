#pragma once
#include "core/base/job.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/checkpoint/gguf_types.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace resect {

/// A tensor to be written: shape (row-major, outermost first) and type are known beforehand, its bytes are produced on demand in order.
struct GgufTensorSource {
    std::string name;
    GgufType type = GgufType::F32;
    std::vector<std::int64_t> shape;
    std::function<void(const std::function<void(std::span<const std::byte>)>& sink)> produce;  ///< exactly bytes() bytes
    std::uint64_t bytes() const noexcept;
};

/// Bytes of the whole file.
std::uint64_t ggufFileBytes(const GgufMetadata& metadata, const std::vector<GgufTensorSource>& tensors);

/// Streams one GGUF file of version 3 to `path`, tensors in the given order; memory stays independent of its size. Written under a temporary name,
/// synced and renamed; free space is checked first. Throws Internal for a name or key that occurs twice or a row length that the type cannot have,
/// DiskFull, NoPermission, Stopped (nothing remains).
WrittenShard writeGguf(const std::filesystem::path& path, const GgufMetadata& metadata, const std::vector<GgufTensorSource>& tensors, const JobContext& job);

}  // namespace resect
