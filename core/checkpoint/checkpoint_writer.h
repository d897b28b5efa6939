#pragma once
#include "core/base/job.h"
#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/dtype.h"
#include "core/protocol/json.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace resect {

/// A tensor to be written: its shape is known beforehand, its bytes are produced on demand in order.
struct TensorSource {
    std::string name;
    DType dtype = DType::F32;
    std::vector<std::int64_t> shape;
    /// Calls `sink` with consecutive pieces that add up to exactly numel x sizeOf(dtype) bytes. May be called once only.
    std::function<void(const std::function<void(std::span<const std::byte>)>& sink)> produce;
    std::uint64_t bytes() const noexcept;
};
/// A tensor as it stands in an open checkpoint, which must outlive it. Mapped pages are released as they are read.
TensorSource copyOf(const Checkpoint& checkpoint, const TensorInfo& tensor);

struct WrittenShard {
    std::string fileName;
    std::uint64_t bytes = 0;
    std::string sha256;  ///< hex, computed while writing
};

struct WriteOptions {
    std::uint64_t shardBytes = 5'000'000'000;              ///< at most, unless one tensor alone is larger
    std::map<std::string, std::string> metadata{{"format", "pt"}};
    std::string stem = "model";                            ///< model.safetensors, or model-00001-of-00003.safetensors + index
};

/// Streams tensors into shards in `folder` (an existing, usually staged folder), in the given order, and writes
/// `<stem>.safetensors.index.json` when there is more than one shard. Memory stays independent of the model's size.
/// Each shard is written under a temporary name, synced and renamed. Free space is checked first.
/// Throws DiskFull, NoPermission, Stopped (the shards written so far and any temporary file are removed).
std::vector<WrittenShard> writeShards(const std::filesystem::path& folder, const std::vector<TensorSource>& tensors,
                                      const WriteOptions& options, const JobContext& job);

/// One safetensors file at `path`, complete before it gets its name.
WrittenShard writeSafetensors(const std::filesystem::path& path, const std::vector<TensorSource>& tensors,
                              const std::map<std::string, std::string>& metadata, const JobContext& job = {});

/// Lower-case hex digest.
std::string sha256Hex(std::span<const std::byte> bytes);
std::string sha256Hex(std::string_view text);
std::string sha256File(const std::filesystem::path& path, const JobContext& job = {});

}  // namespace resect
