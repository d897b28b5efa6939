#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace resect {

/// Unsigned bytes of a file in the IDX format of MNIST (yann.lecun.com/exdb/mnist: two zero bytes, type 0x08, number of dimensions, each dimension as
/// a big-endian 32-bit number, then the values, last dimension fastest), plain or gzipped.
struct IdxFile {
    std::vector<std::int64_t> sizes;     ///< as the header says
    std::vector<std::uint8_t> values;    ///< of the entries that were read
};

/// True when the (unpacked) file begins as an IDX file does.
bool looksLikeIdx(const std::filesystem::path& file);
/// Reads the first `maxEntries` entries of the first dimension (0 = all, and then nothing may follow them).
/// Throws NotFound, NoPermission; BadInput: another magic number, type or number of dimensions than `dimensions`, a size of 0 or above 65,536 (the
/// first dimension excepted), an end before the last value (naming the entry), damaged gzip data; OutOfMemory above `maxMemory` bytes.
IdxFile readIdx(const std::filesystem::path& file, int dimensions, std::int64_t maxEntries, std::uint64_t maxMemory);

/// The labels that belong to a file of images by name ("images" becomes "labels", "idx3" becomes "idx1", with or without .gz); empty when there are none.
std::filesystem::path idxLabelsOf(const std::filesystem::path& images);

}  // namespace resect
