#include "core/export/manifest.h"

#include "core/base/error.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <map>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr int kManifestVersion = 1;

struct Entry {
    std::int64_t bytes = 0;
    std::string sha256;
};

/// Names come from a file that somebody else may have written: they must stay inside the folder.
bool isInside(const std::string& name) {
    const fs::path path(name);
    return !name.empty() && path.is_relative() &&
           std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
}

std::map<std::string, Entry> readManifest(const fs::path& path) {
    const std::string subject = path.string();
    const Json json = readJsonFile(path);
    if (!json.is_object())
        throw Error(ErrorCode::BadInput, subject, "expected an object, found " + std::string(json.type_name()));
    if (const std::int64_t version = intField(json, "resect_manifest", subject); version != kManifestVersion)
        throw Error(ErrorCode::BadInput, subject + ": resect_manifest", "expected version 1, found " + toText(version));
    const auto files = json.find("files");
    if (files == json.end() || !files->is_array())
        throw Error(ErrorCode::BadInput, subject + ": files", "expected a list of files");
    std::map<std::string, Entry> entries;
    for (const Json& file : *files) {
        const std::string where = subject + ": files[" + toText(static_cast<std::int64_t>(entries.size())) + "]";
        if (!file.is_object()) throw Error(ErrorCode::BadInput, where, "expected an object with name, bytes and sha256");
        const std::string name = stringField(file, "name", where);
        if (!isInside(name)) throw Error(ErrorCode::BadInput, where + ": name", "\"" + name + "\" does not lie in the folder");
        if (!entries.emplace(name, Entry{intField(file, "bytes", where), stringField(file, "sha256", where)}).second)
            throw Error(ErrorCode::BadInput, where + ": name", "\"" + name + "\" is listed twice");
    }
    return entries;
}

}  // namespace

std::vector<std::string> filesBelow(const fs::path& folder) {
    std::vector<std::string> files;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
        if (entry.is_regular_file()) files.push_back(entry.path().lexically_relative(folder).generic_string());
    std::sort(files.begin(), files.end());
    return files;
}

void writeManifest(const fs::path& folder, const std::vector<WrittenShard>& known, const JobContext& job) {
    Json files = Json::array();
    for (const std::string& name : filesBelow(folder)) {
        if (name == kManifestName) continue;
        const auto shard =
            std::find_if(known.begin(), known.end(), [&](const WrittenShard& written) { return written.fileName == name; });
        Json entry = Json::object();
        entry["name"] = name;
        entry["bytes"] = fs::file_size(folder / name);
        entry["sha256"] = shard != known.end() ? shard->sha256 : sha256File(folder / name, job);
        files.push_back(std::move(entry));
    }
    Json manifest = Json::object();
    manifest["resect_manifest"] = kManifestVersion;
    manifest["files"] = std::move(files);
    writeJsonFile(folder / kManifestName, manifest);
}

std::vector<Problem> checkManifest(const fs::path& folder, const JobContext& job) {
    std::vector<Problem> problems;
    const auto error = [&](const std::string& subject, std::string message, std::string advice = {}) {
        problems.push_back({Severity::Error, subject, std::move(message), std::move(advice)});
    };
    const fs::path path = folder / kManifestName;
    if (!fs::exists(path)) {
        error(kManifestName, "The folder has no manifest, so its files cannot be compared with what was written.",
              "Export again, or use it without this check.");
        return problems;
    }
    std::map<std::string, Entry> entries;
    try {
        entries = readManifest(path);
    } catch (const Error& failure) {
        error(failure.subject(), failure.message());
        return problems;
    }
    for (const auto& [name, entry] : entries) {
        std::error_code failed;
        const auto bytes = fs::file_size(folder / name, failed);
        if (failed)
            error(name, "The file is missing.", "The folder was not copied completely; copy or export it again.");
        else if (static_cast<std::int64_t>(bytes) != entry.bytes)
            error(name, "Expected " + toText(entry.bytes) + " bytes, found " + toText(static_cast<std::int64_t>(bytes)) + ".",
                  "Copy or export it again.");
        else if (sha256File(folder / name, job) != entry.sha256)
            error(name, "Its content is not what was written (SHA-256 differs).",
                  "The file was changed or damaged; copy or export it again.");
    }
    for (const std::string& name : filesBelow(folder))
        if (name != kManifestName && !entries.contains(name))
            problems.push_back({name.ends_with(".safetensors") ? Severity::Error : Severity::Warning, name,
                                "The file is not part of the export.",
                                name.ends_with(".safetensors") ? "Remove it: programs may load it with the others."
                                                               : "Remove it if you did not put it there."});
    return problems;
}

}  // namespace resect
