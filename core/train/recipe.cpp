#include "core/train/recipe.h"

#include "core/base/error.h"
#include "core/train/built_in_recipes.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
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

ParameterInfo advanced(ParameterInfo parameter) {
    parameter.advanced = true;
    return parameter;
}

std::vector<ParameterInfo> lengthParameters(const RecipeDefaults& defaults) {
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

std::vector<ParameterInfo> optimiserParameters(const RecipeDefaults& defaults) {
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

void append(std::vector<ParameterInfo>& list, std::vector<ParameterInfo> more) { std::ranges::move(more, std::back_inserter(list)); }

/// What there is, shared by all threads.
struct Known {
    std::mutex loading;   // held while the plugins' recipes are being added
    std::mutex mutex;
    std::map<std::string, std::shared_ptr<const Recipe>, std::less<>> added;
    std::function<void()> load;
};
Known& known() {
    static Known table;
    return table;
}

/// In the order in which a form offers them.
const std::vector<std::shared_ptr<const Recipe>>& builtIn() {
    static const std::vector<std::shared_ptr<const Recipe>> list{fullRecipe(), loraRecipe(), pretrainRecipe()};
    return list;
}

std::shared_ptr<const Recipe> findBuiltIn(std::string_view id) {
    const auto found = std::ranges::find_if(builtIn(), [&](const auto& recipe) { return recipe->info().id == id; });
    return found == builtIn().end() ? nullptr : *found;
}

void loadOnce() {
    const std::scoped_lock waiting(known().loading);
    std::function<void()> load;
    {
        const std::scoped_lock lock(known().mutex);
        std::swap(load, known().load);
    }
    if (load) load();
}

}  // namespace

Recipe::~Recipe() = default;

void Recipe::writeCheckpoint(const Checkpoint&, const std::filesystem::path& result, const std::filesystem::path&, const JobContext&) const {
    throw Error(ErrorCode::Internal, result.string(), "is a complete checkpoint already: the recipe " + info().id + " writes no adapters");
}

void Recipe::fuse(std::span<const AdapterShare>, const std::filesystem::path&) const {
    throw Error(ErrorCode::Unsupported, "recipe " + info().id, "its adapters cannot be added up; merge them one after the other");
}

void Recipe::writePeft(const std::filesystem::path& adapter, const std::filesystem::path&) const {
    throw Error(ErrorCode::Unsupported, adapter.string(), "what the recipe " + info().id + " trains is no LoRA adapter");
}

std::shared_ptr<const Recipe> recipeOfAdapter(const std::filesystem::path& folder) {
    for (const auto& recipe : recipes())
        if (recipe->recognises(folder)) return recipe;
    throw Error(ErrorCode::BadInput, folder.string(), "is no adapter that Resect knows: expected adapter_config.json (LoRA) or the files of an installed recipe");
}

std::vector<std::shared_ptr<const Recipe>> recipes() {
    loadOnce();
    auto list = builtIn();
    const std::scoped_lock lock(known().mutex);
    for (const auto& [id, recipe] : known().added) list.push_back(recipe);
    return list;
}

std::shared_ptr<const Recipe> recipe(std::string_view id) {
    if (auto found = findBuiltIn(id)) return found;
    std::string ids;
    for (const auto& recipe : recipes()) {
        if (recipe->info().id == id) return recipe;
        ids += (ids.empty() ? "" : ", ") + recipe->info().id;
    }
    throw Error(ErrorCode::Usage, "recipe " + std::string(id), "is not known; there are " + ids);
}

void addRecipe(std::shared_ptr<const Recipe> recipe) {
    const auto& id = recipe->info().id;
    if (findBuiltIn(id)) throw Error(ErrorCode::Internal, "recipe " + id, "the recipe id \"" + id + "\" is built in");
    const std::scoped_lock lock(known().mutex);
    known().added[id] = std::move(recipe);
}

void setRecipeLoader(std::function<void()> load) {
    const std::scoped_lock lock(known().mutex);
    known().load = std::move(load);
}

std::vector<ParameterInfo> commonParameters(const RecipeDefaults& defaults, Distilling distilling) {
    std::vector<ParameterInfo> list;
    append(list, lengthParameters(defaults));
    append(list, optimiserParameters(defaults));
    if (distilling == Distilling::Offered) append(list, distillParameters());
    append(list, evaluationParameters());
    return list;
}

ParameterInfo mergeParameter() { return boolean("merge", "Merge at the end", "Also writes the best adapter folded into the weights.", false); }

std::uint64_t activationElementsPerToken(const ModelShape& shape) {
    const auto D = static_cast<std::uint64_t>(shape.hiddenSize);
    std::uint64_t sum = 2 * D;
    for (const auto& block : shape.blocks) {
        const auto heads = static_cast<std::uint64_t>(block.numHeads + block.numKvHeads) * static_cast<std::uint64_t>(block.headDim);
        const auto experts = static_cast<std::uint64_t>(block.numExperts > 0 ? std::max(1, shape.numExpertsPerToken) : 1);
        if (block.hasAttention) sum += 2 * D + 3 * heads;
        if (block.hasFfn) sum += 2 * D + 3 * static_cast<std::uint64_t>(block.ffnSize) * experts;
    }
    return sum;
}

TrainOptions trainOptions(const std::shared_ptr<const Recipe>& recipe, const Json& parameters) {
    const Parameters values(recipe->info().parameters, parameters);
    const auto declares = [&](const char* name) { return values.json().contains(name); };
    TrainOptions options;
    options.recipe = recipe;
    options.parameters = values.json();
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
    if (declares("distill_weight")) {
        options.distillWeight = values.real("distill_weight");
        options.distillTemperature = values.real("distill_temperature");
    }
    if (declares("init_std")) options.initStd = values.real("init_std");
    if (declares("merge")) options.merge = values.boolean("merge");
    if (options.steps == 0 && options.epochs == 0) throw Error(ErrorCode::Usage, "steps", "expected a number of steps or of epochs, found 0 for both");
    recipe->check(options);
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
