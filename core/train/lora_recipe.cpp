#include "core/anatomy/anatomy.h"
#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/export/peft_adapter.h"
#include "core/train/built_in_recipes.h"
#include "core/train/lora.h"
#include "core/train/trained_parts.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr double kNoBound = 1e300;

std::vector<std::string> splitList(const std::string& list) {
    std::vector<std::string> parts;
    std::string part;
    for (const char c : list + ",") {
        if (c != ',' && c != ' ') part += c;
        else if (!part.empty()) parts.push_back(std::exchange(part, {}));
    }
    return parts;
}

std::string loraModule(const Family& family, const LoraSite& site) { return family.blockPrefix + std::to_string(site.block) + "." + site.role; }

std::vector<float> values(const torch::Tensor& tensor) {
    const auto plain = tensor.detach().to(torch::kCPU, torch::kFloat32).contiguous();
    return {plain.data_ptr<float>(), plain.data_ptr<float>() + plain.numel()};
}

torch::Tensor matrix(const std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
    return torch::from_blob(const_cast<float*>(values.data()), {rows, columns}, torch::kFloat32).clone();
}

/// "self_attn.q_proj" of "model.layers.3.self_attn.q_proj.weight"; empty for what lies outside the blocks.
std::string roleOf(const ExpectedTensor& tensor) {
    if (tensor.block < 0 || tensor.shape.size() != 2) return {};
    const auto prefix = "." + std::to_string(tensor.block) + ".";
    const auto begin = tensor.name.find(prefix) + prefix.size();
    return tensor.name.substr(begin, tensor.name.rfind('.') - begin);
}

class LoraParts final : public TrainedParts {
public:
    LoraParts(LanguageModel& model, const TrainingStart& start)
        : m_family(familyOf(model.shape())), m_numBlocks(model.shape().numBlocks()), m_base(start.base ? start.base->folder().string() : std::string()),
          m_seed(start.seed), m_adapters(attachLora(model, loraOptions(start.options), start.seed)) {}

    std::vector<TrainedTensor> tensors() override {
        std::vector<TrainedTensor> list;
        for (const auto& site : m_adapters.sites) {
            list.push_back({loraModule(m_family, site) + ".lora_A.weight", site.layer->a()});
            list.push_back({loraModule(m_family, site) + ".lora_B.weight", site.layer->b()});
        }
        return list;
    }
    void setTraining(bool training) override { *m_adapters.training = training; }
    void reset() override { resetLora(m_adapters, m_seed); }

    std::vector<WrittenShard> save(const fs::path& folder, const Value& master) const override {
        const auto& options = m_adapters.options;
        LoraAdapter adapter;
        adapter.base = m_base;
        adapter.numBlocks = m_numBlocks;
        adapter.transposed = m_family.transposedLinears;
        adapter.dropout = options.dropout;
        if (m_family.image) adapter.taskType.clear();  // PEFT would wrap it as a language model
        for (const auto& site : m_adapters.sites) {
            const std::string module = loraModule(m_family, site);
            const auto a = master(module + ".lora_A.weight"), b = master(module + ".lora_B.weight");
            adapter.pairs.push_back({module, options.rank, a.size(1), b.size(0), options.scale() * options.rank, values(a), values(b)});
        }
        writeLoraAdapter(folder, adapter);
        return {};
    }
    std::uint64_t savedBytes() const noexcept override {
        std::uint64_t elements = 0;
        for (const auto& site : m_adapters.sites) elements += static_cast<std::uint64_t>(site.layer->a().numel() + site.layer->b().numel());
        return 4 * elements;
    }
    bool savesExactly(const std::string&) const override { return true; }
    std::map<std::string, torch::Tensor> load(const fs::path& folder) const override {
        std::map<std::string, torch::Tensor> weights;
        for (const auto& pair : readLoraAdapter(folder).pairs) {
            weights[pair.module + ".lora_A.weight"] = matrix(pair.a, pair.rank, pair.in);
            weights[pair.module + ".lora_B.weight"] = matrix(pair.b, pair.out, pair.rank);
        }
        return weights;
    }

private:
    const Family& m_family;
    int m_numBlocks;
    std::string m_base;
    std::uint64_t m_seed;
    LoraAdapters m_adapters;
};

RecipeInfo describeLora() {
    RecipeInfo info{"lora", "LoRA adapter", "Trains small low-rank matrices beside frozen weights; the result is an adapter that can be merged.",
                    "LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685, 2021", {}};
    using enum ParameterType;
    info.parameters = {
        {"lora_rank", "Rank", "Inner width of the adapters.", Integer, "", 8, 1, 65536, {}, false},
        {"lora_alpha", "Alpha", "The adapters' output is scaled by alpha / rank.", Real, "", 16.0, 1e-6, 1e6, {}, false},
        {"lora_dropout", "Dropout", "Share of adapter inputs that are zeroed while training.", Real, "", 0.0, 0, 0.95, {}, false},
        {"lora_targets", "Targets", "all-linear, attention, mlp, or names such as q_proj,v_proj, separated by commas.", Text, "", "all-linear", -kNoBound, kNoBound, {}, false},
        {"lora_rs", "Rank-stabilised", "Scale by alpha / sqrt(rank) instead.", Boolean, "", false, -kNoBound, kNoBound, {}, true},
        mergeParameter(),
    };
    for (auto& parameter : commonParameters({300, 1e-3, 0})) info.parameters.push_back(std::move(parameter));
    return info;
}

