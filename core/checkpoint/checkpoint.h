#pragma once
#include "core/base/problem.h"
#include "core/checkpoint/safetensors_file.h"
#include "core/protocol/json.h"

#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// A Hugging Face checkpoint on disk: config.json, shards and what lies beside them. Read-only; opening reads headers only.
/// Safe to read from several threads. Cheap to move, not copyable.
class Checkpoint {
public:
    /// `path` may be the folder, config.json, an index (*.safetensors.index.json) or one .safetensors file: all open the same.
    /// Without a config.json the tensors can still be inspected (config() is null).
    /// Throws NotFound (also for a shard that the index names and the folder lacks), BadInput, Corrupt; each names file and tensor or field.
    static Checkpoint open(const std::filesystem::path& path);
    Checkpoint(Checkpoint&&) noexcept = default;
    Checkpoint& operator=(Checkpoint&&) noexcept = default;

    const std::filesystem::path& folder() const noexcept { return m_folder; }
    const Json& config() const noexcept { return m_config; }          ///< config.json; null when there is none
    const Json& resectConfig() const noexcept { return m_resectConfig; } ///< resect.json; null when there is none
    const std::vector<SafetensorsFile>& shards() const noexcept { return m_shards; }
    /// All tensors of all shards, ascending by name in natural order (layers.2 before layers.10), under the names that transformers writes to
    /// disk for the family whatever generation of names the files have (core/checkpoint/tensor_names.h).
    const std::vector<TensorInfo>& tensors() const noexcept { return m_tensors; }
    const TensorInfo* find(std::string_view name) const noexcept;     ///< null when absent
    std::span<const std::byte> bytes(const TensorInfo& tensor) const noexcept;
    /// After reading: keeps resident memory small. `part` is a part of what bytes(tensor) gave.
    void release(const TensorInfo& tensor) const noexcept;
    void release(const TensorInfo& tensor, std::span<const std::byte> part) const noexcept;
    std::uint64_t totalBytes() const noexcept;                        ///< of all tensors
    std::int64_t totalParameters() const noexcept;                    ///< sum of numel over floating-point tensors
    /// Findings of opening that do not prevent inspection: index and shard disagree, index total_size wrong, unused shard files.
    const std::vector<Problem>& problems() const noexcept { return m_problems; }

    /// "sha256:..." of config.json (without formatting), resect.json, and every tensor's name, dtype, shape and content. Independent of how the
    /// tensors are split into shards. Content over 256 MB in all is sampled (first, middle and last 16 KiB of each tensor).
    /// The first call reads the data; later calls are free.
    const std::string& fingerprint() const;

private:
    Checkpoint() = default;
    std::filesystem::path m_folder;
    Json m_config, m_resectConfig;
    std::vector<SafetensorsFile> m_shards;
    std::vector<TensorInfo> m_tensors;
    std::vector<Problem> m_problems;
    std::unique_ptr<std::mutex> m_fingerprintMutex = std::make_unique<std::mutex>();
    mutable std::string m_fingerprint;
};

/// Ascending with digit groups as numbers: "layers.2" before "layers.10". A strict total order.
bool naturalLess(std::string_view a, std::string_view b) noexcept;

}  // namespace resect
