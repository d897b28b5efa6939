#pragma once
#include "core/data/dataset.h"
#include "core/protocol/parameter.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// A way to train: what is trained and with which declared parameters.
struct RecipeInfo {
    std::string id;                         ///< "full", "lora", "pretrain"
    std::string title, summary, paper;
    std::vector<ParameterInfo> parameters;
};

const std::vector<RecipeInfo>& recipes();
const RecipeInfo& recipe(std::string_view id);   ///< throws Usage listing the known ids

enum class Schedule { Constant, Linear, Cosine };

struct LoraOptions {
    int rank = 8;
    double alpha = 16;
    double dropout = 0;
    std::vector<std::string> targets;       ///< roles, last parts of roles, or "all-linear", "attention", "mlp"
    bool rankStabilised = false;            ///< scale alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)
    double scale() const noexcept;
};

/// The parameters of a recipe as the trainer uses them.
struct TrainOptions {
    bool lora = false, pretrain = false;
    // How long
    std::int64_t steps = 0;                 ///< optimiser steps; 0 = by epochs
    double epochs = 1;
    double maxMinutes = 0;                  ///< trained minutes; 0 = no limit
    // Rows
    int batchRows = 8, accumulation = 1;    ///< a step sees batchRows x accumulation rows
    int rowLength = 0;                      ///< tokens; 0 = the model's context, at most 256
    RowLayout layout = RowLayout::Chunks;
    bool answersOnly = true;
    // Optimiser
    double learningRate = 1e-4, minRateRatio = 0.1;
    std::int64_t warmupSteps = 0;
    Schedule schedule = Schedule::Cosine;
    double weightDecay = 0.01, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
    double clip = 1;                        ///< global gradient norm; 0 = not clipped
    bool trainEmbeddings = true;
    double routerBalance = 0;               ///< factor of the load-balancing loss of mixture-of-experts blocks
    // Distillation
    double distillWeight = 0, distillTemperature = 1;
    // Evaluation and keeping
    std::int64_t evalEvery = 0, checkpointEvery = 0;
    std::int64_t evalRows = 0;              ///< 0 = 64 rows of text, 1,000 images
    double evalFraction = 0.1;
    int keep = 1;                           ///< newest checkpoints kept beside the best one
    std::string saveDtype = "source";       ///< of the weights in full checkpoints
    // Recipe specific
    LoraOptions loraOptions;
    bool merge = false;                     ///< LoRA: write the merged checkpoint at the end
    double initStd = 0.02;
};

/// Throws Usage listing every problem of the parameters.
TrainOptions trainOptions(const RecipeInfo& recipe, const Json& parameters);

/// Steps a run takes: `steps`, or as many as `epochs` need, at least 1.
std::int64_t totalSteps(const TrainOptions& options, std::int64_t trainRows);
/// The learning rate of a step, 1-based: linear warm-up from 0 over `warmupSteps`, then the schedule down to minRateRatio at `total`.
double learningRateAt(const TrainOptions& options, std::int64_t step, std::int64_t total) noexcept;

}  // namespace resect
