#include "core/checkpoint/checkpoint.h"

#include "core/base/error.h"
#include "core/base/mapped_file.h"
#include "core/base/numbers.h"
#include "core/checkpoint/sha256.h"
#include "core/checkpoint/tensor_names.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <optional>
#include <set>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kIndexSuffix = ".safetensors.index.json";
constexpr std::string_view kShardSuffix = ".safetensors";

/// The files that make up one checkpoint.
struct Layout {
    fs::path folder;
    fs::path index;               ///< empty when there is none
    std::vector<fs::path> shards; ///< without an index
};

struct Index {
    std::map<std::string, std::string> fileOf;  ///< by tensor
    std::optional<std::uint64_t> totalSize;
};

std::vector<fs::path> filesEndingWith(const fs::path& folder, std::string_view suffix) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (name.ends_with(suffix) && name[0] != '.' && !entry.is_directory()) found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end(), [](const fs::path& a, const fs::path& b) { return naturalLess(a.native(), b.native()); });
    return found;
}

Index readIndex(const fs::path& path) {
    const std::string subject = path.string();
    const Json json = readJsonFile(path);
    const auto map = json.is_object() ? json.find("weight_map") : json.end();
    if (!json.is_object() || map == json.end() || !map->is_object())
        throw Error(ErrorCode::BadInput, subject + ": weight_map", "expected an object from tensor to file name");
    Index index;
    for (const auto& [tensor, file] : map->items()) {
        const fs::path name = file.is_string() ? file.get<std::string>() : std::string();
        if (name.empty() || name != name.filename())
            throw Error(ErrorCode::BadInput, subject + ": " + tensor, "expected the name of a file in the same folder, found " + file.dump());
        index.fileOf.emplace(tensor, name.string());
    }
    if (const auto metadata = json.find("metadata"); metadata != json.end() && metadata->is_object()) {
        const auto size = metadata->find("total_size");
        if (size != metadata->end() && size->is_number()) index.totalSize = size->get<std::uint64_t>();
    }
    return index;
}

/// The index that a shard belongs to, if it belongs to one: a shard alone is no model.
fs::path indexNaming(const fs::path& shard) {
    for (const fs::path& path : filesEndingWith(shard.parent_path(), kIndexSuffix))
        for (const auto& [tensor, file] : readIndex(path).fileOf)
            if (file == shard.filename()) return path;
    return {};
}

[[noreturn]] void nothingToOpen(const fs::path& folder) {
    std::string message = "expected a .safetensors file or an index of them, found none";
    for (const char* other : {".bin", ".pth", ".pt", ".gguf", ".h5", ".msgpack"})
        if (!filesEndingWith(folder, other).empty()) {
            message += "; " + filesEndingWith(folder, other).front().filename().string() + " is a format that cannot be opened here";
            break;
        }
    throw Error(ErrorCode::NotFound, folder.string(), message);
}

Layout layoutOfFolder(const fs::path& folder) {
    Layout layout{folder, {}, {}};
    // As Hugging Face chooses: the single file, then the index.
    if (fs::exists(folder / "model.safetensors")) {
        layout.shards = {folder / "model.safetensors"};
        return layout;
    }
    const auto indexes = filesEndingWith(folder, kIndexSuffix);
    if (fs::exists(folder / "model.safetensors.index.json"))
        layout.index = folder / "model.safetensors.index.json";
    else if (indexes.size() == 1)
        layout.index = indexes.front();
    else if (indexes.size() > 1)
        throw Error(ErrorCode::BadInput, folder.string(), "holds several indexes; open one of them: " + indexes[0].filename().string() + ", " +
                                                              indexes[1].filename().string());
    else
        layout.shards = filesEndingWith(folder, kShardSuffix);
    if (layout.index.empty() && layout.shards.empty()) nothingToOpen(folder);
    return layout;
}

Layout layoutOf(const fs::path& given) {
    std::error_code error;
    const fs::file_status status = fs::status(given, error);
    if (status.type() == fs::file_type::not_found) throw Error(ErrorCode::NotFound, given.string(), "does not exist");
    if (error) throw Error(ErrorCode::NoPermission, given.string(), error.message());
    const fs::path path = fs::absolute(given).lexically_normal();
    if (fs::is_directory(status)) return layoutOfFolder(path.has_filename() ? path : path.parent_path());
    const std::string name = path.filename().string();
    const fs::path folder = path.parent_path();
    if (name.ends_with(kIndexSuffix)) return {folder, path, {}};
    if (name.ends_with(kShardSuffix)) {
        const fs::path index = indexNaming(path);
        return index.empty() ? Layout{folder, {}, {path}} : Layout{folder, index, {}};
    }
    if (name == "config.json" || name == "resect.json") return layoutOfFolder(folder);
    throw Error(ErrorCode::BadInput, given.string(), "expected a folder, config.json, a .safetensors file or an index of them");
}

Json optionalJson(const fs::path& path) { return fs::exists(path) ? readJsonFile(path) : Json(); }

