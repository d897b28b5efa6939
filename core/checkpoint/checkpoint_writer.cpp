#include "core/checkpoint/checkpoint_writer.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/checkpoint/shard_stream.h"

#include <algorithm>
#include <set>

namespace resect {

namespace fs = std::filesystem;

namespace {

/// The 8-byte length and the JSON, padded with spaces so that the data starts on a multiple of 8.
std::string headerOf(std::span<const TensorSource> tensors, const std::map<std::string, std::string>& metadata) {
    Json json = Json::object();
    if (!metadata.empty()) json["__metadata__"] = metadata;
    auto& members = static_cast<Json::object_t::Container&>(json.get_ref<Json::object_t&>());
    std::uint64_t at = 0;
    for (const TensorSource& tensor : tensors) {
        const std::uint64_t end = at + tensor.bytes();
        Json entry = {{"dtype", name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {at, end}}};
        members.emplace_back(tensor.name, std::move(entry));  // past the linear search for a name that is known to be new
        at = end;
    }
    std::string text = json.dump();
    text.append((8 - text.size() % 8) % 8, ' ');
    std::string header;
    for (int byte = 0; byte < 8; ++byte) header += static_cast<char>(text.size() >> (8 * byte) & 0xff);
    return header + text;
}

void requireDistinctNames(std::span<const TensorSource> tensors) {
    std::set<std::string_view> names;
    for (const TensorSource& tensor : tensors) {
        if (!names.insert(tensor.name).second) throw Error(ErrorCode::Internal, tensor.name, "would be written twice");
        if (tensor.name == "__metadata__") throw Error(ErrorCode::BadInput, tensor.name, "is not a possible tensor name");
    }
}

/// Bytes written so far over all shards, for the progress report.
struct Tally {
    std::uint64_t done = 0, total = 0;
    std::string stage;
    const JobContext& job;

    void add(std::uint64_t bytes) {
        if (job.stopped()) throw Error(ErrorCode::Stopped, "", "stopped while " + stage);
        done += bytes;
        job.progress({static_cast<double>(done), static_cast<double>(total), "bytes", stage});
    }
};

WrittenShard writeOne(const fs::path& path, std::span<const TensorSource> tensors, const std::map<std::string, std::string>& metadata, Tally& tally) {
    ShardStream stream(path);
    const std::string header = headerOf(tensors, metadata);
    stream.append(std::as_bytes(std::span(header)));
    for (const TensorSource& tensor : tensors) {
        std::uint64_t left = tensor.bytes();
        tally.add(0);
        tensor.produce([&](std::span<const std::byte> piece) {
            if (piece.size() > left) throw Error(ErrorCode::Internal, tensor.name, "more bytes were produced than its shape holds");
            left -= piece.size();
            while (!piece.empty()) {
                const auto part = piece.first(std::min<std::size_t>(piece.size(), ShardStream::kPieceBytes));
                stream.append(part);
                tally.add(part.size());
                piece = piece.subspan(part.size());
            }
        });
        if (left) throw Error(ErrorCode::Internal, tensor.name, toText(left) + " bytes fewer were produced than its shape holds");
    }
    WrittenShard shard{path.filename().string(), 0, stream.finish()};
    shard.bytes = stream.bytes();
    return shard;
}

/// Consecutive runs of tensors that fit a shard.
std::vector<std::span<const TensorSource>> split(std::span<const TensorSource> tensors, std::uint64_t shardBytes) {
    std::vector<std::span<const TensorSource>> runs;
    std::size_t first = 0;
    std::uint64_t filled = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const std::uint64_t bytes = tensors[i].bytes();
        if (i > first && filled + bytes > shardBytes) {
            runs.push_back(tensors.subspan(first, i - first));
            first = i;
            filled = 0;
        }
        filled += bytes;
    }
    runs.push_back(tensors.subspan(first));
    return runs;
}

std::string shardName(const std::string& stem, std::size_t number, std::size_t count) {
    const auto five = [](std::size_t value) {
        const std::string digits = toText(value);
        return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
    };
    return count == 1 ? stem + ".safetensors" : stem + "-" + five(number) + "-of-" + five(count) + ".safetensors";
}

std::uint64_t totalBytes(std::span<const TensorSource> tensors) {
    std::uint64_t total = 0;
    for (const TensorSource& tensor : tensors) total += tensor.bytes();
    return total;
}

/// What headers and file system need beside the data.
std::uint64_t overhead(std::size_t tensors, std::size_t shards) { return tensors * 256 + shards * 65536; }

}  // namespace

std::uint64_t TensorSource::bytes() const noexcept {
    std::uint64_t total = sizeOf(dtype);
    for (const std::int64_t size : shape) total *= static_cast<std::uint64_t>(size);
    return total;
}

TensorSource copyOf(const Checkpoint& checkpoint, const TensorInfo& tensor) {
    TensorSource source{tensor.name, tensor.dtype, tensor.shape, {}};
    source.produce = [&checkpoint, tensor](const std::function<void(std::span<const std::byte>)>& sink) {
        for (auto rest = checkpoint.bytes(tensor); !rest.empty();) {
            const auto piece = rest.first(std::min<std::size_t>(rest.size(), ShardStream::kPieceBytes));
            sink(piece);
            checkpoint.release(tensor, piece);
            rest = rest.subspan(piece.size());
        }
    };
    return source;
}

std::vector<WrittenShard> writeShards(const fs::path& folder, const std::vector<TensorSource>& tensors, const WriteOptions& options, const JobContext& job) {
    requireDistinctNames(tensors);
    const auto runs = split(tensors, options.shardBytes);
    Tally tally{0, totalBytes(tensors), "", job};
    requireFreeSpace(folder, tally.total + overhead(tensors.size(), runs.size()));
    std::vector<WrittenShard> written;
    try {
        Json weightMap = Json::object();
        for (std::size_t i = 0; i < runs.size(); ++i) {
            tally.stage = "writing shard " + toText(i + 1) + " of " + toText(runs.size());
            const std::string file = shardName(options.stem, i + 1, runs.size());
            written.push_back(writeOne(folder / file, runs[i], options.metadata, tally));
            auto& members = static_cast<Json::object_t::Container&>(weightMap.get_ref<Json::object_t&>());
            for (const TensorSource& tensor : runs[i]) members.emplace_back(tensor.name, file);
        }
        if (runs.size() > 1) {
            Json index;
            index["metadata"]["total_size"] = tally.total;
            index["weight_map"] = std::move(weightMap);
            writeJsonFile(folder / (options.stem + ".safetensors.index.json"), index);
        }
        syncToDisk(folder);
    } catch (...) {
        std::error_code ignored;
        for (const WrittenShard& shard : written) fs::remove(folder / shard.fileName, ignored);
        throw;
    }
    return written;
}

WrittenShard writeSafetensors(const fs::path& path, const std::vector<TensorSource>& tensors, const std::map<std::string, std::string>& metadata,
                              const JobContext& job) {
    requireDistinctNames(tensors);
    Tally tally{0, totalBytes(tensors), "writing " + path.filename().string(), job};
    requireFreeSpace(path, tally.total + overhead(tensors.size(), 1));
    WrittenShard shard = writeOne(path, tensors, metadata, tally);
    syncToDisk(path.has_parent_path() ? path.parent_path() : fs::path("."));
    return shard;
}

}  // namespace resect
