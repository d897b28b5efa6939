#include "core/train/trainee.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/export/carried_files.h"
#include "core/export/manifest.h"
#include "core/models/tensor_file.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>

namespace resect {

namespace fs = std::filesystem;

namespace {

const char* const kStateFile = "state/optimizer.safetensors";

[[noreturn]] void throwMissing(const std::string& file, const std::string& name) {
    throw Error(ErrorCode::Mismatch, file + ": " + name, "is missing; the checkpoint belongs to another run");
}

}  // namespace

void requireTrainable(const ModelShape& shape) {
    if (shape.towers.empty()) return;
    throw Error(ErrorCode::Unsupported, std::string(familyOf(shape).title), "a model of several towers cannot be trained here; it can be opened, cut, run and exported");
}

Trainee::Trainee(const TrainingStart& start, const LoadOptions& load) {
    auto wanted = load;
    wanted.trainable = false;
    m_model = LanguageModel::load(*start.base, wanted, start.job);
    requireTrainable(m_model->shape());
    m_parts = start.options.recipe->prepare(*m_model, start);
    for (const auto& tensor : m_parts->tensors()) addSlot(tensor, start.options.weightDecay);
    m_parts->parametersChanged();
}

void Trainee::addSlot(const TrainedTensor& tensor, double weightDecay) {
    torch::NoGradGuard noGrad;
    AdamWSlot slot;
    slot.name = tensor.name;
    slot.parameter = tensor.parameter;
    slot.master = tensor.parameter;
    const auto inF32 = torch::TensorOptions(tensor.parameter.device()).dtype(torch::kFloat32);
    if (tensor.parameter.scalar_type() != torch::kFloat32) slot.master = torch::zeros(tensor.parameter.sizes(), inF32);
    // In f32 the parameter holds its start already; a leaf made of a model in bf16 holds it rounded.
    if (m_model->dtype() != torch::kFloat32) begin(slot);
    slot.moment1 = torch::zeros(tensor.parameter.sizes(), inF32);
    slot.moment2 = torch::zeros(tensor.parameter.sizes(), inF32);
    slot.weightDecay = tensor.decays ? weightDecay : 0;
    m_slotOf[tensor.name] = m_slots.size();
    m_slots.push_back(std::move(slot));
}

void Trainee::setMaster(AdamWSlot& slot, const torch::Tensor& value) {
    torch::NoGradGuard noGrad;
    if (value.sizes() != slot.master.sizes()) throw Error(ErrorCode::Mismatch, slot.name, "has another shape in the file than in the model");
    slot.master.copy_(value);
    if (!slot.parameter.is_same(slot.master)) slot.parameter.copy_(slot.master);
}

void Trainee::begin(AdamWSlot& slot) {
    const auto value = m_parts->startValue(slot.name);
    setMaster(slot, value.defined() ? value : slot.parameter.detach());
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

void Trainee::takeStep(const AdamWStep& step) {
    adamwStep(m_slots, step);
    clearGradients();
    m_parts->parametersChanged();
}

void Trainee::reset() {
    torch::NoGradGuard noGrad;
    clearGradients();
    m_parts->reset();
    for (auto& slot : m_slots) {
        begin(slot);
        slot.moment1.zero_();
        slot.moment2.zero_();
    }
    m_parts->parametersChanged();
}

std::vector<WrittenShard> Trainee::save(const fs::path& folder) const {
    torch::NoGradGuard noGrad;
    auto written = m_parts->save(folder, [&](const std::string& name) { return m_slots[m_slotOf.at(name)].master.detach(); });
    std::vector<std::pair<std::string, torch::Tensor>> state;
    for (const auto& slot : m_slots) {
        if (!m_parts->savesExactly(slot.name)) state.emplace_back("master." + slot.name, slot.master.detach());
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
    std::uint64_t bytes = m_parts->savedBytes();
    for (const auto& slot : m_slots) bytes += static_cast<std::uint64_t>(slot.parameter.numel()) * (m_parts->savesExactly(slot.name) ? 8 : 12);
    return bytes;
}

void Trainee::restore(const fs::path& folder) {
    torch::NoGradGuard noGrad;
    clearGradients();
    const auto state = SafetensorsFile::open(folder / kStateFile);
    const auto fromState = [&](const std::string& name) {
        const auto* info = state.find(name);
        if (!info) throwMissing(state.path().string(), name);
        return readTensor(state, *info);
    };
    const auto saved = m_parts->load(folder);
    for (auto& slot : m_slots) {
        const auto found = saved.find(slot.name);
        if (!m_parts->savesExactly(slot.name)) setMaster(slot, fromState("master." + slot.name));
        else if (found != saved.end()) setMaster(slot, found->second);
        else throwMissing(folder.string(), slot.name);
        slot.moment1.copy_(fromState("moment1." + slot.name));
        slot.moment2.copy_(fromState("moment2." + slot.name));
    }
    m_parts->parametersChanged();
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

}  // namespace resect
