#include "core/export/peft_adapter.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/surgery/convert.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>
#include <set>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "base_model.model.", kA = ".lora_A.weight", kB = ".lora_B.weight";
constexpr const char *kConfigName = "adapter_config.json", *kWeightsName = "adapter_model.safetensors";

std::string text(std::int64_t number) { return toText(number); }

std::string lastPart(const std::string& module) { return module.substr(module.rfind('.') + 1); }

/// Where the list of blocks is named in a module: "layers" of "model.layers.3.self_attn.q_proj", "h" of "transformer.h.3.attn.c_attn".
/// npos when no part is a number.
std::size_t stackPosition(const std::string& module, std::int64_t* block = nullptr) {
    std::size_t before = std::string::npos;
    for (std::size_t at = 0; at < module.size();) {
        const std::size_t end = std::min(module.find('.', at), module.size());
        if (const auto number = parseInt(std::string_view(module).substr(at, end - at)); number && before != std::string::npos) {
            if (block) *block = *number;
            return before;
        }
        before = at;
        at = end + 1;
    }
    return std::string::npos;
}

/// N of "model.layers.N.self_attn.q_proj", -1 when there is none.
std::int64_t blockOf(const std::string& module) {
    std::int64_t block = -1;
    stackPosition(module, &block);
    return block;
}

template <class T>
T commonest(const std::vector<T>& values) {
    std::map<T, int> counts;
    for (const T& value : values) ++counts[value];
    return std::max_element(counts.begin(), counts.end(), [](const auto& x, const auto& y) { return x.second < y.second; })
        ->first;
}

/// PEFT looks for the pattern at the end of the module's name, after a dot; so the leading "model." goes and the dots are
/// escaped.
std::string patternKey(const std::string& module) {
    const std::size_t at = stackPosition(module);
    std::string key;
    for (char c : at == std::string::npos ? module : module.substr(at))
        key += c == '.' ? std::string("\\.") : std::string(1, c);
    return key;
}

/// Short names ("q_proj") when each is adapted in every block, full names otherwise: a short name means all blocks to PEFT.
Json targetModules(const LoraAdapter& adapter) {
    std::map<std::string, std::set<std::int64_t>> blocks;
    std::set<std::string> full;
    bool everywhere = adapter.numBlocks > 0;
    for (const LoraPair& pair : adapter.pairs) {
        full.insert(pair.module);
        blocks[lastPart(pair.module)].insert(blockOf(pair.module));
    }
    for (const auto& [name, found] : blocks)
        everywhere = everywhere && !found.contains(-1) && static_cast<int>(found.size()) == adapter.numBlocks;
    Json names = Json::array();
    if (!everywhere) {
        for (const std::string& name : full) names.push_back(name);
    } else {
        for (const auto& [name, found] : blocks) names.push_back(name);
    }
    return names;
}

Json adapterConfig(const LoraAdapter& adapter) {
    std::vector<std::int64_t> ranks;
    std::vector<double> alphas;
    for (const LoraPair& pair : adapter.pairs) {
        ranks.push_back(pair.rank);
        alphas.push_back(pair.alpha);
    }
    const std::int64_t rank = commonest(ranks);
    const double alpha = commonest(alphas);
    const auto number = [](double value) {
        return value == std::floor(value) && std::fabs(value) < 1e15 ? Json(static_cast<std::int64_t>(value)) : Json(value);
    };
    Json config = Json::object();
    config["alpha_pattern"] = Json::object();
    config["auto_mapping"] = nullptr;
    config["base_model_name_or_path"] = adapter.base;
    config["bias"] = "none";
    config["fan_in_fan_out"] = adapter.transposed;
    config["inference_mode"] = true;
    config["init_lora_weights"] = true;
    config["layers_pattern"] = nullptr;
    config["layers_to_transform"] = nullptr;
    config["lora_alpha"] = number(alpha);
    config["lora_dropout"] = adapter.dropout;
    config["modules_to_save"] = nullptr;
    config["peft_type"] = "LORA";
    config["r"] = rank;
    config["rank_pattern"] = Json::object();
    config["revision"] = nullptr;
    config["target_modules"] = targetModules(adapter);
    config["task_type"] = adapter.taskType.empty() ? Json() : Json(adapter.taskType);
    config["use_dora"] = false;
    config["use_rslora"] = false;
    for (const LoraPair& pair : adapter.pairs) {
        if (pair.rank != rank) config["rank_pattern"][patternKey(pair.module)] = pair.rank;
        if (pair.alpha != alpha) config["alpha_pattern"][patternKey(pair.module)] = number(pair.alpha);
    }
    return config;
}

