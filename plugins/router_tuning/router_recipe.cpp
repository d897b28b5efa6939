#include "plugins/router_tuning/router_recipe.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/train/batches.h"
#include "core/train/trained_parts.h"
#include "plugins/router_tuning/capacity_loss.h"
#include "plugins/router_tuning/router_files.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

namespace resect::router {

namespace fs = std::filesystem;

namespace {

constexpr double kNoBound = 1e300;

struct Wishes {
    GateOptions gate;
    CapacityOptions capacity;
    TrainGrad trainGrad{};
    std::vector<int> blocks;
    std::int64_t count = 0;
};

Wishes wishesOf(const TrainOptions& options) {
    const Parameters values(options.recipe->info().parameters, options.parameters);
    Wishes wishes;
    readSpelling(wishes.gate, values.text("target") + "_" + values.text("granularity"), "target");
    wishes.gate.threshold = values.real("threshold");
    wishes.gate.pool = values.text("pool") == "all" ? Pool::All : Pool::Prompt;
    wishes.gate.promptTokens = values.integer("prompt_tokens");
    wishes.capacity = {values.real("target_capacity"), values.real("lambda"), values.real("dual_rate"),
                       values.text("capacity_scope") == "layer" ? CapacityScope::Layer : CapacityScope::Model};
    wishes.trainGrad = values.text("train_grad") == "selected" ? TrainGrad::Selected : TrainGrad::All;
    wishes.blocks = values.integers("layers");
    wishes.count = values.integer("count");
    return wishes;
}

/// The wished blocks in the numbers of the model that is trained. Users number them as in the source.
std::vector<int> routedBlocks(const ModelShape& shape, const Wishes& wishes, const Cut* cut) {
    if (wishes.blocks.empty()) {
        auto blocks = defaultBlocks(shape, wishes.gate.target, wishes.count);
        if (blocks.empty()) throw Error(ErrorCode::Usage, "count", "no block can be routed: the last block never is, and the others lack the layer");
        return blocks;
    }
    std::vector<int> kept(static_cast<std::size_t>(shape.numBlocks()));
    for (int block = 0; block < shape.numBlocks(); ++block) kept[static_cast<std::size_t>(block)] = block;
    if (cut) kept = keptBlocks(*cut);
    std::vector<int> blocks;
    for (const int wished : wishes.blocks) {
        const auto found = std::ranges::find(kept, wished);
        if (found == kept.end()) throw Error(ErrorCode::Usage, "layers", "block " + std::to_string(wished) + " is not in the model that is trained");
        const int block = static_cast<int>(found - kept.begin());
        if (const auto missing = missingLayer(shape.blocks[static_cast<std::size_t>(block)], wishes.gate.target); !missing.empty())
            throw Error(ErrorCode::Usage, "layers", "block " + std::to_string(wished) + " has no " + missing + " layer to route");
        blocks.push_back(block);
    }
    return blocks;
}

/// Rows of a metrics file that belong to steps before `step`: what a run writes again after a resume goes.
void keepRowsBefore(const fs::path& file, std::int64_t step) {
    if (!fs::exists(file)) return;
    std::string kept;
    std::istringstream lines(readFile(file));
    for (std::string line; std::getline(lines, line);) {
        const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (row.is_object() && row.value("step", step) < step) kept += line + "\n";
    }
    writeFileAtomically(file, kept);
}

class RouterParts final : public TrainedParts {
public:
    RouterParts(LanguageModel& model, const TrainingStart& start, const Wishes& wishes)
        : m_base(start.base), m_prefix(familyOf(model.shape()).blockPrefix), m_numBlocks(model.shape().numBlocks()), m_training(start.options.parameters),
          m_meter(wishes.capacity), m_log(start.keep.empty() ? fs::path() : start.keep / "capacity.jsonl") {
        std::map<int, torch::Tensor> zeros;   // open routers: training starts from the dense model
        for (const int block : routedBlocks(model.shape(), wishes, start.cut))
            zeros[block] = torch::zeros({1, model.shape().of(block).hiddenSize});
        m_routing = attachRouters(model, wishes.gate, zeros);
        m_routing->trainGrad = wishes.trainGrad;
        m_routing->onDecision = [this](const Routing::Decision& decision) {
            if (m_isTraining) m_decisions.push_back(decision);
        };
        for (auto& [block, weight] : m_routing->weights) weight.set_requires_grad(true);
        m_training["seed"] = start.seed;
    }
    ~RouterParts() override {   // the model outlives the parts
        m_routing->onDecision = {};
        m_routing->promptTokens_B = torch::Tensor();
    }

