#include "core/export/config_rewrite.h"

#include "core/anatomy/family.h"
#include "core/anatomy/timm_config.h"
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
    int heads = 0, kvHeads = 0, headDim = 0;
    int denseWidth = 0, routedWidth = 0, experts = 0;
};

Sizes sizesOf(const ModelShape& shape) {
    Sizes sizes;
    int perGroup = 1;
    for (const BlockShape& block : shape.blocks) {
        sizes.kvHeads = std::max(sizes.kvHeads, block.numKvHeads);
        for (int heads : block.headsPerKv) perGroup = std::max(perGroup, heads);
        sizes.headDim = std::max(sizes.headDim, block.headDim);
        int& width = block.numExperts > 0 ? sizes.routedWidth : sizes.denseWidth;
        width = std::max(width, block.ffnSize);
        sizes.experts = std::max(sizes.experts, block.numExperts);
    }
    sizes.kvHeads = std::max(sizes.kvHeads, 1);
    sizes.heads = sizes.kvHeads * perGroup;
    return sizes;
}

/// Changes a size only when it is another one, so that fields that are absent by default stay so.
void setSize(Json& config, const char* field, int before, int after) {
    if (after > 0 && after != before && !config[field].is_array()) config[field] = after;
}

void setSizes(Json& config, const ModelShape& source, const ModelShape& result) {
    const Family& family = familyOf(result);
    const ConfigFields& fields = family.fields;
    const Sizes before = sizesOf(source), after = sizesOf(result);
    if (result.hiddenSize != source.hiddenSize) {
        config[fields.hidden] = result.hiddenSize;
        config[fields.eps] = result.normEps;
    }
    config[fields.heads] = after.heads;
    if (fields.kvHeads && (after.kvHeads != after.heads || config.contains(fields.kvHeads))) config[fields.kvHeads] = after.kvHeads;
    if (fields.headDim) {
        const bool explicitAlready = config.contains(fields.headDim) && !config[fields.headDim].is_null();
        if (explicitAlready || after.heads != before.heads || result.hiddenSize != source.hiddenSize || std::int64_t{after.heads} * after.headDim != result.hiddenSize)
            config[fields.headDim] = after.headDim;
    }
    setSize(config, fields.ffn, before.denseWidth, after.denseWidth);
    if (!family.moe || after.experts == 0) return;
    setSize(config, family.moe->width, before.routedWidth, after.routedWidth);
    setSize(config, family.moe->experts, before.experts, after.experts);
    if (family.moe->sharedWidth) {
        const auto widest = [](const ModelShape& shape) {
            int width = 0;
            for (const BlockShape& block : shape.blocks) width = std::max(width, block.sharedFfnSize);
            return width;
        };
        setSize(config, family.moe->sharedWidth, widest(source), widest(result));
    }
    if (!family.moe->sharedCount) return;
    for (const BlockShape& block : result.blocks)  // so many routed widths wide
        if (block.sharedFfnSize > 0) config[family.moe->sharedCount] = std::max(1, block.sharedFfnSize / after.routedWidth);
}

/// A step that says which blocks are mixtures does not survive dropped blocks; the list of dense ones does.
void listDenseBlocks(Json& config, const ModelShape& source) {
    const MoeFields* moe = familyOf(source).moe;
    const Json step = config.value("decoder_sparse_step", Json(1));
    if (!moe || moe->blocks != MoeFields::Blocks::SparseStep || !step.is_number_integer() || step.get<std::int64_t>() <= 1) return;
    Json dense = Json::array();
    for (int b = 0; b < source.numBlocks(); ++b)
        if (source.blocks[static_cast<std::size_t>(b)].numExperts == 0) dense.push_back(b);
    config["mlp_only_layers"] = std::move(dense);
    config["decoder_sparse_step"] = 1;
}

/// A family whose blocks differ by their index gets the explicit list that its newer configuration class reads, once the cut breaks the rule.
void setWindows(Json& config, const ModelShape& result, std::vector<Problem>& notes) {
    if (familyOf(result).window != Family::Window::Alternating) return;
    const auto listed = config.find("layer_types");
    if (listed != config.end() && !listed->is_null()) return;  // rewritten with the other lists
    bool byRule = true;
    Json types = Json::array();
    for (std::size_t i = 0; i < result.blocks.size(); ++i) {
        const bool slides = result.blocks[i].slidingWindow > 0;
        byRule = byRule && slides == (i % 2 == 0);
        types.push_back(slides ? "sliding_attention" : "full_attention");
    }
    const bool none = std::none_of(result.blocks.begin(), result.blocks.end(), [](const BlockShape& block) { return block.slidingWindow > 0; });
    if (byRule || (none && config.value("sliding_window", Json(1)).is_null())) return;
    config["layer_types"] = std::move(types);
    notes.push_back({Severity::Warning, "config.json: layer_types",
                     "Written out, because the remaining blocks no longer alternate between sliding and full attention: needs transformers 4.53 or newer.",
                     "Drop pairs of blocks to keep the rule that every runtime knows."});
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
        where = familyOf(result).fields.blocks;
    else
        for (int b = 0; b < read.numBlocks() && where == "shape"; ++b)
            if (!(read.blocks[static_cast<std::size_t>(b)] == expected.blocks[static_cast<std::size_t>(b)]))
                where = "sizes of block " + text(b);
    throw Error(ErrorCode::Internal, "config.json: " + where,
                "the rewritten configuration does not describe the tensors that are written");
}

}  // namespace

void setConfigDtype(Json& config, DType dtype) {
    const std::string value(torchName(dtype));
    bool written = false;
    for (const char* field : {"torch_dtype", "dtype"})
        if (config.contains(field)) {
            config[field] = value;
            written = true;
        }
    if (!written) config["torch_dtype"] = value;
}

