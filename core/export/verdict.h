#pragma once
#include "core/anatomy/model_shape.h"
#include "core/surgery/slice_plan.h"

#include <filesystem>
#include <string>
#include <vector>

namespace resect {

enum class Verdict { Opens, AfterPadding, NeedsCode, No };
enum class Runtime { Transformers, Vllm, LlamaCpp, Peft };

std::string_view name(Verdict verdict) noexcept;  ///< "opens", "padded", "code", "no"
std::string_view name(Runtime runtime) noexcept;  ///< "transformers", "vLLM", "llama.cpp", "PEFT"

struct RuntimeVerdict {
    Runtime runtime{};
    Verdict verdict = Verdict::Opens;
    std::vector<std::string>
        reasons;  ///< empty when it simply opens; a verdict of Opens may carry a condition ("needs transformers 4.45 or newer")
};

/// What opens the cut checkpoint, for every runtime, in the order of Runtime. Pure, data-driven, under 5 ms. The table and its
/// sources: verdict.cpp.
std::vector<RuntimeVerdict> verdicts(const ModelShape& source, const Cut& cut);
/// The same for a checkpoint that is written in this shape.
std::vector<RuntimeVerdict> verdicts(const ModelShape& written);
/// True when the result is a stock shape: all blocks alike, kv groups of equal size and every layer present. Sliding windows
/// may differ.
bool isUniform(const ModelShape& shape) noexcept;

/// The class of transformers that opens a checkpoint of this shape by its from_pretrained; empty where another library does (timm).
std::string transformersClass(const ModelShape& shape);

/// How a finished export opens in one program.
struct LoadAdvice {
    std::string program;  ///< "Resect", "transformers", ...
    Verdict verdict = Verdict::Opens;
    std::vector<std::string> reasons;
    std::string command;  ///< what to type; empty when it does not open
    enum class Evidence {
        Checked,
        Expected
    } evidence = Evidence::Expected;  ///< Checked: this very folder was opened in it and compared
};
/// One row per program, Resect first. `written` is the shape on disk (after padding, for the padded way). Only Resect itself
/// can be Checked here: the others are not part of this program.
std::vector<LoadAdvice> loadAdvice(const ModelShape& written, const std::filesystem::path& folder,
                                   LoadAdvice::Evidence reopened);
/// The same for a folder in the form of DeciLM.
std::vector<LoadAdvice> deciAdvice(const ModelShape& written, const std::filesystem::path& folder, LoadAdvice::Evidence reopened);
std::string_view name(LoadAdvice::Evidence evidence) noexcept;  ///< "checked", "expected"

}  // namespace resect
