#include "plugins/s2ft/s2_adapter.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/models/tensor_file.h"
#include "core/train/trained_parts.h"
#include "plugins/s2ft/s2_linear.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace resect::s2 {

namespace fs = std::filesystem;

namespace {

constexpr const char *kConfigName = "s2_config.json", *kWeightsName = "adapter.safetensors";
constexpr std::string_view kIndex = ".s2.index", kDelta = ".s2.delta";
constexpr std::int64_t kVersion = 1;

std::string sizes(std::int64_t out, std::int64_t in) { return "[" + std::to_string(out) + ", " + std::to_string(in) + "]"; }

torch::Tensor indexTensor(const Delta& delta) {
    return torch::tensor(std::vector<std::int64_t>(delta.index.begin(), delta.index.end()), torch::kInt64);
}

void checkDelta(const Delta& delta, const std::string& subject) {
    const auto k = static_cast<std::int64_t>(delta.index.size());
    const std::int64_t end = delta.side == Side::In ? delta.in : delta.out;
    const auto expected = delta.side == Side::In ? std::array{delta.out, k} : std::array{k, delta.in};
    if (delta.value.sizes() != c10::IntArrayRef(expected))
        throw Error(ErrorCode::BadInput, subject, "expected a delta of " + sizes(expected[0], expected[1]) + ", found " + c10::str(delta.value.sizes()));
    if (!std::ranges::is_sorted(delta.index, std::less_equal<>()) || (k > 0 && (delta.index.front() < 0 || delta.index.back() >= end)))
        throw Error(ErrorCode::BadInput, subject, "expected ascending indices below " + std::to_string(end) + " without repeats");
}

Json configOf(const Adapter& adapter) {
    Json tensors = Json::object();
    for (const auto& [name, delta] : adapter.deltas) tensors[name] = {{"side", delta.side == Side::In ? "in" : "out"}, {"out", delta.out}, {"in", delta.in}};
    return {{"resect_s2ft", kVersion}, {"base", adapter.base},      {"fingerprint", adapter.fingerprint}, {"transposed", adapter.transposed},
            {"blocks", adapter.numBlocks}, {"training", adapter.training}, {"tensors", tensors}};
}

/// "model.layers.3" + "self_attn.o_proj" of a weight's name.
struct ModulePlace {
    int block = -1;
    std::string role;
};

ModulePlace placeOf(const LanguageModel& model, const std::string& tensor) {
    const std::string prefix = familyOf(model.shape()).blockPrefix;
    ModulePlace place;
    if (!tensor.starts_with(prefix) || !tensor.ends_with(".weight")) return place;
    const auto dot = tensor.find('.', prefix.size());
    place.block = std::atoi(tensor.substr(prefix.size(), dot - prefix.size()).c_str());
    place.role = tensor.substr(dot + 1, tensor.rfind('.') - dot - 1);
    if (place.block >= model.shape().numBlocks()) return {};
    const auto roles = model.linearRoles(place.block);
    return std::ranges::find(roles, place.role) == roles.end() ? ModulePlace{} : place;
}

/// Where every delta belongs in the model. Throws Mismatch before anything is changed.
std::vector<std::pair<const Delta*, ModulePlace>> placesIn(LanguageModel& model, const Adapter& adapter) {
    std::vector<std::pair<const Delta*, ModulePlace>> places;
    for (const auto& [name, delta] : adapter.deltas) {
        const auto place = placeOf(model, name);
        if (place.block < 0) throw Error(ErrorCode::Mismatch, name, "the model has no such linear map; the adapter belongs to another base");
        const auto weight = writableWeight(model, place.block, place.role);
        if (weight.size(0) != delta.out || weight.size(1) != delta.in)
            throw Error(ErrorCode::Mismatch, name, "the adapter is made for " + sizes(delta.out, delta.in) + ", the model has " + sizes(weight.size(0), weight.size(1)));
        places.emplace_back(&delta, place);
    }
    return places;
}

/// base + factor x delta in f32.
torch::Tensor changedSlice(const torch::Tensor& base, const torch::Tensor& delta, double factor) {
    return base.to(torch::kFloat32) + (factor == 1 ? delta : delta * factor);
}

}  // namespace

bool isAdapter(const fs::path& folder) { return fs::exists(folder / kConfigName); }

void writeAdapter(const fs::path& folder, const Adapter& adapter) {
    std::vector<std::pair<std::string, torch::Tensor>> tensors;
    for (const auto& [name, delta] : adapter.deltas) {
        checkDelta(delta, name);
        tensors.emplace_back(name + std::string(kIndex), torch::tensor(delta.index, torch::kInt32));
        tensors.emplace_back(name + std::string(kDelta), delta.value.contiguous());
    }
    writeTensors(folder / kWeightsName, tensors);
    writeJsonFile(folder / kConfigName, configOf(adapter));
}

