#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace resect {

/// A whole file mapped for reading. Safe to read from several threads; move only.
class MappedFile {
public:
    MappedFile() = default;
    /// Throws NotFound, NoPermission, BadInput when it is no regular file. An empty file gives no bytes.
    explicit MappedFile(const std::filesystem::path& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;

    std::span<const std::byte> bytes() const noexcept { return {m_begin, static_cast<std::size_t>(m_size)}; }
    std::uint64_t size() const noexcept { return m_size; }
    /// Tells the kernel that these of its bytes are not needed soon, so that streaming keeps resident memory small.
    static void release(std::span<const std::byte> part) noexcept;
    /// Starts to read these of its bytes, without waiting for them.
    static void prefetch(std::span<const std::byte> part) noexcept;
    /// While on, reading a byte fetches its page alone and not the megabytes after it that a disk's read-ahead may be set to.
    void setRandomAccess(bool on) const noexcept;

private:
    std::byte* m_begin = nullptr;
    std::uint64_t m_size = 0;
};

}  // namespace resect
