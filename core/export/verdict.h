#pragma once
#include "core/anatomy/model_shape.h"
#include "core/surgery/cut.h"

#include <string>
#include <vector>

namespace resect {

enum class Verdict { Opens, AfterPadding, NeedsCode, No };
enum class Runtime { Transformers, Vllm, LlamaCpp, Peft };

std::string_view name(Verdict verdict) noexcept;   ///< "opens", "padded", "code", "no"
std::string_view name(Runtime runtime) noexcept;   ///< "transformers", "vLLM", "llama.cpp", "PEFT"

struct RuntimeVerdict {
    Runtime runtime{};
    Verdict verdict = Verdict::Opens;
    std::vector<std::string> reasons;   ///< empty when it simply opens
};

/// What opens the cut checkpoint, for every runtime. Pure, data-driven, under 5 ms.
std::vector<RuntimeVerdict> verdicts(const ModelShape& source, const Cut& cut);
/// True when the result is a stock shape: all blocks alike and every layer present.
bool isUniform(const ModelShape& shape) noexcept;

}  // namespace resect
