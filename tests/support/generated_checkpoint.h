#pragma once
#include <cstdint>
#include <filesystem>

namespace resect::test {

/// A Llama-shaped checkpoint of any size for measuring, bf16, sharded with an index.
struct GeneratedOptions {
    int numBlocks = 80, hiddenSize = 8192, numHeads = 64, numKvHeads = 8, ffnSize = 28672, vocabSize = 128256;  ///< 70B
    int numShards = 30;
    bool fill = false;  ///< pseudo-random content that takes its space on the disk; otherwise holes that read as zeros
};

/// Writes it into `folder`, which is created. Returns the bytes of all tensors.
std::uint64_t generateCheckpoint(const std::filesystem::path& folder, const GeneratedOptions& options);

}  // namespace resect::test