    std::vector<TrainedTensor> tensors() override {
        std::vector<TrainedTensor> list;
        for (const auto& [block, weight] : m_routing->weights) list.push_back({nameOf(block), weight});
        return list;
    }
    void setTraining(bool training) override { m_isTraining = training; }
    void beginStep(std::int64_t step, std::int64_t) override {
        m_meter.discardStep();
        m_step = step;
    }
    void parametersChanged() override { endStep(); }
    void beginBatch(const TrainBatch& batch) override {
        m_decisions.clear();
        const bool looksAtPrompt = m_routing->gate.granularity == Granularity::Sequence && m_routing->gate.pool == Pool::Prompt;
        m_routing->promptTokens_B = looksAtPrompt ? promptsOf(batch.targets_BT, m_routing->gate.promptTokens) : torch::Tensor();
    }
    torch::Tensor extraLoss() override {
        const auto loss = capacityLoss(m_decisions, m_meter.options(), m_meter.weight());
        m_meter.add(m_decisions);
        m_decisions.clear();
        return loss.defined() ? loss.to(torch::kFloat32) : loss;
    }
    void reset() override {
        torch::NoGradGuard noGrad;
        for (auto& [block, weight] : m_routing->weights) weight.zero_();
        m_meter.reset();
        m_step = 0;
    }

    std::vector<WrittenShard> save(const fs::path& folder, const Value& master) const override {
        RouterAdapter adapter;
        adapter.gate = m_routing->gate;
        adapter.base = m_base->folder().string();
        adapter.fingerprint = m_base->fingerprint();
        adapter.prefix = m_prefix;
        adapter.numBlocks = m_numBlocks;
        for (const auto& [block, weight] : m_routing->weights) adapter.weights[block] = master(nameOf(block)).to(torch::kCPU);
        adapter.training = m_training;
        adapter.capacity = m_meter.toJson();
        writeRouterAdapter(folder, adapter);
        return {};
    }
    std::uint64_t savedBytes() const noexcept override {
        std::uint64_t bytes = 4096;
        for (const auto& [block, weight] : m_routing->weights) bytes += 4 * static_cast<std::uint64_t>(weight.numel());
        return bytes;
    }
    bool savesExactly(const std::string&) const override { return true; }
    std::map<std::string, torch::Tensor> load(const fs::path& folder) const override {
        const auto adapter = readRouterAdapter(folder);
        std::map<std::string, torch::Tensor> weights;
        for (const auto& [block, weight] : adapter.weights) weights[nameOf(block)] = weight;
        m_meter.restore(adapter.capacity, folder.string());
        m_step = 0;
        return weights;
    }

private:
    std::string nameOf(int block) const { return m_prefix + std::to_string(block) + ".router.weight"; }
    /// Takes in what the batches of the step that was just taken have shown, and writes its row.
    void endStep() {
        if (m_step == 0) return;
        const double weight = m_meter.weight();
        m_meter.endStep();
        const auto step = std::exchange(m_step, 0);
        if (m_log.empty()) return;
        if (!std::exchange(m_logIsClean, true)) {
            fs::create_directories(m_log.parent_path());
            keepRowsBefore(m_log, step);
        }
        auto row = m_meter.toJson();
        row["lambda"] = weight;
        row["step"] = step;
        std::ofstream(m_log, std::ios::app) << row.dump() + "\n" << std::flush;
    }