void checkPairs(const LoraAdapter& adapter) {
    if (adapter.pairs.empty()) throw Error(ErrorCode::BadInput, "adapter", "it adapts no layer");
    std::set<std::string> seen;
    for (const LoraPair& pair : adapter.pairs) {
        if (!seen.insert(pair.module).second) throw Error(ErrorCode::BadInput, pair.module, "it is adapted twice");
        const bool fits = pair.rank > 0 && pair.in > 0 && pair.out > 0 &&
                          static_cast<std::int64_t>(pair.a.size()) == pair.rank * pair.in &&
                          static_cast<std::int64_t>(pair.b.size()) == pair.out * pair.rank;
        if (!fits)
            throw Error(ErrorCode::BadInput, pair.module,
                        "A has " + text(static_cast<std::int64_t>(pair.a.size())) + " and B " +
                            text(static_cast<std::int64_t>(pair.b.size())) + " values, expected [" + text(pair.rank) + ", " +
                            text(pair.in) + "] and [" + text(pair.out) + ", " + text(pair.rank) + "]");
    }
}

TensorSource matrix(std::string name, std::vector<std::int64_t> shape, const std::vector<float>& values, DType dtype) {
    TensorSource source{std::move(name), dtype, std::move(shape), {}};
    source.produce = [&values, dtype, name = source.name](const std::function<void(std::span<const std::byte>)>& sink) {
        std::vector<std::byte> bytes(values.size() * sizeOf(dtype));
        if (convertElements(DType::F32, reinterpret_cast<const std::byte*>(values.data()), dtype, bytes.data(),
                            values.size()) >= 0)
            throw Error(ErrorCode::BadInput, name, "a value is too large for " + std::string(resect::name(dtype)));
        sink(bytes);
    };
    return source;
}

std::vector<float> values(const SafetensorsFile& file, const TensorInfo& tensor) {
    if (!canConvert(tensor.dtype, DType::F32))
        throw Error(ErrorCode::Unsupported, file.path().string() + ": " + tensor.name,
                    "expected floating-point values, found " + std::string(name(tensor.dtype)));
    std::vector<float> result(static_cast<std::size_t>(tensor.numel()));
    convertElements(tensor.dtype, file.bytes(tensor).data(), DType::F32, reinterpret_cast<std::byte*>(result.data()),
                    result.size());
    return result;
}

/// The value of the first pattern that matches the module's name, as PEFT looks it up.
double patternValue(const Json& config, const char* field, const std::string& module, double fallback,
                    const std::string& subject) {
    const auto patterns = config.find(field);
    if (patterns == config.end() || patterns->is_null()) return fallback;
    if (!patterns->is_object()) throw Error(ErrorCode::BadInput, subject + ": " + field, "expected an object");
    for (const auto& [key, value] : patterns->items()) {
        if (!value.is_number())
            throw Error(ErrorCode::BadInput, subject + ": " + field + ": " + key, "expected a number, found " + value.dump());
        try {
            if (std::regex_match(module, std::regex("(.*\\.)?(" + key + ")"))) return value.get<double>();
        } catch (const std::regex_error&) {
            throw Error(ErrorCode::BadInput, subject + ": " + field, "\"" + key + "\" is not a regular expression");
        }
    }
    return fallback;
}

void checkSupported(const Json& config, const std::string& subject) {
    const auto unsupported = [&](const char* field, const std::string& why) {
        throw Error(ErrorCode::Unsupported, subject + ": " + field, why);
    };
    if (const std::string type = stringField(config, "peft_type", subject); type != "LORA")
        unsupported("peft_type", "expected LORA, found " + type);
    if (const std::string bias = stringField(config, "bias", subject, "none"); bias != "none")
        unsupported("bias", "trained biases are not supported");
    if (boolField(config, "use_dora", subject, false)) unsupported("use_dora", "DoRA magnitudes are not supported");
    if (const auto saved = config.find("modules_to_save"); saved != config.end() && !saved->is_null() && !saved->empty())
        unsupported("modules_to_save", "modules saved beside the adapter are not supported: " + saved->dump());
}

