#pragma once
#include "core/base/job.h"
#include "core/checkpoint/gguf_file.h"
#include "core/export/gguf_layout.h"

#include <vector>

namespace resect {

/// Compares a written file with what was meant: metadata and tensor list equal; tensors of F32, F16 and BF16 byte by byte with the source's values in that
/// type; of Q8_0 and Q4_0, every decoded value within the step of its block. Returns the largest difference of a block-quantised value. Throws Internal
/// naming key or tensor, Stopped.
double compareGguf(const GgufFile& written, const Checkpoint& source, const std::vector<GgufPlannedTensor>& tensors, const GgufMetadata& metadata, const JobContext& job);

}  // namespace resect
