#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/models/extension.h"
#include "core/models/runtime.h"
#include "core/models/tower_model.h"
#include "core/models/torch_compat.h"

#include <cstring>
#include <fstream>

namespace resect {

namespace {

torch::ScalarType torchType(DType dtype, const std::string& tensor) {
    switch (dtype) {
    case DType::F64: return torch::kFloat64;
    case DType::F32: return torch::kFloat32;
    case DType::F16: return torch::kFloat16;
    case DType::BF16: return torch::kBFloat16;
    default: throw Error(ErrorCode::Unsupported, tensor, "weights of type " + std::string(name(dtype)) + " cannot be run");
    }
}

void requireMemory(const ModelShape& shape, const LoadOptions& options, const std::string& subject) {
    std::uint64_t needed = 0;
    for (const ExpectedTensor& tensor : expectedTensors(shape)) {
        std::uint64_t count = 1;
        for (const std::int64_t size : tensor.shape) {
            count *= static_cast<std::uint64_t>(size);
        }
        needed += count * c10::elementSize(computeDtype(options));
    }
    const auto available = options.device.is_cpu() ? freeHostMemory() : compat::freeDeviceMemory(options.device);
    if (available && needed > *available) {
        throw Error(ErrorCode::OutOfMemory, subject, "the weights need " + formatBytes(needed) + " as " + c10::toString(computeDtype(options)) + ", " +
                                                         options.device.str() + " has " + formatBytes(*available) + " free");
    }
}

}  // namespace

std::optional<std::uint64_t> freeHostMemory() {
    std::ifstream file("/proc/meminfo");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("MemAvailable:")) {
            const auto kilobytes = parseInt(line.substr(13, line.find("kB") - 13));
            return kilobytes ? std::optional<std::uint64_t>(static_cast<std::uint64_t>(*kilobytes) * 1024) : std::nullopt;
        }
    }
    return std::nullopt;
}

torch::ScalarType computeDtype(const LoadOptions& options) {
    return options.dtype == torch::kFloat16 && options.device.is_cpu() ? torch::kFloat32 : options.dtype;
}

WeightSource checkpointWeights(const Checkpoint& checkpoint, const LoadOptions& options) {
    return [&checkpoint, options](const ExpectedTensor& wanted) {
        const torch::NoGradGuard noGrad;
        const TensorInfo* info = checkpoint.find(wanted.name);
        if (!info) {
            throw Error(ErrorCode::NotFound, wanted.name, "is missing from the checkpoint");
        }
        if (info->shape != wanted.shape) {
            throw Error(ErrorCode::Mismatch, wanted.name, "has another shape than config.json says");
        }
        const auto bytes = checkpoint.bytes(*info);
        auto stored = torch::empty(info->shape, torchType(info->dtype, wanted.name));
        std::memcpy(stored.data_ptr(), bytes.data(), bytes.size());  // mapped bytes may be unaligned
        checkpoint.release(*info);
        if (options.dtype == torch::kFloat16) {
            stored = stored.to(torch::kFloat16);
        }
        return stored.to(options.device, computeDtype(options)).requires_grad_(options.trainable);
    };
}

std::unique_ptr<LanguageModel> LanguageModel::load(const Checkpoint& checkpoint, const LoadOptions& options, const JobContext& job) {
    configureRuntime(0);
    const Anatomy anatomy = Anatomy::of(checkpoint);
    const ModelShape& shape = anatomy.shape();
    requireMemory(shape, options, checkpoint.folder().string());
    auto model = makeModel(shape, options, checkpointWeights(checkpoint, options), job);
    attachExtensions(*model, checkpoint);
    return model;
}

std::unique_ptr<LanguageModel> LanguageModel::random(const ModelShape& shape, const LoadOptions& options, double std, std::uint64_t seed) {
    configureRuntime(0);
    requireMemory(shape, options, shape.modelType);
    auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    const Family& family = familyOf(shape);
    const WeightSource source = [&](const ExpectedTensor& wanted) {
        const torch::NoGradGuard noGrad;
        auto tensor = torch::zeros(wanted.shape, torch::kFloat32);
        if (wanted.shape.size() > 1) {
            tensor.normal_(0, std, generator);
        } else if (isNormRole(wanted.role) && !wanted.name.ends_with(".bias") && family.norm != Family::Norm::RmsPlusOne) {
            tensor.fill_(1);
        }
        if (options.dtype == torch::kFloat16) {
            tensor = tensor.to(torch::kFloat16);
        }
        return tensor.to(options.device, computeDtype(options)).requires_grad_(options.trainable);
    };
    return makeModel(shape, options, source);
}

}  // namespace resect
