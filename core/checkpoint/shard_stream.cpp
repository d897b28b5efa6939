#include "core/checkpoint/shard_stream.h"

#include "core/base/error.h"
#include "core/base/files.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

namespace resect {

namespace {
constexpr std::size_t kDirectBytes = 256 << 10;  // from here on a call for itself costs less than a copy
constexpr std::size_t kHashBytes = 512 << 10;    // stays in the processor's cache between reading and hashing
constexpr std::uint64_t kFlushBytes = 64 << 20;  // the disk works while we still write, so that the final sync is short
}  // namespace

ShardStream::ShardStream(std::filesystem::path target) : m_target(std::move(target)) {
    static std::atomic<unsigned> counter = 0;
    m_temporary = m_target.parent_path() /
                  ("." + m_target.filename().string() + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++));
    m_file = ::open(m_temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (m_file < 0) throw systemError(errno, m_target, "cannot write");
    try {
        m_gathered.reserve(kPieceBytes);
        m_hasher = std::thread([this] { hashLoop(); });
    } catch (...) {
        discard();
        throw;
    }
}

ShardStream::~ShardStream() { discard(); }

void ShardStream::discard() noexcept {
    {
        const std::lock_guard lock(m_mutex);
        m_discarded = true;
    }
    endHash();
    if (m_file >= 0) ::close(std::exchange(m_file, -1));
    if (!m_temporary.empty()) ::unlink(m_temporary.c_str());
}

void ShardStream::append(std::span<const std::byte> piece) {
    if (m_gathered.size() + piece.size() > kPieceBytes || piece.size() >= kDirectBytes) flush();
    if (piece.size() >= kDirectBytes)
        write(piece);
    else
        m_gathered.insert(m_gathered.end(), piece.begin(), piece.end());
}

void ShardStream::flush() {
    write(m_gathered);
    m_gathered.clear();
}

void ShardStream::write(std::span<const std::byte> piece) {
    while (!piece.empty()) {
        const ssize_t n = ::write(m_file, piece.data(), piece.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw systemError(errno, m_target, "cannot write");
        piece = piece.subspan(static_cast<std::size_t>(n));
        m_bytes += static_cast<std::uint64_t>(n);
    }
    {
        const std::lock_guard lock(m_mutex);
        m_available = m_bytes;
    }
    m_more.notify_one();
    if (m_bytes - m_flushing >= kFlushBytes) {
        // A hint only; the sync in finish() is what counts.
        ::sync_file_range(m_file, static_cast<off64_t>(m_flushing), static_cast<off64_t>(m_bytes - m_flushing), SYNC_FILE_RANGE_WRITE);
        m_flushing = m_bytes;
    }
}

std::string ShardStream::finish() {
    flush();
    if (::fsync(m_file) != 0) throw systemError(errno, m_target, "cannot write");  // the hash catches up meanwhile
    endHash();
    if (m_hashError) std::rethrow_exception(m_hashError);
    if (::close(std::exchange(m_file, -1)) != 0) throw systemError(errno, m_target, "cannot write");
    if (::rename(m_temporary.c_str(), m_target.c_str()) != 0) throw systemError(errno, m_target, "cannot give the finished file its name");
    m_temporary.clear();
    return m_sha.hex();
}

void ShardStream::endHash() noexcept {
    if (!m_hasher.joinable()) return;
    {
        const std::lock_guard lock(m_mutex);
        m_ending = true;
    }
    m_more.notify_one();
    m_hasher.join();
}

void ShardStream::hashLoop() {
    try {
        std::unique_lock lock(m_mutex);
        while (true) {
            m_more.wait(lock, [this] { return m_available > m_hashed || m_ending; });
            if (m_discarded || m_available == m_hashed) return;
            const std::uint64_t end = std::min(m_available, m_hashed + kPieceBytes);
            lock.unlock();
            hashUpTo(end);
            lock.lock();
        }
    } catch (...) {
        m_hashError = std::current_exception();
    }
}

void ShardStream::hashUpTo(std::uint64_t end) {
    std::vector<std::byte> buffer(kHashBytes);
    while (m_hashed < end) {
        const std::size_t wanted = std::min<std::uint64_t>(buffer.size(), end - m_hashed);
        const ssize_t n = ::pread(m_file, buffer.data(), wanted, static_cast<off_t>(m_hashed));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) throw systemError(n < 0 ? errno : EIO, m_target, "cannot read back");
        m_sha.add(std::span(buffer).first(static_cast<std::size_t>(n)));
        m_hashed += static_cast<std::uint64_t>(n);
    }
}

}  // namespace resect
