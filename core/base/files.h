#pragma once
#include "core/base/error.h"

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace resect {

/// The error for a failed system call on `path`: `errnum` (errno) chooses the code, `action` ("cannot write") starts the message.
Error systemError(int errnum, const std::filesystem::path& path, std::string_view action);
/// The whole file. Throws NotFound, NoPermission, or BadInput when it is larger than `maxBytes`.
std::string readFile(const std::filesystem::path& path, std::uint64_t maxBytes = 1ull << 31);
/// Writes beside the target under a temporary name, syncs, renames: a reader sees the old or the new content, never a half.
/// Throws DiskFull, NoPermission.
void writeFileAtomically(const std::filesystem::path& path, std::string_view content);
/// Free bytes of the file system that holds `path` (or its nearest existing parent).
std::uint64_t freeSpace(const std::filesystem::path& path);
/// Throws DiskFull with both numbers when fewer than `needed` bytes are free at `path`.
void requireFreeSpace(const std::filesystem::path& path, std::uint64_t needed);
/// Flushes file content, or a folder's entries, to the disk. Throws on failure.
void syncToDisk(const std::filesystem::path& path);

/// A folder `NAME.partial` beside the target, created empty; commit() renames it to the target, otherwise it is removed.
/// Left-overs of an interrupted run under that name are removed first. Throws BadInput when the target exists and is not an empty folder, or when
/// another process is just writing it; NoPermission, DiskFull.
class StagedFolder {
public:
    explicit StagedFolder(std::filesystem::path target);
    ~StagedFolder();
    StagedFolder(const StagedFolder&) = delete;
    StagedFolder& operator=(const StagedFolder&) = delete;
    const std::filesystem::path& path() const noexcept { return m_partial; }
    void commit();  ///< syncs every file and the folder, then renames

private:
    std::filesystem::path m_target, m_partial;
    int m_lock = -1;  ///< descriptor of the locked partial folder
    bool m_committed = false;
};

}  // namespace resect
