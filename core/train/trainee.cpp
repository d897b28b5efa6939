#include "core/train/trainee.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/models/tensor_file.h"
#include "core/train/peft_files.h"

#include <torch/torch.h>

#include <algorithm>
#include <set>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kEmbedding = "model.embed_tokens.weight", kHead = "lm_head.weight";
const char* const kStateFile = "state/optimizer.safetensors";

torch::Tensor storedTensor(const Checkpoint& checkpoint, const TensorInfo& info) {
    return readTensor(checkpoint.shards()[static_cast<std::size_t>(info.shard)], info);
}

TensorSource passedOn(const Checkpoint& checkpoint, const TensorInfo& info) {
    TensorSource source{info.name, info.dtype, info.shape, {}};
    source.produce = [&checkpoint, &info](const auto& sink) { sink(checkpoint.bytes(info)); };
    return source;
}

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

bool isSideFile(const fs::path& file) {
    const auto name = file.filename().string();
    static const std::set<std::string> kOwn{"manifest.json", "training_log.json"};
    return !name.starts_with(".") && !name.ends_with(".safetensors") && !name.ends_with(".safetensors.index.json") && !name.ends_with(".bin") &&
           !name.ends_with(".gguf") && !name.ends_with(".h5") && !kOwn.contains(name);
}

}  // namespace

Trainee::Trainee(const Checkpoint& base, const TrainOptions& options, const LoadOptions& load, std::uint64_t seed, const JobContext& job)
    : m_base(base), m_options(options), m_seed(seed) {
    auto wanted = load;
    wanted.trainable = !options.lora;
    m_model = LanguageModel::load(base, wanted, job);
    if (options.lora) {
        m_adapters = attachLora(*m_model, options.loraOptions, seed);
        for (const auto& site : m_adapters->sites) {
            addSlot(loraParameterName(site, 'A'), site.layer->a());
            addSlot(loraParameterName(site, 'B'), site.layer->b());
        }
        return;
    }
    m_model->visitParameters([&](const std::string& name, torch::Tensor& parameter) {
        if (!m_options.trainEmbeddings && (name == kEmbedding || name == kHead)) parameter.set_requires_grad(false);
        else addSlot(name, parameter);
    });
}

void Trainee::addSlot(const std::string& name, torch::Tensor& parameter) {
    torch::NoGradGuard noGrad;
    AdamWSlot slot;
    slot.name = name;
    slot.parameter = parameter;
    slot.master = parameter;
    const auto inF32 = torch::TensorOptions(parameter.device()).dtype(torch::kFloat32);
    if (parameter.scalar_type() != torch::kFloat32) {
        slot.master = torch::zeros(parameter.sizes(), inF32);
        // A bf16 run starts from the stored values, not from their rounded copies.
        setMaster(slot, m_adapters ? parameter.detach() : baseValue(name));
    }
    slot.moment1 = torch::zeros(parameter.sizes(), inF32);
    slot.moment2 = torch::zeros(parameter.sizes(), inF32);
    slot.weightDecay = parameter.dim() >= 2 ? m_options.weightDecay : 0;
    m_slots.push_back(std::move(slot));
}

torch::Tensor Trainee::baseValue(const std::string& name) const {
    const auto* info = m_base.find(name);
    if (!info) throw Error(ErrorCode::NotFound, m_base.folder().string() + ": " + name, "is trained, but not in the checkpoint");
    return storedTensor(m_base, *info);
}

void Trainee::setMaster(AdamWSlot& slot, const torch::Tensor& value) {
    torch::NoGradGuard noGrad;
    if (value.sizes() != slot.master.sizes()) throw Error(ErrorCode::Mismatch, slot.name, "has another shape in the file than in the model");
    slot.master.copy_(value);
    if (!slot.parameter.is_same(slot.master)) slot.parameter.copy_(slot.master);
}

void Trainee::setTraining(bool training) {
    if (m_adapters) *m_adapters->training = training;
}

std::int64_t Trainee::trainableParameters() const noexcept {
    std::int64_t total = 0;
    for (const auto& slot : m_slots) total += slot.parameter.numel();
    return total;
}

