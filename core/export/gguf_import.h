#pragma once
#include "core/base/job.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/checkpoint/gguf_file.h"
#include "core/export/gguf_architecture.h"

#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

namespace resect {

/// What a GGUF describes, as the Hugging Face family whose weights it holds.
struct GgufModel {
    const GgufArchitecture* architecture = nullptr;
    Json config, resectConfig;  ///< config.json, and resect.json where blocks differ (null otherwise)
    ModelShape shape;           ///< what they describe
};
/// Throws BadInput naming the key or tensor, Unsupported naming what has no Hugging Face form here (other architectures, partial rotation, frequency
/// factors that no Llama 3 scaling gives).
GgufModel readGgufModel(const GgufFile& file);

/// Every tensor of the model under its Hugging Face name and in its layout: rows put back in order, stacked experts and fused matrices taken apart.
/// F32, F16 and BF16 keep their type, block types become F32, unless `dtype` says otherwise. `file` must outlive the result. Throws NotFound, BadInput
/// (a shape that does not fit, a tensor of the file that is left over), Unsupported (a block type that cannot be decoded); each names the tensor.
std::vector<TensorSource> huggingFaceTensors(const GgufFile& file, const GgufModel& model, std::optional<DType> dtype);

struct GgufImport {
    std::filesystem::path folder;
    ModelShape shape;
    std::uint64_t bytes = 0;  ///< of the shards
    std::vector<Problem> notes;
};
/// Writes a Hugging Face checkpoint into the new folder `to`: config.json (and resect.json where blocks differ), shards, manifest.json. `finish` may add files
/// (the tokenizer) to the staged folder and returns notes. Nothing remains after an error or a stop.
GgufImport importGguf(const GgufFile& file, const std::filesystem::path& to, std::optional<DType> dtype, const JobContext& job,
                      const std::function<std::vector<Problem>(const std::filesystem::path& staged)>& finish = {});

}  // namespace resect
