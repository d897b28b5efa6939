#pragma once
#include "core/worker/opened.h"

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace resect {

struct LogitsRequest {
    std::vector<std::int64_t> ids;         ///< one row; empty = read `input`
    std::filesystem::path input;           ///< safetensors with input_ids [B,T] and optionally attention_mask [B,T]; of image models pixel_values [B,C,height,width]
    std::filesystem::path image;           ///< of image models: a PNG or JPEG file (or a folder or IDX file of images), prepared as the checkpoint wants it
    std::string imageAspect;               ///< "pad": padded to a square first
    bool hiddenStates = false, gradients = false;
};

/// Named results: `logits` [B,T,V]; `hidden_states.0..L` as Hugging Face numbers them (0 the embedding output, L after the final norm);
/// `grad.<tensor>` of the mean next-token loss, and `loss`. All f32.
std::vector<std::pair<std::string, torch::Tensor>> computeLogits(OpenedCheckpoint& opened, const LogitsRequest& request, const Compute& compute, const JobContext& job);

}  // namespace resect