bool Trainee::parametersAreFinite() const {
    torch::NoGradGuard noGrad;
    return std::ranges::all_of(m_slots, [](const AdamWSlot& slot) { return torch::isfinite(slot.master).all().item<bool>(); });
}

void Trainee::collectGradients() {
    torch::NoGradGuard noGrad;
    for (auto& slot : m_slots) {
        auto& gradient = slot.parameter.mutable_grad();
        if (!gradient.defined()) continue;
        if (slot.parameter.is_same(slot.master)) {
            slot.gradient = gradient.contiguous();  // autograd itself adds up in f32
            continue;
        }
        if (slot.gradient.defined()) slot.gradient = slot.gradient.to(torch::kFloat32).add_(gradient);
        else slot.gradient = gradient.contiguous();
        gradient = torch::Tensor();
    }
}

void Trainee::clearGradients() {
    for (auto& slot : m_slots) {
        slot.parameter.mutable_grad() = torch::Tensor();
        slot.gradient = torch::Tensor();
    }
}

void Trainee::reset() {
    torch::NoGradGuard noGrad;
    clearGradients();
    if (m_adapters) resetLora(*m_adapters, m_seed);
    for (auto& slot : m_slots) {
        if (!m_adapters) setMaster(slot, baseValue(slot.name));
        else if (!slot.parameter.is_same(slot.master)) slot.master.copy_(slot.parameter);
        slot.moment1.zero_();
        slot.moment2.zero_();
    }
}

void Trainee::saveWeights(const fs::path& folder, const JobContext& job) const {
    std::map<std::string, const AdamWSlot*> byName;
    for (const auto& slot : m_slots) byName[slot.name] = &slot;
    const auto forced = forcedDtype(m_options.saveDtype);
    std::vector<TensorSource> sources;
    for (const auto& info : m_base.tensors()) {
        auto found = byName.find(info.name);
        // A tied head that is stored all the same follows the embedding.
        if (found == byName.end() && info.name == kHead && m_model->shape().tiedEmbeddings) found = byName.find(std::string(kEmbedding));
        const auto dtype = forced && isFloat(info.dtype) ? *forced : info.dtype;
        if (found != byName.end()) sources.push_back(converted(info.name, dtype, found->second->master));
        else if (dtype != info.dtype) sources.push_back(converted(info.name, dtype, storedTensor(m_base, info)));
        else sources.push_back(passedOn(m_base, info));
    }
    copySideFiles(m_base.folder(), folder);
    if (forced && m_base.config().is_object()) {
        auto config = m_base.config();
        config["torch_dtype"] = configName(*forced);
        writeJsonFile(folder / "config.json", config);
    }
    writeShards(folder, sources, {}, job);
}

void Trainee::save(const fs::path& folder) const {
    torch::NoGradGuard noGrad;
    std::map<std::string, const AdamWSlot*> byName;
    for (const auto& slot : m_slots) byName[slot.name] = &slot;
    if (m_adapters) savePeftAdapter(*m_adapters, m_base.folder(), folder, [&](const std::string& name) { return byName.at(name)->master.detach(); });
    else saveWeights(folder, {});
    std::vector<std::pair<std::string, torch::Tensor>> state;
    for (const auto& slot : m_slots) {
        const auto* info = m_base.find(slot.name);
        const auto forced = forcedDtype(m_options.saveDtype);
        const bool exact = m_adapters || (forced ? *forced == DType::F32 : info && info->dtype == DType::F32);
        if (!exact) state.emplace_back("master." + slot.name, slot.master.detach());
        state.emplace_back("moment1." + slot.name, slot.moment1);
        state.emplace_back("moment2." + slot.name, slot.moment2);
    }
    fs::create_directories(folder / "state");
    writeTensors(folder / kStateFile, state);
}

