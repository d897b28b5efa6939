#pragma once
#include "core/train/lora.h"

#include <filesystem>
#include <functional>
#include <map>
#include <string>

namespace resect {

/// Writes adapter_config.json and adapter_model.safetensors as PEFT reads them (LoRA, layer numbers of the model that was trained).
/// `base` goes into `base_model_name_or_path`.
void savePeftAdapter(const LoraAdapters& adapters, const std::filesystem::path& base, const std::filesystem::path& folder,
                     const std::function<torch::Tensor(const std::string& name)>& value);
/// "model.layers.3.self_attn.q_proj.lora_A.weight": the name of a slot; PEFT puts "base_model.model." before it.
std::string loraParameterName(const LoraSite& site, char matrix);

/// An adapter on disk: A and B in f32 by the name of the weight that they belong to ("model.layers.3.self_attn.q_proj.weight").
struct PeftAdapter {
    struct Pair {
        torch::Tensor a, b;  ///< [r, in], [out, r]
        double scale = 1;
    };
    std::map<std::string, Pair> pairs;
    std::filesystem::path base;
};
/// Throws NotFound, BadInput naming file and field, Unsupported for anything but plain LoRA matrices.
PeftAdapter readPeftAdapter(const std::filesystem::path& folder);

}  // namespace resect
