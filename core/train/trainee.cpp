#include "core/train/trainee.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/export/carried_files.h"
#include "core/export/manifest.h"
#include "core/export/peft_adapter.h"
#include "core/models/tensor_file.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace resect {

namespace fs = std::filesystem;

namespace {

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

std::string loraModule(const Family& family, const LoraSite& site) { return family.blockPrefix + std::to_string(site.block) + "." + site.role; }

/// The tensors that a full fine-tuning leaves as they are unless asked: they hold most of a small model's parameters.
bool isOuter(const Family& family, const std::string& name) {
    using enum TensorRole;
    return name == tensorName(family, TokenEmbedding) || name == tensorName(family, LmHead) ||
           (family.learnedPositions && name == tensorName(family, PositionEmbedding));
}

std::vector<float> values(const torch::Tensor& tensor) {
    const auto plain = tensor.detach().to(torch::kCPU, torch::kFloat32).contiguous();
    return {plain.data_ptr<float>(), plain.data_ptr<float>() + plain.numel()};
}

torch::Tensor matrix(const std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
    return torch::from_blob(const_cast<float*>(values.data()), {rows, columns}, torch::kFloat32).clone();
}

void copyDescription(const Checkpoint& from, const fs::path& to) {
    copyCarriedFiles(from.folder(), to);
    for (const char* name : {"config.json", "resect.json"}) {
        if (fs::exists(from.folder() / name)) fs::copy_file(from.folder() / name, to / name, fs::copy_options::overwrite_existing);
    }
}

}  // namespace

