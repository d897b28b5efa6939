#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace resect {

/// Files beside the weights that an export takes over unchanged: tokenizer, generation settings, chat templates, processors,
/// licence and model card. Relative paths, ascending. Symbolic links (as in download caches) count as the files they point to.
std::vector<std::string> carriedFiles(const std::filesystem::path& folder);
std::uint64_t carriedBytes(const std::filesystem::path& folder);
/// Copies them; the copies are writable by the owner. Throws NotFound, NoPermission, DiskFull.
void copyCarriedFiles(const std::filesystem::path& from, const std::filesystem::path& to);

/// What is known about the vocabulary of a folder without loading a tokenizer; -1 = the file is not there or says nothing.
struct VocabularyFacts {
    std::int64_t largestId = -1;
    std::string file;  ///< which file says so
};
/// tokenizer.json, else tokenizer.model (pieces counted), else vocab.json. Throws BadInput for one that cannot be read.
VocabularyFacts largestTokenId(const std::filesystem::path& folder);

}  // namespace resect
