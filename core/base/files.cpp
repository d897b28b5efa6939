#include "core/base/files.h"

#include "core/base/numbers.h"

#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace resect {

namespace fs = std::filesystem;

namespace {

/// Closes on scope exit; close() reports what the file system held back until then.
class Descriptor {
public:
    explicit Descriptor(int fd) noexcept : m_fd(fd) {}
    ~Descriptor() {
        if (m_fd >= 0) ::close(m_fd);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const noexcept { return m_fd; }
    int close() noexcept { return ::close(std::exchange(m_fd, -1)); }

private:
    int m_fd;
};

void writeAll(int fd, std::string_view content, const fs::path& path) {
    while (!content.empty()) {
        const ssize_t n = ::write(fd, content.data(), content.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw systemError(errno, path, "cannot write");
        content.remove_prefix(static_cast<std::size_t>(n));
    }
}

fs::path parentOf(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

/// Where the file really is, so that replacing it through a symbolic link changes the file and not the link.
fs::path resolved(const fs::path& path) {
    std::error_code error;
    if (!fs::is_symlink(path, error)) return path;
    const fs::path target = fs::canonical(path, error);
    return error ? path : target;
}

}  // namespace

Error systemError(int errnum, const fs::path& path, std::string_view action) {
    const ErrorCode code = [errnum] {
        switch (errnum) {
        case ENOENT:
        case ENOTDIR: return ErrorCode::NotFound;
        case EACCES:
        case EPERM:
        case EROFS: return ErrorCode::NoPermission;
        case ENOSPC:
        case EDQUOT:
        case EFBIG: return ErrorCode::DiskFull;
        case ENOMEM: return ErrorCode::OutOfMemory;
        case EIO: return ErrorCode::Corrupt;
        default: return ErrorCode::BadInput;
        }
    }();
    return Error(code, path.string(), std::string(action) + ": " + std::generic_category().message(errnum));
}

std::string readFile(const fs::path& path, std::uint64_t maxBytes) {
    Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) throw systemError(errno, path, "cannot open");
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) throw systemError(errno, path, "cannot read");
    if (S_ISDIR(info.st_mode)) throw Error(ErrorCode::BadInput, path.string(), "expected a file, found a folder");
    const auto tooLarge = [&](std::uint64_t size) {
        return Error(ErrorCode::BadInput, path.string(),
                     "expected at most " + formatBytes(maxBytes) + ", found " + formatBytes(size));
    };
    const auto size = static_cast<std::uint64_t>(info.st_size);
    if (size > maxBytes) throw tooLarge(size);
    std::string content;
    std::size_t filled = 0;
    content.resize(size);
    while (true) {  // the size may be unknown (pipes, /proc) or change while we read: the end of the file decides
        if (filled == content.size()) content.resize(filled + (filled == size ? 1 : 65536));
        const ssize_t n = ::read(file.get(), content.data() + filled, content.size() - filled);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw systemError(errno, path, "cannot read");
        if (n == 0) break;
        filled += static_cast<std::size_t>(n);
        if (filled > maxBytes) throw tooLarge(filled);
    }
    content.resize(filled);
    return content;
}

void writeFileAtomically(const fs::path& wanted, std::string_view content) {
    static std::atomic<unsigned> counter = 0;
    const fs::path path = resolved(wanted);
    const fs::path folder = parentOf(path);
    const fs::path temporary =
        folder / ("." + path.filename().string() + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++));
    Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (file.get() < 0) throw systemError(errno, wanted, "cannot write");
    try {
        struct stat old {};
        if (::stat(path.c_str(), &old) == 0) {  // a file keeps its permissions; who may not set them keeps the default
            if (::fchmod(file.get(), old.st_mode & 07777) != 0) errno = 0;
        }
        writeAll(file.get(), content, wanted);
        if (::fsync(file.get()) != 0 || file.close() != 0) throw systemError(errno, wanted, "cannot write");
        if (::rename(temporary.c_str(), path.c_str()) != 0) throw systemError(errno, wanted, "cannot replace");
    } catch (...) {
        ::unlink(temporary.c_str());
        throw;
    }
    syncToDisk(folder);
}

std::uint64_t freeSpace(const fs::path& path) {
    std::error_code error;
    fs::path existing = fs::absolute(path);
    while (!fs::exists(existing, error) && existing.has_relative_path()) existing = existing.parent_path();
    const fs::space_info space = fs::space(existing, error);
    if (error) throw systemError(error.value(), path, "cannot ask for free space");
    return space.available;
}

void requireFreeSpace(const fs::path& path, std::uint64_t needed) {
    const std::uint64_t available = freeSpace(path);
    if (available < needed)
        throw Error(ErrorCode::DiskFull, path.string(),
                    "needs " + formatBytes(needed) + ", but only " + formatBytes(available) + " are free there");
}

void syncToDisk(const fs::path& path) {
    Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) throw systemError(errno, path, "cannot open");
    // Some file systems cannot sync folders; they then order the rename themselves.
    if (::fsync(file.get()) != 0 && errno != EINVAL && errno != EROFS) throw systemError(errno, path, "cannot flush to disk");
}

StagedFolder::StagedFolder(fs::path target) {
    m_target = fs::absolute(target).lexically_normal();
    if (!m_target.has_filename()) m_target = m_target.parent_path();  // a trailing slash
    m_partial = m_target;
    m_partial += ".partial";
    std::error_code error;
    if (fs::exists(m_target, error) && !(fs::is_directory(m_target, error) && fs::is_empty(m_target, error)))
        throw Error(ErrorCode::BadInput, m_target.string(), "expected a new name or an empty folder, but it exists and holds something");
    const auto lock = [this] {
        m_lock = ::open(m_partial.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return m_lock < 0 || ::flock(m_lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    };
    const bool free = lock();
    if (m_lock >= 0) ::close(std::exchange(m_lock, -1));
    if (!free) throw Error(ErrorCode::BadInput, m_target.string(), "another process is writing " + m_partial.string());
    fs::remove_all(m_partial, error);
    if (!error) fs::create_directories(m_partial, error);
    if (error) throw systemError(error.value(), m_partial, "cannot create");
    lock();
}

StagedFolder::~StagedFolder() {
    if (!m_committed) {
        std::error_code ignored;
        fs::remove_all(m_partial, ignored);
    }
    if (m_lock >= 0) ::close(m_lock);
}

void StagedFolder::commit() {
    for (const auto& entry : fs::recursive_directory_iterator(m_partial))
        if (entry.is_regular_file() || entry.is_directory()) syncToDisk(entry.path());
    syncToDisk(m_partial);
    // rename() replaces an empty folder of that name and nothing else.
    if (::rename(m_partial.c_str(), m_target.c_str()) != 0) throw systemError(errno, m_target, "cannot give the finished folder its name");
    m_committed = true;
    syncToDisk(m_target.parent_path());
}

}  // namespace resect
