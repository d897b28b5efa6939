#pragma once
#include "core/anatomy/anatomy.h"
#include "core/checkpoint/checkpoint_writer.h"

#include <filesystem>
#include <string>
#include <vector>

namespace resect {

/// One low-rank pair beside a linear layer: weight + (alpha / rank) * B A. Values row-major.
struct LoraPair {
    std::string module;  ///< the layer in the base's spelling, without ".weight": "model.layers.3.self_attn.q_proj"
    std::int64_t rank = 0, in = 0, out = 0;
    double alpha = 0;
    std::vector<float> a;  ///< A [rank, in]
    std::vector<float> b;  ///< B [out, rank]
};

/// A LoRA adapter as PEFT stores it.
struct LoraAdapter {
    std::string base;   ///< `base_model_name_or_path`: the checkpoint it was trained on; for a cut model always the cut one,
                        ///< never the original
    int numBlocks = 0;  ///< of the base; decides whether target_modules can be short names. 0 = unknown
    double dropout = 0;
    std::vector<LoraPair> pairs;  ///< in any order
    bool transposed = false;  ///< the base stores its matrices [in, out] (GPT-2): `fan_in_fan_out`. A and B are the same either way
    std::string taskType = "CAUSAL_LM";  ///< `task_type`; empty = null: PEFT has no type for image models
};

/// Writes adapter_config.json and adapter_model.safetensors (tensors `base_model.model.<module>.lora_A.weight` [rank, in],
/// `.lora_B.weight` [out, rank]) into the existing `folder`; each file is complete before it gets its name. The commonest rank
/// and alpha become `r` and `lora_alpha`, others go to `rank_pattern` and `alpha_pattern`. `dtype` F32, F16 or BF16. Throws
/// BadInput naming the pair whose sizes contradict its values, DiskFull, NoPermission.
void writeLoraAdapter(const std::filesystem::path& folder, const LoraAdapter& adapter, DType dtype = DType::F32,
                      const JobContext& job = {});
/// The same into the new folder `to`, which gets its name when complete. Throws BadInput when it exists.
void exportLoraAdapter(const std::filesystem::path& to, const LoraAdapter& adapter, DType dtype = DType::F32,
                       const JobContext& job = {});

/// Reads one back, from the folder or its adapter_config.json. With `use_rslora`, alpha is returned so that alpha / rank is the
/// factor that applies. Throws NotFound, Corrupt; BadInput naming field or tensor (half a pair, a rank that config and tensor
/// disagree on); Unsupported for other PEFT types, DoRA, trained biases, embeddings and saved modules.
LoraAdapter readLoraAdapter(const std::filesystem::path& folder);

/// Does the adapter belong on this base? Every module that the base lacks and every shape that differs; empty = it fits.
std::vector<Problem> checkLoraAdapter(const LoraAdapter& adapter, const Anatomy& base);

}  // namespace resect
