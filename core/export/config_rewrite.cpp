#include "core/export/config_rewrite.h"

#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/export/block_fields.h"
#include "core/export/verdict.h"

#include <algorithm>
#include <numeric>

namespace resect {

namespace {

[[noreturn]] void refuse(std::string_view field, std::string message) {
    throw Error(ErrorCode::Unsupported, "config.json: " + std::string(field), std::move(message));
}

std::string text(std::int64_t number) { return toText(number); }

std::string_view torchName(DType dtype) {
    switch (dtype) {
    case DType::F32:
        return "float32";
    case DType::F16:
        return "float16";
    case DType::BF16:
        return "bfloat16";
    default:
        throw Error(ErrorCode::Unsupported, "dtype",
                    "weights are written as F32, F16 or BF16, not " + std::string(name(dtype)));
    }
}

/// Scalars that hold for every block of a stock shape; the largest ones otherwise (resect.json then says the rest).
struct Sizes {
    int heads = 0, kvHeads = 0, headDim = 0, ffnSize = 0, experts = 0;
};

Sizes sizesOf(const ModelShape& shape) {
    Sizes sizes;
    int perGroup = 1;
    for (const BlockShape& block : shape.blocks) {
        sizes.kvHeads = std::max(sizes.kvHeads, block.numKvHeads);
        for (int heads : block.headsPerKv) perGroup = std::max(perGroup, heads);
        sizes.headDim = std::max(sizes.headDim, block.headDim);
        sizes.ffnSize = std::max(sizes.ffnSize, block.ffnSize);
        sizes.experts = std::max(sizes.experts, block.numExperts);
    }
    sizes.kvHeads = std::max(sizes.kvHeads, 1);
    sizes.heads = sizes.kvHeads * perGroup;
    return sizes;
}

void setSizes(Json& config, const ModelShape& source, const ModelShape& result) {
    const Sizes before = sizesOf(source), after = sizesOf(result);
    config["num_attention_heads"] = after.heads;
    if (after.kvHeads != after.heads || config.contains("num_key_value_heads")) config["num_key_value_heads"] = after.kvHeads;
    const bool explicitAlready = config.contains("head_dim") && !config["head_dim"].is_null();
    if (explicitAlready || after.heads != before.heads || std::int64_t{after.heads} * after.headDim != result.hiddenSize)
        config["head_dim"] = after.headDim;
    if (after.ffnSize > 0 && !config["intermediate_size"].is_array()) config["intermediate_size"] = after.ffnSize;
    if (after.experts == before.experts) return;
    for (const char* field : {"num_local_experts", "num_experts", "n_routed_experts"})
        if (config.contains(field)) config[field] = after.experts;
}

void setDtype(Json& config, DType dtype) {
    const std::string value(torchName(dtype));
    bool written = false;
    for (const char* field : {"torch_dtype", "dtype"})
        if (config.contains(field)) {
            config[field] = value;
            written = true;
        }
    if (!written) config["torch_dtype"] = value;
}

/// Quantised weights are refused when the configuration is read; code files are not carried over.
void removeCodePointers(Json& config, std::vector<Problem>& notes) {
    if (!config.contains("auto_map")) return;
    config.erase("auto_map");
    notes.push_back({Severity::Warning, "config.json: auto_map",
                     "Removed: it points to Python files, which are not carried over.",
                     "The stock class of the family opens the export."});
}

bool editsInside(const Cut& cut) {
    return std::any_of(cut.blocks.begin(), cut.blocks.end(),
                       [](const BlockCut& block) { return !block.block && !block.empty(); });
}

void checkPerBlockOverrides(const Json& config, const Cut& cut) {
    for (const char* field : {"per_layer_config", "pruned_heads"}) {
        const auto value = config.find(field);
        if (value != config.end() && !value->is_null() && !value->empty() && editsInside(cut))
            refuse(field,
                   "it overrides sizes of single blocks, which this edit changes too; only whole blocks can be dropped here");
    }
}

/// What was written must say what was cut; a field that works against it is our mistake or a contradiction in the source.
void checkReadsBack(const ConfigRewrite& rewrite, const ModelShape& result) {
    ModelShape read = readModelShape(rewrite.config, rewrite.resect, "config.json");
    ModelShape expected = result;
    expected.torchDtype = read.torchDtype;
    if (read == expected) return;
    std::string where = "shape";
    if (read.numBlocks() != expected.numBlocks())
        where = "num_hidden_layers";
    else
        for (int b = 0; b < read.numBlocks() && where == "shape"; ++b)
            if (!(read.blocks[static_cast<std::size_t>(b)] == expected.blocks[static_cast<std::size_t>(b)]))
                where = "sizes of block " + text(b);
    throw Error(ErrorCode::Internal, "config.json: " + where,
                "the rewritten configuration does not describe the tensors that are written");
}

}  // namespace

ConfigRewrite rewriteConfig(const Json& config, const ModelShape& source, const Cut& cut, const ModelShape& result,
                            SliceWay way, std::optional<DType> dtype) {
    ConfigRewrite rewrite{config, nullptr, {}};
    std::vector<int> kept(source.blocks.size());
    std::iota(kept.begin(), kept.end(), 0);
    if (way != SliceWay::Zeroed) kept = keptBlocks(cut);
    checkPerBlockOverrides(config, cut);
    if (kept.size() != source.blocks.size()) rewriteBlockFields(rewrite.config, source.numBlocks(), kept, rewrite.notes);
    removeCodePointers(rewrite.config, rewrite.notes);
    setSizes(rewrite.config, source, result);
    if (dtype) setDtype(rewrite.config, *dtype);
    const bool stock = isUniform(result);
    const std::string modelType = stock ? result.modelType : "resect";
    if (stringField(rewrite.config, "model_type", "config.json", "") != modelType) {
        rewrite.config["model_type"] = modelType;
        rewrite.config["architectures"] = Json::array({stock ? result.architecture : std::string("ResectForCausalLM")});
    }
    if (!stock) rewrite.resect = resectConfigOf(result);
    checkReadsBack(rewrite, result);
    return rewrite;
}

}  // namespace resect
