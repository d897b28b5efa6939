#pragma once
#include "core/anatomy/model_shape.h"
#include "core/base/job.h"
#include "core/data/dataset.h"
#include "core/protocol/parameter.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

class Checkpoint;
class LanguageModel;
class Recipe;
class TrainedParts;
struct Cut;
struct TrainingStart;

/// A way to train: what is trained and with which declared parameters.
struct RecipeInfo {
    std::string id;                         ///< "full", "lora", "pretrain"
    std::string title, summary, paper;
    std::vector<ParameterInfo> parameters;
};

enum class Schedule { Constant, Linear, Cosine };

/// The parameters that the training loop itself looks at. What only one recipe knows stays in `parameters`.
struct TrainOptions {
    std::shared_ptr<const Recipe> recipe;
    Json parameters;                        ///< every declared parameter of the recipe, checked: {name: value}
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
    double routerBalance = 0;               ///< factor of the load-balancing loss of mixture-of-experts blocks
    // Distillation
    double distillWeight = 0, distillTemperature = 1;
    // Evaluation and keeping
    std::int64_t evalEvery = 0, checkpointEvery = 0;
    std::int64_t evalRows = 0;              ///< 0 = 64 rows of text, 1,000 images
    double evalFraction = 0.1;
    int keep = 1;                           ///< newest checkpoints kept beside the best one
    // Where a recipe declares them
    bool merge = false;                     ///< adapters: write the merged checkpoint at the end
    double initStd = 0.02;                  ///< of random weights
};

/// What a recipe's training takes beside the model, for the price that is shown before the start.
struct RecipeSize {
    std::int64_t parameters = 0;            ///< trained
    std::int64_t added = 0;                 ///< of those (or copies of them), held beside the model's own weights
    bool f32 = false;                       ///< the leaves are f32 whatever the arithmetic: no masters beside them, f32 gradients
    std::uint64_t activations = 0;          ///< elements per token that the backward pass reads again
};

/// The model that is trained, and what it was before the plan: users number components as in the source.
struct PlannedShape {
    const ModelShape& shape;
    const ModelShape* source = nullptr;     ///< null = nothing was cut
    const Cut* cut = nullptr;               ///< of the source; null = nothing was cut
};

/// An adapter and how much of it.
struct AdapterShare {
    std::filesystem::path folder;
    double factor = 1;
};

/// A training recipe. Stateless: one object serves every job. Built in are "full", "lora" and "pretrain"; plugins bring others.
///
/// The training loop, its run folder, resume, evaluation, distillation and the optimiser are the same for all. A recipe says
///   - what it is called and its parameters: info(); commonParameters() are those that the loop reads,
///   - what it will cost: size() (the price is shown before the start),
///   - what is trained: prepare() changes a loaded, frozen model (requires_grad of its parameters, replaceLinear, replaceBranch) and returns
///     the TrainedParts: leaves for the optimiser, extra losses, what a checkpoint of the run holds,
///   - what a finished run is: kind(), and how an adapter becomes a checkpoint: writeCheckpoint(). Export, evaluation of a run and
///     `merge` all go through that. Adapters are files of the recipe's own form: recognises(), fuse(), writePeft().
/// In a run folder, checkpoints/step-N holds what TrainedParts::save writes, and state/ the optimiser's; `recipe/` is the recipe's own
/// place for what must be the same after a resume (TrainingStart::keep).
class Recipe {
public:
    enum class Kind {
        Weights,    ///< checkpoints of the run are complete checkpoints of the model
        Adapter     ///< they hold what was added; writeCheckpoint() puts it onto the base
    };
    enum class Origin { Checkpoint, RandomWeights };   ///< RandomWeights: the source of a job is a config.json

    virtual ~Recipe();
    virtual const RecipeInfo& info() const noexcept = 0;
    virtual Kind kind() const noexcept { return Kind::Weights; }
    virtual Origin origin() const noexcept { return Origin::Checkpoint; }
    /// Problems between parameters that no single declaration can tell. Throws Usage naming the parameter.
    virtual void check(const TrainOptions&) const {}
    virtual RecipeSize size(const PlannedShape& model, const TrainOptions& options) const = 0;
    /// `model` is loaded and frozen; it outlives the parts. Throws Usage naming a parameter that does not fit the model.
    virtual std::unique_ptr<TrainedParts> prepare(LanguageModel& model, const TrainingStart& start) const = 0;
    /// Writes the new checkpoint `to`: the adapter in the folder `result` put onto the base it was trained on. Throws Mismatch naming the
    /// tensor when the two do not belong together, Internal for Kind::Weights.
    virtual void writeCheckpoint(const Checkpoint& base, const std::filesystem::path& result, const std::filesystem::path& to, const JobContext& job) const;

    /// Is this the folder of an adapter that the recipe writes?
    virtual bool recognises(const std::filesystem::path&) const { return false; }
    /// The weighted sum of adapters of one base as an adapter, into the existing folder `to`. Throws Unsupported where the recipe has no sum,
    /// Mismatch when the adapters do not go together.
    virtual void fuse(std::span<const AdapterShare> shares, const std::filesystem::path& to) const;
    /// The same change as a LoRA adapter of PEFT, into the existing folder `to`. Throws Unsupported when it is none.
    virtual void writePeft(const std::filesystem::path& adapter, const std::filesystem::path& to) const;
};

/// The recipe whose adapter lies in the folder. Throws BadInput when none recognises it.
std::shared_ptr<const Recipe> recipeOfAdapter(const std::filesystem::path& folder);

/// All recipes: the built-in ones, then those that were added, in order of id.
std::vector<std::shared_ptr<const Recipe>> recipes();
/// Throws Usage listing the known ids.
std::shared_ptr<const Recipe> recipe(std::string_view id);
/// Makes a recipe known to the process; it takes the place of an added one with the same id. Throws Internal when the id is built in. Thread-safe.
void addRecipe(std::shared_ptr<const Recipe> recipe);
/// `load` is called once, when recipes() is first asked or recipe() for an id that is not built in; it calls addRecipe for those of plugins.
void setRecipeLoader(std::function<void()> load);

struct RecipeDefaults {
    std::int64_t steps = 300;
    double rate = 1e-3, decay = 0;
};
enum class Distilling { Offered, No };
/// The declarations of what TrainOptions holds: length, rows, optimiser, distillation, evaluation.
std::vector<ParameterInfo> commonParameters(const RecipeDefaults& defaults, Distilling distilling = Distilling::Offered);
/// The declaration of TrainOptions::merge.
ParameterInfo mergeParameter();
/// Elements per token that the backward pass of a dense training reads again (see RunEstimate).
std::uint64_t activationElementsPerToken(const ModelShape& shape);

/// Throws Usage listing every problem of the parameters.
TrainOptions trainOptions(const std::shared_ptr<const Recipe>& recipe, const Json& parameters);

/// Steps a run takes: `steps`, or as many as `epochs` need, at least 1.
std::int64_t totalSteps(const TrainOptions& options, std::int64_t trainRows);
/// The learning rate of a step, 1-based: linear warm-up from 0 over `warmupSteps`, then the schedule down to minRateRatio at `total`.
double learningRateAt(const TrainOptions& options, std::int64_t step, std::int64_t total) noexcept;

}  // namespace resect
