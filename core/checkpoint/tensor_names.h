#pragma once
#include "core/base/problem.h"
#include "core/checkpoint/safetensors_file.h"
#include "core/protocol/json.h"

#include <vector>

namespace resect {

/// Brings the generations of tensor names that programs have written for one model to the one that transformers writes to disk, so that a
/// checkpoint opens the same whoever saved it. Only names and byte ranges change; nothing is read.
///
/// Known: a base model saved without the prefix of its causal model ("layers.0..." for "model.layers.0...", "h.0..." for GPT-2), experts
/// fused into one tensor as transformers 5 holds them (`experts.gate_up_proj` [E, 2F, D], `experts.down_proj` [E, D, F]), Mixtral's newer
/// module names (`mlp` for `block_sparse_moe`), and the four arrangements of LLaVA's parts. What fits no rule keeps its name. Each rule that was used is noted in `notes`.
/// `tensors` need not be sorted and are not sorted afterwards.
void normaliseTensorNames(const Json& config, std::vector<TensorInfo>& tensors, std::vector<Problem>& notes);

}  // namespace resect
