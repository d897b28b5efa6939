#include "core/train/recipe.h"

#include "core/base/error.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace resect {

namespace {

constexpr double kMost = 1e300;
constexpr double kManySteps = 1e9;

ParameterInfo integer(std::string name, std::string title, std::string help, std::string unit, std::int64_t value, double minimum, double maximum) {
    return {std::move(name), std::move(title), std::move(help), ParameterType::Integer, std::move(unit), value, minimum, maximum, {}, false};
}

ParameterInfo real(std::string name, std::string title, std::string help, std::string unit, double value, double minimum, double maximum) {
    return {std::move(name), std::move(title), std::move(help), ParameterType::Real, std::move(unit), value, minimum, maximum, {}, false};
}

ParameterInfo choice(std::string name, std::string title, std::string help, std::vector<std::string> choices) {
    const auto first = choices.front();
    return {std::move(name), std::move(title), std::move(help), ParameterType::Choice, "", first, -kMost, kMost, std::move(choices), false};
}

ParameterInfo boolean(std::string name, std::string title, std::string help, bool value) {
    return {std::move(name), std::move(title), std::move(help), ParameterType::Boolean, "", value, -kMost, kMost, {}, false};
}

ParameterInfo text(std::string name, std::string title, std::string help, std::string value) {
    return {std::move(name), std::move(title), std::move(help), ParameterType::Text, "", std::move(value), -kMost, kMost, {}, false};
}

ParameterInfo advanced(ParameterInfo parameter) {
    parameter.advanced = true;
    return parameter;
}

struct Defaults {
    std::int64_t steps;
    double rate, decay;
};

std::vector<ParameterInfo> lengthParameters(const Defaults& defaults) {
    return {
        integer("steps", "Steps", "Optimiser steps to take; 0 counts epochs instead.", "steps", defaults.steps, 0, kManySteps),
        real("epochs", "Epochs", "Passes over the training rows when the number of steps is 0.", "epochs", 1, 0, 1e6),
        real("max_minutes", "At most", "Ends the run after so many minutes of training and keeps the result; 0 sets no limit.", "minutes", 0, 0, 1e6),
        integer("batch_rows", "Rows per batch", "Rows that run through the model together.", "rows", 8, 1, 65536),
        integer("accumulation", "Accumulate", "Batches whose gradients are added up before a step.", "batches", 1, 1, 65536),
        integer("row_length", "Row length", "Tokens per row; 0 takes the model's context, at most 256.", "tokens", 0, 0, 1 << 20),
        choice("layout", "Row layout", "Cut the text into chunks, pack whole examples, or pad one example per row; auto packs what has prompts and answers.", {"auto", "chunks", "packed", "padded"}),
        boolean("answers_only", "Answers only", "Instruction data: take the loss on the answers, not on the questions.", true),
    };
}

std::vector<ParameterInfo> optimiserParameters(const Defaults& defaults) {
    return {
        real("lr", "Learning rate", "Peak step size of AdamW.", "", defaults.rate, 0, 10),
        integer("warmup_steps", "Warm-up", "Steps over which the rate grows from zero to its peak.", "steps", 10, 0, kManySteps),
        choice("schedule", "Schedule", "How the rate falls after the warm-up.", {"cosine", "linear", "constant"}),
        real("min_lr_ratio", "Final rate", "Share of the peak rate that is left at the end.", "", 0.1, 0, 1),
        advanced(real("weight_decay", "Weight decay", "Decoupled decay of matrices; norms and biases have none.", "", defaults.decay, 0, 10)),
        advanced(real("beta1", "Beta 1", "Decay of the mean of gradients.", "", 0.9, 0, 0.999999)),
        advanced(real("beta2", "Beta 2", "Decay of the mean of squared gradients.", "", 0.99, 0, 0.999999)),
        advanced(real("eps", "Epsilon", "Added to the root of the mean of squared gradients.", "", 1e-8, 1e-20, 1)),
        advanced(real("clip", "Clip gradients", "Largest length of the whole gradient; 0 leaves it as it is.", "", 1, 0, 1e6)),
        advanced(real("router_balance", "Expert balance", "Factor of the loss that spreads tokens over the experts of a mixture; unused in dense models.", "", 0.01, 0, 100)),
    };
}

std::vector<ParameterInfo> evaluationParameters() {
    return {
        integer("eval_every", "Evaluate every", "Steps between evaluations; 0 evaluates with each checkpoint only.", "steps", 25, 0, kManySteps),
        integer("eval_rows", "Evaluation rows", "At most so many rows are evaluated; 0 takes 64 rows of text, or 1,000 images.", "rows", 0, 0, 1e9),
        real("eval_fraction", "Held out", "Share of the rows, at the end of the data, kept for evaluation when there is no evaluation file.", "", 0.1, 0, 0.9),
        integer("checkpoint_every", "Checkpoint every", "Steps between checkpoints; 0 writes one at the end only.", "steps", 100, 0, kManySteps),
        advanced(integer("keep", "Keep", "Newest checkpoints that stay beside the best one.", "checkpoints", 1, 1, 1e6)),
    };
}

std::vector<ParameterInfo> distillParameters() {
    return {
        real("distill_weight", "Distillation", "Share of the loss that follows the uncut model's probabilities instead of the text; 0 does not load it.", "", 0, 0, 1),
        real("distill_temperature", "Temperature", "Softens both models' probabilities before they are compared.", "", 2, 0.1, 100),
    };
}

std::vector<ParameterInfo> loraParameters() {
    return {
        integer("lora_rank", "Rank", "Inner width of the adapters.", "", 8, 1, 65536),
        real("lora_alpha", "Alpha", "The adapters' output is scaled by alpha / rank.", "", 16, 1e-6, 1e6),
        real("lora_dropout", "Dropout", "Share of adapter inputs that are zeroed while training.", "", 0, 0, 0.95),
        text("lora_targets", "Targets", "all-linear, attention, mlp, or names such as q_proj,v_proj, separated by commas.", "all-linear"),
        advanced(boolean("lora_rs", "Rank-stabilised", "Scale by alpha / sqrt(rank) instead.", false)),
        boolean("merge", "Merge at the end", "Also writes the best adapter folded into the weights.", false),
    };
}

void append(std::vector<ParameterInfo>& list, std::vector<ParameterInfo> more) { std::ranges::move(more, std::back_inserter(list)); }

RecipeInfo fullRecipe() {
    const Defaults defaults{300, 3e-4, 0.01};
    RecipeInfo info{"full", "Full fine-tuning", "Trains every weight of the cut model.", "", {}};
    append(info.parameters, lengthParameters(defaults));
    append(info.parameters, optimiserParameters(defaults));
    append(info.parameters, distillParameters());
    append(info.parameters, evaluationParameters());
    info.parameters.push_back(advanced(boolean("train_embeddings", "Train embeddings", "Also trains the token embedding and the output head.", true)));
    info.parameters.push_back(advanced(choice("save_dtype", "Save as", "Number format of the weights in checkpoints; training always continues from full precision.",
                                              {"source", "f32", "bf16", "f16"})));
    return info;
}

RecipeInfo loraRecipe() {
    const Defaults defaults{300, 1e-3, 0};
    RecipeInfo info{"lora", "LoRA adapter", "Trains small low-rank matrices beside frozen weights; the result is an adapter that can be merged.",
                    "LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685, 2021", {}};
    append(info.parameters, loraParameters());
    append(info.parameters, lengthParameters(defaults));
    append(info.parameters, optimiserParameters(defaults));
    append(info.parameters, distillParameters());
    append(info.parameters, evaluationParameters());
    return info;
}

RecipeInfo pretrainRecipe() {
    const Defaults defaults{1000, 1e-3, 0.1};
    RecipeInfo info{"pretrain", "Train from nothing", "Trains a model of the shape of a config.json from random weights.", "", {}};
    append(info.parameters, lengthParameters(defaults));
    append(info.parameters, optimiserParameters(defaults));
    append(info.parameters, evaluationParameters());
    info.parameters.push_back(advanced(real("init_std", "Initial spread", "Standard deviation of the random weights.", "", 0.02, 1e-6, 1)));
    info.parameters.push_back(advanced(choice("save_dtype", "Save as", "Number format of the weights in checkpoints; training always continues from full precision.",
                                              {"f32", "bf16", "f16"})));
    return info;
}

std::vector<std::string> splitList(const std::string& list) {
    std::vector<std::string> parts;
    std::string part;
    for (const char c : list + ",") {
        if (c != ',' && c != ' ') part += c;
        else if (!part.empty()) parts.push_back(std::exchange(part, {}));
    }
    return parts;
}

void readLora(const Parameters& values, TrainOptions& options) {
    auto& lora = options.loraOptions;
    lora.rank = static_cast<int>(values.integer("lora_rank"));
    lora.alpha = values.real("lora_alpha");
    lora.dropout = values.real("lora_dropout");
    lora.targets = splitList(values.text("lora_targets"));
    lora.rankStabilised = values.boolean("lora_rs");
    options.merge = values.boolean("merge");
    if (lora.targets.empty()) throw Error(ErrorCode::Usage, "lora_targets", "expected at least one target, found none");
}

}  // namespace

