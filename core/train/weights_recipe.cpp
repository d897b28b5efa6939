// Training of the model's own weights: "full" and "pretrain".
#include "core/anatomy/cost.h"
#include "core/anatomy/family.h"
#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/models/tensor_file.h"
#include "core/train/built_in_recipes.h"
#include "core/train/trained_parts.h"

#include <torch/types.h>

#include <algorithm>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr double kNoBound = 1e300;

std::optional<DType> forcedDtype(const std::string& saveDtype) {
    if (saveDtype == "f32") return DType::F32;
    if (saveDtype == "bf16") return DType::BF16;
    if (saveDtype == "f16") return DType::F16;
    return std::nullopt;
}

std::string configName(DType dtype) { return dtype == DType::F32 ? "float32" : dtype == DType::BF16 ? "bfloat16" : "float16"; }

/// The tensor in another dtype when its turn to be written comes.
TensorSource converted(std::string name, DType dtype, const torch::Tensor& value) {
    TensorSource source{std::move(name), dtype, value.sizes().vec(), {}};
    source.produce = [value, dtype](const auto& sink) {
        const auto ready = value.detach().to(torch::kCPU, scalarType(dtype)).contiguous();
        sink({static_cast<const std::byte*>(ready.data_ptr()), ready.nbytes()});
    };
    return source;
}

/// The tensors that a full fine-tuning leaves as they are unless asked: they hold most of a small model's parameters.
bool isOuter(const Family& family, const std::string& name) {
    using enum TensorRole;
    return name == tensorName(family, TokenEmbedding) || name == tensorName(family, LmHead) ||
           (family.learnedPositions && name == tensorName(family, PositionEmbedding));
}

bool trainsEmbeddings(const TrainOptions& options) { return options.parameters.value("train_embeddings", true); }

class Weights final : public TrainedParts {
public:
    Weights(LanguageModel& model, const TrainingStart& start)
        : m_base(start.base), m_family(familyOf(model.shape())), m_tiedEmbeddings(model.shape().tiedEmbeddings),
          m_forced(forcedDtype(start.options.parameters.at("save_dtype").get<std::string>())) {
        const bool outer = trainsEmbeddings(start.options);
        model.visitParameters([&](const std::string& name, torch::Tensor& parameter) {
            if (!outer && isOuter(m_family, name)) return;
            parameter.set_requires_grad(true);
            m_tensors.push_back({name, parameter, parameter.dim() >= 2});
        });
    }

    std::vector<TrainedTensor> tensors() override { return m_tensors; }
    /// A bf16 run starts from the stored values, not from their rounded copies.
    torch::Tensor startValue(const std::string& name) const override {
        if (!m_base) return {};
        const auto* info = m_base->find(name);
        if (!info) throw Error(ErrorCode::NotFound, m_base->folder().string() + ": " + name, "is trained, but not in the checkpoint");
        return storedTensor(*m_base, *info);
    }
    std::vector<WrittenShard> save(const fs::path& folder, const Value& master) const override;
    std::uint64_t savedBytes() const noexcept override { return m_base->totalBytes() * (m_forced == DType::F32 ? 2 : 1); }
    bool savesExactly(const std::string& name) const override {
        const auto* info = m_base->find(name);
        return (m_forced ? *m_forced : info ? info->dtype : DType::BF16) == DType::F32;
    }
    std::map<std::string, torch::Tensor> load(const fs::path& folder) const override {
        std::map<std::string, torch::Tensor> values;
        const auto saved = Checkpoint::open(folder);
        for (const auto& tensor : m_tensors) {
            const auto* info = saved.find(tensor.name);
            if (info && savesExactly(tensor.name)) values[tensor.name] = storedTensor(saved, *info);
        }
        return values;
    }

private:
    bool isTrained(const std::string& name) const {
        return std::ranges::any_of(m_tensors, [&](const TrainedTensor& tensor) { return tensor.name == name; });
    }
    const Checkpoint* m_base;
    const Family& m_family;
    bool m_tiedEmbeddings;
    std::optional<DType> m_forced;
    std::vector<TrainedTensor> m_tensors;
};