/// Opens every shard that the index names. A missing one is refused: a checkpoint is read whole.
std::vector<SafetensorsFile> openShards(const Layout& layout, const Index& index) {
    std::map<std::string, std::pair<std::string, int>> firstOf;  // file -> first tensor, number of tensors
    for (const auto& [tensor, file] : index.fileOf) ++firstOf.try_emplace(file, tensor, 0).first->second.second;
    for (const auto& [file, tensors] : firstOf)
        if (!fs::exists(layout.folder / file))
            throw Error(ErrorCode::NotFound, (layout.folder / file).string(),
                        "the shard is missing that should hold " + toText(tensors.second) + " tensors (" + tensors.first + ", ...), says " +
                            layout.index.filename().string());
    std::vector<fs::path> paths = layout.shards;
    for (const auto& [file, tensors] : firstOf) paths.push_back(layout.folder / file);
    std::sort(paths.begin(), paths.end(), [](const fs::path& a, const fs::path& b) { return naturalLess(a.native(), b.native()); });
    std::vector<SafetensorsFile> shards;
    for (const fs::path& path : paths) shards.push_back(SafetensorsFile::open(path));
    return shards;
}

/// All tensors in natural order, each name once; what index and shards disagree about becomes a problem.
std::vector<TensorInfo> collectTensors(const std::vector<SafetensorsFile>& shards, const Layout& layout, const Index& index,
                                       std::vector<Problem>& problems) {
    std::vector<TensorInfo> tensors;
    for (std::size_t i = 0; i < shards.size(); ++i)
        for (const TensorInfo& tensor : shards[i].tensors()) {
            tensors.push_back(tensor);
            tensors.back().shard = static_cast<int>(i);
        }
    std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) { return naturalLess(a.name, b.name); });
    const auto fileName = [&](const TensorInfo& tensor) { return shards[static_cast<std::size_t>(tensor.shard)].path().filename().string(); };
    const auto indexed = [&](const TensorInfo& tensor) {
        const auto it = index.fileOf.find(tensor.name);
        return it == index.fileOf.end() ? std::string() : it->second;
    };
    std::vector<TensorInfo> once;
    for (TensorInfo& tensor : tensors) {
        if (once.empty() || once.back().name != tensor.name) {
            once.push_back(std::move(tensor));
            continue;
        }
        problems.push_back({Severity::Error, tensor.name, "is in two shards: " + fileName(once.back()) + " and " + fileName(tensor),
                            "Remove the shard that does not belong to this checkpoint."});
        if (indexed(once.back()) != fileName(once.back()) && indexed(tensor) == fileName(tensor)) once.back() = std::move(tensor);
    }
    if (layout.index.empty()) return once;

    const std::string subject = layout.index.filename().string();
    std::set<std::string_view> found;
    for (const TensorInfo& tensor : once) {
        found.insert(tensor.name);
        const std::string file = indexed(tensor);
        if (file.empty())
            problems.push_back({Severity::Warning, tensor.name, "is in " + fileName(tensor) + ", but not in " + subject, ""});
        else if (file != fileName(tensor))
            problems.push_back({Severity::Warning, tensor.name, subject + " places it in " + file + ", it is in " + fileName(tensor), ""});
    }
    for (const auto& [tensor, file] : index.fileOf)
        if (!found.contains(tensor))
            problems.push_back({Severity::Error, tensor, subject + " places it in " + file + ", which lacks it", "Download the shard again."});
    std::uint64_t total = 0;
    for (const TensorInfo& tensor : once) total += tensor.bytes();
    if (index.totalSize && *index.totalSize != total)
        problems.push_back({Severity::Note, subject, "says total_size " + toText(*index.totalSize) + ", the tensors take " + toText(total), ""});
    return once;
}

/// Does an extension in resect.json name the file as its own?
bool isOfExtension(const Json& resectConfig, const std::string& file) {
    if (!resectConfig.is_object() || !resectConfig.contains("extensions") || !resectConfig.at("extensions").is_array()) return false;
    const Json& list = resectConfig.at("extensions");
    return std::any_of(list.begin(), list.end(), [&](const Json& entry) { return entry.is_object() && entry.contains("file") && entry.at("file") == file; });
}

void noteUnusedShards(const Layout& layout, const std::vector<SafetensorsFile>& shards, const Json& resectConfig, std::vector<Problem>& problems) {
    for (const fs::path& path : filesEndingWith(layout.folder, kShardSuffix)) {
        const bool used = isOfExtension(resectConfig, path.filename().string()) ||
                          std::any_of(shards.begin(), shards.end(), [&](const SafetensorsFile& shard) { return shard.path() == path; });
        if (!used) problems.push_back({Severity::Note, path.filename().string(), "lies beside the checkpoint and is not part of it", ""});
    }
}

constexpr std::uint64_t kWholeFingerprintBytes = 256'000'000;
constexpr std::uint64_t kSampleBytes = 16 * 1024;

