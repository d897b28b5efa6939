#include "core/worker/describe.h"

#include "core/anatomy/cost.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/export/verdict.h"
#include "core/surgery/slice_plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace resect {

namespace fs = std::filesystem;
using namespace protocol;

namespace {

/// Of all components of a kind: outside the blocks (block -1), of every tower; else of one block's layer.
std::int64_t parametersOf(const Anatomy& anatomy, ComponentKind kind, int block) {
    std::int64_t total = 0;
    for (const Component& child : anatomy.root().children) {
        if (block < 0 && child.id.kind == kind) total += child.parameters;
        if (block < 0 || child.id.kind != ComponentKind::Block || child.id.block != block) continue;
        for (const Component& layer : child.children)
            if (layer.id.kind == kind) total += layer.parameters;
    }
    return total;
}

BlockMessage blockMessage(const BlockShape& shape, int index) {
    BlockMessage message;
    message.index = index;
    message.hasAttention = shape.hasAttention;
    message.hasFfn = shape.hasFfn;
    message.numHeads = shape.numHeads;
    message.numKvHeads = shape.numKvHeads;
    message.headDim = shape.headDim;
    message.ffnSize = shape.ffnSize;
    message.numExperts = shape.numExperts;
    message.headsPerKv = shape.headsPerKv;
    return message;
}

std::string storedType(const Checkpoint& checkpoint) {
    std::set<DType> types;
    for (const TensorInfo& tensor : checkpoint.tensors()) types.insert(tensor.dtype);
    if (types.empty()) return "";
    return types.size() == 1 ? std::string(name(*types.begin())) : "mixed";
}

/// The licence named by the model card's front matter, else the first line of a licence file.
std::string licenceOf(const fs::path& folder) {
    std::error_code error;
    if (fs::exists(folder / "README.md", error)) {
        const std::string card = readFile(folder / "README.md", 16 << 20);
        const auto end = card.starts_with("---") ? card.find("\n---", 3) : std::string::npos;
        const auto key = end == std::string::npos ? end : card.find("\nlicense:");
        if (key < end) {
            const auto begin = card.find_first_not_of(" \t'\"", key + 9);
            return card.substr(begin, card.find_first_of("'\"\n", begin) - begin);
        }
    }
    for (const char* file : {"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"})
        if (fs::exists(folder / file, error)) {
            const std::string text = readFile(folder / file, 16 << 20);
            const auto begin = text.find_first_not_of(" \t\r\n#");
            return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
        }
    return "";
}

std::size_t bytesPerElement(const Checkpoint& checkpoint) {
    return checkpoint.tensors().empty() ? 4 : sizeOf(checkpoint.tensors().front().dtype);
}

CostMessage costMessage(const ModelShape& shape, std::int64_t storedBytes) {
    const std::int64_t context = std::clamp<std::int64_t>(shape.maxPositions > 0 ? shape.maxPositions : 1024, 1, 1024);
    const Cost cost = costOf(shape, context);
    CostMessage message;
    message.parameters = cost.parameters;
    message.activeParameters = cost.activeParameters;
    message.bytes = storedBytes;
    message.bytesF32 = cost.parameters * 4;
    message.bytesBf16 = cost.parameters * 2;
    message.kvBytesPer1000 = cost.kvElementsPerToken * 2 * 1000;
    message.prefillFlopsPerToken = cost.prefillFlops / static_cast<double>(context);
    message.decodeFlopsPerToken = cost.decodeFlops;
    return message;
}

/// The counts behind the anatomy's problems, also of a checkpoint that it refuses.
TensorCountsMessage tensorCounts(const OpenedCheckpoint& opened) {
    TensorCountsMessage counts;
    const Checkpoint& checkpoint = opened.checkpoint();
    std::map<std::string, std::vector<std::int64_t>> expected;
    try {
        const ModelShape shape = opened.anatomy().understood() ? opened.shape() : readModelShape(checkpoint.config(), checkpoint.resectConfig(), "config.json");
        for (const ExpectedTensor& tensor : expectedTensors(shape)) expected[tensor.name] = tensor.shape;
    } catch (const Error&) {
        return counts;   // an unknown family, or fields that make no sense: the problems say so
    }
    counts.known = true;
    counts.expected = static_cast<std::int64_t>(expected.size());
    for (const auto& [name, shape] : expected) {
        const TensorInfo* found = checkpoint.find(name);
        counts.missing += !found;
        counts.misshapen += found && (found->shape != shape || !isFloat(found->dtype));
    }
    std::set<std::string> refused;
    for (const Problem& problem : opened.anatomy().problems())
        if (problem.severity == Severity::Error) refused.insert(problem.subject);
    for (const TensorInfo& tensor : checkpoint.tensors()) {
        if (expected.contains(tensor.name)) continue;
        ++(refused.contains(tensor.name) ? counts.unexpected : counts.ignored);
    }
    // Of very many unexpected ones the anatomy lists only the first.
    if (counts.unexpected >= 100) counts.unexpected += std::exchange(counts.ignored, 0);
    return counts;
}

/// What is left of each source block.
std::vector<BlockMessage> blocksAfter(const ModelShape& source, const Cut& cut, const std::vector<std::int64_t>& parametersAfter) {
    std::vector<BlockMessage> messages;
    std::size_t kept = 0;
    for (int i = 0; i < source.numBlocks(); ++i) {
        const BlockCut& block = cut.blocks[i];
        BlockShape shape = source.blocks[i];
        BlockMessage message;
        if (block.block) {
            shape.hasAttention = shape.hasFfn = false;
            shape.numHeads = shape.numKvHeads = shape.ffnSize = shape.numExperts = 0;
            shape.headsPerKv.clear();
            message = blockMessage(shape, i);
        } else {
            const bool attention = shape.hasAttention && !block.attention;
            const bool ffn = shape.hasFfn && !block.ffn;
            const std::vector<int> heads = keptHeads(shape, block);
            shape.hasAttention = attention;
            shape.hasFfn = ffn;
            shape.numHeads = attention ? static_cast<int>(heads.size()) : 0;
            shape.numKvHeads = attention ? static_cast<int>(keptKvGroups(source.blocks[i], block).size()) : 0;
            shape.ffnSize = ffn ? static_cast<int>(keptChannels(source.blocks[i], block).size()) : 0;
            message = blockMessage(shape, i);
            message.parameters = parametersAfter[kept++];
        }
        messages.push_back(std::move(message));
    }
    return messages;
}

}  // namespace