Adapter readAdapter(const fs::path& folder) {
    const auto subject = (folder / kConfigName).string();
    const Json config = readJsonFile(folder / kConfigName);
    if (const auto version = intField(config, "resect_s2ft", subject); version != kVersion)
        throw Error(ErrorCode::BadInput, subject, "resect_s2ft: expected version 1, found " + std::to_string(version));
    Adapter adapter;
    adapter.base = stringField(config, "base", subject, "");
    adapter.fingerprint = stringField(config, "fingerprint", subject, "");
    adapter.transposed = boolField(config, "transposed", subject, false);
    adapter.numBlocks = static_cast<int>(intField(config, "blocks", subject, 0));
    if (config.contains("training")) adapter.training = config.at("training");
    if (!config.contains("tensors") || !config.at("tensors").is_object()) throw Error(ErrorCode::BadInput, subject, "tensors: expected an object");
    const auto file = SafetensorsFile::open(folder / kWeightsName);
    std::set<std::string> listed;
    for (const auto& [name, entry] : config.at("tensors").items()) {
        const auto where = file.path().string() + ": " + name;
        const auto *index = file.find(name + std::string(kIndex)), *value = file.find(name + std::string(kDelta));
        if (!index || !value) throw Error(ErrorCode::BadInput, where, "expected an index and a delta, found " + std::string(index || value ? "one of them" : "neither"));
        if (index->dtype != DType::I32 || index->shape.size() != 1 || !isFloat(value->dtype)) throw Error(ErrorCode::BadInput, where, "expected an int32 list and floating-point values");
        Delta delta;
        const auto side = stringField(entry, "side", subject + ": " + name);
        if (side != "in" && side != "out") throw Error(ErrorCode::BadInput, subject + ": " + name, "side: expected in or out, found " + side);
        delta.side = side == "in" ? Side::In : Side::Out;
        delta.out = intField(entry, "out", subject + ": " + name);
        delta.in = intField(entry, "in", subject + ": " + name);
        const auto indices = readTensor(file, *index);
        delta.index.assign(indices.data_ptr<std::int32_t>(), indices.data_ptr<std::int32_t>() + indices.numel());
        delta.value = readTensor(file, *value).to(torch::kFloat32);
        checkDelta(delta, where);
        listed.insert({index->name, value->name});
        adapter.deltas[name] = std::move(delta);
    }
    for (const auto& tensor : file.tensors())
        if (!listed.contains(tensor.name)) throw Error(ErrorCode::BadInput, file.path().string() + ": " + tensor.name, "is not listed in " + std::string(kConfigName));
    return adapter;
}

std::vector<Problem> checkAdapter(const Adapter& adapter, const Checkpoint& base) {
    std::vector<Problem> problems;
    for (const auto& [name, delta] : adapter.deltas) {
        const auto* info = base.find(name);
        if (!info) {
            problems.push_back({Severity::Error, name, "The base has no such tensor.", "The adapter belongs to another base: one with other blocks or layers."});
            continue;
        }
        auto shape = info->shape;
        if (adapter.transposed) std::ranges::reverse(shape);
        if (shape != std::vector<std::int64_t>{delta.out, delta.in})
            problems.push_back({Severity::Error, name, "The adapter is made for " + sizes(delta.out, delta.in) + ", the base has " + (shape.size() == 2 ? sizes(shape[0], shape[1]) : std::string("no matrix")) + ".",
                                "Use it on the base that it names: " + adapter.base + "."});
    }
    if (!adapter.fingerprint.empty() && adapter.fingerprint != base.fingerprint())
        problems.push_back({Severity::Warning, "fingerprint", "The adapter was trained on another checkpoint than " + base.folder().string() + ".",
                            "Use it on the base that it names: " + adapter.base + "."});
    return problems;
}

