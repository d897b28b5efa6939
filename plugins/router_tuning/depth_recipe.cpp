#include "plugins/router_tuning/depth_recipe.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/models/tensor_file.h"
#include "core/train/trained_parts.h"
#include "plugins/router_tuning/depth.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <array>
#include <charconv>
#include <utility>

namespace resect::depth {

namespace fs = std::filesystem;

namespace {

constexpr double kNoBound = 1e300;
constexpr const char *kFile = "routers.safetensors", *kId = "mixture-of-depths";
constexpr std::array<std::pair<Weighing, const char*>, 3> kWeighings{{{Weighing::Score, "score"}, {Weighing::Sigmoid, "sigmoid"}, {Weighing::None, "none"}}};
constexpr std::array<std::pair<Predictor, const char*>, 3> kPredictors{{{Predictor::Mlp, "mlp"}, {Predictor::Linear, "linear"}, {Predictor::Router, "router"}}};

template <class Table> auto read(const Table& table, const std::string& text, const std::string& subject) {
    for (const auto& [value, name] : table)
        if (text == name) return value;
    throw Error(ErrorCode::BadInput, subject, "found the unknown word \"" + text + "\"");
}
template <class Table, class Value> const char* word(const Table& table, Value wanted) {
    for (const auto& [value, name] : table)
        if (value == wanted) return name;
    return "";
}

Json settingsOf(const DepthOptions& options, const std::string& prefix) {
    return {{"capacity", options.capacity}, {"weighing", word(kWeighings, options.weighing)}, {"predictor", word(kPredictors, options.predictor)}, {"prefix", prefix}};
}

/// "model.layers." 3 "router.weight" of a tensor's name.
std::map<int, DepthWeights> readWeights(const fs::path& file, const std::string& prefix) {
    std::map<int, DepthWeights> weights;
    for (auto& [name, tensor] : readTensors(file)) {
        const auto subject = file.string() + ": " + name;
        int block = -1;
        const auto* begin = name.data() + std::min(name.size(), prefix.size());
        const auto [end, error] = std::from_chars(begin, name.data() + name.size(), block);
        if (!name.starts_with(prefix) || error != std::errc{} || end == name.data() + name.size() || *end != '.') throw Error(ErrorCode::BadInput, subject, "expected a name such as " + prefix + "3.router.weight");
        if (!tensor.is_floating_point() || !torch::isfinite(tensor).all().item<bool>()) throw Error(ErrorCode::BadInput, subject, "expected finite floating-point numbers");
        weights[block][std::string(end + 1, name.data() + name.size())] = tensor;
    }
    return weights;
}

class DepthExtension final : public ModelExtension {
public:
    std::string id() const override { return kId; }
    void attach(LanguageModel& model, const Json& settings, const fs::path& file) const override {
        const std::string subject = "resect.json: extensions: " + id();
        DepthOptions options;
        options.capacity = numberField(settings, "capacity", subject);
        options.weighing = read(kWeighings, stringField(settings, "weighing", subject), subject + ": weighing");
        options.predictor = read(kPredictors, stringField(settings, "predictor", subject), subject + ": predictor");
        attachDepth(model, options, readWeights(file, stringField(settings, "prefix", subject)));
    }
};

struct Wishes {
    DepthOptions depth;
    std::int64_t every = 2;
    double spread = 0.02, predictorWeight = 0.01;
};

Wishes wishesOf(const TrainOptions& options) {
    const Parameters values(options.recipe->info().parameters, options.parameters);
    Wishes wishes;
    wishes.depth = {values.real("mod_capacity"), read(kWeighings, values.text("mod_weighing"), "mod_weighing"), read(kPredictors, values.text("mod_predictor"), "mod_predictor")};
    wishes.every = values.integer("mod_every");
    wishes.spread = values.real("mod_std");
    wishes.predictorWeight = values.real("mod_predictor_weight");
    return wishes;
}

/// All weights of the model, as the recipe "full" trains them, and the routers.
class DepthParts final : public TrainedParts {
public:
    DepthParts(LanguageModel& model, const TrainingStart& start)
        : m_wishes(wishesOf(start.options)), m_base(start.base), m_shape(model.shape()), m_prefix(familyOf(model.shape()).blockPrefix), m_seed(start.seed) {
        if (m_base) requireNoExtensions(*m_base, "Mixture-of-Depths is trained on a checkpoint without");
        m_weights = recipe("full")->prepare(model, start);
        const auto blocks = routedBlocks(m_shape, m_wishes.every);
        if (blocks.empty()) throw Error(ErrorCode::Usage, "mod_every", "no block is routed: expected at most " + std::to_string(m_shape.numBlocks()));
        std::map<int, DepthWeights> initial;
        for (const int block : blocks) initial[block] = fresh(block);
        m_depth = attachDepth(model, m_wishes.depth, initial);
        m_depth->onChoice = [this](const Depth::Choice& choice) {
            if (m_isTraining) m_choices.push_back(choice);
        };
        for (auto& [block, own] : m_depth->weights)
            for (auto& [name, tensor] : own) tensor.set_requires_grad(true);
    }
    ~DepthParts() override { m_depth->onChoice = {}; }

