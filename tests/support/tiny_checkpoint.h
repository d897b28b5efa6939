#pragma once
#include "core/checkpoint/checkpoint.h"
#include "tests/support/test_data.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace resect::test {

/// Sizes of a tiny checkpoint: all different, and hiddenSize is not numHeads x headDim, so that a swapped axis shows.
struct TinyOptions {
    int numBlocks = 3, hiddenSize = 48, numHeads = 6, numKvHeads = 2, headDim = 10, ffnSize = 43, vocabSize = 61;
    bool tied = false;
    bool attentionBias = false;  ///< q, k, v and o; qwen2 always has q, k, v and never o
    bool mlpBias = false;
    DType dtype = DType::F32;    ///< F32, F16, BF16 or F64
    std::uint64_t seed = 1;
    Json ropeScaling = nullptr;  ///< `rope_scaling`; null = none
    double ropeTheta = 10000;
    int maxPositions = 128;
    int slidingWindow = 0;       ///< mistral: 0 = null; qwen: `use_sliding_window` with max_window_layers = 1
    int numExperts = 4, numExpertsPerToken = 2;  ///< mixtral
    std::uint64_t shardBytes = 0;  ///< 0 = one file
};

/// Row-major values of one tensor.
struct TinyTensor {
    DType dtype = DType::F32;
    std::vector<std::int64_t> shape;
    std::vector<double> values;
    /// Of a matrix [rows, columns].
    double& at(std::int64_t row, std::int64_t column) { return values[static_cast<std::size_t>(row * shape[1] + column)]; }
};

/// A small checkpoint in a temporary folder that lives as long as its copies. Change `config` and `tensors`, then save().
struct TinyCheckpoint {
    std::shared_ptr<TempFolder> folder = std::make_shared<TempFolder>();
    Json config;
    std::map<std::string, TinyTensor> tensors;
    std::uint64_t shardBytes = 0;

    const std::filesystem::path& path() const { return folder->path(); }
    void save() const;             ///< replaces the files
    Checkpoint open() const { return Checkpoint::open(path()); }
    TinyTensor& tensor(const std::string& name) { return tensors.at(name); }
    void zero(const std::string& name);
    void zeroRows(const std::string& name, const std::vector<int>& rows);        ///< along axis 0, of a vector too
    void zeroColumns(const std::string& name, const std::vector<int>& columns);  ///< along axis 1
};

/// Random weights, scaled so that activations stay near 1; written to disk. Same options, same bytes.
TinyCheckpoint tinyLlama(const TinyOptions& options = {});
TinyCheckpoint tinyMistral(const TinyOptions& options = {});
TinyCheckpoint tinyQwen2(const TinyOptions& options = {});
TinyCheckpoint tinyQwen3(const TinyOptions& options = {});
TinyCheckpoint tinyMixtral(const TinyOptions& options = {});

/// A model of any family that Resect knows, 4 blocks: the fields of its own config.json, dense and routed blocks mixed where it can, weights
/// under the names that its table gives. `change` is merged into the configuration.
TinyCheckpoint tinyFamily(const std::string& modelType, const Json& change = Json::object(), std::uint64_t seed = 1);

/// Makes the units of one block contribute nothing: columns of o_proj or down_proj. For a Llama-like dense block.
void zeroHeads(TinyCheckpoint& checkpoint, int block, const std::vector<int>& heads);
void zeroChannels(TinyCheckpoint& checkpoint, int block, const std::vector<int>& channels);

/// The elements of a stored tensor as numbers. Throws NotFound.
std::vector<double> valuesOf(const Checkpoint& checkpoint, std::string_view tensor);
std::vector<double> decode(std::span<const std::byte> bytes, DType dtype);
std::vector<std::byte> encode(const std::vector<double>& values, DType dtype);

/// A safetensors file with exactly this header text and `data` after it; `headerLength` replaces the true length when >= 0.
void writeRawSafetensors(const std::filesystem::path& path, std::string_view headerText, std::string_view data, std::int64_t headerLength = -1);
/// Any file.
void writeText(const std::filesystem::path& path, std::string_view content);

}  // namespace resect::test