Adapter fused(std::span<const Share> shares) {
    torch::NoGradGuard noGrad;
    Adapter sum;
    if (shares.empty()) throw Error(ErrorCode::Usage, "fuse", "expected at least one adapter");
    const Adapter& first = *shares.front().adapter;
    sum.base = first.base;
    sum.fingerprint = first.fingerprint;
    sum.transposed = first.transposed;
    sum.numBlocks = first.numBlocks;
    std::map<std::string, std::set<std::int32_t>> unions;
    for (const auto& share : shares) {
        if (share.adapter->fingerprint != sum.fingerprint || share.adapter->transposed != sum.transposed)
            throw Error(ErrorCode::Mismatch, share.adapter->base, "the adapters were trained on different bases: " + sum.base + " and " + share.adapter->base);
        for (const auto& [name, delta] : share.adapter->deltas) {
            auto& own = sum.deltas[name];
            if (own.out == 0) own.side = delta.side, own.out = delta.out, own.in = delta.in;
            if (own.side != delta.side || own.out != delta.out || own.in != delta.in) throw Error(ErrorCode::Mismatch, name, "the adapters have other sizes or sides here");
            unions[name].insert(delta.index.begin(), delta.index.end());
        }
    }
    for (auto& [name, own] : sum.deltas) {
        own.index.assign(unions[name].begin(), unions[name].end());
        const int axis = own.side == Side::In ? 1 : 0;
        const auto k = static_cast<std::int64_t>(own.index.size());
        own.value = torch::zeros(axis == 1 ? std::vector<std::int64_t>{own.out, k} : std::vector<std::int64_t>{k, own.in}, torch::kFloat32);
        for (const auto& share : shares) {
            const auto found = share.adapter->deltas.find(name);
            if (found == share.adapter->deltas.end()) continue;
            std::vector<std::int64_t> places;
            for (const auto index : found->second.index) places.push_back(std::ranges::lower_bound(own.index, index) - own.index.begin());
            own.value.index_add_(axis, torch::tensor(places, torch::kInt64), share.factor == 1 ? found->second.value : found->second.value * share.factor);
        }
    }
    sum.training = Json::array();
    for (const auto& share : shares) sum.training.push_back({{"factor", share.factor}, {"training", share.adapter->training}});
    return sum;
}

LoraAdapter asPeft(const Adapter& adapter) {
    LoraAdapter peft;
    peft.base = adapter.base;
    peft.numBlocks = adapter.numBlocks;
    peft.transposed = adapter.transposed;
    for (const auto& [name, delta] : adapter.deltas) {
        if (delta.index.empty()) continue;
        LoraPair pair;
        pair.module = name.substr(0, name.rfind(".weight"));
        pair.rank = static_cast<std::int64_t>(delta.index.size());
        pair.alpha = static_cast<double>(pair.rank);
        pair.in = delta.in;
        pair.out = delta.out;
        const auto plain = delta.value.contiguous();
        const std::vector<float> values(plain.data_ptr<float>(), plain.data_ptr<float>() + plain.numel());
        std::vector<float> units(static_cast<std::size_t>(pair.rank * (delta.side == Side::In ? delta.in : delta.out)));
        for (std::int64_t i = 0; i < pair.rank; ++i) {
            const std::int64_t place = delta.index[static_cast<std::size_t>(i)];
            units[static_cast<std::size_t>(delta.side == Side::In ? i * delta.in + place : place * pair.rank + i)] = 1;
        }
        pair.a = delta.side == Side::In ? units : values;
        pair.b = delta.side == Side::In ? values : units;
        peft.pairs.push_back(std::move(pair));
    }
    return peft;
}

void mergeOnto(const Checkpoint& base, const Adapter& adapter, const fs::path& to, const JobContext& job) {
    for (const auto& problem : checkAdapter(adapter, base))
        if (problem.severity == Severity::Error) throw Error(ErrorCode::Mismatch, problem.subject, problem.message + " " + problem.advice);
    std::map<std::string, std::function<torch::Tensor(const torch::Tensor&)>> changed;
    for (const auto& [name, delta] : adapter.deltas) {
        changed[name] = [&delta, transposed = adapter.transposed](const torch::Tensor& stored) {
            torch::NoGradGuard noGrad;
            const auto weight = transposed ? stored.t() : stored;   // `stored` is a copy of the file's
            const auto index = indexTensor(delta);
            writeSlice(weight, delta.side, index, changedSlice(sliceOf(weight, delta.side, index), delta.value, 1));
            return stored;
        };
    }
    writeChanged(base, changed, to, job);
}

struct Switcher::Kept {
    torch::Tensor weight, index, base;
    Side side = Side::In;
};

Switcher::Switcher(LanguageModel& model) : m_model(model) {}
Switcher::~Switcher() { apply(nullptr); }

void Switcher::apply(const Adapter* adapter, double factor) {
    torch::NoGradGuard noGrad;
    for (const Kept& kept : m_kept) writeSlice(kept.weight, kept.side, kept.index, kept.base);
    m_kept.clear();
    if (!adapter) return;
    const auto places = placesIn(m_model, *adapter);
    for (const auto& [delta, place] : places) {
        Kept kept;
        kept.weight = writableWeight(m_model, place.block, place.role);
        kept.index = indexTensor(*delta).to(kept.weight.device());
        kept.side = delta->side;
        kept.base = sliceOf(kept.weight, kept.side, kept.index);
        writeSlice(kept.weight, kept.side, kept.index, changedSlice(kept.base, delta->value.to(kept.weight.device()), factor));
        m_kept.push_back(std::move(kept));
    }
}

