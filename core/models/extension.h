#pragma once
#include "core/protocol/json.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace resect {

class Checkpoint;
class LanguageModel;
struct ModelShape;

/// Modules that a checkpoint brings beside the parts of its family: routers, exits. resect.json lists them, so that Resect runs the checkpoint as it was
/// trained and no other program takes it for the plain model (config.json then says `"model_type": "resect"`):
///
///   "extensions": [{"id": "router-tuning", "file": "routers.safetensors", "sha256": "...", "settings": {...}}]
///
/// The file lies beside the shards. Plugins bring extensions; loading a checkpoint whose extension is not there is refused.
class ModelExtension {
public:
    virtual ~ModelExtension() = default;
    virtual std::string id() const = 0;
    /// Puts the modules into a model that was just loaded. `file` has the contents that resect.json vouches for. Throws BadInput, Mismatch.
    virtual void attach(LanguageModel& model, const Json& settings, const std::filesystem::path& file) const = 0;
};

/// Makes an extension known to the process; it takes the place of one with the same id. Thread-safe.
void addModelExtension(std::shared_ptr<const ModelExtension> extension);
/// `load` is called once, when an extension is first asked for that is not known; it adds those of plugins.
void setExtensionLoader(std::function<void()> load);

/// Names of the files beside the shards that they need, in order; empty when resect.json lists none. Throws BadInput naming the field.
std::vector<std::string> extensionFiles(const Checkpoint& checkpoint);
/// Throws Unsupported, naming them, when the checkpoint has any: `why` says what cannot be done ("a cut would lose them").
void requireNoExtensions(const Checkpoint& checkpoint, const std::string& why);
/// Enters an extension into the description of a checkpoint that is being written: into resect.json of the folder, made from `shape` when there is none, and
/// config.json, both of which lie there already in the form of the plain model. `file` lies there too.
void listExtension(const std::filesystem::path& folder, const ModelShape& shape, const std::string& id, const std::string& file, const Json& settings);
/// Attaches all. Throws BadInput naming the field of resect.json, Unsupported when one is not known, NotFound or Corrupt when its file is not what was written.
void attachExtensions(LanguageModel& model, const Checkpoint& checkpoint);

}  // namespace resect
