#pragma once
#include "core/checkpoint/gguf_file.h"
#include "core/export/gguf_architecture.h"
#include "core/protocol/json.h"

namespace resect {

/// A 32-bit float as the shortest decimal number that it was rounded from: 1e-05, not 9.9999997e-06.
double asDecimal(double value);

/// config.json of the Hugging Face family for a shape that was read from a GGUF of this architecture: sizes from the shape, the family's own fields from
/// the metadata.
Json ggufConfig(const GgufFile& file, const GgufArchitecture& architecture, const ModelShape& shape);

}  // namespace resect
