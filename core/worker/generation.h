#pragma once
#include "core/models/model.h"
#include "core/worker/opened.h"

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace resect {

struct GeneratedToken {
    std::int64_t id = 0;
    std::string text;             ///< the text that this token added
    double logProbability = 0;
};

struct Generation {
    std::string text;             ///< what came after the prompt
    std::vector<GeneratedToken> tokens;
    double tokensPerSecond = 0;
};

/// Continues `prompt` with the checkpoint as it is, or with the candidate that `cut` would give. `onToken` may be empty.
/// `special` Omit: the prompt brings its own special tokens, as what a chat template writes. `pictures`: PNG or JPEG files for the image tokens of the
/// prompt, in order, of a model that takes them (LLaVA).
Generation generateText(OpenedCheckpoint& opened, const std::string& prompt, const std::optional<Cut>& cut, const SamplingOptions& sampling,
                        const Compute& compute, const JobContext& job, const std::function<void(const GeneratedToken&)>& onToken,
                        SpecialTokens special = SpecialTokens::Add, const std::vector<std::filesystem::path>& pictures = {});

/// Post-softmax attention of one head over the first `maxTokens` tokens of `text`.
struct AttentionPicture {
    std::vector<std::string> tokens;
    std::vector<std::vector<double>> weights;  ///< [T][T], row = query
};
AttentionPicture attentionOf(OpenedCheckpoint& opened, const std::string& text, int block, int head, int maxTokens, const Compute& compute, const JobContext& job);

}  // namespace resect
