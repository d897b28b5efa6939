#include "core/checkpoint/tensor_names.h"

#include "core/checkpoint/dtype.h"

#include <algorithm>
#include <map>
#include <string>

namespace resect {

namespace {

/// How the causal model of a family prefixes the tensors of its base model, and what the first part of those may be.
struct Prefix {
    std::string_view modelType, prefix;
    std::vector<std::string_view> first;
};

const Prefix& prefixOf(std::string_view modelType) {
    static const std::vector<Prefix> table{{"gpt2", "transformer.", {"wte.", "wpe.", "h.", "ln_f."}},
                                           {"vit", "vit.", {"embeddings.", "encoder.", "layernorm.", "pooler."}},
                                           {"deit", "deit.", {"embeddings.", "encoder.", "layernorm.", "pooler."}},
                                           {"*", "model.", {"embed_tokens.", "layers.", "norm."}}};
    return *std::find_if(table.begin(), table.end(), [&](const Prefix& row) { return row.modelType == modelType || row.modelType == "*"; });
}

/// Names within an MoE layer: the module, and the projections of one expert.
struct ExpertNames {
    std::string_view modelType, module, gate, up, down;
};
constexpr ExpertNames kExpertNames[] = {{"mixtral", "block_sparse_moe", "w1", "w3", "w2"}, {"*", "mlp", "gate_proj", "up_proj", "down_proj"}};

const ExpertNames& expertNamesOf(std::string_view modelType) {
    return *std::find_if(std::begin(kExpertNames), std::end(kExpertNames),
                         [&](const ExpertNames& row) { return row.modelType == modelType || row.modelType == "*"; });
}

void addPrefix(const Prefix& rule, std::vector<TensorInfo>& tensors, std::vector<Problem>& notes) {
    const auto bare = [&](const TensorInfo& tensor) {
        return std::any_of(rule.first.begin(), rule.first.end(), [&](std::string_view first) { return tensor.name.starts_with(first); });
    };
    const auto full = [&](const TensorInfo& tensor) { return tensor.name.starts_with(rule.prefix); };
    if (std::none_of(tensors.begin(), tensors.end(), bare) || std::any_of(tensors.begin(), tensors.end(), full)) return;
    for (TensorInfo& tensor : tensors)
        if (bare(tensor)) tensor.name.insert(0, rule.prefix);
    notes.push_back({Severity::Note, "tensor names", "stored without the prefix \"" + std::string(rule.prefix) + "\", as the base model alone is saved", ""});
}

/// Splits "model.layers.3.mlp.experts.gate_up_proj" into what stands before "mlp.experts." and what after; false when it is none.
bool isFused(const std::string& name, std::string_view& before, std::string_view& after) {
    const std::string_view text = name;
    for (std::string_view module : {".mlp.experts.", ".block_sparse_moe.experts."}) {
        const auto at = text.find(module);
        if (at == std::string_view::npos) continue;
        before = text.substr(0, at + 1);
        after = text.substr(at + module.size());
        return after == "gate_up_proj" || after == "down_proj" || after == "gate_up_proj.weight" || after == "down_proj.weight";
    }
    return false;
}

/// Part `index` of `count` equal parts of a tensor along its first axis.
TensorInfo part(const TensorInfo& whole, std::uint64_t index, std::uint64_t count, std::vector<std::int64_t> shape, std::string name) {
    TensorInfo info = whole;
    const std::uint64_t bytes = whole.bytes() / count;
    info.begin = whole.begin + index * bytes;
    info.end = info.begin + bytes;
    info.shape = std::move(shape);
    info.name = std::move(name);
    return info;
}

void splitExperts(const ExpertNames& names, std::vector<TensorInfo>& tensors, std::vector<Problem>& notes) {
    std::vector<TensorInfo> result;
    bool split = false;
    for (TensorInfo& tensor : tensors) {
        std::string_view before, after;
        const bool fits = isFused(tensor.name, before, after) && tensor.shape.size() == 3 && tensor.numel() > 0;
        const bool gateUp = fits && after.starts_with("gate_up");
        if (!fits || (gateUp && tensor.shape[1] % 2 != 0)) {
            result.push_back(std::move(tensor));
            continue;
        }
        split = true;
        const auto experts = static_cast<std::uint64_t>(tensor.shape[0]);
        for (std::uint64_t e = 0; e < experts; ++e) {
            const std::string stem = std::string(before) + std::string(names.module) + ".experts." + std::to_string(e) + ".";
            const auto named = [&](std::string_view projection) { return stem + std::string(projection) + ".weight"; };
            if (!gateUp) {
                result.push_back(part(tensor, e, experts, {tensor.shape[1], tensor.shape[2]}, named(names.down)));
                continue;
            }
            const std::vector<std::int64_t> half{tensor.shape[1] / 2, tensor.shape[2]};
            result.push_back(part(tensor, 2 * e, 2 * experts, half, named(names.gate)));
            result.push_back(part(tensor, 2 * e + 1, 2 * experts, half, named(names.up)));
        }
    }
    tensors = std::move(result);
    if (split) notes.push_back({Severity::Note, "experts", "stored as one tensor for all experts of a block; shown and exported one by one", ""});
}

/// Mixtral's layer is called mlp in newer files; the projections of single experts then have their newer names too.
void renameMixtral(std::vector<TensorInfo>& tensors, std::vector<Problem>& notes) {
    static const std::map<std::string_view, std::string_view> projections{{"gate_proj", "w1"}, {"up_proj", "w3"}, {"down_proj", "w2"}};
    bool renamed = false;
    for (TensorInfo& tensor : tensors) {
        const auto at = tensor.name.find(".mlp.");
        if (at == std::string::npos) continue;
        tensor.name.replace(at, 5, ".block_sparse_moe.");
        for (const auto& [newer, older] : projections)
            if (const auto found = tensor.name.find("." + std::string(newer) + "."); found != std::string::npos)
                tensor.name.replace(found + 1, newer.size(), older);
        renamed = true;
    }
    if (renamed) notes.push_back({Severity::Note, "tensor names", "stored with the names of transformers 5 (mlp); shown and exported as block_sparse_moe", ""});
}

/// LLaVA's parts have moved about: with or without "model." before them, with the language model's own "model." before or after its name, with the
/// tower's inner "vision_model." or not, and as the first code of its authors named them.
void renameLlava(std::vector<TensorInfo>& tensors, std::vector<Problem>& notes) {
    static const std::pair<std::string_view, std::string_view> starts[] = {
        {"vision_tower.vision_tower.", "vision_tower."},       {"mm_projector.0.", "multi_modal_projector.linear_1."}, {"mm_projector.2.", "multi_modal_projector.linear_2."},
        {"lm_head.", "language_model.lm_head."},               {"layers.", "language_model.model.layers."},            {"embed_tokens.", "language_model.model.embed_tokens."},
        {"norm.", "language_model.model.norm."}};
    bool renamed = false;
    for (TensorInfo& tensor : tensors) {
        std::string name = tensor.name;
        if (name.starts_with("model.")) name.erase(0, 6);
        for (const auto& [from, to] : starts)
            if (name.starts_with(from)) name.replace(0, from.size(), to);
        const auto insert = [&](std::string_view part, std::string_view missing, std::string_view orElse) {
            if (name.starts_with(part) && !name.substr(part.size()).starts_with(missing) && !name.substr(part.size()).starts_with(orElse)) name.insert(part.size(), missing);
        };
        insert("language_model.", "model.", "lm_head.");
        insert("vision_tower.", "vision_model.", "vision_model.");
        renamed = renamed || name != tensor.name;
        tensor.name = std::move(name);
    }
    if (renamed) notes.push_back({Severity::Note, "tensor names", "stored with names of another generation; shown and exported as transformers writes them", ""});
}

}  // namespace

void normaliseTensorNames(const Json& config, std::vector<TensorInfo>& tensors, std::vector<Problem>& notes) {
    const auto type = config.is_object() ? config.find("model_type") : config.end();
    if (!config.is_object() || type == config.end() || !type->is_string()) return;
    const auto& modelType = type->get_ref<const std::string&>();
    if (modelType == "resect") return;  // what we wrote has its names
    if (modelType == "llava") return renameLlava(tensors, notes);
    addPrefix(prefixOf(modelType), tensors, notes);
    splitExperts(expertNamesOf(modelType), tensors, notes);
    if (modelType == "mixtral") renameMixtral(tensors, notes);
}

}  // namespace resect