    const Checkpoint* m_base;
    std::string m_prefix;
    int m_numBlocks;
    Json m_training;
    std::shared_ptr<Routing> m_routing;
    std::vector<Routing::Decision> m_decisions;   // of the batch that is running
    bool m_isTraining = false;
    mutable CapacityMeter m_meter;                // load() brings its state back
    mutable std::int64_t m_step = 0;              // that is being taken; 0 = none
    fs::path m_log;
    bool m_logIsClean = false;                    // of rows that a resumed run writes again
};

RecipeInfo describe() {
    RecipeInfo info{"router-tuning", "Router-Tuning: skip layers by input", "Trains one small router per layer of a frozen model, which decides for each input whether the layer runs.",
                    "Router-Tuning: A Simple and Effective Approach for Enabling Dynamic-Depth in Transformers, arXiv 2410.13184, 2024", {}};
    using enum ParameterType;
    const auto choice = [](const char* name, const char* title, const char* help, std::vector<std::string> choices, bool advanced) {
        const auto first = choices.front();
        return ParameterInfo{name, title, help, Choice, "", first, -kNoBound, kNoBound, std::move(choices), advanced};
    };
    info.parameters = {
        choice("target", "Skip", "What a router switches off: attention, the MLP, or the whole block.", {"attn", "mlp", "block"}, false),
        choice("granularity", "Decide for each", "Whole sequences, once from the prompt, or single tokens.", {"sequence", "token"}, false),
        {"count", "Routed blocks", "So many of the deepest blocks get a router, the last block left out; 0 takes half of the model.", Integer, "blocks", 0, 0, 1e6, {}, false},
        {"layers", "Own choice", "Blocks with a router instead, as in 5,8-11, numbered as before the plan; the first and the last block are risky.", IntegerList, "", Json::array(), 0, 1e6, {}, false},
        {"target_capacity", "Capacity", "Share of the routed layers' work that is still done.", Real, "share", 0.5, 0, 1, {}, false},
        {"lambda", "Capacity weight", "Factor of the loss that pushes routers closed while more than the capacity runs; with a growth of 0 it stays.", Real, "", 5e-3, 0, 1000, {}, false},
        {"dual_rate", "Weight growth", "After each step the weight grows by so much of what runs above the capacity, and shrinks by what runs below; 0 keeps it.", Real, "", 0.05, 0, 100, {}, false},
        choice("capacity_scope", "Capacity of", "The mean over all routed layers, or every layer by itself.", {"model", "layer"}, true),
        {"threshold", "Threshold", "A layer runs when its router's probability reaches this.", Real, "", 0.5, 1e-6, 1 - 1e-6, {}, true},
        choice("pool", "Sequence router sees", "The prompt, or all tokens (as the authors' code does; it sees what is to be predicted).", {"prompt", "all"}, true),
        {"prompt_tokens", "Prompt of plain text", "First tokens of a row without a prompt that count as its prompt; 0 takes all of them.", Integer, "tokens", 32, 0, 1e6, {}, true},
        choice("train_grad", "Routers learn", "All from every input, or only those that are open for it (the authors' first code: a closed router hardly opens again).", {"all", "selected"}, true),
        mergeParameter(),
    };
    for (auto& parameter : commonParameters({0, 1e-5, 0})) {
        if (parameter.name == "layout") {
            parameter.defaultValue = "padded";   // packed rows hold several sequences
            parameter.help = "Cut the text into chunks, pad one example per row, or (tokens only) pack whole examples.";
        }
        if (parameter.name == "accumulation") parameter.defaultValue = 8;   // 64 rows a step, as published
        if (parameter.name == "warmup_steps") parameter.defaultValue = 1;
        if (parameter.name == "min_lr_ratio") parameter.defaultValue = 0.0;
        if (parameter.name == "beta2") parameter.defaultValue = 0.999;
        info.parameters.push_back(std::move(parameter));
    }
    return info;
}

class RouterRecipe final : public Recipe {
public:
    const RecipeInfo& info() const noexcept override { return m_info; }
    Kind kind() const noexcept override { return Kind::Adapter; }
    void check(const TrainOptions& options) const override {
        const bool mayPack = options.layout == RowLayout::Packed || options.layout == RowLayout::Auto;
        if (mayPack && wishesOf(options).gate.granularity == Granularity::Sequence)
            throw Error(ErrorCode::Usage, "layout", "routers that decide for whole sequences need rows of one sequence: expected padded or chunks, found " +
                                                        options.parameters.at("layout").get<std::string>());
    }
    /// Layers below the first router keep nothing for the backward pass.
    RecipeSize size(const PlannedShape& model, const TrainOptions& options) const override {
        const Wishes wishes = wishesOf(options);
        const auto blocks = routedBlocks(model.shape, wishes, model.cut);
        RecipeSize size;
        size.f32 = true;
        for (const int block : blocks) size.parameters += model.shape.of(block).hiddenSize;
        size.added = size.parameters;
        const double share = 1 - double(*std::ranges::min_element(blocks)) / double(model.shape.numBlocks());
        size.activations = static_cast<std::uint64_t>(share * double(activationElementsPerToken(model.shape)));
        return size;
    }
    std::unique_ptr<TrainedParts> prepare(LanguageModel& model, const TrainingStart& start) const override {
        return std::make_unique<RouterParts>(model, start, wishesOf(start.options));
    }
    void writeCheckpoint(const Checkpoint& base, const fs::path& result, const fs::path& to, const JobContext& job) const override {
        writeRoutedCheckpoint(base, readRouterAdapter(result), to, job);
    }
    bool recognises(const fs::path& folder) const override { return isRouterAdapter(folder); }

private:
    RecipeInfo m_info = describe();
};

}  // namespace

std::vector<int> defaultBlocks(const ModelShape& shape, Target target, std::int64_t count) {
    std::vector<int> blocks;
    const auto wanted = static_cast<std::size_t>(count > 0 ? count : (shape.numBlocks() + 1) / 2);
    for (int block = shape.numBlocks() - 2; block >= 0 && blocks.size() < wanted; --block)
        if (missingLayer(shape.blocks[static_cast<std::size_t>(block)], target).empty()) blocks.push_back(block);
    std::ranges::reverse(blocks);
    return blocks;
}

std::shared_ptr<const Recipe> routerRecipe() { return std::make_shared<RouterRecipe>(); }

}  // namespace resect::router