    std::vector<TrainedTensor> tensors() override {
        auto list = m_weights->tensors();
        for (const auto& [block, own] : m_depth->weights)
            for (const auto& [name, tensor] : own) list.push_back({nameOf(block, name), tensor, tensor.dim() > 1});
        return list;
    }
    void setTraining(bool training) override {
        m_isTraining = training;
        m_depth->selection = training ? Selection::Best : Selection::Predicted;
    }
    void beginBatch(const TrainBatch&) override { m_choices.clear(); }
    torch::Tensor extraLoss() override {
        auto loss = predictorLoss(std::exchange(m_choices, {}));
        return loss.defined() ? (loss * m_wishes.predictorWeight).to(torch::kFloat32) : loss;
    }
    void reset() override {
        torch::NoGradGuard noGrad;
        m_weights->reset();
        for (auto& [block, own] : m_depth->weights) {
            const auto initial = fresh(block);
            for (auto& [name, tensor] : own) tensor.copy_(initial.at(name));
        }
    }
    torch::Tensor startValue(const std::string& name) const override { return isRouters(name) ? torch::Tensor() : m_weights->startValue(name); }
    void parametersChanged() override { m_weights->parametersChanged(); }

    std::vector<WrittenShard> save(const fs::path& folder, const Value& master) const override {
        auto written = m_weights->save(folder, master);
        std::vector<std::pair<std::string, torch::Tensor>> tensors;
        for (const auto& [block, own] : m_depth->weights)
            for (const auto& [name, tensor] : own) tensors.emplace_back(nameOf(block, name), master(nameOf(block, name)).detach().to(torch::kCPU));
        auto routers = writeTensors(folder / kFile, tensors);
        routers.fileName = kFile;
        written.push_back(std::move(routers));
        listExtension(folder, m_shape, kId, kFile, settingsOf(m_depth->options, m_prefix));
        return written;
    }
    std::uint64_t savedBytes() const noexcept override {
        std::uint64_t bytes = m_weights->savedBytes();
        for (const auto& [block, own] : m_depth->weights)
            for (const auto& [name, tensor] : own) bytes += 4 * static_cast<std::uint64_t>(tensor.numel());
        return bytes;
    }
    bool savesExactly(const std::string& name) const override { return isRouters(name) || m_weights->savesExactly(name); }
    std::map<std::string, torch::Tensor> load(const fs::path& folder) const override {
        auto values = m_weights->load(folder);
        for (const auto& [block, own] : readWeights(folder / kFile, m_prefix))
            for (const auto& [name, tensor] : own) values[nameOf(block, name)] = tensor;
        return values;
    }

private:
    DepthWeights fresh(int block) const { return initialWeights(m_wishes.depth, m_shape.of(block).hiddenSize, m_wishes.spread, m_seed + static_cast<std::uint64_t>(block)); }
    std::string nameOf(int block, const std::string& name) const { return m_prefix + std::to_string(block) + "." + name; }
    bool isRouters(const std::string& name) const {
        for (const auto& [block, own] : m_depth->weights)
            for (const auto& [part, tensor] : own)
                if (name == nameOf(block, part)) return true;
        return false;
    }