struct Server::Shared {
    std::vector<int> adapterOfRow;
    int adapters = 0;
};

namespace {

/// One linear map with what several adapters add to it, row by row.
class ServedLinear final : public Linear {
public:
    struct Entry {
        int adapter = 0;
        Side side = Side::In;
        torch::Tensor index, value;   // in the model's dtype: In [out, k], Out [k, in]
    };
    ServedLinear(std::unique_ptr<Linear> base, std::shared_ptr<const std::vector<int>> rows) : m_base(std::move(base)), m_rows(std::move(rows)) {}
    std::vector<Entry> entries;

    torch::Tensor forward(const torch::Tensor& x_BTK) const override {
        auto y_BTO = m_base->forward(x_BTK);
        for (const Entry& entry : entries) {
            std::vector<std::int64_t> own;
            for (std::size_t row = 0; row < m_rows->size(); ++row)
                if ((*m_rows)[row] == entry.adapter) own.push_back(static_cast<std::int64_t>(row));
            if (own.empty()) continue;
            if (x_BTK.dim() != 3 || x_BTK.size(0) != static_cast<std::int64_t>(m_rows->size()))
                throw Error(ErrorCode::Usage, "adapters", "are assigned to " + std::to_string(m_rows->size()) + " rows, the batch has " + std::to_string(x_BTK.size(0)));
            const auto rows = torch::tensor(own, torch::kInt64).to(x_BTK.device());
            const auto x_nTK = x_BTK.index_select(0, rows);
            auto part_nTO = y_BTO.index_select(0, rows);
            if (entry.side == Side::In) part_nTO = part_nTO + torch::matmul(x_nTK.index_select(-1, entry.index), entry.value.t());
            else part_nTO.index_add_(-1, entry.index, torch::matmul(x_nTK, entry.value.t()));
            y_BTO.index_copy_(0, rows, part_nTO);
        }
        return y_BTO;
    }
    torch::Tensor mergedWeight() const override { return m_base->mergedWeight(); }
    torch::Tensor bias() const override { return m_base->bias(); }
    void visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) override { m_base->visitParameters(visit); }
    std::unique_ptr<Linear> takeBase() { return std::move(m_base); }

private:
    std::unique_ptr<Linear> m_base;
    std::shared_ptr<const std::vector<int>> m_rows;
};

}  // namespace

Server::Server(LanguageModel& model, std::span<const Adapter* const> adapters) : m_model(model), m_shared(std::make_shared<Shared>()) {
    torch::NoGradGuard noGrad;
    std::map<std::pair<int, std::string>, std::vector<ServedLinear::Entry>> entries;
    for (std::size_t i = 0; i < adapters.size(); ++i)
        for (const auto& [delta, place] : placesIn(model, *adapters[i])) {
            if (place.role.find("experts.") != std::string::npos)
                throw Error(ErrorCode::Unsupported, "block " + std::to_string(place.block) + ", " + place.role, "adapters of experts cannot be served row by row; merge or switch them");
            entries[{place.block, place.role}].push_back({static_cast<int>(i), delta->side, indexTensor(*delta).to(model.device()), delta->value.to(model.device(), model.dtype())});
        }
    const std::shared_ptr<const std::vector<int>> rows(m_shared, &m_shared->adapterOfRow);
    for (auto& [place, list] : entries) {
        model.replaceLinear(place.first, place.second, [&, own = &list](std::unique_ptr<Linear> base) {
            auto served = std::make_unique<ServedLinear>(std::move(base), rows);
            served->entries = std::move(*own);
            return served;
        });
        m_places.push_back(place);
    }
    m_shared->adapters = static_cast<int>(adapters.size());
}

Server::~Server() {
    for (const auto& [block, role] : m_places)
        m_model.replaceLinear(block, role, [](std::unique_ptr<Linear> served) { return static_cast<ServedLinear&>(*served).takeBase(); });
}

void Server::assign(std::vector<int> adapterOfRow) {
    if (std::ranges::any_of(adapterOfRow, [&](int adapter) { return adapter < -1 || adapter >= m_shared->adapters; }))
        throw Error(ErrorCode::Usage, "adapters", "expected -1 to " + std::to_string(m_shared->adapters - 1) + " for every row");
    m_shared->adapterOfRow = std::move(adapterOfRow);
}

}  // namespace resect::s2
