#include "plugins/router_tuning/router_files.h"

#include "core/anatomy/anatomy.h"
#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/manifest.h"
#include "core/models/tensor_file.h"
#include "core/train/trained_parts.h"

#include <torch/types.h>

#include <array>
#include <charconv>

namespace resect::router {

namespace fs = std::filesystem;

namespace {

constexpr const char *kConfigName = "router_config.json", *kWeightsName = "routers.safetensors";
constexpr std::int64_t kVersion = 1;
constexpr std::string_view kEnding = ".router.weight";

std::string tensorOf(const std::string& prefix, int block) { return prefix + std::to_string(block) + std::string(kEnding); }

/// What running the routers takes.
Json settingsOf(const GateOptions& gate, const std::string& prefix) {
    return {{"granularity", spelling(gate)}, {"threshold", gate.threshold}, {"pool", gate.pool == Pool::All ? "all" : "prompt"},
            {"prompt_tokens", gate.promptTokens}, {"prefix", prefix}};
}

GateOptions gateFrom(const Json& settings, const std::string& subject) {
    GateOptions gate;
    readSpelling(gate, stringField(settings, "granularity", subject), subject + ": granularity");
    gate.threshold = numberField(settings, "threshold", subject, 0.5);
    const auto pool = stringField(settings, "pool", subject, "prompt");
    if (pool != "prompt" && pool != "all") throw Error(ErrorCode::BadInput, subject + ": pool", "expected prompt or all, found \"" + pool + "\"");
    gate.pool = pool == "all" ? Pool::All : Pool::Prompt;
    gate.promptTokens = intField(settings, "prompt_tokens", subject, gate.promptTokens);
    if (gate.promptTokens < 0) throw Error(ErrorCode::BadInput, subject + ": prompt_tokens", "expected 0 or more, found " + std::to_string(gate.promptTokens));
    return gate;
}

std::map<int, torch::Tensor> readWeights(const fs::path& file, const std::string& prefix) {
    std::map<int, torch::Tensor> weights;
    for (auto& [name, tensor] : readTensors(file)) {
        const auto subject = file.string() + ": " + name;
        const auto digits = std::string_view(name).substr(std::min(name.size(), prefix.size()));
        int block = -1;
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), block);
        if (!name.starts_with(prefix) || error != std::errc{} || std::string_view(end, digits.data() + digits.size()) != kEnding)
            throw Error(ErrorCode::BadInput, subject, "expected a router's name such as " + tensorOf(prefix, 3));
        if (!tensor.is_floating_point() || tensor.dim() != 2 || tensor.size(0) != 1) throw Error(ErrorCode::BadInput, subject, "expected floating-point numbers [1, hidden], found " + c10::str(tensor.sizes()));
        if (!torch::isfinite(tensor).all().item<bool>()) throw Error(ErrorCode::BadInput, subject, "holds values that are not finite");
        weights[block] = tensor;
    }
    if (weights.empty()) throw Error(ErrorCode::BadInput, file.string(), "holds no router");
    return weights;
}

class RouterExtension final : public ModelExtension {
public:
    std::string id() const override { return kExtensionId; }
    void attach(LanguageModel& model, const Json& settings, const fs::path& file) const override {
        const auto subject = "resect.json: extensions: " + id();
        attachRouters(model, gateFrom(settings, subject), readWeights(file, stringField(settings, "prefix", subject)));
    }
};

/// is_mod: for each block whether it has a router.
Json isRouted(const RouterAdapter& adapter) {
    Json list = Json::array();
    for (int block = 0; block < adapter.numBlocks; ++block) list.push_back(adapter.weights.contains(block));
    return list;
}

}  // namespace

bool isRouterAdapter(const fs::path& folder) { return fs::exists(folder / kConfigName) && fs::exists(folder / kWeightsName); }

