#include "core/checkpoint/shard_stream.h"

#include "core/base/error.h"
#include "core/base/files.h"

#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

namespace resect {

namespace {
constexpr std::size_t kDirectBytes = 1 << 20;     // from here on a copy costs more than waiting for the hash
constexpr std::uint64_t kFlushBytes = 64 << 20;   // the disk works while we still write, so that the final sync is short
}  // namespace

ShardStream::ShardStream(std::filesystem::path target) : m_target(std::move(target)) {
    static std::atomic<unsigned> counter = 0;
    m_temporary = m_target.parent_path() /
                  ("." + m_target.filename().string() + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++));
    m_file = ::open(m_temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (m_file < 0) throw systemError(errno, m_target, "cannot write");
    try {
        for (auto& buffer : m_gathered) buffer.reserve(kPieceBytes);
        m_hasher = std::thread([this] { hashLoop(); });
    } catch (...) {
        discard();
        throw;
    }
}

ShardStream::~ShardStream() { discard(); }

void ShardStream::discard() noexcept {
    if (m_hasher.joinable()) {
        {
            const std::lock_guard lock(m_mutex);
            m_ending = true;
        }
        m_changed.notify_all();
        m_hasher.join();
    }
    if (m_file >= 0) ::close(std::exchange(m_file, -1));
    if (!m_temporary.empty()) ::unlink(m_temporary.c_str());
}

void ShardStream::append(std::span<const std::byte> piece) {
    if (piece.size() < kDirectBytes) {
        if (m_gathered[m_filling].size() + piece.size() > kPieceBytes) flush();
        m_gathered[m_filling].insert(m_gathered[m_filling].end(), piece.begin(), piece.end());
        return;
    }
    flush();
    startHash(piece);
    try {
        write(piece);
    } catch (...) {  // the caller takes the memory back
        waitForHash();
        throw;
    }
    waitForHash();
}

void ShardStream::flush() {
    auto& buffer = m_gathered[m_filling];
    if (buffer.empty()) return;
    startHash(buffer);
    m_filling = 1 - m_filling;
    m_gathered[m_filling].clear();  // its hash has ended: startHash() waited for it
    write(buffer);
}

void ShardStream::write(std::span<const std::byte> piece) {
    while (!piece.empty()) {
        const ssize_t n = ::write(m_file, piece.data(), piece.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw systemError(errno, m_target, "cannot write");
        piece = piece.subspan(static_cast<std::size_t>(n));
        m_bytes += static_cast<std::uint64_t>(n);
    }
    if (m_bytes - m_flushing >= kFlushBytes) {
        // A hint only; the sync in finish() is what counts.
        ::sync_file_range(m_file, static_cast<off64_t>(m_flushing), static_cast<off64_t>(m_bytes - m_flushing), SYNC_FILE_RANGE_WRITE);
        m_flushing = m_bytes;
    }
}

std::string ShardStream::finish() {
    flush();
    waitForHash();
    if (::fsync(m_file) != 0) throw systemError(errno, m_target, "cannot write");
    if (::close(std::exchange(m_file, -1)) != 0) throw systemError(errno, m_target, "cannot write");
    if (::rename(m_temporary.c_str(), m_target.c_str()) != 0) throw systemError(errno, m_target, "cannot give the finished file its name");
    m_temporary.clear();
    return m_sha.hex();
}

void ShardStream::startHash(std::span<const std::byte> piece) {
    waitForHash();
    {
        const std::lock_guard lock(m_mutex);
        m_toHash = piece;
        m_hashing = true;
    }
    m_changed.notify_all();
}

void ShardStream::waitForHash() {
    std::unique_lock lock(m_mutex);
    m_changed.wait(lock, [this] { return !m_hashing; });
    if (m_hashError) std::rethrow_exception(std::exchange(m_hashError, nullptr));
}

void ShardStream::hashLoop() {
    std::unique_lock lock(m_mutex);
    while (true) {
        m_changed.wait(lock, [this] { return m_hashing || m_ending; });
        if (!m_hashing) return;
        const auto piece = m_toHash;
        lock.unlock();
        std::exception_ptr error;
        try {
            m_sha.add(piece);
        } catch (...) {
            error = std::current_exception();
        }
        lock.lock();
        if (error) m_hashError = error;
        m_hashing = false;
        m_changed.notify_all();
    }
}

}  // namespace resect
