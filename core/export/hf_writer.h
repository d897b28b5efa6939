#pragma once
#include "core/anatomy/anatomy.h"
#include "core/base/job.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/verdict.h"
#include "core/surgery/slice_plan.h"

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace resect {

struct ExportOptions {
    SliceWay way =
        SliceWay::Exact;  ///< Exact writes "uniform" when the result is a stock shape, else a checkpoint with resect.json
    bool heterogeneous = false;  ///< instead of `way`: sizes per block in the form of DeciLM (core/export/decilm.h)
    std::optional<DType> dtype;  ///< nullopt = as stored
    std::uint64_t shardBytes = 5'000'000'000;
    Json provenance;  ///< goes into resect-plan.json: plan, source, metrics
};

struct ExportResult {
    std::filesystem::path folder;
    ModelShape shape;
    std::uint64_t bytes = 0;
    std::vector<WrittenShard> shards;
    std::vector<std::string> files;  ///< every file, relative
    std::vector<Problem> notes;      ///< fields that were interpreted or removed, files that were not carried over
};

/// Bytes that the export will take on the disk: tensors, index, and the files that are carried over.
std::uint64_t exportBytes(const Checkpoint& source, const SlicePlan& plan, std::optional<DType> dtype);

/// Writes the cut checkpoint into the new folder `to`: shards, config.json with every per-layer field rewritten, resect.json
/// when the shape is not stock, tokenizer, generation, licence and model-card files, resect-plan.json, manifest.json with
/// SHA-256 of every file. Nothing that looks finished remains after an error or a stop. Memory independent of model size; the
/// same inputs give the same bytes. Throws BadInput (target exists, or lies in the source), Unsupported (the way or a
/// configuration field cannot express the cut), DiskFull, NoPermission, Stopped. `finish`, when given, runs on the complete
/// staged folder before it gets its name (reload and compare; it may add files); its exception aborts the export.
ExportResult exportHuggingFace(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut,
                               const std::filesystem::path& to, const ExportOptions& options, const JobContext& job,
                               const std::function<void(const std::filesystem::path& staged)>& finish = {});

/// Checks a written folder: manifest hashes, missing and foreign files, config against tensors, finite values, tokenizer
/// against vocabulary. Every problem, not the first; empty = sound. A stopped check ends with a note. Throws NotFound when
/// there is no such folder.
std::vector<Problem> verifyFolder(const std::filesystem::path& folder, const JobContext& job);

}  // namespace resect