void writeRouterAdapter(const fs::path& folder, const RouterAdapter& adapter) {
    std::vector<std::pair<std::string, torch::Tensor>> tensors;
    for (const auto& [block, weight] : adapter.weights) tensors.emplace_back(tensorOf(adapter.prefix, block), weight.detach().to(torch::kCPU).contiguous());
    writeTensors(folder / kWeightsName, tensors);
    Json config{{"resect_method", "router_tuning"}, {"version", kVersion}, {"base", adapter.base}, {"fingerprint", adapter.fingerprint}, {"is_mod", isRouted(adapter)}};
    config.update(settingsOf(adapter.gate, adapter.prefix));
    config["mod_capacity"] = adapter.capacity.is_object() ? adapter.capacity.value("target", Json()) : Json();
    config["gradient_scale"] = adapter.training.is_object() ? adapter.training.value("lambda", Json()) : Json();
    config["capacity"] = adapter.capacity;
    config["training"] = adapter.training;
    writeJsonFile(folder / kConfigName, config);
}

RouterAdapter readRouterAdapter(const fs::path& folder) {
    const auto subject = (folder / kConfigName).string();
    const Json config = readJsonFile(folder / kConfigName);
    if (const auto method = stringField(config, "resect_method", subject); method != "router_tuning")
        throw Error(ErrorCode::BadInput, subject, "resect_method: expected router_tuning, found \"" + method + "\"");
    if (const auto version = intField(config, "version", subject); version != kVersion)
        throw Error(ErrorCode::Unsupported, subject, "version: expected 1, found " + std::to_string(version) + ": written by a newer Resect");
    RouterAdapter adapter;
    adapter.gate = gateFrom(config, subject);
    adapter.base = stringField(config, "base", subject, "");
    adapter.fingerprint = stringField(config, "fingerprint", subject, "");
    adapter.prefix = stringField(config, "prefix", subject);
    if (!config.contains("is_mod") || !config.at("is_mod").is_array()) throw Error(ErrorCode::BadInput, subject, "is_mod: expected a list with one entry for each block");
    adapter.numBlocks = static_cast<int>(config.at("is_mod").size());
    adapter.weights = readWeights(folder / kWeightsName, adapter.prefix);
    if (const auto listed = config.at("is_mod"); listed != isRouted(adapter))
        throw Error(ErrorCode::BadInput, subject, "is_mod: names other blocks than " + std::string(kWeightsName) + " has routers for");
    adapter.training = config.value("training", Json());
    adapter.capacity = config.value("capacity", Json());
    return adapter;
}

void checkFits(const RouterAdapter& adapter, const ModelShape& shape, const std::string& subject) {
    if (adapter.numBlocks != shape.numBlocks())
        throw Error(ErrorCode::Mismatch, subject, "the routers are made for " + std::to_string(adapter.numBlocks) + " blocks, the model has " + std::to_string(shape.numBlocks()));
    for (const auto& [block, weight] : adapter.weights) {
        const auto where = subject + ": " + tensorOf(adapter.prefix, block);
        if (const auto hidden = shape.of(block).hiddenSize; weight.size(1) != hidden)
            throw Error(ErrorCode::Mismatch, where, "expected [1, " + std::to_string(hidden) + "], found " + c10::str(weight.sizes()));
        const auto missing = missingLayer(shape.blocks[static_cast<std::size_t>(block)], adapter.gate.target);
        if (!missing.empty()) throw Error(ErrorCode::Mismatch, where, "the block has no " + missing + " layer");
    }
}

void writeRoutedCheckpoint(const Checkpoint& base, const RouterAdapter& adapter, const fs::path& to, const JobContext& job) {
    const auto anatomy = Anatomy::of(base);
    checkFits(adapter, anatomy.shape(), adapter.base.empty() ? "routers" : "routers of " + adapter.base);
    requireNoExtensions(base, "routers are added last, to a checkpoint without");
    StagedFolder staged(to);
    copyDescription(base, staged.path());
    std::vector<TensorSource> sources;
    for (const auto& info : base.tensors()) sources.push_back(copyOf(base, info));
    const auto shards = writeShards(staged.path(), sources, {}, job);
    std::vector<std::pair<std::string, torch::Tensor>> tensors;
    for (const auto& [block, weight] : adapter.weights) tensors.emplace_back(tensorOf(adapter.prefix, block), weight.contiguous());
    writeTensors(staged.path() / kWeightsName, tensors);
    listExtension(staged.path(), anatomy.shape(), kExtensionId, kWeightsName, settingsOf(adapter.gate, adapter.prefix));
    writeManifest(staged.path(), shards, job);
    staged.commit();
}

std::shared_ptr<const ModelExtension> routerExtension() { return std::make_shared<RouterExtension>(); }

}  // namespace resect::router
