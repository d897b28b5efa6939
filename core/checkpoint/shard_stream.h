#pragma once
#include "core/checkpoint/sha256.h"

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

/// One output file under a temporary name. Large pieces go from the caller's memory to the file without a copy; small ones are gathered first.
/// A second thread follows and hashes what stands in the file, so that neither waits for the other. Without finish() nothing remains.
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
    void flush();  ///< what is gathered
    void write(std::span<const std::byte> piece);
    void hashLoop();
    void hashUpTo(std::uint64_t end);
    void endHash() noexcept;
    void discard() noexcept;

    std::filesystem::path m_target, m_temporary;
    int m_file = -1;
    std::uint64_t m_bytes = 0, m_flushing = 0;  ///< written; handed to the disk
    std::vector<std::byte> m_gathered;

    std::thread m_hasher;
    std::mutex m_mutex;
    std::condition_variable m_more;
    std::uint64_t m_available = 0;  ///< written and not yet hashed up to here; guarded by m_mutex, as the next two
    bool m_ending = false, m_discarded = false;
    Sha256 m_sha;                   ///< the hasher's, as the rest, until it has ended
    std::uint64_t m_hashed = 0;
    std::exception_ptr m_hashError;
};

}  // namespace resect