    Wishes m_wishes;
    const Checkpoint* m_base;
    ModelShape m_shape;
    std::string m_prefix;
    std::uint64_t m_seed;
    std::unique_ptr<TrainedParts> m_weights;
    std::shared_ptr<Depth> m_depth;
    std::vector<Depth::Choice> m_choices;   // of the batch that is running
    bool m_isTraining = false;
};

RecipeInfo describe() {
    RecipeInfo info{kId, "Mixture-of-Depths", "Trains the whole model with routers that let only the best tokens of each sequence through every other block.",
                    "Mixture-of-Depths: Dynamically allocating compute in transformer-based language models, arXiv 2404.02258, 2024", {}};
    using enum ParameterType;
    const auto choice = [](const char* name, const char* title, const char* help, std::vector<std::string> choices, bool advanced) {
        const auto first = choices.front();
        return ParameterInfo{name, title, help, Choice, "", first, -kNoBound, kNoBound, std::move(choices), advanced};
    };
    info.parameters = {
        {"mod_capacity", "Capacity", "Share of each sequence's tokens that a routed block runs for.", Real, "share", 0.125, 1e-6, 1, {}, false},
        {"mod_every", "Every", "Each so many-th block is routed; 2 is every other one.", Integer, "blocks", 2, 1, 1e6, {}, false},
        choice("mod_weighing", "Weigh by", "score: a token's output times its score, as published; sigmoid stays closer to a pretrained model; none leaves the router untrained by the text.",
               {"score", "sigmoid", "none"}, false),
        choice("mod_predictor", "Predictor", "What chooses tokens one by one when text is generated: a small network, a linear one, or the router itself.", {"mlp", "linear", "router"}, true),
        {"mod_predictor_weight", "Predictor weight", "Factor of the predictor's loss.", Real, "", 0.01, 0, 1000, {}, true},
        {"mod_std", "Initial spread", "Standard deviation of the new weights.", Real, "", 0.02, 0, 1, {}, true},
    };
    for (auto parameter : recipe("full")->info().parameters) {
        if (parameter.name == "layout") parameter.defaultValue = "padded";   // packed rows hold several sequences
        info.parameters.push_back(std::move(parameter));
    }
    return info;
}

class DepthRecipe final : public Recipe {
public:
    const RecipeInfo& info() const noexcept override { return m_info; }
    void check(const TrainOptions& options) const override {
        if (options.layout == RowLayout::Packed || options.layout == RowLayout::Auto)
            throw Error(ErrorCode::Usage, "layout", "tokens are chosen among those of one sequence, so rows must hold one: expected padded or chunks, found " + options.parameters.at("layout").get<std::string>());
    }
    RecipeSize size(const PlannedShape& model, const TrainOptions& options) const override {
        auto size = recipe("full")->size(model, options);
        const Wishes wishes = wishesOf(options);
        for (const int block : routedBlocks(model.shape, wishes.every)) {
            const std::int64_t hidden = model.shape.of(block).hiddenSize;
            const std::int64_t predictor = wishes.depth.predictor == Predictor::Mlp ? hidden / 2 * (hidden + 2) + 1 : wishes.depth.predictor == Predictor::Linear ? hidden + 1 : 0;
            size.parameters += hidden + predictor;
            size.added += hidden + predictor;
        }
        return size;
    }
    std::unique_ptr<TrainedParts> prepare(LanguageModel& model, const TrainingStart& start) const override { return std::make_unique<DepthParts>(model, start); }

private:
    RecipeInfo m_info = describe();
};

}  // namespace

std::shared_ptr<const Recipe> depthRecipe() { return std::make_shared<DepthRecipe>(); }
std::shared_ptr<const ModelExtension> depthExtension() { return std::make_shared<DepthExtension>(); }

}  // namespace resect::depth
