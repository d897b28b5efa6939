#include "plugins/s2ft/s2_recipe.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/method/method.h"
#include "core/train/trained_parts.h"
#include "plugins/s2ft/s2_adapter.h"
#include "plugins/s2ft/s2_linear.h"
#include "plugins/s2ft/s2_measure.h"
#include "plugins/s2ft/s2_scores.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

namespace resect::s2 {

namespace fs = std::filesystem;

namespace {

constexpr double kNoBound = 1e300;

struct Wishes {
    std::map<Part, Amount> amounts;
    std::string components, avoid;
    Ranking ranking{};
    End end{};
    Scope scope{};
    std::int64_t rankingRows = 0;
};

constexpr std::array<std::pair<Part, const char*>, 4> kLetters{{{Part::Output, "o"}, {Part::Down, "d"}, {Part::Value, "v"}, {Part::Up, "u"}}};

Wishes wishesOf(const TrainOptions& options) {
    const Parameters values(options.recipe->info().parameters, options.parameters);
    Wishes wishes;
    for (const auto& [part, letter] : kLetters)
        wishes.amounts[part] = {values.real(std::string(letter) + "_ratio"), values.integer(std::string(letter) + "_count")};
    wishes.components = values.text("components");
    wishes.avoid = values.text("avoid");
    wishes.ranking = rankingOf(values.text("ranking"));
    wishes.end = values.text("end") == "largest" ? End::Largest : End::Smallest;
    wishes.scope = values.text("scope") == "per_block" ? Scope::PerBlock : Scope::Global;
    wishes.rankingRows = values.integer("ranking_rows");
    return wishes;
}

std::map<Part, std::vector<Pool>> wantedPools(const ModelShape& shape, const Wishes& wishes) {
    std::map<Part, std::vector<Pool>> pools;
    for (const auto& [part, amount] : wishes.amounts) {
        if (!amount.any()) continue;
        pools[part] = poolsOf(shape, part);
        if (pools[part].empty()) throw Error(ErrorCode::Usage, std::string(name(part)) + " projections", "the model has none that could be trained");
    }
    return pools;
}

/// Units of each pool that another adapter trains.
std::vector<std::vector<int>> takenUnits(const std::vector<Pool>& pools, const Adapter& adapter) {
    std::vector<std::vector<int>> taken(pools.size());
    for (std::size_t i = 0; i < pools.size(); ++i) {
        const auto found = adapter.deltas.find(pools[i].tensor);
        if (found == adapter.deltas.end() || found->second.side != pools[i].side()) continue;
        for (const auto place : found->second.index) {
            const auto unit = (place - pools[i].offset) / pools[i].width;
            if (place >= pools[i].offset && unit < pools[i].units) taken[i].push_back(static_cast<int>(unit));
        }
    }
    return taken;
}

Selection chooseByScores(const std::map<Part, std::vector<Pool>>& pools, const std::map<Part, Scores>& scores, const Wishes& wishes) {
    std::optional<Adapter> avoided;
    if (!wishes.avoid.empty()) avoided = readAdapter(wishes.avoid);
    Selection selection;
    for (const auto& [part, list] : pools) {
        auto chosen = choose(list, scores.at(part), wishes.amounts.at(part), wishes.scope, wishes.end, avoided ? takenUnits(list, *avoided) : std::vector<std::vector<int>>{});
        std::ranges::move(chosen, std::back_inserter(selection));
    }
    return selection;
}

Selection chooseNow(LanguageModel& model, const TrainingStart& start) {
    const Wishes wishes = wishesOf(start.options);
    if (!wishes.components.empty()) return readSelection(wishes.components, model.shape(), start.source, start.cut);
    const auto pools = wantedPools(model.shape(), wishes);
    const bool probe = start.base == nullptr;   // random weights have no ranks
    const auto rows = start.rows.subspan(0, std::min(start.rows.size(), static_cast<std::size_t>(wishes.rankingRows)));
    return chooseByScores(pools, measureScores(model, pools, probe ? Ranking::Random : wishes.ranking, rows, start.options.batchRows, start.seed, start.job), wishes);
}

/// The selection of the run: made once, then read back, so that a resumed run trains the same.
Selection selectionOf(LanguageModel& model, const TrainingStart& start) {
    if (start.keep.empty()) return chooseNow(model, start);
    const auto file = start.keep / "selection.json";
    if (fs::exists(file)) {
        const Json kept = readJsonFile(file);
        if (!kept.contains("trained")) throw Error(ErrorCode::BadInput, file.string(), "trained: expected the list of what is trained, found nothing");
        return selectionFromJson(kept.at("trained"), model.shape(), file.string());
    }
    auto selection = chooseNow(model, start);
    fs::create_directories(start.keep);
    writeJsonFile(file, Json{{"resect_selection", 1}, {"trained", toJson(selection)}});
    return selection;
}

class S2Parts final : public TrainedParts {
public:
    S2Parts(LanguageModel& model, const TrainingStart& start, Selection selection)
        : m_transposed(familyOf(model.shape()).transposedLinears), m_base(start.base), m_numBlocks(model.shape().numBlocks()), m_training(start.options.parameters) {
        for (Trained& trained : selection) {
            S2Linear* layer = nullptr;
            model.replaceLinear(trained.pool.block, trained.pool.role, [&](std::unique_ptr<Linear> base) {
                auto made = std::make_unique<S2Linear>(std::move(base), trained.pool.side(), trained.pool.places(trained.units));
                layer = made.get();
                return made;
            });
            m_layers[trained.pool.tensor] = layer;
        }
        m_training["seed"] = start.seed;
    }

