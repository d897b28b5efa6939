#pragma once
#include <filesystem>

namespace resect::cli {

enum class GgufOutput { Text, Json };
/// Metadata, architecture, sizes, tokenizer kind and element types of a GGUF file; with `listTensors` every tensor.
void inspectGguf(const std::filesystem::path& path, GgufOutput output, bool listTensors);

}  // namespace resect::cli
