#include "core/worker/comparing.h"

#include "core/export/checkpoint_diff.h"

#include <algorithm>
#include <map>
#include <set>

namespace resect {

namespace {

Json side(const Checkpoint& checkpoint) {
    return {{"folder", checkpoint.folder().string()}, {"parameters", checkpoint.totalParameters()}, {"bytes", checkpoint.totalBytes()}, {"tensors", checkpoint.tensors().size()}};
}

/// The name that a tensor of A has in B once blocks are renumbered; "" when its block is gone.
std::string nameInB(const std::string& name, const std::map<std::string, std::map<int, int>>& blocks) {
    for (const auto& [stack, numbers] : blocks) {
        if (!name.starts_with(stack + ".")) continue;
        const std::size_t begin = stack.size() + 1, end = name.find('.', begin);
        if (end == std::string::npos || !std::all_of(name.begin() + static_cast<std::ptrdiff_t>(begin), name.begin() + static_cast<std::ptrdiff_t>(end), [](unsigned char c) { return c >= '0' && c <= '9'; }))
            continue;
        const auto found = numbers.find(std::stoi(name.substr(begin, end - begin)));
        return found == numbers.end() || found->second < 0 ? std::string() : stack + "." + std::to_string(found->second) + name.substr(end);
    }
    return name;
}

}  // namespace

Json compareCheckpoints(const Checkpoint& a, const Checkpoint& b, bool shapesOnly, const JobContext& job) {
    const CheckpointDiff diff = diffCheckpoints(a, b, shapesOnly ? DiffContent::Skip : DiffContent::Read, job);
    Json json = toJson(diff);
    json["left"] = side(a);
    json["right"] = side(b);
    std::map<std::string, std::map<int, int>> blocks;
    for (const BlockPair& pair : diff.blocks)
        if (pair.a >= 0) blocks[pair.stack][pair.a] = pair.b;
    std::set<std::string> differing;
    for (const auto& entry : diff.tensors) differing.insert(entry.a);
    Json unchanged = Json::array();
    for (const TensorInfo& tensor : a.tensors())
        if (!differing.contains(tensor.name)) unchanged.push_back({{"a", tensor.name}, {"b", nameInB(tensor.name, blocks)}, {"shape", tensor.shape}, {"dtype", name(tensor.dtype)}});
    json["unchanged"] = std::move(unchanged);
    return json;
}

}  // namespace resect
