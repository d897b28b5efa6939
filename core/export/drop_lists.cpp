#include "core/export/drop_lists.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/carried_files.h"
#include "core/export/manifest.h"

#include <algorithm>
#include <array>

namespace resect {

namespace {

constexpr std::array kFields{"drop_attn_list", "drop_mlp_list"};

[[noreturn]] void refuse(const std::string& subject, const std::string& message) { throw Error(ErrorCode::BadInput, subject, message); }

std::vector<int> readList(const Json& config, const char* field, int numBlocks, const std::string& file) {
    const auto found = config.find(field);
    if (found == config.end() || found->is_null()) return {};
    const std::string subject = file + ": " + field;
    if (!found->is_array()) refuse(subject, "expected a list of block numbers or of booleans, found " + std::string(found->type_name()));
    const bool flags = !found->empty() && found->front().is_boolean();
    if (flags && static_cast<int>(found->size()) != numBlocks)
        refuse(subject, "expected " + std::to_string(numBlocks) + " booleans, one per block, found " + std::to_string(found->size()));
    std::vector<int> dropped;
    for (std::size_t i = 0; i < found->size(); ++i) {
        const Json& entry = (*found)[i];
        const std::string where = subject + "[" + std::to_string(i) + "]";
        if (flags != entry.is_boolean() || (!flags && !entry.is_number_integer())) refuse(where, "expected " + std::string(flags ? "a boolean" : "a block number") + " as before it, found " + entry.dump());
        if (flags) {
            if (entry.get<bool>()) dropped.push_back(static_cast<int>(i));
            continue;
        }
        const auto block = entry.get<std::int64_t>();
        if (block < 0 || block >= numBlocks) refuse(where, "expected 0 to " + std::to_string(numBlocks - 1) + ", found " + std::to_string(block));
        if (std::find(dropped.begin(), dropped.end(), static_cast<int>(block)) != dropped.end()) refuse(where, "block " + std::to_string(block) + " stands in the list twice");
        dropped.push_back(static_cast<int>(block));
    }
    std::sort(dropped.begin(), dropped.end());
    return dropped;
}

std::vector<int> without(const std::vector<int>& all, const std::vector<int>& gone) {
    std::vector<int> rest;
    std::set_difference(all.begin(), all.end(), gone.begin(), gone.end(), std::back_inserter(rest));
    return rest;
}

std::vector<int> upTo(int count) {
    std::vector<int> all;
    for (int i = 0; i < count; ++i) all.push_back(i);
    return all;
}

}  // namespace

DropLists readDropLists(const Json& config, int numBlocks, const std::string& subject) {
    if (!config.is_object()) refuse(subject, "expected an object");
    if (!config.contains(kFields[0]) && !config.contains(kFields[1])) refuse(subject, "it has neither drop_attn_list nor drop_mlp_list");
    if (const auto blocks = config.find("num_hidden_layers"); blocks != config.end() && *blocks != numBlocks)
        throw Error(ErrorCode::Mismatch, subject + ": num_hidden_layers", "expected the " + std::to_string(numBlocks) + " blocks of the checkpoint, found " + blocks->dump());
    return {readList(config, kFields[0], numBlocks, subject), readList(config, kFields[1], numBlocks, subject)};
}

DropLists readReservedLayers(const Json& kept, ReservedLayers counts, int numBlocks, const std::string& subject) {
    const int most = counts == ReservedLayers::Joint ? 2 * numBlocks : numBlocks;
    const auto numbers = readList(Json{{"kept", kept}}, "kept", most, subject);
    if (!numbers.empty() && kept.front().is_boolean()) refuse(subject, "expected numbers, found booleans");
    const auto gone = without(upTo(most), numbers);
    DropLists lists;
    for (const int number : gone) {
        if (counts == ReservedLayers::Attention || counts == ReservedLayers::Blocks || (counts == ReservedLayers::Joint && number < numBlocks)) lists.attention.push_back(number);
        if (counts == ReservedLayers::Mlp || counts == ReservedLayers::Blocks) lists.mlp.push_back(number);
        if (counts == ReservedLayers::Joint && number >= numBlocks) lists.mlp.push_back(number - numBlocks);
    }
    return lists;
}

DropLists dropListsOf(const EditPlan& plan, const ModelShape& source) {
    DropLists lists;
    if (plan.edits.empty()) return lists;
    const Cut cut = cutOf(plan, source);
    for (int block = 0; block < source.numBlocks(); ++block) {
        BlockCut own = cut.blocks[static_cast<std::size_t>(block)];
        if (own.block || own.attention) lists.attention.push_back(block);
        if (own.block || own.ffn) lists.mlp.push_back(block);
        own.block = own.attention = own.ffn = false;
        if (!own.empty())
            throw Error(ErrorCode::Unsupported, "drop lists", "name whole layers only; the plan cuts parts of block " + std::to_string(block));
    }
    return lists;
}

EditPlan planOf(const DropLists& lists) {
    std::vector<int> blocks;
    std::set_intersection(lists.attention.begin(), lists.attention.end(), lists.mlp.begin(), lists.mlp.end(), std::back_inserter(blocks));
    EditPlan plan;
    if (!blocks.empty()) plan.edits.push_back(dropBlocks(blocks));
    if (const auto rest = without(lists.attention, blocks); !rest.empty()) plan.edits.push_back(dropAttention(rest));
    if (const auto rest = without(lists.mlp, blocks); !rest.empty()) plan.edits.push_back(dropMlp(rest));
    return plan;
}

Json dropListConfig(const Json& config, const ModelShape& source, const DropLists& lists, std::vector<Problem>& notes) {
    struct Classes {
        std::string_view family, name;
    };
    static constexpr std::array kKnown{Classes{"llama", "Llama"}, Classes{"mistral", "Mistral"}, Classes{"gemma2", "Gemma2"}};
    const auto known = std::find_if(kKnown.begin(), kKnown.end(), [&](const Classes& each) { return each.family == source.modelType; });
    if (known == kKnown.end())
        throw Error(ErrorCode::Unsupported, "drop lists", "LLM-Drop has modelling files for llama, mistral and gemma2 among the families here, not for " + source.modelType +
                                                              "; export with --way zeroed, or as a checkpoint that Resect opens");
    Json result = config;
    result[kFields[0]] = lists.attention;
    result[kFields[1]] = lists.mlp;
    const std::string suffix = "dropped_" + std::string(known->family) + ".", name(known->name);
    result["auto_map"] = {{"AutoConfig", "configuration_" + suffix + name + "Config"}, {"AutoModelForCausalLM", "modeling_" + suffix + name + "ForCausalLM"}};
    const std::string file = "dropped_" + std::string(known->family) + ".py";
    notes.push_back({Severity::Warning, "config.json", "without configuration_" + file + " and modeling_" + file + " of LLM-Drop beside it, and trust_remote_code, the model runs uncut and nothing says so",
                     "Put both files beside it; their forms expect the weights of dropped layers to be there or to be ignored."});
    return result;
}

Json reservedLayers(const DropLists& lists, int numBlocks) {
    if (lists.mlp.empty() || lists.attention == lists.mlp) return without(upTo(numBlocks), lists.attention);
    if (lists.attention.empty()) return without(upTo(numBlocks), lists.mlp);
    std::vector<int> gone = lists.attention;
    for (const int block : lists.mlp) gone.push_back(numBlocks + block);
    return without(upTo(2 * numBlocks), gone);
}

Json layerMapping(const DropLists& lists, int numBlocks) {
    if (lists.attention != lists.mlp) return nullptr;
    Json mapping = Json::object();
    int next = 0;
    for (const int block : without(upTo(numBlocks), lists.attention)) mapping[std::to_string(block)] = next++;
    return mapping;
}

std::vector<Problem> exportDropLists(const Checkpoint& source, const Anatomy& anatomy, const DropLists& lists, const std::filesystem::path& to, DropListWeights weights,
                                     const JobContext& job) {
    if (std::filesystem::exists(to)) throw Error(ErrorCode::BadInput, to.string(), "exists already; name a new folder");
    std::vector<Problem> notes;
    const int numBlocks = anatomy.shape().numBlocks();
    const Json config = dropListConfig(source.config(), anatomy.shape(), lists, notes), mapping = layerMapping(lists, numBlocks);
    StagedFolder staged(to);
    std::vector<WrittenShard> shards;
    if (weights == DropListWeights::Left) {
        const auto isDropped = [&](const ExpectedTensor& tensor) {
            const auto& list = isAttentionRole(tensor.role) ? lists.attention : lists.mlp;
            return tensor.block >= 0 && std::binary_search(list.begin(), list.end(), tensor.block);
        };
        std::vector<TensorSource> tensors;
        for (const ExpectedTensor& tensor : expectedTensors(anatomy.shape()))
            if (const TensorInfo* info = source.find(tensor.name); info && !isDropped(tensor)) tensors.push_back(copyOf(source, *info));
        shards = writeShards(staged.path(), tensors, {}, job);
        copyCarriedFiles(source.folder(), staged.path());
    }
    writeJsonFile(staged.path() / "config.json", config);
    writeJsonFile(staged.path() / "reserved_layers.json", reservedLayers(lists, numBlocks));
    if (!mapping.is_null()) writeJsonFile(staged.path() / "layer_mapping.json", mapping);
    if (weights == DropListWeights::Left) writeManifest(staged.path(), shards, job);
    if (job.stopped()) throw Error(ErrorCode::Stopped, to.string(), "stopped on request; nothing was written");
    staged.commit();
    return notes;
}

}  // namespace resect
