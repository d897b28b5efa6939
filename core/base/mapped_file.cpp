#include "core/base/mapped_file.h"

#include "core/base/error.h"
#include "core/base/files.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace resect {

MappedFile::MappedFile(const std::filesystem::path& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw systemError(errno, path, "cannot open");
    struct stat info {};
    const bool known = ::fstat(fd, &info) == 0;
    if (!known || !S_ISREG(info.st_mode)) {
        ::close(fd);
        throw Error(ErrorCode::BadInput, path.string(), "expected a file");
    }
    m_size = static_cast<std::uint64_t>(info.st_size);
    void* const address = m_size > 0 ? ::mmap(nullptr, m_size, PROT_READ, MAP_SHARED, fd, 0) : nullptr;
    const int error = errno;
    ::close(fd);
    if (address == MAP_FAILED) throw systemError(error, path, "cannot map");
    m_begin = static_cast<std::byte*>(address);
}

MappedFile::~MappedFile() {
    if (m_begin) ::munmap(m_begin, m_size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept : m_begin(std::exchange(other.m_begin, nullptr)), m_size(std::exchange(other.m_size, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(m_begin, other.m_begin);
    std::swap(m_size, other.m_size);
    return *this;
}

namespace {

/// Outwards to whole pages.
void advise(std::span<const std::byte> part, int advice) noexcept {
    static const auto pageSize = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    if (part.empty()) return;
    const auto first = reinterpret_cast<std::uintptr_t>(part.data()) & ~(pageSize - 1);
    const auto last = reinterpret_cast<std::uintptr_t>(part.data() + part.size());
    ::madvise(reinterpret_cast<void*>(first), last - first, advice);
}

}  // namespace

// A neighbour on the same page that is in use just maps its page again.
void MappedFile::release(std::span<const std::byte> part) noexcept { advise(part, MADV_DONTNEED); }
void MappedFile::prefetch(std::span<const std::byte> part) noexcept { advise(part, MADV_WILLNEED); }
void MappedFile::setRandomAccess(bool on) const noexcept { advise(bytes(), on ? MADV_RANDOM : MADV_NORMAL); }

}  // namespace resect