Trainee::Trainee(const Checkpoint& base, const TrainOptions& options, const LoadOptions& load, std::uint64_t seed, const JobContext& job)
    : m_base(base), m_options(options), m_seed(seed) {
    auto wanted = load;
    wanted.trainable = !options.lora;
    m_model = LanguageModel::load(base, wanted, job);
    const Family& family = familyOf(m_model->shape());
    if (options.lora) {
        m_adapters = attachLora(*m_model, options.loraOptions, seed);
        for (const auto& site : m_adapters->sites) {
            addSlot(loraModule(family, site) + ".lora_A.weight", site.layer->a());
            addSlot(loraModule(family, site) + ".lora_B.weight", site.layer->b());
        }
        return;
    }
    m_model->visitParameters([&](const std::string& name, torch::Tensor& parameter) {
        if (!m_options.trainEmbeddings && isOuter(family, name)) parameter.set_requires_grad(false);
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
    m_slotOf[name] = m_slots.size();
    m_slots.push_back(std::move(slot));
}

const AdamWSlot& Trainee::slot(const std::string& name) const { return m_slots[m_slotOf.at(name)]; }

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

std::vector<WrittenShard> Trainee::saveWeights(const fs::path& folder) const {
    const auto forced = forcedDtype(m_options.saveDtype);
    const Family& family = familyOf(m_model->shape());
    std::vector<TensorSource> sources;
    for (const auto& info : m_base.tensors()) {
        auto found = m_slotOf.find(info.name);
        // A tied head that is stored all the same follows the embedding.
        if (found == m_slotOf.end() && info.name == tensorName(family, TensorRole::LmHead) && m_model->shape().tiedEmbeddings)
            found = m_slotOf.find(tensorName(family, TensorRole::TokenEmbedding));
        const auto dtype = forced && isFloat(info.dtype) ? *forced : info.dtype;
        if (found != m_slotOf.end()) sources.push_back(converted(info.name, dtype, m_slots[found->second].master));
        else if (dtype != info.dtype) sources.push_back(converted(info.name, dtype, storedTensor(m_base, info)));
        else sources.push_back(passedOn(m_base, info));
    }
    copyDescription(m_base, folder);
    if (forced && m_base.config().is_object()) {
        auto config = m_base.config();
        config["torch_dtype"] = configName(*forced);
        writeJsonFile(folder / "config.json", config);
    }
    return writeShards(folder, sources, {}, {});
}

void Trainee::saveAdapter(const fs::path& folder) const {
    const auto& options = m_adapters->options;
    LoraAdapter adapter;
    adapter.base = m_base.folder().string();
    adapter.numBlocks = m_model->shape().numBlocks();
    const Family& family = familyOf(m_model->shape());
    adapter.transposed = family.transposedLinears;
    adapter.dropout = options.dropout;
    if (m_model->shape().image) adapter.taskType.clear();
    for (const auto& site : m_adapters->sites) {
        const std::string module = loraModule(family, site);
        const auto& a = slot(module + ".lora_A.weight").master;
        const auto& b = slot(module + ".lora_B.weight").master;
        adapter.pairs.push_back({module, options.rank, a.size(1), b.size(0), options.scale() * options.rank, values(a), values(b)});
    }
    writeLoraAdapter(folder, adapter);
}

bool Trainee::isSavedExactly(const AdamWSlot& slot) const {
    if (m_adapters) return true;
    const auto* info = m_base.find(slot.name);
    const auto forced = forcedDtype(m_options.saveDtype);
    return (forced ? *forced : info ? info->dtype : DType::BF16) == DType::F32;
}

std::vector<WrittenShard> Trainee::save(const fs::path& folder) const {
    torch::NoGradGuard noGrad;
    std::vector<WrittenShard> written;
    if (m_adapters) saveAdapter(folder);
    else written = saveWeights(folder);
    std::vector<std::pair<std::string, torch::Tensor>> state;
    for (const auto& slot : m_slots) {
        if (!isSavedExactly(slot)) state.emplace_back("master." + slot.name, slot.master.detach());
        state.emplace_back("moment1." + slot.name, slot.moment1);
        state.emplace_back("moment2." + slot.name, slot.moment2);
    }
    fs::create_directories(folder / "state");
    auto optimiser = writeTensors(folder / kStateFile, state);
    optimiser.fileName = kStateFile;
    written.push_back(std::move(optimiser));
    return written;
}

std::uint64_t Trainee::savedBytes() const noexcept {
    std::uint64_t bytes = m_adapters ? 0 : m_base.totalBytes() * (m_options.saveDtype == "f32" ? 2 : 1);
    for (const auto& slot : m_slots) bytes += static_cast<std::uint64_t>(slot.parameter.numel()) * (isSavedExactly(slot) ? 8 : 12);
    return bytes;
}

void Trainee::restore(const fs::path& folder) {
    torch::NoGradGuard noGrad;
    clearGradients();
    const auto state = SafetensorsFile::open(folder / kStateFile);
    const auto fromState = [&](const std::string& name) {
        const auto* info = state.find(name);
        if (!info) throw Error(ErrorCode::Mismatch, state.path().string() + ": " + name, "is missing; the checkpoint belongs to another run");
        return readTensor(state, *info);
    };
    std::map<std::string, torch::Tensor> weights;
    if (m_adapters) {
        for (const auto& pair : readLoraAdapter(folder).pairs) {
            weights[pair.module + ".lora_A.weight"] = matrix(pair.a, pair.rank, pair.in);
            weights[pair.module + ".lora_B.weight"] = matrix(pair.b, pair.out, pair.rank);
        }
    }
    const auto saved = m_adapters ? std::nullopt : std::optional<Checkpoint>(Checkpoint::open(folder));
    for (auto& slot : m_slots) {
        const auto* info = saved ? saved->find(slot.name) : nullptr;
        const auto found = weights.find(slot.name);
        if (!isSavedExactly(slot)) setMaster(slot, fromState("master." + slot.name));
        else if (found != weights.end()) setMaster(slot, found->second);
        else if (info) setMaster(slot, storedTensor(*saved, *info));
        else throw Error(ErrorCode::Mismatch, folder.string() + ": " + slot.name, "is missing; the checkpoint belongs to another run");
        slot.moment1.copy_(fromState("moment1." + slot.name));
        slot.moment2.copy_(fromState("moment2." + slot.name));
    }
}

void writeRandomCheckpoint(const Json& config, const fs::path& sideFiles, double std, std::uint64_t seed, const fs::path& to) {
    const auto shape = readModelShape(config, Json(), "config.json");
    const auto model = LanguageModel::random(shape, {}, std, seed);
    std::map<std::string, torch::Tensor> values;
    model->visitParameters([&](const std::string& name, torch::Tensor& parameter) { values[name] = parameter.detach(); });
    StagedFolder staged(to);
    if (!sideFiles.empty()) copyCarriedFiles(sideFiles, staged.path());
    auto complete = config;
    if (!complete.contains("architectures")) complete["architectures"] = Json::array({familyOf(shape).architecture});
    complete["torch_dtype"] = "float32";
    writeJsonFile(staged.path() / "config.json", complete);
    std::vector<TensorSource> sources;
    for (const auto& expected : expectedTensors(shape)) sources.push_back(tensorSource(expected.name, values.at(expected.name)));
    writeManifest(staged.path(), writeShards(staged.path(), sources, {}, {}), {});
    staged.commit();
}

void mergeAdapter(const Checkpoint& base, const fs::path& adapterFolder, const fs::path& to, const JobContext& job) {
    const auto adapter = readLoraAdapter(adapterFolder);
    const Anatomy anatomy = Anatomy::of(base);
    const bool transposed = familyOf(anatomy.shape()).transposedLinears;
    for (const auto& problem : checkLoraAdapter(adapter, anatomy)) {
        if (problem.severity == Severity::Error) throw Error(ErrorCode::Mismatch, adapterFolder.string() + ": " + problem.subject, problem.message);
    }
    std::map<std::string, const LoraPair*> pairs;
    for (const auto& pair : adapter.pairs) pairs[pair.module + ".weight"] = &pair;
    std::vector<TensorSource> sources;
    for (const auto& info : base.tensors()) {
        const auto found = pairs.find(info.name);
        if (found == pairs.end()) {
            sources.push_back(passedOn(base, info));
            continue;
        }
        TensorSource source{info.name, info.dtype, info.shape, {}};
        source.produce = [&base, &info, pair = found->second, transposed](const auto& sink) {
            auto added = torch::matmul(matrix(pair->b, pair->out, pair->rank), matrix(pair->a, pair->rank, pair->in)) * (pair->alpha / double(pair->rank));
            if (transposed) added = added.t();
            const auto merged = (storedTensor(base, info).to(torch::kFloat32) + added).to(scalarType(info.dtype)).contiguous();
            sink({static_cast<const std::byte*>(merged.data_ptr()), merged.nbytes()});
        };
        sources.push_back(std::move(source));
    }
    StagedFolder staged(to);
    copyDescription(base, staged.path());
    writeManifest(staged.path(), writeShards(staged.path(), sources, {}, job), job);
    staged.commit();
}

}  // namespace resect
