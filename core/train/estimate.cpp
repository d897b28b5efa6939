#include "core/train/estimate.h"

#include "core/anatomy/anatomy.h"
#include "core/anatomy/cost.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/models/torch_compat.h"
#include "core/surgery/edit_plan.h"
#include "core/train/adamw.h"
#include "core/train/losses.h"
#include "core/train/run.h"
#include "core/train/trained_parts.h"

#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <fstream>

namespace resect {

namespace {

constexpr std::uint64_t kProgramBytes = 250'000'000, kLogitsBytes = 64 << 20;
constexpr std::int64_t kProbedParameters = 300'000'000;
constexpr double kProbedFlops = 1e12;   // of one timed pass, at 6 per parameter and token
constexpr int kAutomaticRow = 256;

std::uint64_t elementBytes(const std::string& dtype) { return parseDtype(dtype) == torch::kFloat32 ? 4 : 2; }

std::uint64_t freeHostMemory() {
    std::ifstream file("/proc/meminfo");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("MemAvailable:")) return std::strtoull(line.c_str() + 13, nullptr, 10) * 1024;
    }
    return 0;
}

TrainBatch blankImages(const ImageShape& image, std::int64_t count) {
    TrainBatch batch;
    batch.tokens.pixels_BCHW = torch::zeros({count, image.channels, image.height, image.width});
    batch.targets_BT = torch::zeros({count, 1}, torch::kInt64);
    batch.counted = batch.realTokens = count;
    return batch;
}

/// Seconds of one step of a model of this shape with random weights; nullopt when it was stopped.
std::optional<double> probeStep(const ModelShape& shape, const TrainOptions& options, const RunJob& job, int rowLength, const JobContext& context) {
    configureRuntime(job.threads);
    const auto device = parseDevice(job.device);
    const auto model = LanguageModel::random(shape, {device, parseDtype(job.dtype), false}, 0.02, job.seed);
    const auto parts = options.recipe->prepare(*model, {options, job.seed});
    std::vector<AdamWSlot> slots;
    for (const auto& [name, parameter, decays] : parts->tensors()) {
        const auto state = torch::zeros(parameter.sizes(), torch::TensorOptions(device).dtype(torch::kFloat32));
        const bool isMaster = parameter.scalar_type() == torch::kFloat32;
        slots.push_back({name, parameter, isMaster ? parameter : state.clone(), state.clone(), state.clone(), {}, 0.01});
    }
    TokenRow row;
    row.ids.assign(static_cast<std::size_t>(rowLength), 0);
    row.targets.assign(row.ids.size(), 0);
    const double rowFlops = 6.0 * double(costOf(shape, rowLength).parameters) * rowLength;
    const auto timedRows = std::clamp(static_cast<std::int64_t>(kProbedFlops / rowFlops), std::int64_t{1}, static_cast<std::int64_t>(options.batchRows));
    const std::vector<const TokenRow*> rows(static_cast<std::size_t>(timedRows), &row);
    const auto batch = (shape.image ? blankImages(*shape.image, timedRows) : makeBatch(rows)).to(device);
    double seconds = 0;
    for (int i = 0; i < 2; ++i) {  // the first one warms caches up
        if (context.stopped()) return std::nullopt;
        context.progress({double(i), 2, "steps", "timing a step"});
        const auto start = std::chrono::steady_clock::now();
        accumulateGradients(*model, options.distillWeight > 0 ? model.get() : nullptr, batch,
                            {options.distillWeight, options.distillTemperature, options.routerBalance, [&] { return parts->extraLoss(); }}, 1);
        for (auto& slot : slots) slot.gradient = slot.parameter.grad();
        const double norm = gradientNorm(slots);
        adamwStep(slots, {.learningRate = norm > 0 ? 1e-6 : 0.0});
        parts->parametersChanged();
        for (auto& slot : slots) slot.parameter.mutable_grad() = slot.gradient = torch::Tensor();
        seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    return seconds * options.accumulation * double(options.batchRows) / double(timedRows);
}

}  // namespace

int rowLengthFor(const TrainOptions& options, const ModelShape& shape) {
    if (shape.image) {
        if (options.rowLength != 0) throw Error(ErrorCode::Usage, "row_length", "is for text; a picture is " + std::to_string(shape.image->tokens()) + " tokens for this model");
        return shape.image->tokens();
    }
    const auto context = shape.maxPositions > 0 ? shape.maxPositions : kAutomaticRow;
    if (options.rowLength == 0) return static_cast<int>(std::min<std::int64_t>(kAutomaticRow, context));
    if (options.rowLength > context)
        throw Error(ErrorCode::Usage, "row_length", "the model's context holds " + std::to_string(context) + " tokens, found " + std::to_string(options.rowLength));
    if (options.rowLength < 2) throw Error(ErrorCode::Usage, "row_length", "expected at least 2 tokens, found " + std::to_string(options.rowLength));
    return options.rowLength;
}