/// The formatting and the order of keys carry no meaning.
std::string canonical(const Json& json) {
    return nlohmann::json(json).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// What of a large tensor enters the fingerprint: its first, middle and last kSampleBytes, or all of a small one.
std::vector<std::span<const std::byte>> samplesOf(std::span<const std::byte> content) {
    if (content.size() <= 3 * kSampleBytes) return {content};
    return {content.first(kSampleBytes), content.subspan((content.size() - kSampleBytes) / 2, kSampleBytes), content.last(kSampleBytes)};
}

}  // namespace

bool naturalLess(std::string_view a, std::string_view b) noexcept {
    const auto digit = [](std::string_view text, std::size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
    std::size_t i = 0, j = 0;
    while (i < a.size() && j < b.size()) {
        if (digit(a, i) && digit(b, j)) {
            const auto number = [&](std::string_view text, std::size_t& at) {
                while (digit(text, at) && text[at] == '0') ++at;
                const std::size_t first = at;
                while (digit(text, at)) ++at;
                return text.substr(first, at - first);
            };
            const std::string_view x = number(a, i), y = number(b, j);
            if (x.size() != y.size()) return x.size() < y.size();
            if (x != y) return x < y;
        } else if (a[i] != b[j]) {
            return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
        } else {
            ++i;
            ++j;
        }
    }
    if (i < a.size() || j < b.size()) return j < b.size();
    return a < b;  // equal but for leading zeros
}

Checkpoint Checkpoint::open(const fs::path& path) {
    const Layout layout = layoutOf(path);
    const Index index = layout.index.empty() ? Index{} : readIndex(layout.index);
    if (!layout.index.empty() && index.fileOf.empty()) throw Error(ErrorCode::BadInput, layout.index.string(), "weight_map names no tensor");
    Checkpoint checkpoint;
    checkpoint.m_folder = layout.folder;
    checkpoint.m_config = optionalJson(layout.folder / "config.json");
    checkpoint.m_resectConfig = optionalJson(layout.folder / "resect.json");
    checkpoint.m_shards = openShards(layout, index);
    checkpoint.m_tensors = collectTensors(checkpoint.m_shards, layout, index, checkpoint.m_problems);
    normaliseTensorNames(checkpoint.m_config, checkpoint.m_tensors, checkpoint.m_problems);
    std::sort(checkpoint.m_tensors.begin(), checkpoint.m_tensors.end(), [](const TensorInfo& a, const TensorInfo& b) { return naturalLess(a.name, b.name); });
    noteUnusedShards(layout, checkpoint.m_shards, checkpoint.m_resectConfig, checkpoint.m_problems);
    return checkpoint;
}

const TensorInfo* Checkpoint::find(std::string_view name) const noexcept {
    const auto it = std::lower_bound(m_tensors.begin(), m_tensors.end(), name,
                                     [](const TensorInfo& tensor, std::string_view wanted) { return naturalLess(tensor.name, wanted); });
    return it != m_tensors.end() && it->name == name ? &*it : nullptr;
}

std::span<const std::byte> Checkpoint::bytes(const TensorInfo& tensor) const noexcept {
    return m_shards[static_cast<std::size_t>(tensor.shard)].bytes(tensor);
}
void Checkpoint::release(const TensorInfo& tensor) const noexcept { release(tensor, bytes(tensor)); }
void Checkpoint::release(const TensorInfo& tensor, std::span<const std::byte> part) const noexcept {
    m_shards[static_cast<std::size_t>(tensor.shard)].release(part);
}

std::uint64_t Checkpoint::totalBytes() const noexcept {
    std::uint64_t total = 0;
    for (const TensorInfo& tensor : m_tensors) total += tensor.bytes();
    return total;
}

std::int64_t Checkpoint::totalParameters() const noexcept {
    std::int64_t total = 0;
    for (const TensorInfo& tensor : m_tensors)
        if (isFloat(tensor.dtype)) total += tensor.numel();
    return total;
}

const std::string& Checkpoint::fingerprint() const {
    const std::lock_guard lock(*m_fingerprintMutex);
    if (!m_fingerprint.empty()) return m_fingerprint;
    Sha256 sha;
    sha.add("resect fingerprint 1\n" + canonical(m_config) + "\n" + canonical(m_resectConfig) + "\n");
    const bool sampled = totalBytes() > kWholeFingerprintBytes;
    if (sampled) {
        // All samples are on their way before the first is waited for, and nothing beside them is read.
        for (const SafetensorsFile& shard : m_shards) shard.mapping().setRandomAccess(true);
        for (const TensorInfo& tensor : m_tensors)
            for (const auto part : samplesOf(bytes(tensor))) MappedFile::prefetch(part);
    }
    for (const TensorInfo& tensor : m_tensors) {
        std::string line = tensor.name + " " + std::string(name(tensor.dtype));
        for (const std::int64_t size : tensor.shape) line += " " + toText(size);
        sha.add(line + "\n");
        if (sampled)
            for (const auto part : samplesOf(bytes(tensor))) sha.add(part);
        else
            sha.add(bytes(tensor));
        release(tensor);
    }
    if (sampled)
        for (const SafetensorsFile& shard : m_shards) shard.mapping().setRandomAccess(false);
    m_fingerprint = "sha256:" + sha.hex();
    return m_fingerprint;
}

}  // namespace resect