std::vector<WrittenShard> Weights::save(const fs::path& folder, const Value& master) const {
    std::vector<TensorSource> sources;
    for (const auto& info : m_base->tensors()) {
        auto name = info.name;
        // A tied head that is stored all the same follows the embedding.
        if (!isTrained(name) && m_tiedEmbeddings && name == tensorName(m_family, TensorRole::LmHead)) name = tensorName(m_family, TensorRole::TokenEmbedding);
        const auto dtype = m_forced && isFloat(info.dtype) ? *m_forced : info.dtype;
        if (isTrained(name)) sources.push_back(converted(info.name, dtype, master(name)));
        else if (dtype != info.dtype) sources.push_back(converted(info.name, dtype, storedTensor(*m_base, info)));
        else sources.push_back(copyOf(*m_base, info));
    }
    copyDescription(*m_base, folder);
    if (m_forced && m_base->config().is_object()) {
        auto config = m_base->config();
        config["torch_dtype"] = configName(*m_forced);
        writeJsonFile(folder / "config.json", config);
    }
    return writeShards(folder, sources, {}, {});
}

ParameterInfo saveDtype(std::vector<std::string> choices) {
    const auto first = choices.front();
    return {"save_dtype", "Save as", "Number format of the weights in checkpoints; training always continues from full precision.", ParameterType::Choice, "",
            first, -kNoBound, kNoBound, std::move(choices), true};
}

RecipeInfo describeFull() {
    RecipeInfo info{"full", "Full fine-tuning", "Trains every weight of the cut model.", "", commonParameters({300, 3e-4, 0.01})};
    info.parameters.push_back({"train_embeddings", "Train embeddings", "Also trains the token embedding and the output head.", ParameterType::Boolean, "", true,
                               -kNoBound, kNoBound, {}, true});
    info.parameters.push_back(saveDtype({"source", "f32", "bf16", "f16"}));
    return info;
}

RecipeInfo describePretrain() {
    RecipeInfo info{"pretrain", "Train from nothing", "Trains a model of the shape of a config.json from random weights.", "",
                    commonParameters({1000, 1e-3, 0.1}, Distilling::No)};
    info.parameters.push_back({"init_std", "Initial spread", "Standard deviation of the random weights.", ParameterType::Real, "", 0.02, 1e-6, 1, {}, true});
    info.parameters.push_back(saveDtype({"f32", "bf16", "f16"}));
    return info;
}

class WeightsRecipe final : public Recipe {
public:
    WeightsRecipe(RecipeInfo info, Origin origin) : m_info(std::move(info)), m_origin(origin) {}
    const RecipeInfo& info() const noexcept override { return m_info; }
    Origin origin() const noexcept override { return m_origin; }
    RecipeSize size(const PlannedShape& model, const TrainOptions& options) const override {
        const ModelShape& shape = model.shape;
        RecipeSize size;
        size.activations = activationElementsPerToken(shape);
        for (const auto& tensor : expectedTensors(shape)) {
            std::int64_t numel = 1;
            for (const auto side : tensor.shape) numel *= side;
            const bool outer = tensor.role == TensorRole::TokenEmbedding || tensor.role == TensorRole::LmHead;
            if (trainsEmbeddings(options) || !outer) size.parameters += numel;
        }
        return size;
    }
    std::unique_ptr<TrainedParts> prepare(LanguageModel& model, const TrainingStart& start) const override { return std::make_unique<Weights>(model, start); }

private:
    RecipeInfo m_info;
    Origin m_origin;
};

}  // namespace

std::shared_ptr<const Recipe> fullRecipe() { return std::make_shared<WeightsRecipe>(describeFull(), Recipe::Origin::Checkpoint); }
std::shared_ptr<const Recipe> pretrainRecipe() { return std::make_shared<WeightsRecipe>(describePretrain(), Recipe::Origin::RandomWeights); }

}  // namespace resect