ProblemMessage describe(const Problem& problem) { return {name(problem.severity), problem.subject, problem.message, problem.advice}; }

std::vector<ProblemMessage> describe(const std::vector<Problem>& problems) {
    std::vector<ProblemMessage> messages;
    for (const Problem& problem : problems) messages.push_back(describe(problem));
    return messages;
}

ModelMessage describe(const OpenedCheckpoint& opened) {
    const Checkpoint& checkpoint = opened.checkpoint();
    const Anatomy& anatomy = opened.anatomy();
    ModelMessage message;
    message.path = fs::absolute(opened.path()).string();
    message.name = opened.name();
    message.fingerprint = checkpoint.fingerprint();
    message.dtype = storedType(checkpoint);
    message.understood = anatomy.understood();
    message.hasTokenizer = opened.hasTokenizer();
    message.parameters = checkpoint.totalParameters();
    message.bytes = static_cast<std::int64_t>(checkpoint.totalBytes());
    message.numTensors = static_cast<std::int64_t>(checkpoint.tensors().size());
    message.numShards = static_cast<std::int64_t>(checkpoint.shards().size());
    message.licence = licenceOf(opened.path());
    if (checkpoint.config().is_object()) message.family = checkpoint.config().value("model_type", "");
    message.familyTitle = message.family;
    message.tensorCounts = tensorCounts(opened);
    message.problems = describe(checkpoint.problems());
    for (const Problem& problem : anatomy.problems()) message.problems.push_back(describe(problem));
    if (!anatomy.understood()) return message;

    const ModelShape& shape = anatomy.shape();
    message.familyTitle = findFamily(shape.modelType)->title;
    message.tied = shape.tiedEmbeddings;
    message.vocabSize = shape.vocabSize;
    message.hiddenSize = shape.hiddenSize;
    message.maxPositions = shape.maxPositions;
    message.input = shape.image ? "images" : "text";
    message.embeddingParameters = parametersOf(anatomy, ComponentKind::Embedding, -1);
    message.finalNormParameters = parametersOf(anatomy, ComponentKind::FinalNorm, -1);
    message.headParameters = parametersOf(anatomy, ComponentKind::LmHead, -1);
    message.linkParameters = parametersOf(anatomy, ComponentKind::Projector, -1);
    message.edits = supportedOperations(shape);
    for (int i = 0; i < shape.numBlocks(); ++i) {
        BlockMessage block = blockMessage(shape.blocks[i], i);
        if (!shape.towers.empty()) block.tower = shape.towers[static_cast<std::size_t>(shape.blocks[i].tower)].name;
        block.attentionParameters = parametersOf(anatomy, ComponentKind::AttentionLayer, i);
        block.ffnParameters = parametersOf(anatomy, ComponentKind::FfnLayer, i);
        block.parameters = block.attentionParameters + block.ffnParameters;
        message.blocks.push_back(std::move(block));
    }
    return message;
}

