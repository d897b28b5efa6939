#pragma once
#include "core/anatomy/anatomy.h"
#include "core/base/job.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/checkpoint/gguf_types.h"
#include "core/export/verdict.h"
#include "core/surgery/slice_plan.h"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace resect {

enum class GgufWay {
    Exact,          ///< as Uniform where all blocks are alike, else as Heterogeneous
    Uniform,        ///< the family's own architecture; refused when blocks differ
    Heterogeneous,  ///< sizes per block (architectures deci, openelm)
    Padded, Zeroed, ///< the family's own architecture, as SliceWay
};

/// The tokenizer of a GGUF: its tokenizer.* keys.
struct GgufVocabulary {
    GgufMetadata entries;
    std::string kind;             ///< "SentencePiece", "byte-level BPE (llama-bpe)", "none"
    std::vector<Problem> notes;
};

struct GgufOptions {
    GgufWay way = GgufWay::Exact;
    std::optional<GgufType> type;  ///< of the matrices: F32, F16, BF16, Q8_0, Q4_0; nullopt = as stored
    GgufVocabulary vocabulary;
    std::string title;             ///< general.name; empty = the source folder's
};

struct GgufResult {
    std::filesystem::path file;
    std::string architecture;      ///< general.architecture
    ModelShape shape;              ///< as written, after padding
    std::uint64_t bytes = 0;
    std::string sha256;
    std::int64_t tensors = 0;      ///< all read back and compared
    double maxError = 0;           ///< largest |stored - meant| of a quantised element; 0 where all types are floats
    std::vector<Problem> notes;    ///< limits within which llama.cpp computes the same, tensors that fell back to F16, vocabulary padding
};

/// Writes the cut checkpoint as one GGUF file for llama.cpp, reads it back, compares every tensor with what was meant (floats: the same bytes; block
/// types: within the step), and only then gives it its name. A block of which nothing is left is left out; where llama.cpp cannot leave a layer out, a
/// zero one of the smallest size stands in for it (an MLP beside attention, attention in block 0). Memory independent of model size. Throws BadInput
/// (the target exists or lies in the source; the way does not fit), Unsupported naming what llama.cpp would not open or compute otherwise, with the
/// nearest alternative, Internal when the comparison fails, DiskFull, NoPermission, Stopped; nothing remains then.
GgufResult exportGguf(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, const std::filesystem::path& to, const GgufOptions& options,
                      const JobContext& job);

/// Bytes of the file that exportGguf would write.
std::uint64_t ggufExportBytes(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, const GgufOptions& options);

/// How the file opens, Resect first.
std::vector<LoadAdvice> ggufAdvice(const GgufResult& result);

}  // namespace resect