    std::vector<TrainedTensor> tensors() override {
        std::vector<TrainedTensor> list;
        for (auto& [name, layer] : m_layers) list.push_back({name + ".s2", layer->trained()});
        return list;
    }
    /// The stored values, from which a bf16 run starts rather than from their rounded copies.
    torch::Tensor startValue(const std::string& name) const override { return m_base ? baseSlice(name.substr(0, name.size() - 3)) : torch::Tensor(); }
    void parametersChanged() override {
        for (auto& [name, layer] : m_layers) layer->write();
    }

    std::vector<WrittenShard> save(const fs::path& folder, const Value& master) const override {
        Adapter adapter;
        adapter.base = m_base->folder().string();
        adapter.fingerprint = m_base->fingerprint();
        adapter.transposed = m_transposed;
        adapter.numBlocks = m_numBlocks;
        adapter.training = m_training;
        for (const auto& [name, layer] : m_layers) {
            const auto weight = layer->mergedWeight();
            Delta delta{layer->side(), weight.size(0), weight.size(1), {}, {}};
            const auto index = layer->index().to(torch::kCPU, torch::kInt32);
            delta.index.assign(index.data_ptr<std::int32_t>(), index.data_ptr<std::int32_t>() + index.numel());
            delta.value = master(name + ".s2").to(torch::kCPU) - baseSlice(name);
            adapter.deltas[name] = std::move(delta);
        }
        writeAdapter(folder, adapter);
        return {};
    }
    std::uint64_t savedBytes() const noexcept override {
        std::uint64_t elements = 0;
        for (const auto& [name, layer] : m_layers) elements += static_cast<std::uint64_t>(layer->trained().numel());
        return 4 * elements;
    }

private:
    /// f32 on the CPU, as stored in the base.
    torch::Tensor baseSlice(const std::string& name) const {
        const auto* info = m_base->find(name);
        if (!info) throw Error(ErrorCode::NotFound, m_base->folder().string() + ": " + name, "is trained, but not in the checkpoint");
        const auto stored = storedTensor(*m_base, *info);
        const auto& layer = *m_layers.at(name);
        return sliceOf(m_transposed ? stored.t() : stored, layer.side(), layer.index().to(torch::kCPU)).to(torch::kFloat32).contiguous();
    }
    bool m_transposed;
    const Checkpoint* m_base;
    int m_numBlocks;
    Json m_training;
    std::map<std::string, S2Linear*> m_layers;   // by tensor; owned by the model
};

ParameterInfo ratio(const char* letter, const char* title, const char* what, double value) {
    return {std::string(letter) + "_ratio", title, std::string("Share of ") + what + " that is trained, of all in the model.", ParameterType::Real, "", value, 0, 1, {}, false};
}

ParameterInfo count(const char* letter, const char* title, const char* what) {
    return {std::string(letter) + "_count", title, std::string("Number of ") + what + " instead of a share (per block when they are compared per block); 0 takes the share.",
            ParameterType::Integer, "units", 0, 0, 1e9, {}, true};
}

RecipeInfo describe() {
    RecipeInfo info{"s2ft", "S2FT: chosen heads and channels", "Trains the weights of a few heads and channels in place; everything else stays as it is, bit for bit.",
                    "S2FT: Efficient, Scalable and Generalizable LLM Fine-tuning by Structured Sparsity, arXiv 2412.06289, 2024", {}};
    using enum ParameterType;
    info.parameters = {
        ratio("o", "Heads", "query heads (columns of the attention's output projection)", 0.052),
        ratio("d", "Channels", "channels (columns of the down projection)", 0.02),
        {"ranking", "Choose by", "activation: how much passes through; weight: size of the trained slice; product of both; gradient of the loss; or at random.", Choice, "", "activation",
         -kNoBound, kNoBound, {"activation", "weight", "product", "gradient", "random"}, false},
        {"end", "Choose the", "Units with the smallest or the largest scores.", Choice, "", "smallest", -kNoBound, kNoBound, {"smallest", "largest"}, false},
        {"components", "Own selection", "Instead of a ranking: a list such as [{\"block\": 3, \"heads\": [1, 5]}, {\"block\": 4, \"channels\": [7]}] or a file that holds one; "
                                        "numbers are those of the model before the plan.", Text, "components", "", -kNoBound, kNoBound, {}, false},
        {"scope", "Compare", "Over the whole model, so that blocks get different numbers, or within each block.", Choice, "", "global", -kNoBound, kNoBound, {"global", "per_block"}, true},
        {"ranking_rows", "Rows for the ranking", "Training rows that the scores are measured on.", Integer, "rows", 128, 1, 1e9, {}, true},
        ratio("v", "KV groups", "kv groups (rows of the value projection; these keep the whole input for the backward pass)", 0),
        ratio("u", "Channels of up", "channels (rows of the up projection; these keep the whole input for the backward pass)", 0),
        count("o", "Heads, number", "heads"),
        count("d", "Channels, number", "channels"),
        count("v", "KV groups, number", "kv groups"),
        count("u", "Channels of up, number", "channels of the up projection"),
        {"avoid", "Leave out", "Folder of another S2FT adapter whose heads and channels are not chosen, so that both can be fused without disturbing each other.", Text, "", "",
         -kNoBound, kNoBound, {}, true},
        mergeParameter(),
    };
    for (const char* advanced : {"v_ratio", "u_ratio"})
        std::ranges::find_if(info.parameters, [&](const ParameterInfo& parameter) { return parameter.name == advanced; })->advanced = true;
    for (auto& parameter : commonParameters({300, 1e-3, 0})) info.parameters.push_back(std::move(parameter));
    return info;
}

class S2Recipe final : public Recipe {
public:
    const RecipeInfo& info() const noexcept override { return m_info; }
    Kind kind() const noexcept override { return Kind::Adapter; }
    void check(const TrainOptions& options) const override {
        const Wishes wishes = wishesOf(options);
        const bool any = std::ranges::any_of(wishes.amounts, [](const auto& entry) { return entry.second.any(); });
        if (!any && wishes.components.empty()) throw Error(ErrorCode::Usage, "o_ratio", "nothing is trained: every share and number is 0 and no selection is given");
    }

