#include "core/export/hf_writer.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/export/carried_files.h"
#include "core/export/config_rewrite.h"
#include "core/export/decilm.h"
#include "core/export/manifest.h"

#include <algorithm>
#include <numeric>

namespace resect {

namespace fs = std::filesystem;

namespace {

bool isInside(const fs::path& inner, const fs::path& outer) {
    const auto [end, ignored] = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
    return end == outer.end();
}

fs::path realPath(const fs::path& path) {
    fs::path real = fs::weakly_canonical(fs::absolute(path)).lexically_normal();
    return real.has_filename() ? real : real.parent_path();
}

void checkTarget(const fs::path& source, const fs::path& to) {
    if (to.empty()) throw Error(ErrorCode::BadInput, "target", "expected a folder, found nothing");
    const fs::path from = realPath(source), target = realPath(to);
    if (isInside(target, from))
        throw Error(ErrorCode::BadInput, to.string(),
                    "the target lies in the source checkpoint, which is never written to; choose another folder");
    if (isInside(from, target))
        throw Error(ErrorCode::BadInput, to.string(), "the target holds the source checkpoint; choose another folder");
    if (fs::exists(target)) throw Error(ErrorCode::BadInput, to.string(), "the target exists already; choose a new name");
}

Json planFile(const Checkpoint& source, const Cut& cut, const SlicePlan& plan, const ExportOptions& options,
              const std::vector<Problem>& notes) {
    std::vector<int> blocks(cut.blocks.size());
    std::iota(blocks.begin(), blocks.end(), 0);
    if (options.way != SliceWay::Zeroed || options.heterogeneous) blocks = keptBlocks(cut);
    Json details = Json::object();
    details["way"] = options.heterogeneous ? "heterogeneous" : name(options.way);
    details["dtype"] = options.dtype ? std::string(name(*options.dtype)) : std::string("as stored");
    details["source_fingerprint"] = source.fingerprint();
    details["source_blocks"] = blocks;
    details["tensor_bytes"] = plan.bytes(options.dtype);
    details["notes"] = Json::array();
    for (const Problem& note : notes) details["notes"].push_back(note.subject + ": " + note.message);
    Json file = options.provenance.is_object() ? options.provenance : Json::object();
    if (!options.provenance.is_object() && !options.provenance.is_null()) file["provenance"] = options.provenance;
    file["export"] = std::move(details);
    return file;
}

std::vector<TensorSource> tensorSources(const Checkpoint& source, const SlicePlan& plan, std::optional<DType> dtype) {
    std::vector<TensorSource> sources;
    sources.reserve(plan.tensors.size());
    for (const SlicedTensor& tensor : plan.tensors)
        sources.push_back(streamSlice(source, tensor, dtype.value_or(tensor.dtype)));
    return sources;
}

void requireRunning(const JobContext& job, const fs::path& to) {
    if (job.stopped()) throw Error(ErrorCode::Stopped, to.string(), "stopped on request; nothing was written");
}

}  // namespace

std::uint64_t exportBytes(const Checkpoint& source, const SlicePlan& plan, std::optional<DType> dtype) {
    constexpr std::uint64_t kPerTensor = 300, kOther = 1 << 20;  // headers and index; JSON files and block rounding
    return plan.bytes(dtype) + plan.tensors.size() * kPerTensor + carriedBytes(source.folder()) + kOther;
}

ExportResult exportHuggingFace(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, const fs::path& to,
                               const ExportOptions& options, const JobContext& job,
                               const std::function<void(const fs::path& staged)>& finish) {
    checkTarget(source.folder(), to);
    const SlicePlan plan = options.heterogeneous ? slicePlan(source, anatomy, cut, deciShape(anatomy.shape(), cut)) : slicePlan(source, anatomy, cut, options.way);
    ConfigRewrite config;
    if (options.heterogeneous) config.config = deciConfig(source.config(), anatomy.shape(), cut, plan.shape, options.dtype, config.notes);
    else config = rewriteConfig(source.config(), anatomy.shape(), cut, plan.shape, options.way, options.dtype);
    const std::vector<TensorSource> tensors = tensorSources(source, plan, options.dtype);
    requireRunning(job, to);
    requireFreeSpace(to, exportBytes(source, plan, options.dtype));

    StagedFolder staged(to);
    ExportResult result;
    WriteOptions write;
    write.shardBytes = options.shardBytes;
    result.shards = writeShards(staged.path(), tensors, write, job);
    copyCarriedFiles(source.folder(), staged.path());
    writeJsonFile(staged.path() / "config.json", config.config);
    if (options.heterogeneous) writeFileAtomically(staged.path() / kDeciConfigurationFile, deciConfigurationCode());
    if (!config.resect.is_null()) writeJsonFile(staged.path() / "resect.json", config.resect);
    writeJsonFile(staged.path() / "resect-plan.json", planFile(source, cut, plan, options, config.notes));
    requireRunning(job, to);
    writeManifest(staged.path(), result.shards, job);
    const std::vector<std::string> written = filesBelow(staged.path());
    if (finish) {
        finish(staged.path());
        if (filesBelow(staged.path()) != written) writeManifest(staged.path(), result.shards, job);
    }
    requireRunning(job, to);
    result.files = filesBelow(staged.path());
    for (const std::string& file : result.files) result.bytes += fs::file_size(staged.path() / file);
    staged.commit();
    result.folder = to;
    result.shape = plan.shape;
    result.notes = std::move(config.notes);
    return result;
}

}  // namespace resect
