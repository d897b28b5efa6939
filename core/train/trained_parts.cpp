#include "core/train/trained_parts.h"

#include "core/export/carried_files.h"
#include "core/export/manifest.h"
#include "core/base/files.h"
#include "core/models/extension.h"
#include "core/models/tensor_file.h"

namespace resect {

namespace fs = std::filesystem;

TrainedParts::~TrainedParts() = default;

torch::Tensor storedTensor(const Checkpoint& checkpoint, const TensorInfo& info) {
    return readTensor(checkpoint.shards()[static_cast<std::size_t>(info.shard)], info);
}

void copyDescription(const Checkpoint& from, const fs::path& to) {
    copyCarriedFiles(from.folder(), to);
    auto names = extensionFiles(from);
    names.insert(names.end(), {"config.json", "resect.json"});
    for (const auto& name : names) {
        if (fs::exists(from.folder() / name)) fs::copy_file(from.folder() / name, to / name, fs::copy_options::overwrite_existing);
    }
}

void writeChanged(const Checkpoint& base, const std::map<std::string, std::function<torch::Tensor(const torch::Tensor& stored)>>& changed, const fs::path& to,
                  const JobContext& job) {
    std::vector<TensorSource> sources;
    for (const auto& info : base.tensors()) {
        const auto found = changed.find(info.name);
        if (found == changed.end()) {
            sources.push_back(copyOf(base, info));
            continue;
        }
        TensorSource source{info.name, info.dtype, info.shape, {}};
        source.produce = [&base, &info, &make = found->second](const auto& sink) {
            const auto value = make(storedTensor(base, info)).to(scalarType(info.dtype)).contiguous();
            sink({static_cast<const std::byte*>(value.data_ptr()), value.nbytes()});
        };
        sources.push_back(std::move(source));
    }
    StagedFolder staged(to);
    copyDescription(base, staged.path());
    writeManifest(staged.path(), writeShards(staged.path(), sources, {}, job), job);
    staged.commit();
}

}  // namespace resect
