#pragma once
#include "core/base/problem.h"
#include "core/protocol/json.h"
#include "core/surgery/slice_plan.h"

#include <filesystem>
#include <vector>

namespace resect {

/// Checkpoints whose blocks differ, in the form of DeciLM (model_type "nemotron-nas"): Llama's tensor names, and `block_configs` with the sizes of every
/// block. vLLM has a class for it; so has llama.cpp's converter. transformers needs modelling code that is not ours to give: padded is the way there.

/// What the cut model becomes in this form: one number of query heads for all blocks, kv heads that divide it, MLP widths in multiples of 256, attention
/// in the first block, and an MLP beside every attention; zero heads, channels and layers fill up, which changes nothing that is computed.
/// Throws Unsupported for families other than Llama and Mistral, sliding windows, biases and norms that the form has not, naming the nearest way.
ModelShape deciShape(const ModelShape& source, const Cut& cut);

/// config.json for `shape` (of deciShape). Fields that follow the blocks are rewritten as for every export.
Json deciConfig(const Json& config, const ModelShape& source, const Cut& cut, const ModelShape& shape, std::optional<DType> dtype, std::vector<Problem>& notes);

/// The small configuration class that gives `block_configs` as objects, which vLLM expects of the remote code that config.json points to.
inline constexpr const char* kDeciConfigurationFile = "configuration_decilm.py";
std::string deciConfigurationCode();

/// `ffn_mult` that deciWidth() turns back into `width`, a multiple of 256.
double deciFfnMult(std::int64_t width, std::int64_t hidden) noexcept;

}  // namespace resect