/// Exactly the weighted sum: ranks side by side, A stacked, B with its factor.
LoraAdapter fusedLora(std::span<const AdapterShare> shares) {
    LoraAdapter sum;
    std::map<std::string, LoraPair> pairs;
    for (const auto& share : shares) {
        const auto adapter = readLoraAdapter(share.folder);
        if (sum.base.empty()) sum.base = adapter.base, sum.transposed = adapter.transposed;
        for (const auto& pair : adapter.pairs) {
            auto& own = pairs[pair.module];
            const bool isFirst = own.rank == 0;
            if (!isFirst && (own.in != pair.in || own.out != pair.out)) throw Error(ErrorCode::Mismatch, share.folder.string() + ": " + pair.module, "has other sizes than in the adapters before");
            const auto a = matrix(pair.a, pair.rank, pair.in), b = matrix(pair.b, pair.out, pair.rank) * (share.factor * pair.alpha / double(pair.rank));
            own.a = values(isFirst ? a : torch::cat({matrix(own.a, own.rank, own.in), a}, 0));
            own.b = values(isFirst ? b : torch::cat({matrix(own.b, own.out, own.rank), b}, 1));
            own.module = pair.module, own.in = pair.in, own.out = pair.out;
            own.rank += pair.rank;
            own.alpha = double(own.rank);
        }
    }
    for (auto& [module, pair] : pairs) sum.pairs.push_back(std::move(pair));
    return sum;
}

class LoraRecipe final : public Recipe {
public:
    const RecipeInfo& info() const noexcept override { return m_info; }
    Kind kind() const noexcept override { return Kind::Adapter; }
    void check(const TrainOptions& options) const override { loraOptions(options); }
    RecipeSize size(const PlannedShape& model, const TrainOptions& options) const override {
        const ModelShape& shape = model.shape;
        const auto lora = loraOptions(options);
        RecipeSize size;
        size.activations = activationElementsPerToken(shape);
        for (const auto& tensor : expectedTensors(shape)) {
            const auto role = roleOf(tensor);
            if (role.empty() || std::ranges::none_of(lora.targets, [&](const auto& target) { return loraTargets(target, role); })) continue;
            size.parameters += lora.rank * (tensor.shape[0] + tensor.shape[1]);
            size.activations += static_cast<std::uint64_t>(lora.rank);
        }
        size.added = size.parameters;
        return size;
    }
    std::unique_ptr<TrainedParts> prepare(LanguageModel& model, const TrainingStart& start) const override { return std::make_unique<LoraParts>(model, start); }
    void writeCheckpoint(const Checkpoint& base, const fs::path& result, const fs::path& to, const JobContext& job) const override { mergeAdapter(base, result, to, job); }
    bool recognises(const fs::path& folder) const override { return fs::exists(folder / "adapter_config.json"); }
    void fuse(std::span<const AdapterShare> shares, const fs::path& to) const override { writeLoraAdapter(to, fusedLora(shares)); }
    void writePeft(const fs::path& adapter, const fs::path& to) const override { writeLoraAdapter(to, readLoraAdapter(adapter)); }

private:
    RecipeInfo m_info = describeLora();
};

}  // namespace

LoraOptions loraOptions(const TrainOptions& options) {
    const Parameters values(options.recipe->info().parameters, options.parameters);
    LoraOptions lora;
    lora.rank = static_cast<int>(values.integer("lora_rank"));
    lora.alpha = values.real("lora_alpha");
    lora.dropout = values.real("lora_dropout");
    lora.targets = splitList(values.text("lora_targets"));
    lora.rankStabilised = values.boolean("lora_rs");
    if (lora.targets.empty()) throw Error(ErrorCode::Usage, "lora_targets", "expected at least one target, found none");
    return lora;
}

std::shared_ptr<const Recipe> loraRecipe() { return std::make_shared<LoraRecipe>(); }

void mergeAdapter(const Checkpoint& base, const fs::path& adapterFolder, const fs::path& to, const JobContext& job) {
    const auto adapter = readLoraAdapter(adapterFolder);
    const Anatomy anatomy = Anatomy::of(base);
    const bool transposed = familyOf(anatomy.shape()).transposedLinears;
    for (const auto& problem : checkLoraAdapter(adapter, anatomy)) {
        if (problem.severity == Severity::Error) throw Error(ErrorCode::Mismatch, adapterFolder.string() + ": " + problem.subject, problem.message);
    }
    std::map<std::string, std::function<torch::Tensor(const torch::Tensor&)>> changed;
    for (const auto& pair : adapter.pairs) {
        changed[pair.module + ".weight"] = [&pair, transposed](const torch::Tensor& stored) {
            auto added = torch::matmul(matrix(pair.b, pair.out, pair.rank), matrix(pair.a, pair.rank, pair.in)) * (pair.alpha / double(pair.rank));
            if (transposed) added = added.t();
            return stored.to(torch::kFloat32) + added;
        };
    }
    writeChanged(base, changed, to, job);
}

}  // namespace resect