LoraPair readPair(const SafetensorsFile& file, const Json& config, const TensorInfo& a, const std::string& subject) {
    LoraPair pair;
    pair.module = a.name.substr(kPrefix.size(), a.name.size() - kPrefix.size() - kA.size());
    const std::string where = file.path().string() + ": " + a.name;
    const TensorInfo* b = file.find(std::string(kPrefix) + pair.module + std::string(kB));
    if (!b) throw Error(ErrorCode::BadInput, where, "lora_A has no lora_B");
    if (a.shape.size() != 2 || b->shape.size() != 2 || a.shape[0] != b->shape[1])
        throw Error(ErrorCode::BadInput, where, "expected lora_A [rank, in] and lora_B [out, rank] of one rank");
    pair.rank = a.shape[0];
    pair.in = a.shape[1];
    pair.out = b->shape[0];
    const double rank =
        patternValue(config, "rank_pattern", pair.module, static_cast<double>(intField(config, "r", subject)), subject);
    if (rank != static_cast<double>(pair.rank))
        throw Error(ErrorCode::BadInput, where,
                    "the configuration says rank " + toText(rank) + ", the tensor has " + text(pair.rank));
    pair.alpha = patternValue(config, "alpha_pattern", pair.module, numberField(config, "lora_alpha", subject), subject);
    if (boolField(config, "use_rslora", subject, false)) pair.alpha *= std::sqrt(static_cast<double>(pair.rank));
    pair.a = values(file, a);
    pair.b = values(file, *b);
    return pair;
}

}  // namespace

void writeLoraAdapter(const fs::path& folder, const LoraAdapter& adapter, DType dtype, const JobContext& job) {
    checkPairs(adapter);
    if (!canConvert(DType::F32, dtype))
        throw Error(ErrorCode::Unsupported, "dtype", "adapters are written as F32, F16 or BF16");
    std::vector<TensorSource> tensors;
    for (const LoraPair& pair : adapter.pairs) {
        const std::string name = std::string(kPrefix) + pair.module;
        tensors.push_back(matrix(name + std::string(kA), {pair.rank, pair.in}, pair.a, dtype));
        tensors.push_back(matrix(name + std::string(kB), {pair.out, pair.rank}, pair.b, dtype));
    }
    writeSafetensors(folder / kWeightsName, tensors, {{"format", "pt"}}, job);
    writeJsonFile(folder / kConfigName, adapterConfig(adapter));
}

void exportLoraAdapter(const fs::path& to, const LoraAdapter& adapter, DType dtype, const JobContext& job) {
    if (fs::exists(to)) throw Error(ErrorCode::BadInput, to.string(), "the target exists already; choose a new name");
    StagedFolder staged(to);
    writeLoraAdapter(staged.path(), adapter, dtype, job);
    staged.commit();
}

LoraAdapter readLoraAdapter(const fs::path& path) {
    const fs::path folder = path.filename() == kConfigName ? path.parent_path() : path;
    const std::string subject = (folder / kConfigName).string();
    const Json config = readJsonFile(folder / kConfigName);
    checkSupported(config, subject);
    const SafetensorsFile file = SafetensorsFile::open(folder / kWeightsName);
    LoraAdapter adapter;
    adapter.base = stringField(config, "base_model_name_or_path", subject, "");
    adapter.dropout = numberField(config, "lora_dropout", subject, 0);
    adapter.transposed = boolField(config, "fan_in_fan_out", subject, false);
    for (const TensorInfo& tensor : file.tensors()) {
        const std::string where = file.path().string() + ": " + tensor.name;
        const bool isA = tensor.name.ends_with(kA), isB = tensor.name.ends_with(kB);
        if (!tensor.name.starts_with(kPrefix) || (!isA && !isB))
            throw Error(ErrorCode::Unsupported, where, "expected lora_A and lora_B weights of linear layers only");
        if (isA)
            adapter.pairs.push_back(readPair(file, config, tensor, subject));
        else if (!file.find(tensor.name.substr(0, tensor.name.size() - kB.size()) + std::string(kA)))
            throw Error(ErrorCode::BadInput, where, "lora_B has no lora_A");
    }
    if (adapter.pairs.empty()) throw Error(ErrorCode::BadInput, file.path().string(), "it adapts no layer");
    return adapter;
}

std::vector<Problem> checkLoraAdapter(const LoraAdapter& adapter, const Anatomy& base) {
    std::vector<Problem> problems;
    for (const LoraPair& pair : adapter.pairs) {
        const auto found = base.expected().find(pair.module + ".weight");
        if (found == base.expected().end()) {
            problems.push_back({Severity::Error, pair.module, "The base has no such layer.",
                                "The adapter belongs to another base: one with other blocks or layers."});
            continue;
        }
        std::vector<std::int64_t> shape = found->second.shape;
        if (familyOf(base.shape()).transposedLinears) std::reverse(shape.begin(), shape.end());
        if (shape != std::vector<std::int64_t>{pair.out, pair.in})
            problems.push_back({Severity::Error, pair.module,
                                "The adapter is made for " + text(pair.out) + " x " + text(pair.in) + ", the base has " +
                                    text(shape.at(0)) + " x " + text(shape.size() > 1 ? shape[1] : 1) + ".",
                                "Use it on the base that it names: " + adapter.base + "."});
    }
    return problems;
}

}  // namespace resect
