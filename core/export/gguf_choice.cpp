#include "core/export/gguf_choice.h"

#include "core/base/error.h"
#include "core/export/verdict.h"
#include "core/surgery/slice_plan.h"

#include <algorithm>

namespace resect {

namespace {

constexpr int kStandInMlp = 256;  ///< width of an MLP of zeros: a multiple of every block size

void setGroups(BlockShape& block, int groups, int headsPerGroup) {
    block.hasAttention = true;
    block.numKvHeads = groups;
    block.headsPerKv.assign(static_cast<std::size_t>(groups), headsPerGroup);
    block.numHeads = groups * headsPerGroup;
}

bool fits(const GgufArchitecture* architecture, const ModelShape& shape) { return architecture && ggufObstacles(*architecture, shape).empty(); }

}  // namespace

Cut withoutEmptyBlocks(const ModelShape& source, Cut cut) {
    for (std::size_t b = 0; b < cut.blocks.size(); ++b)
        if (keptHeads(source.blocks[b], cut.blocks[b]).empty() && keptChannels(source.blocks[b], cut.blocks[b]).empty()) cut.blocks[b].block = true;
    return cut;
}

ModelShape perBlockShape(const GgufArchitecture& architecture, ModelShape shape) {
    const bool attentionEverywhere = architecture.tiedOnly;
    for (std::size_t b = 0; b < shape.blocks.size(); ++b) {
        BlockShape& block = shape.blocks[b];
        if (block.hasAttention) setGroups(block, block.numKvHeads, *std::max_element(block.headsPerKv.begin(), block.headsPerKv.end()));
        else if (b == 0 || attentionEverywhere) setGroups(block, 1, 1);
        if (block.hasFfn) continue;
        block.hasFfn = true;
        block.ffnSize = kStandInMlp;
    }
    return shape;
}

GgufChoice ggufChoice(const ModelShape& source, const Cut& cut) {
    using Kind = GgufChoice::Kind;
    const GgufArchitecture* own = findGgufArchitecture(source.modelType);
    if (!own || !own->checked) return {Kind::None, nullptr, {"Resect writes no GGUF for this family."}};
    const Cut whole = withoutEmptyBlocks(source, cut);
    if (keptBlocks(whole).empty()) return {Kind::None, nullptr, {"Nothing of the model is left."}};
    const ModelShape after = shapeAfter(source, whole);
    if (isUniform(after) && fits(findUniformArchitecture(after), after)) return {Kind::Own, findUniformArchitecture(after), {}};
    const GgufArchitecture* perBlock = findPerBlockArchitecture(source);
    if (perBlock && !isUniform(after) && fits(perBlock, perBlockShape(*perBlock, after))) return {Kind::PerBlock, perBlock, {}};
    GgufChoice choice;
    try {
        const ModelShape padded = paddedShape(source, whole);
        const GgufArchitecture* architecture = findUniformArchitecture(padded);
        for (const Problem& problem : ggufObstacles(*architecture, padded)) choice.reasons.push_back(problem.subject + ": " + problem.message + ".");
        if (choice.reasons.empty()) return {Kind::Padded, architecture, {}};
    } catch (const Error& error) {
        choice.reasons.push_back(error.message() + ".");
    }
    return choice;
}

}  // namespace resect
