#pragma once
#include "core/anatomy/anatomy.h"
#include "core/base/job.h"
#include "core/base/problem.h"
#include "core/surgery/edit_plan.h"

#include <filesystem>
#include <string>
#include <vector>

namespace resect {

/// The lists of dropped layers that LLM-Drop ("What Matters in Transformers?", arXiv 2406.15786) publishes with its models: config.json has
/// `drop_attn_list` and `drop_mlp_list`, block numbers and tensor names stay the source's.
struct DropLists {
    std::vector<int> attention, mlp;   ///< dropped, ascending
    bool operator==(const DropLists&) const = default;
};

/// What the numbers of a reserved_layers.json count.
enum class ReservedLayers { Attention, Mlp, Blocks, Joint };   ///< Joint: attention 0..L-1, then MLP L..2L-1

/// Reads `drop_attn_list` and `drop_mlp_list` of a config.json, each a list of block numbers or a list of L booleans (told apart by their JSON type,
/// never by value; DeepSeek's variant of their code mistakes the second for the first). An absent or null list is empty. Throws BadInput naming
/// field and entry: neither list there, another type, mixed types, out of range, repeated, another length than L.
DropLists readDropLists(const Json& config, int numBlocks, const std::string& subject);
/// Reads a reserved_layers.json: an array of what is kept. Throws BadInput.
DropLists readReservedLayers(const Json& kept, ReservedLayers counts, int numBlocks, const std::string& subject);

/// What an edit plan drops, in this form; whole blocks stand in both lists. Throws Unsupported when it cuts anything finer than a layer.
DropLists dropListsOf(const EditPlan& plan, const ModelShape& source);
/// The plan that drops these layers; a block of which both go is dropped whole.
EditPlan planOf(const DropLists& lists);

/// config.json for these lists beside the uncut weights: both lists as block numbers, and `auto_map` naming the files of LLM-Drop that have to
/// lie beside it (they are that project's, and read with trust_remote_code). Opened without them, the model runs uncut: the notes say so.
/// Throws Unsupported for a family that LLM-Drop has no such files for.
Json dropListConfig(const Json& config, const ModelShape& source, const DropLists& lists, std::vector<Problem>& notes);
/// reserved_layers.json: what is kept, in the narrowest counting that holds the lists (attention or MLP alone, whole blocks, else joint).
Json reservedLayers(const DropLists& lists, int numBlocks);
/// layer_mapping.json: old number -> new one, of plans that drop whole blocks only; null otherwise.
Json layerMapping(const DropLists& lists, int numBlocks);

/// Writes the new folder `to`: config.json, reserved_layers.json, layer_mapping.json where there is one, and with the weights (those of dropped layers left
/// out; names as in the source), the tokenizer and the other files beside them, and manifest.json. Nothing that looks finished remains
/// after an error or a stop. Returns the notes. Throws BadInput (the target exists), Unsupported, DiskFull, NoPermission, Stopped.
enum class DropListWeights { Left, None };
std::vector<Problem> exportDropLists(const Checkpoint& source, const Anatomy& anatomy, const DropLists& lists, const std::filesystem::path& to, DropListWeights weights,
                                     const JobContext& job);

}  // namespace resect
