#include "core/train/peft_files.h"

#include "core/base/error.h"
#include "core/models/tensor_file.h"

#include <torch/torch.h>

#include <cmath>
#include <set>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kEndA = ".lora_A.weight", kEndB = ".lora_B.weight";

Json adapterConfig(const LoraAdapters& adapters, const fs::path& base) {
    std::set<std::string> modules;
    for (const auto& site : adapters.sites) modules.insert(site.role.substr(site.role.rfind('.') + 1));
    return {{"peft_type", "LORA"},
            {"task_type", "CAUSAL_LM"},
            {"base_model_name_or_path", base.string()},
            {"r", adapters.options.rank},
            {"lora_alpha", adapters.options.alpha},
            {"lora_dropout", adapters.options.dropout},
            {"target_modules", modules},
            {"bias", "none"},
            {"fan_in_fan_out", false},
            {"inference_mode", true},
            {"init_lora_weights", true},
            {"use_rslora", adapters.options.rankStabilised},
            {"modules_to_save", nullptr},
            {"layers_to_transform", nullptr},
            {"rank_pattern", Json::object()},
            {"alpha_pattern", Json::object()}};
}

}  // namespace

std::string loraParameterName(const LoraSite& site, char matrix) {
    return "model.layers." + std::to_string(site.block) + "." + site.role + ".lora_" + matrix + ".weight";
}

void savePeftAdapter(const LoraAdapters& adapters, const fs::path& base, const fs::path& folder,
                     const std::function<torch::Tensor(const std::string& name)>& value) {
    std::vector<std::pair<std::string, torch::Tensor>> tensors;
    for (const auto& site : adapters.sites) {
        for (const char matrix : {'A', 'B'}) {
            const auto name = loraParameterName(site, matrix);
            tensors.emplace_back(std::string(kPrefix) + name, value(name));
        }
    }
    writeTensors(folder / "adapter_model.safetensors", tensors);
    writeJsonFile(folder / "adapter_config.json", adapterConfig(adapters, base));
}

PeftAdapter readPeftAdapter(const fs::path& folder) {
    const auto configFile = folder / "adapter_config.json";
    const auto config = readJsonFile(configFile);
    const auto subject = configFile.string();
    if (const auto type = stringField(config, "peft_type", subject); type != "LORA")
        throw Error(ErrorCode::Unsupported, subject, "peft_type: only LORA adapters can be merged, found " + type);
    if (boolField(config, "fan_in_fan_out", subject, false)) throw Error(ErrorCode::Unsupported, subject, "fan_in_fan_out: transposed weights are not supported");
    const double alpha = numberField(config, "lora_alpha", subject);
    const bool stabilised = boolField(config, "use_rslora", subject, false);
    PeftAdapter adapter;
    adapter.base = stringField(config, "base_model_name_or_path", subject, "");
    const auto file = folder / "adapter_model.safetensors";
    for (auto& [name, tensor] : readTensors(file)) {
        std::string_view rest = name;
        if (rest.starts_with(kPrefix)) rest.remove_prefix(kPrefix.size());
        const bool isA = rest.ends_with(kEndA), isB = rest.ends_with(kEndB);
        if (!isA && !isB) throw Error(ErrorCode::Unsupported, file.string() + ": " + name, "is no LoRA matrix");
        rest.remove_suffix(kEndA.size());
        auto& pair = adapter.pairs[std::string(rest) + ".weight"];
        (isA ? pair.a : pair.b) = tensor.to(torch::kFloat32);
    }
    for (auto& [name, pair] : adapter.pairs) {
        if (!pair.a.defined() || !pair.b.defined()) throw Error(ErrorCode::BadInput, file.string() + ": " + name, "has one of the matrices A and B only");
        if (pair.a.dim() != 2 || pair.b.dim() != 2 || pair.a.size(0) != pair.b.size(1))
            throw Error(ErrorCode::BadInput, file.string() + ": " + name, "the ranks of A and B differ");
        const double rank = double(pair.a.size(0));
        pair.scale = alpha / (stabilised ? std::sqrt(rank) : rank);
    }
    return adapter;
}

}  // namespace resect
