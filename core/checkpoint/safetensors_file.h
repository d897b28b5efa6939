#pragma once
#include "core/checkpoint/dtype.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

class MappedFile;

struct TensorInfo {
    std::string name;
    DType dtype = DType::F32;
    std::vector<std::int64_t> shape;  ///< row-major; empty = scalar
    std::uint64_t begin = 0, end = 0; ///< byte range within the data part of its shard
    int shard = 0;                    ///< index into Checkpoint::shards()
    std::int64_t numel() const noexcept;
    std::uint64_t bytes() const noexcept { return end - begin; }
};

std::string shapeText(const std::vector<std::int64_t>& shape);   ///< "[4, 8]"

/// One shard of a checkpoint in the safetensors format, open for reading.
///
/// Opening checks the header only; tensor bytes are mapped and read on demand. Safe to read from several threads.
/// Format: u64 little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, data.
class SafetensorsFile {
public:
    /// Throws NotFound, NoPermission, or Corrupt naming file and tensor: header over 100 MB or longer than the file, byte ranges
    /// that overlap or leave a hole, a range that differs from shape x dtype size (or overflows), a file shorter than its data.
    /// Unsupported for a dtype that DType lacks.
    static SafetensorsFile open(const std::filesystem::path& path);
    SafetensorsFile(SafetensorsFile&&) noexcept;
    SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
    ~SafetensorsFile();

    const std::filesystem::path& path() const noexcept;
    std::uint64_t fileSize() const noexcept;
    std::string_view headerText() const noexcept;                       ///< the JSON as stored
    const std::map<std::string, std::string>& metadata() const noexcept;///< `__metadata__`
    const std::vector<TensorInfo>& tensors() const noexcept;            ///< ascending by byte range
    const TensorInfo* find(std::string_view name) const noexcept;       ///< null when absent
    /// The mapped bytes: row-major, stored dtype, little-endian, alignment not guaranteed. Valid as long as this object. Throws NotFound.
    std::span<const std::byte> bytes(std::string_view name) const;
    std::span<const std::byte> bytes(const TensorInfo& tensor) const noexcept;
    /// Tells the kernel that these mapped bytes are not needed soon, so that streaming keeps resident memory small.
    void release(const TensorInfo& tensor) const noexcept;
    void release(std::span<const std::byte> part) const noexcept;       ///< a part of what bytes() gave
    const MappedFile& mapping() const noexcept;

private:
    struct Data;
    explicit SafetensorsFile(std::unique_ptr<Data> data);
    std::unique_ptr<Data> m_data;
};

}  // namespace resect
