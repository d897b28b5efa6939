#pragma once
#include "core/export/hf_writer.h"
#include "core/protocol/messages.h"
#include "core/worker/opened.h"

#include <filesystem>
#include <optional>
#include <string>

namespace resect {

struct ExportRequest {
    std::optional<EditPlan> plan;          ///< nullopt = the checkpoint as it is
    std::filesystem::path to;              ///< a folder that does not exist yet, or a file NAME.gguf
    std::string way = "uniform";           ///< uniform, padded, zeroed, exact (uniform where possible, else with resect.json), heterogeneous (DeciLM); GGUF also heterogeneous
    std::string dtype;                     ///< empty = as stored; f32, bf16, f16; GGUF also q8_0, q4_0
    std::uint64_t shardBytes = 5'000'000'000;
    std::optional<protocol::DataMessage> data;  ///< text or images for the comparison; random token ids, or noise, otherwise
    Json provenance;                       ///< added to resect-plan.json (where the weights come from, metrics)
};

/// How far the logits of a written checkpoint are from those of the candidate, over the same tokens.
struct LogitComparison {
    double maxAbsError = 0;
    double kl = 0;                         ///< mean over tokens, nats, KL(candidate || written)
    std::int64_t tokens = 0;
    Json sample;                           ///< of the written one, for verify_export.py; null for pictures
};

/// Runs both block by block in f32, so that memory stays at one block each. `batches`: what both run.
LogitComparison compareLogits(const Checkpoint& candidate, const Cut& cut, const Checkpoint& written, const std::vector<TokenBatch>& batches, const JobContext& job);

/// Writes, reopens and compares before the folder gets its name: an export whose logits differ is refused and leaves nothing.
/// Same dtype: max abs 1e-4; a narrower dtype: mean KL 0.01. A target that ends in .gguf goes through exportGgufChecked instead, which compares every
/// tensor. Throws as exportHuggingFace, Internal when the comparison fails.
protocol::ExportMessage exportChecked(const OpenedCheckpoint& source, const ExportRequest& request, const JobContext& job);

}  // namespace resect