double LoraOptions::scale() const noexcept { return alpha / (rankStabilised ? std::sqrt(double(rank)) : double(rank)); }

const std::vector<RecipeInfo>& recipes() {
    static const std::vector<RecipeInfo> list{fullRecipe(), loraRecipe(), pretrainRecipe()};
    return list;
}

const RecipeInfo& recipe(std::string_view id) {
    std::string known;
    for (const auto& info : recipes()) {
        if (info.id == id) return info;
        known += (known.empty() ? "" : ", ") + info.id;
    }
    throw Error(ErrorCode::Usage, "recipe " + std::string(id), "is not known; there are " + known);
}

TrainOptions trainOptions(const RecipeInfo& recipe, const Json& parameters) {
    const Parameters values(recipe.parameters, parameters);
    TrainOptions options;
    options.lora = recipe.id == "lora";
    options.pretrain = recipe.id == "pretrain";
    options.steps = values.integer("steps");
    options.epochs = values.real("epochs");
    options.maxMinutes = values.real("max_minutes");
    options.batchRows = static_cast<int>(values.integer("batch_rows"));
    options.accumulation = static_cast<int>(values.integer("accumulation"));
    options.rowLength = static_cast<int>(values.integer("row_length"));
    const auto layout = values.text("layout");
    options.layout = layout == "auto" ? RowLayout::Auto : layout == "chunks" ? RowLayout::Chunks : layout == "packed" ? RowLayout::Packed : RowLayout::Padded;
    options.answersOnly = values.boolean("answers_only");
    options.learningRate = values.real("lr");
    options.warmupSteps = values.integer("warmup_steps");
    const auto schedule = values.text("schedule");
    options.schedule = schedule == "cosine" ? Schedule::Cosine : schedule == "linear" ? Schedule::Linear : Schedule::Constant;
    options.minRateRatio = values.real("min_lr_ratio");
    options.weightDecay = values.real("weight_decay");
    options.beta1 = values.real("beta1");
    options.beta2 = values.real("beta2");
    options.epsilon = values.real("eps");
    options.clip = values.real("clip");
    options.routerBalance = values.real("router_balance");
    options.evalEvery = values.integer("eval_every");
    options.evalRows = values.integer("eval_rows");
    options.evalFraction = values.real("eval_fraction");
    options.checkpointEvery = values.integer("checkpoint_every");
    options.keep = static_cast<int>(values.integer("keep"));
    if (!options.pretrain) {
        options.distillWeight = values.real("distill_weight");
        options.distillTemperature = values.real("distill_temperature");
    }
    if (options.pretrain) options.initStd = values.real("init_std");
    if (recipe.id == "full") options.trainEmbeddings = values.boolean("train_embeddings");
    if (options.lora) readLora(values, options);
    else options.saveDtype = values.text("save_dtype");
    if (options.steps == 0 && options.epochs == 0) throw Error(ErrorCode::Usage, "steps", "expected a number of steps or of epochs, found 0 for both");
    return options;
}

std::int64_t totalSteps(const TrainOptions& options, std::int64_t trainRows) {
    if (options.steps > 0) return options.steps;
    const double rowsPerStep = double(options.batchRows) * options.accumulation;
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(options.epochs * double(trainRows) / rowsPerStep)));
}

double learningRateAt(const TrainOptions& options, std::int64_t step, std::int64_t total) noexcept {
    if (step <= options.warmupSteps) return options.learningRate * double(step) / double(options.warmupSteps);
    const double span = double(std::max<std::int64_t>(1, total - options.warmupSteps));
    const double done = std::min(1.0, double(step - options.warmupSteps) / span);
    double shape = 1;
    if (options.schedule == Schedule::Linear) shape = 1 - done;
    if (options.schedule == Schedule::Cosine) shape = 0.5 * (1 + std::cos(std::numbers::pi * done));
    return options.learningRate * (options.minRateRatio + (1 - options.minRateRatio) * shape);
}

}  // namespace resect
