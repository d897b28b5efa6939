#pragma once
#include "core/checkpoint/checkpoint_writer.h"
#include "core/checkpoint/safetensors_file.h"

#include <torch/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

// LibTorch tensors in safetensors files.

namespace resect {

torch::ScalarType scalarType(DType dtype);           ///< throws Unsupported for the 8-bit floats, which LibTorch 1.13 lacks
DType storedType(torch::ScalarType type);            ///< throws Unsupported for complex and quantised types

/// A copy on the CPU with the stored dtype and shape. Throws Unsupported naming the tensor.
torch::Tensor readTensor(const SafetensorsFile& file, const TensorInfo& tensor);
/// Every tensor of the file by name.
std::map<std::string, torch::Tensor> readTensors(const std::filesystem::path& file);

/// Streams `tensor` as it is when its turn comes (copied from its device then). The tensor must not change until then.
TensorSource tensorSource(std::string name, torch::Tensor tensor);
/// One file, complete before it gets its name.
WrittenShard writeTensors(const std::filesystem::path& file, const std::vector<std::pair<std::string, torch::Tensor>>& tensors,
                          const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace resect
