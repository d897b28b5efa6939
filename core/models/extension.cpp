#include "core/models/extension.h"

#include "core/base/error.h"
#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/models/model.h"

#include <map>
#include <mutex>

namespace resect {

namespace fs = std::filesystem;

namespace {

struct Known {
    std::mutex mutex;
    std::map<std::string, std::shared_ptr<const ModelExtension>, std::less<>> added;
    std::function<void()> load;
};
Known& known() {
    static Known table;
    return table;
}

std::shared_ptr<const ModelExtension> find(const std::string& id) {
    const std::scoped_lock lock(known().mutex);
    const auto found = known().added.find(id);
    return found == known().added.end() ? nullptr : found->second;
}

std::shared_ptr<const ModelExtension> extension(const std::string& id, const std::string& subject) {
    if (auto found = find(id)) return found;
    std::function<void()> load;
    {
        const std::scoped_lock lock(known().mutex);
        std::swap(load, known().load);
    }
    if (load) load();
    if (auto found = find(id)) return found;
    throw Error(ErrorCode::Unsupported, subject, "the checkpoint runs with \"" + id + "\", which no installed plugin offers");
}

std::string subjectOf(const Checkpoint& checkpoint) { return (checkpoint.folder() / "resect.json").string() + ": extensions"; }

Json listOf(const Checkpoint& checkpoint) {
    const Json& resect = checkpoint.resectConfig();
    if (!resect.is_object() || !resect.contains("extensions")) return Json::array();
    if (!resect.at("extensions").is_array()) throw Error(ErrorCode::BadInput, subjectOf(checkpoint), "expected a list");
    return resect.at("extensions");
}

std::string fileOf(const Json& entry, const std::string& subject) {
    const auto name = stringField(entry, "file", subject);
    if (name.empty() || fs::path(name).filename() != name) throw Error(ErrorCode::BadInput, subject, "file: expected the name of a file in the folder, found \"" + name + "\"");
    return name;
}

}  // namespace

void addModelExtension(std::shared_ptr<const ModelExtension> extension) {
    const std::scoped_lock lock(known().mutex);
    known().added[extension->id()] = std::move(extension);
}

void setExtensionLoader(std::function<void()> load) {
    const std::scoped_lock lock(known().mutex);
    known().load = std::move(load);
}

std::vector<std::string> extensionFiles(const Checkpoint& checkpoint) {
    std::vector<std::string> files;
    for (const Json& entry : listOf(checkpoint)) files.push_back(fileOf(entry, subjectOf(checkpoint)));
    return files;
}

void requireNoExtensions(const Checkpoint& checkpoint, const std::string& why) {
    std::string ids;
    for (const Json& entry : listOf(checkpoint)) ids += (ids.empty() ? "" : ", ") + stringField(entry, "id", subjectOf(checkpoint));
    if (!ids.empty()) throw Error(ErrorCode::Unsupported, checkpoint.folder().string(), "the checkpoint runs with " + ids + "; " + why);
}

void listExtension(const fs::path& folder, const ModelShape& shape, const std::string& id, const std::string& file, const Json& settings) {
    Json config = readJsonFile(folder / "config.json");
    config["model_type"] = "resect";
    config["architectures"] = Json::array({"ResectForCausalLM"});
    writeJsonFile(folder / "config.json", config);
    Json resect = fs::exists(folder / "resect.json") ? readJsonFile(folder / "resect.json") : resectConfigOf(shape);
    if (!resect.contains("extensions")) resect["extensions"] = Json::array();
    resect["extensions"].push_back(Json{{"id", id}, {"file", file}, {"sha256", sha256File(folder / file)}, {"settings", settings}});
    writeJsonFile(folder / "resect.json", resect);
}

void attachExtensions(LanguageModel& model, const Checkpoint& checkpoint) {
    const auto subject = subjectOf(checkpoint);
    for (const Json& entry : listOf(checkpoint)) {
        const auto id = stringField(entry, "id", subject), sha = stringField(entry, "sha256", subject);
        const auto file = checkpoint.folder() / fileOf(entry, subject);
        if (!fs::exists(file)) throw Error(ErrorCode::NotFound, file.string(), "is missing; the extension \"" + id + "\" needs it");
        if (const auto found = sha256File(file); found != sha)
            throw Error(ErrorCode::Corrupt, file.string(), "expected the SHA-256 " + sha + " that resect.json gives, found " + found);
        extension(id, subject)->attach(model, entry.value("settings", Json::object()), file);
    }
}

}  // namespace resect
