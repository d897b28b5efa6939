#pragma once
#include "core/checkpoint/sha256.h"

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace resect {

/// One output file under a temporary name, hashed by a second thread while it is written. Large pieces go from the caller's memory
/// to the file without a copy; small ones are gathered first. Without finish() nothing remains.
class ShardStream {
public:
    static constexpr std::size_t kPieceBytes = 8 << 20;  ///< callers pass at most this much at once, so that stopping is quick

    explicit ShardStream(std::filesystem::path target);
    ~ShardStream();
    ShardStream(const ShardStream&) = delete;
    ShardStream& operator=(const ShardStream&) = delete;
    /// The piece may be reused on return. Throws DiskFull, NoPermission.
    void append(std::span<const std::byte> piece);
    std::string finish();  ///< syncs, renames to the target, returns the SHA-256 of the file
    std::uint64_t bytes() const noexcept { return m_bytes; }

private:
    void flush();                                     ///< what is gathered
    void write(std::span<const std::byte> piece);
    void startHash(std::span<const std::byte> piece); ///< waits for the one before
    void waitForHash();
    void hashLoop();
    void discard() noexcept;

    std::filesystem::path m_target, m_temporary;
    int m_file = -1;
    std::uint64_t m_bytes = 0, m_flushing = 0;
    std::array<std::vector<std::byte>, 2> m_gathered; ///< one is filled while the other is hashed
    int m_filling = 0;

    Sha256 m_sha;
    std::mutex m_mutex;
    std::condition_variable m_changed;
    std::span<const std::byte> m_toHash;              ///< guarded by m_mutex, as all below
    bool m_hashing = false, m_ending = false;
    std::exception_ptr m_hashError;
    std::thread m_hasher;
};

}  // namespace resect
