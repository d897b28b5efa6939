#pragma once
#include "core/anatomy/model_shape.h"
#include "core/base/job.h"
#include "core/base/problem.h"
#include "core/train/recipe.h"
#include "core/train/run_job.h"

#include <cstdint>
#include <string>
#include <vector>

namespace resect {

/// What a run will take, before it starts.
///
/// Memory, in bytes, with e = 4 (f32) or 2 (bf16) bytes per element of the arithmetic, P parameters of the cut model, P_t trained ones:
///   weights      e P, and what a recipe adds to them (LoRA: e P_t)
///   teacher      e P_uncut, with distillation only
///   gradients    e P_t, in bf16 with accumulation 4 P_t more; 4 P_t where the recipe's leaves are f32 whatever the arithmetic
///   optimiser    8 P_t (two f32 moments), in bf16 4 P_t more (f32 master weights, unless the leaves are f32)
///   activations  e B T (2 D + sum over blocks of [2 D + 3 N H + 3 G H of the attention layer] + [2 D + 3 F k of the FFN layer]), k experts per token;
///                what the backward pass reads again. LoRA keeps r per adapted map and token more; other recipes say theirs (RecipeSize).
///   logits       three f32 pieces of B T x V, at most 64 MB each
///   program      250 MB
/// It is an estimate: allocators round up and keep freed memory.
struct RunEstimate {
    std::uint64_t weights = 0, teacher = 0, gradients = 0, optimiser = 0, activations = 0, logits = 0, program = 0;
    std::uint64_t freeBytes = 0;                 ///< on the device now; 0 = not known
    std::int64_t trainableParameters = 0;
    std::int64_t steps = 0, tokens = 0;          ///< 0 = not known without reading the data; of images the images
    bool images = false;                         ///< an image model
    double seconds = 0;                          ///< training alone; 0 = not measured
    std::string basis;                           ///< how it was obtained, one sentence
    std::vector<Problem> problems;               ///< an Error when it cannot fit
    /// "1.2 M trained weights; optimiser 9 MB, gradients 5 MB, activations 84 MB".
    std::string priceWords() const;
    std::uint64_t memory() const noexcept { return weights + teacher + gradients + optimiser + activations + logits + program; }
};

/// The formula above. `rowLength` tokens per row; `uncut`: before the plan (the same shape without one), of which `cut` is what the plan removes.
RunEstimate estimateMemory(const ModelShape& shape, const ModelShape& uncut, const TrainOptions& options, const std::string& dtype, int rowLength, const Cut* cut = nullptr);
/// Adds free memory and the verdict.
void judgeMemory(RunEstimate& estimate, const std::string& device);

enum class Probe {
    No,    ///< answers at once: reads headers only
    Step   ///< also counts the data's rows where epochs ask for it, and times steps of a model of that shape with random weights
};
/// For a job that has not started: opens the source and applies the plan to its shape. Models above 300 million parameters are not timed; of
/// large batches a part is timed, so that one pass takes a second or so. A stop leaves the time unmeasured. Throws what opening the source,
/// checking the plan or reading the data throws.
RunEstimate estimateRun(const RunJob& job, Probe probe, const JobContext& context = {});

/// Tokens per row that the options mean for this model; of an image model those of a picture. Throws Usage when they exceed its context, or are
/// given for images.
int rowLengthFor(const TrainOptions& options, const ModelShape& shape);

}  // namespace resect
