#pragma once
#include "core/export/gguf_export.h"
#include "core/protocol/messages.h"
#include "core/worker/export_job.h"
#include "core/worker/opened.h"

#include <filesystem>
#include <string>

namespace resect {

/// Does this export go into a GGUF file? Yes when the target's name ends in .gguf.
bool wantsGguf(const ExportRequest& request);

/// Writes the GGUF with the checkpoint's tokenizer, reads it back and compares. `request.way`: uniform, padded, zeroed, exact, heterogeneous; `request.dtype`:
/// empty (as stored), f32, f16, bf16, q8_0, q4_0. Throws as exportGguf.
protocol::ExportMessage exportGgufChecked(const OpenedCheckpoint& source, const ExportRequest& request, const JobContext& job);

/// GGUF to a Hugging Face folder, with tokenizer files where possible.
protocol::ExportMessage importGgufFile(const std::filesystem::path& file, const std::filesystem::path& to, const std::string& dtype, const JobContext& job);

}  // namespace resect