namespace {

/// Each tower's configuration as that of a model of its own; where one cannot say its sizes, resect.json says those of all.
ConfigRewrite rewriteTowers(const Json& config, const ModelShape& source, const Cut& cut, const ModelShape& result, SliceWay way, std::optional<DType> dtype) {
    ConfigRewrite rewrite{config, nullptr, {}};
    removeCodePointers(rewrite.config, rewrite.notes);
    for (int tower = 0; tower < static_cast<int>(source.towers.size()); ++tower) {
        const BlockSpan span = blocksOf(source, tower);
        const Tower& own = source.towers[static_cast<std::size_t>(tower)];
        const ModelShape before = towerShape(source, tower), after = towerShape(result, tower);
        Json filled = config.value(own.configField, Json::object());
        if (filled.is_null() || filled.empty()) filled = Json::parse(familyOf(source).towers[static_cast<std::size_t>(tower)].whenMissing);
        if (!filled.contains("model_type")) filled["model_type"] = own.shape.modelType;
        const Json given = filled;
        Json complete = Json::parse(familyOf(own.shape).defaults);
        complete.update(filled);
        ConfigRewrite part = rewriteConfig(complete, before, {{cut.blocks.begin() + span.first, cut.blocks.begin() + span.last}, {}}, after, way, {});
        for (auto entry = complete.begin(); entry != complete.end(); ++entry)  // what was left out and still holds stays out
            if (!given.contains(entry.key()) && part.config.contains(entry.key()) && part.config[entry.key()] == entry.value()) part.config.erase(entry.key());
        part.config["model_type"] = own.shape.modelType;
        if (given.contains("architectures")) part.config["architectures"] = given["architectures"];
        else part.config.erase("architectures");
        Json ordered = Json::object();  // as the source has them, then what is new
        for (const Json& fields : {given, part.config})
            for (auto entry = fields.begin(); entry != fields.end(); ++entry)
                if (part.config.contains(entry.key())) ordered[entry.key()] = part.config[entry.key()];
        rewrite.config[own.configField] = std::move(ordered);
        for (Problem& note : part.notes) note.subject.insert(0, own.configField + ": "), rewrite.notes.push_back(std::move(note));
    }
    if (!source.link.featureBlocks.empty()) {
        const BlockSpan vision = blocksOf(result, 0);
        const Json given = config.value("vision_feature_layer", Json(-2));
        Json layers = Json::array();
        for (std::size_t i = 0; i < result.link.featureBlocks.size(); ++i) {
            const Json& old = given.is_array() ? given[i] : given;
            const int end = result.link.featureBlocks[i];
            layers.push_back(old.get<std::int64_t>() < 0 ? end - (vision.last - vision.first) - 1 : end);
        }
        rewrite.config["vision_feature_layer"] = given.is_array() ? layers : layers.front();
    }
    if (dtype) setConfigDtype(rewrite.config, *dtype);
    const bool stock = isUniform(result);
    rewrite.config["model_type"] = stock ? result.modelType : "resect";
    rewrite.config["architectures"] = Json::array({stock ? result.architecture : std::string("ResectForCausalLM")});
    if (!stock) rewrite.resect = resectConfigOf(result);
    checkReadsBack(rewrite, result);
    return rewrite;
}

ConfigRewrite rewriteTimm(const Json& config, const ModelShape& source, const ModelShape& result) {
    const bool stock = isUniform(result);
    ConfigRewrite rewrite{timmConfigAfter(config, source, result), nullptr, {}};
    if (rewrite.config.value("model_type", "") == "resect") rewrite.config.erase("model_type");
    if (result.modelType == "timm_wrapper") rewrite.config["model_type"] = result.modelType;
    if (!stock) {
        rewrite.config["model_type"] = "resect";
        rewrite.resect = resectConfigOf(result);
    }
    checkReadsBack(rewrite, result);
    return rewrite;
}

}  // namespace

ConfigRewrite rewriteConfig(const Json& config, const ModelShape& source, const Cut& cut, const ModelShape& result,
                            SliceWay way, std::optional<DType> dtype) {
    if (isTimmConfig(config)) return rewriteTimm(config, source, result);
    if (!source.towers.empty()) return rewriteTowers(config, source, cut, result, way, dtype);
    ConfigRewrite rewrite{config, nullptr, {}};
    std::vector<int> kept(source.blocks.size());
    std::iota(kept.begin(), kept.end(), 0);
    if (way != SliceWay::Zeroed) kept = keptBlocks(cut);
    checkPerBlockOverrides(config, cut);
    if (kept.size() != source.blocks.size()) listDenseBlocks(rewrite.config, source);
    if (kept.size() != source.blocks.size()) rewriteBlockFields(rewrite.config, source.numBlocks(), kept, rewrite.notes);
    removeCodePointers(rewrite.config, rewrite.notes);
    setSizes(rewrite.config, source, result);
    setWindows(rewrite.config, result, rewrite.notes);
    if (dtype) setConfigDtype(rewrite.config, *dtype);
    const bool stock = isUniform(result);
    const std::string modelType = stock ? result.modelType : "resect";
    if (stringField(rewrite.config, "model_type", "config.json", "") != modelType) {
        rewrite.config["model_type"] = modelType;
        rewrite.config["architectures"] = Json::array({stock ? result.architecture : std::string("ResectForCausalLM")});
    }
    if (!stock) rewrite.resect = resectConfigOf(result);
    if (stock) rewrite.config.erase("block_configs");  // of a source that came as DeciLM
    checkReadsBack(rewrite, result);
    return rewrite;
}

}  // namespace resect
