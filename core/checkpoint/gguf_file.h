#pragma once
#include "core/checkpoint/gguf_types.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

struct GgufTensor {
    std::string name;
    GgufType type = GgufType::F32;
    /// Row-major, outermost first, as in safetensors: [out, in] of a Linear, [E, out, in] of stacked experts. (The file stores them the other way round.)
    std::vector<std::int64_t> shape;
    std::uint64_t offset = 0;  ///< within the data part
    std::uint64_t bytes = 0;
    std::int64_t numel() const noexcept;
};

/// A GGUF file of version 2 or 3, open for reading. Metadata is read when it is opened, tensors are mapped. Safe to read from several threads.
///
/// Format: "GGUF", u32 version, u64 tensors, u64 entries; entries (key, u32 type, value); tensor infos (name, u32 dimensions, u64 each, u32 type,
/// u64 offset); zeros up to a multiple of general.alignment; data. Strings are a u64 length and bytes. Little-endian.
class GgufFile {
public:
    /// Throws NotFound, NoPermission; Corrupt naming the key or tensor: truncated, absurd counts, a text or array past the end, unknown value
    /// types, duplicate keys or tensors, a tensor that is misaligned, overlaps another or reaches past the end. Unsupported for version 1, big-endian
    /// files and tensor types without a known size. No allocation exceeds a small multiple of the file's size.
    static GgufFile open(const std::filesystem::path& path);
    GgufFile(GgufFile&&) noexcept;
    GgufFile& operator=(GgufFile&&) noexcept;
    ~GgufFile();

    const std::filesystem::path& path() const noexcept;
    std::uint64_t fileSize() const noexcept;
    int version() const noexcept;
    std::uint64_t alignment() const noexcept;
    const GgufMetadata& metadata() const noexcept;            ///< in file order
    const GgufValue* find(std::string_view key) const noexcept;
    const std::vector<GgufTensor>& tensors() const noexcept;  ///< ascending by offset
    const GgufTensor* findTensor(std::string_view name) const noexcept;
    std::span<const std::byte> bytes(const GgufTensor& tensor) const noexcept;  ///< mapped, as stored; valid as long as this object
    void release(std::span<const std::byte> part) const noexcept;               ///< not needed soon

    // Typed access. The first form throws BadInput naming file and key when it is absent or of another kind; the second gives the fallback when absent.
    std::string text(std::string_view key) const;
    std::string text(std::string_view key, std::string fallback) const;
    std::int64_t integer(std::string_view key) const;
    std::int64_t integer(std::string_view key, std::int64_t fallback) const;
    double number(std::string_view key) const;
    double number(std::string_view key, double fallback) const;
    bool flag(std::string_view key, bool fallback) const;
    /// One integer per block: an array of exactly `count`, or one number for all.
    std::vector<std::int64_t> integers(std::string_view key, std::size_t count) const;
    std::string subject(std::string_view key) const;  ///< "FILE: KEY" for errors

private:
    struct Data;
    explicit GgufFile(std::unique_ptr<Data> data);
    std::unique_ptr<Data> m_data;
};

/// Does the file begin with "GGUF"? False when it cannot be read.
bool looksLikeGguf(const std::filesystem::path& path) noexcept;

}  // namespace resect