RunEstimate estimateMemory(const ModelShape& shape, const ModelShape& uncut, const TrainOptions& options, const std::string& dtype, int rowLength,
                           const Cut* cut) {
    const auto e = elementBytes(dtype);
    const bool bf16 = e == 2;
    const auto size = options.recipe->size({shape, cut ? &uncut : nullptr, cut}, options);
    const auto P = static_cast<std::uint64_t>(costOf(shape, rowLength).parameters), Pt = static_cast<std::uint64_t>(size.parameters);
    const bool masters = bf16 && !size.f32;
    const auto BT = static_cast<std::uint64_t>(options.batchRows) * static_cast<std::uint64_t>(rowLength);
    RunEstimate estimate;
    estimate.trainableParameters = size.parameters;
    estimate.weights = e * P + (size.f32 ? 4 : e) * static_cast<std::uint64_t>(size.added);
    if (options.distillWeight > 0) estimate.teacher = e * static_cast<std::uint64_t>(costOf(uncut, rowLength).parameters);
    estimate.gradients = (size.f32 ? 4 : e) * Pt + (masters && options.accumulation > 1 ? 4 * Pt : 0);
    estimate.optimiser = 8 * Pt + (masters ? 4 * Pt : 0);
    estimate.activations = e * BT * size.activations;
    const auto scored = shape.image ? static_cast<std::uint64_t>(options.batchRows) : BT;
    estimate.logits = 3 * std::min<std::uint64_t>(kLogitsBytes, 4 * scored * static_cast<std::uint64_t>(shape.vocabSize));
    estimate.program = kProgramBytes;
    estimate.basis = "Memory is estimated from the model's sizes (" + estimate.priceWords() + "); time is not measured yet.";
    return estimate;
}

std::string RunEstimate::priceWords() const {
    return formatCount(double(trainableParameters)) + " trained weights; optimiser " + formatBytes(optimiser) + ", gradients " + formatBytes(gradients) + ", activations " +
           formatBytes(activations);
}

void judgeMemory(RunEstimate& estimate, const std::string& device) {
    const auto where = parseDevice(device);
    estimate.freeBytes = where.is_cpu() ? freeHostMemory() : compat::freeDeviceMemory(where).value_or(0);
    if (estimate.freeBytes == 0 || estimate.memory() <= estimate.freeBytes) return;
    estimate.problems.push_back({Severity::Error, "memory",
                                 "Training needs about " + formatBytes(estimate.memory()) + ": " + formatBytes(estimate.weights + estimate.teacher) + " for weights, " +
                                     formatBytes(estimate.gradients + estimate.optimiser) + " for gradients and optimiser, " +
                                     formatBytes(estimate.activations + estimate.logits) + " for activations. " + where.str() + " has " +
                                     formatBytes(estimate.freeBytes) + " free.",
                                 "Take fewer or shorter rows per batch, bf16, or the LoRA recipe."});
}

RunEstimate estimateRun(const RunJob& job, Probe probe, const JobContext& context) {
    const auto options = trainOptions(recipe(job.recipe), job.parameters);
    const auto shapes = shapesOfJob(job);
    const int rowLength = rowLengthFor(options, shapes.cut);
    auto estimate = estimateMemory(shapes.cut, shapes.source, options, job.dtype, rowLength, shapes.plan ? &*shapes.plan : nullptr);
    judgeMemory(estimate, job.device);
    estimate.steps = options.steps;
    estimate.images = shapes.cut.image.has_value();
    if (options.steps == 0 && probe == Probe::Step) estimate.steps = totalSteps(options, countTrainRows(job, options, shapes.cut));
    estimate.tokens = estimate.steps * options.batchRows * options.accumulation * (shapes.cut.image ? 1 : rowLength);
    const bool small = costOf(shapes.cut, rowLength).parameters <= kProbedParameters;
    if (probe == Probe::Step && small && !hasErrors(estimate.problems)) {
        const auto step = probeStep(shapes.cut, options, job, rowLength, context);
        if (!step) return estimate;
        estimate.seconds = *step * double(estimate.steps);
        if (options.maxMinutes > 0) estimate.seconds = std::min(estimate.seconds, options.maxMinutes * 60);
        estimate.basis = "Memory is estimated from the model's sizes (" + estimate.priceWords() + "); time from one measured step of " + formatDuration(*step) +
                         ", without evaluations and checkpoints.";
    }
    return estimate;
}

}  // namespace resect
