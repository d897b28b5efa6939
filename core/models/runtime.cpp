#include "core/models/runtime.h"

#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/models/model.h"
#include "core/models/torch_compat.h"

#include <dlfcn.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <thread>

namespace resect {

torch::Device parseDevice(const std::string& text) {
    const auto needCuda = [&](int index) {
        const int count = torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0;
        if (index >= count) {
            throw Error(ErrorCode::Unsupported, "device " + text, count == 0 ? "this build of LibTorch finds no CUDA device"
                                                                            : "there are " + std::to_string(count) + " CUDA devices");
        }
        return torch::Device(torch::kCUDA, static_cast<torch::DeviceIndex>(index));
    };
    if (text == "auto") {
        return torch::cuda::is_available() ? torch::Device(torch::kCUDA, 0) : torch::Device(torch::kCPU);
    }
    if (text == "cpu") {
        return torch::kCPU;
    }
    if (text == "cuda") {
        return needCuda(0);
    }
    const auto index = text.starts_with("cuda:") ? parseInt(text.substr(5)) : std::nullopt;
    if (!index || *index < 0 || *index > std::numeric_limits<torch::DeviceIndex>::max()) {
        throw Error(ErrorCode::Usage, "device", "expected cpu, cuda, cuda:N or auto, found \"" + text + "\"");
    }
    return needCuda(static_cast<int>(*index));
}

torch::ScalarType parseDtype(const std::string& text) {
    if (text == "f32" || text == "float32") {
        return torch::kFloat32;
    }
    if (text == "bf16" || text == "bfloat16") {
        return torch::kBFloat16;
    }
    if (text == "f16" || text == "float16") {
        return torch::kFloat16;
    }
    if (text == "f64" || text == "float64") {
        return torch::kFloat64;
    }
    throw Error(ErrorCode::Usage, "dtype", "expected f32, bf16, f16 or f64, found \"" + text + "\"");
}

std::string dtypeName(torch::ScalarType dtype) {
    switch (dtype) {
        case torch::kBFloat16: return "bf16";
        case torch::kFloat16: return "f16";
        case torch::kFloat64: return "f64";
        default: return "f32";
    }
}

void configureRuntime(int threads) {
    static std::once_flag memory, defaultThreads;
    std::call_once(memory, [] {
        // Freed memory is kept: page faults on fresh tensors cost more than the arithmetic on them.
        mallopt(M_MMAP_MAX, 0);
        mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
        mallopt(M_TOP_PAD, 64 << 20);
        // OpenBLAS's own threads would fight with OpenMP's for the cores; products are split over OpenMP's by our own code.
        if (void* symbol = dlsym(RTLD_DEFAULT, "openblas_set_num_threads")) {
            reinterpret_cast<void (*)(int)>(symbol)(1);
        }
    });
    bool first = false;
    std::call_once(defaultThreads, [&first] { first = true; });
    if (threads > 0 || first) {
        at::set_num_threads(threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
    }
}

void restartWithWaitPolicy(char** arguments) {
    if (std::getenv(kSpinVariable) || std::getenv("OMP_WAIT_POLICY") || setenv(kSpinVariable, kSpinCount, 0) != 0) {
        return;
    }
    execv("/proc/self/exe", arguments);
}

void releaseFreedMemory() {
    compat::emptyDeviceCache();
    malloc_trim(0);
}

}  // namespace resect