void Trainee::restore(const fs::path& folder) {
    torch::NoGradGuard noGrad;
    clearGradients();
    const auto state = SafetensorsFile::open(folder / kStateFile);
    const auto weights = m_adapters ? std::nullopt : std::optional<Checkpoint>(Checkpoint::open(folder));
    const auto adapter = m_adapters ? std::optional<SafetensorsFile>(SafetensorsFile::open(folder / "adapter_model.safetensors")) : std::nullopt;
    const auto fromFile = [](const SafetensorsFile& file, const std::string& name) {
        const auto* info = file.find(name);
        if (!info) throw Error(ErrorCode::Mismatch, file.path().string() + ": " + name, "is missing; the checkpoint belongs to another run");
        return readTensor(file, *info);
    };
    for (auto& slot : m_slots) {
        if (state.find("master." + slot.name)) setMaster(slot, fromFile(state, "master." + slot.name));
        else if (adapter) setMaster(slot, fromFile(*adapter, "base_model.model." + slot.name));
        else if (const auto* info = weights->find(slot.name)) setMaster(slot, storedTensor(*weights, *info));
        else throw Error(ErrorCode::Mismatch, folder.string() + ": " + slot.name, "is missing; the checkpoint belongs to another run");
        slot.moment1.copy_(fromFile(state, "moment1." + slot.name));
        slot.moment2.copy_(fromFile(state, "moment2." + slot.name));
    }
}

std::vector<std::string> copySideFiles(const fs::path& from, const fs::path& to) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(from)) {
        if (!entry.is_regular_file() || !isSideFile(entry.path())) continue;
        fs::copy_file(entry.path(), to / entry.path().filename(), fs::copy_options::overwrite_existing);
        names.push_back(entry.path().filename().string());
    }
    std::ranges::sort(names);
    return names;
}

void writeRandomCheckpoint(const Json& config, const fs::path& sideFiles, double std, std::uint64_t seed, const fs::path& to) {
    const auto shape = readModelShape(config, Json(), "config.json");
    const auto model = LanguageModel::random(shape, {}, std, seed);
    std::map<std::string, torch::Tensor> values;
    model->visitParameters([&](const std::string& name, torch::Tensor& parameter) { values[name] = parameter.detach(); });
    StagedFolder staged(to);
    if (!sideFiles.empty()) copySideFiles(sideFiles, staged.path());
    auto complete = config;
    const auto* family = findFamily(shape.modelType);
    if (!complete.contains("architectures") && family) complete["architectures"] = Json::array({family->architecture});
    complete["torch_dtype"] = "float32";
    writeJsonFile(staged.path() / "config.json", complete);
    std::vector<TensorSource> sources;
    for (const auto& expected : expectedTensors(shape)) sources.push_back(tensorSource(expected.name, values.at(expected.name)));
    writeShards(staged.path(), sources, {}, {});
    staged.commit();
}

void mergeAdapter(const Checkpoint& base, const fs::path& adapterFolder, const fs::path& to, const JobContext& job) {
    const auto adapter = readPeftAdapter(adapterFolder);
    std::set<std::string> unused;
    for (const auto& [name, pair] : adapter.pairs) unused.insert(name);
    std::vector<TensorSource> sources;
    for (const auto& info : base.tensors()) {
        const auto found = adapter.pairs.find(info.name);
        if (found == adapter.pairs.end()) {
            sources.push_back(passedOn(base, info));
            continue;
        }
        unused.erase(info.name);
        const auto& pair = found->second;
        if (info.shape != std::vector<std::int64_t>{pair.b.size(0), pair.a.size(1)})
            throw Error(ErrorCode::Mismatch, adapterFolder.string() + ": " + info.name, "the adapter has another shape than the weight; it belongs to another model");
        TensorSource source{info.name, info.dtype, info.shape, {}};
        source.produce = [&base, &info, &pair](const auto& sink) {
            const auto added = torch::matmul(pair.b, pair.a) * pair.scale;
            const auto merged = (storedTensor(base, info).to(torch::kFloat32) + added).to(scalarType(info.dtype)).contiguous();
            sink({static_cast<const std::byte*>(merged.data_ptr()), merged.nbytes()});
        };
        sources.push_back(std::move(source));
    }
    if (!unused.empty()) throw Error(ErrorCode::Mismatch, adapterFolder.string() + ": " + *unused.begin(), "the base has no such weight; the adapter belongs to another model");
    StagedFolder staged(to);
    copySideFiles(base.folder(), staged.path());
    writeShards(staged.path(), sources, {}, job);
    staged.commit();
}

}  // namespace resect