PlanCheckMessage describe(const OpenedCheckpoint& opened, const EditPlan& plan) {
    const ModelShape& source = opened.shape();
    PlanCheckMessage message;
    for (const auto& edit : plan.edits) message.titles.push_back(edit->title());
    bool legal = true;
    for (const PlanProblem& problem : checkPlan(plan, source, plan.fingerprint.empty() ? "" : opened.checkpoint().fingerprint())) {
        PlanProblemMessage line{describe(problem.problem), problem.edit, {}, {}};
        for (const auto& instead : problem.instead) {
            line.instead.push_back(instead->toJson());
            line.insteadTitles.push_back(instead->title());
        }
        legal = legal && problem.problem.severity != Severity::Error;
        message.problems.push_back(std::move(line));
    }
    message.legal = legal;
    const std::size_t width = bytesPerElement(opened.checkpoint());
    message.before = costMessage(source, static_cast<std::int64_t>(opened.checkpoint().totalBytes()));
    if (!legal) return message;

    const Cut cut = cutOf(plan, source);
    const ModelShape after = shapeAfter(source, cut);
    message.hash = plan.hash();
    message.uniform = isUniform(after);
    message.after = costMessage(after, 0);
    message.after.bytes = message.before.bytes - (message.before.parameters - message.after.parameters) * static_cast<std::int64_t>(width);
    for (const RuntimeVerdict& verdict : verdicts(source, cut))
        message.verdicts.push_back({std::string(name(verdict.runtime)), std::string(name(verdict.verdict)), verdict.reasons, {}});
    message.blocks = blocksAfter(source, cut, blockParameters(after));
    return message;
}

MethodMessage describe(const Method& method) {
    const MethodInfo& info = method.info();
    MethodMessage message;
    message.id = info.id;
    message.title = info.title;
    message.summary = info.summary;
    message.paper = info.paper;
    message.families = info.families;
    message.measures = true;   // a method without parameters measures too; one that only plans says so when it is asked
    message.plans = !info.planParameters.empty();
    for (const auto& parameter : info.measureParameters) message.measureParameters.push_back(toMessage(parameter));
    for (const auto& parameter : info.planParameters) message.planParameters.push_back(toMessage(parameter));
    return message;
}

}  // namespace resect
