#include "core/models/tensor_file.h"

#include "core/base/error.h"

#include <torch/types.h>

#include <cstring>

namespace resect {

torch::ScalarType scalarType(DType dtype) {
    switch (dtype) {
    case DType::F64: return torch::kFloat64;
    case DType::F32: return torch::kFloat32;
    case DType::F16: return torch::kFloat16;
    case DType::BF16: return torch::kBFloat16;
    case DType::I64: return torch::kInt64;
    case DType::I32: return torch::kInt32;
    case DType::I16: return torch::kInt16;
    case DType::I8: return torch::kInt8;
    case DType::U8: return torch::kUInt8;
    case DType::Bool: return torch::kBool;
    case DType::F8E4M3:
    case DType::F8E5M2: break;
    }
    throw Error(ErrorCode::Unsupported, "dtype " + std::string(name(dtype)), "this LibTorch has no such type");
}

DType storedType(torch::ScalarType type) {
    switch (type) {
    case torch::kFloat64: return DType::F64;
    case torch::kFloat32: return DType::F32;
    case torch::kFloat16: return DType::F16;
    case torch::kBFloat16: return DType::BF16;
    case torch::kInt64: return DType::I64;
    case torch::kInt32: return DType::I32;
    case torch::kInt16: return DType::I16;
    case torch::kInt8: return DType::I8;
    case torch::kUInt8: return DType::U8;
    case torch::kBool: return DType::Bool;
    default: throw Error(ErrorCode::Unsupported, std::string("dtype ") + c10::toString(type), "safetensors has no such type");
    }
}

torch::Tensor readTensor(const SafetensorsFile& file, const TensorInfo& tensor) {
    torch::Tensor result = torch::empty(tensor.shape, scalarType(tensor.dtype));
    const auto bytes = file.bytes(tensor);
    std::memcpy(result.data_ptr(), bytes.data(), bytes.size());
    return result;
}

std::map<std::string, torch::Tensor> readTensors(const std::filesystem::path& path) {
    const SafetensorsFile file = SafetensorsFile::open(path);
    std::map<std::string, torch::Tensor> tensors;
    for (const TensorInfo& tensor : file.tensors()) tensors[tensor.name] = readTensor(file, tensor);
    return tensors;
}

TensorSource tensorSource(std::string name, torch::Tensor tensor) {
    TensorSource source{std::move(name), storedType(tensor.scalar_type()), tensor.sizes().vec(), {}};
    source.produce = [tensor = tensor.detach()](const std::function<void(std::span<const std::byte>)>& sink) {
        const torch::Tensor plain = tensor.to(torch::kCPU).contiguous();
        sink({static_cast<const std::byte*>(plain.data_ptr()), plain.nbytes()});
    };
    return source;
}

WrittenShard writeTensors(const std::filesystem::path& file, const std::vector<std::pair<std::string, torch::Tensor>>& tensors,
                          const std::map<std::string, std::string>& metadata) {
    std::vector<TensorSource> sources;
    for (const auto& [name, tensor] : tensors) sources.push_back(tensorSource(name, tensor));
    return writeSafetensors(file, sources, metadata);
}

}  // namespace resect