    /// Scores need the model, so a ranking is priced by numbers: every projection of a kind costs the same per unit unless the plan made blocks differ.
    RecipeSize size(const PlannedShape& model, const TrainOptions& options) const override {
        const ModelShape& shape = model.shape;
        const Wishes wishes = wishesOf(options);
        RecipeSize size;
        size.f32 = true;
        size.activations = 2 * static_cast<std::uint64_t>(shape.hiddenSize) + denseActivations(shape);
        const auto selection = chooseForPrice(model, wishes);
        for (const Trained& trained : selection) {
            size.parameters += trained.parameters();
            const auto places = static_cast<std::uint64_t>(trained.units.size()) * static_cast<std::uint64_t>(trained.pool.width);
            size.activations += trained.pool.side() == Side::In ? places : static_cast<std::uint64_t>(trained.pool.other);
        }
        size.added = size.parameters;
        return size;
    }
    std::unique_ptr<TrainedParts> prepare(LanguageModel& model, const TrainingStart& start) const override {
        auto selection = selectionOf(model, start);
        if (selection.empty()) throw Error(ErrorCode::Usage, "o_ratio", "the shares are so small that not a single head or channel is trained; raise one, or give a number");
        return std::make_unique<S2Parts>(model, start, std::move(selection));
    }
    void writeCheckpoint(const Checkpoint& base, const fs::path& result, const fs::path& to, const JobContext& job) const override {
        mergeOnto(base, readAdapter(result), to, job);
    }
    bool recognises(const fs::path& folder) const override { return isAdapter(folder); }
    void fuse(std::span<const AdapterShare> shares, const fs::path& to) const override {
        std::vector<Adapter> adapters;
        for (const auto& share : shares) adapters.push_back(readAdapter(share.folder));
        std::vector<Share> weighted;
        for (std::size_t i = 0; i < adapters.size(); ++i) weighted.push_back({&adapters[i], shares[i].factor});
        writeAdapter(to, fused(weighted));
    }
    void writePeft(const fs::path& adapter, const fs::path& to) const override { writeLoraAdapter(to, asPeft(readAdapter(adapter))); }

private:
    static Selection chooseForPrice(const PlannedShape& model, const Wishes& wishes) {
        if (!wishes.components.empty()) return readSelection(wishes.components, model.shape, model.source, model.cut);
        const auto pools = wantedPools(model.shape, wishes);
        std::map<Part, Scores> scores;
        for (const auto& [part, list] : pools) scores[part] = randomScores(list, 0);
        return chooseByScores(pools, scores, wishes);
    }
    /// Per token, of layers whose linear maps are frozen: their inputs are not kept.
    static std::uint64_t denseActivations(const ModelShape& shape) {
        const auto D = static_cast<std::uint64_t>(shape.hiddenSize);
        std::uint64_t sum = 0;
        for (const auto& block : shape.blocks) {
            const auto experts = static_cast<std::uint64_t>(block.numExperts > 0 ? std::max(1, shape.numExpertsPerToken) : 1);
            if (block.hasAttention) sum += D + 3 * static_cast<std::uint64_t>(block.numHeads + block.numKvHeads) * static_cast<std::uint64_t>(block.headDim);
            if (block.hasFfn) sum += D + 2 * static_cast<std::uint64_t>(block.ffnSize) * experts;
        }
        return sum;
    }
    RecipeInfo m_info = describe();
};

}  // namespace

std::shared_ptr<const Recipe> s2Recipe() { return std::make_shared<S2Recipe>(); }

}  // namespace resect::s2

extern "C" int resectPluginAbi() { return resect::kPluginAbi; }
extern "C" void resectRegister(resect::MethodRegistry& registry) {
    registry.add(std::make_unique<resect::s2::S2Measure>());
    registry.addRecipe(resect::s2::s2Recipe());
}
