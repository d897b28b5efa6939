#include "core/data/idx_file.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include <zlib.h>

namespace resect {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLargestSide = 65'536;

/// A file that is unpacked while it is read when it is gzipped.
class PackedFile {
public:
    explicit PackedFile(const fs::path& path) : m_path(path) {
        if (!fs::exists(path)) throw Error(ErrorCode::NotFound, path.string(), "does not exist");
        if (!fs::is_regular_file(path)) throw Error(ErrorCode::BadInput, path.string(), "is no file");
        m_file = gzopen(path.c_str(), "rb");
        if (!m_file) throw systemError(errno, path, "cannot be read");
        gzbuffer(m_file, 1 << 18);
    }
    ~PackedFile() { gzclose(m_file); }
    PackedFile(const PackedFile&) = delete;
    PackedFile& operator=(const PackedFile&) = delete;

    /// As many bytes as there are, at most `count`.
    std::size_t read(std::uint8_t* out, std::size_t count) {
        std::size_t done = 0;
        while (done < count) {
            const int got = gzread(m_file, out + done, static_cast<unsigned>(std::min<std::size_t>(count - done, 1 << 30)));
            if (got < 0) damaged();
            if (got == 0) break;
            done += static_cast<std::size_t>(got);
        }
        int code = Z_OK;
        gzerror(m_file, &code);
        if (done < count && code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) damaged();
        return done;
    }

private:
    [[noreturn]] void damaged() {
        int code = 0;
        throw Error(ErrorCode::BadInput, m_path.string(), "holds damaged gzip data: " + std::string(gzerror(m_file, &code)));
    }
    fs::path m_path;
    gzFile m_file = nullptr;
};

std::string replacedLast(std::string text, const std::string& what, const std::string& with) {
    const auto at = text.rfind(what);
    return at == text.npos ? text : text.replace(at, what.size(), with);
}

}  // namespace

bool looksLikeIdx(const fs::path& file) {
    PackedFile in(file);
    std::array<std::uint8_t, 4> magic{};
    return in.read(magic.data(), magic.size()) == magic.size() && magic[0] == 0 && magic[1] == 0 && magic[2] >= 8 && magic[2] <= 14 && magic[3] >= 1 && magic[3] <= 4;
}

IdxFile readIdx(const fs::path& file, int dimensions, std::int64_t maxEntries, std::uint64_t maxMemory) {
    PackedFile in(file);
    const std::string subject = file.string();
    const auto bad = [&](const std::string& why) { throw Error(ErrorCode::BadInput, subject, why); };
    std::array<std::uint8_t, 16> head{};
    const std::size_t headBytes = 4 + 4 * static_cast<std::size_t>(dimensions);
    const std::size_t got = in.read(head.data(), headBytes);
    if (got < 4 || head[0] != 0 || head[1] != 0) bad("is no IDX file: expected it to begin with two zero bytes, the type and the number of dimensions");
    if (head[2] != 0x08) bad("holds IDX values of type " + toText(int{head[2]}) + "; expected 8, unsigned bytes");
    if (head[3] != dimensions)
        bad("holds IDX data of " + toText(int{head[3]}) + " dimensions; expected " + toText(dimensions) +
            (dimensions == 3 ? ": images, height, width" + std::string(head[3] == 1 ? " (this file seems to hold the labels)" : "") : ": labels"));
    if (got < headBytes) bad("ends within its header");
    IdxFile result;
    std::uint64_t entryBytes = 1;
    for (int d = 0; d < dimensions; ++d) {
        const std::uint8_t* at = head.data() + 4 + 4 * d;
        const std::int64_t size = std::int64_t{at[0]} << 24 | at[1] << 16 | at[2] << 8 | at[3];
        if (size == 0 || (d > 0 && size > kLargestSide)) bad("says that dimension " + toText(d) + " is " + formatThousands(size) + "; expected 1 to " + formatThousands(kLargestSide));
        if (d > 0) entryBytes *= static_cast<std::uint64_t>(size);
        result.sizes.push_back(size);
    }
    const std::int64_t entries = maxEntries > 0 ? std::min(maxEntries, result.sizes[0]) : result.sizes[0];
    const std::uint64_t bytes = static_cast<std::uint64_t>(entries) * entryBytes;
    if (bytes > maxMemory)
        throw Error(ErrorCode::OutOfMemory, subject, "says that it holds " + formatBytes(bytes) + "; " + formatBytes(maxMemory) + " are allowed. Use fewer rows");
    // Grown while it is read: what a header claims is not believed before the bytes are there.
    constexpr std::uint64_t kPiece = 64 << 20;
    while (result.values.size() < bytes) {
        const std::size_t before = result.values.size(), wanted = static_cast<std::size_t>(std::min(kPiece, bytes - before));
        result.values.resize(before + wanted);
        const std::size_t read = in.read(result.values.data() + before, wanted);
        if (read < wanted)
            bad("ends within entry " + formatThousands(static_cast<std::int64_t>((before + read) / entryBytes)) + " of " + formatThousands(result.sizes[0]) + ": it is truncated");
    }
    std::uint8_t more = 0;
    if (entries == result.sizes[0] && in.read(&more, 1) == 1) bad("holds more bytes than its header says");
    return result;
}

fs::path idxLabelsOf(const fs::path& images) {
    const std::string name = images.filename().string();
    const std::string labels = replacedLast(replacedLast(name, "images", "labels"), "idx3", "idx1");
    if (labels == name) return {};
    const std::string plain = labels.ends_with(".gz") ? labels.substr(0, labels.size() - 3) : labels;
    for (const std::string& candidate : {labels, plain, plain + ".gz"})
        if (fs::is_regular_file(images.parent_path() / candidate)) return images.parent_path() / candidate;
    return {};
}

}  // namespace resect
