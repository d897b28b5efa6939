#include "core/method/method.h"

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/train/recipe.h"

#include <algorithm>
#include <cstdlib>
#include <dlfcn.h>
#include <set>

namespace resect {

namespace fs = std::filesystem;

namespace {

class Library {
public:
    explicit Library(const fs::path& file) : m_file(file) {
        // Lazily first, so that a library built for another version gets as far as the question for its ABI.
        m_handle = dlopen(file.c_str(), RTLD_LAZY | RTLD_LOCAL);
        if (!m_handle) throw Error(ErrorCode::BadInput, file.string(), "cannot be loaded: " + lastError());
    }
    ~Library() {
        if (m_handle && !m_keep) dlclose(m_handle);
    }
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;

    template <class Function> Function* symbol(const char* name) const {
        dlerror();
        void* address = dlsym(m_handle, name);
        if (!address) throw Error(ErrorCode::BadInput, m_file.string(), std::string("is not a plugin: it does not export ") + name);
        return reinterpret_cast<Function*>(address);
    }
    /// Opens the library anew with every symbol bound: a missing one is an error here, not the end of the program later. (Binding now
    /// what is open already does nothing.) Addresses from before are void.
    void resolveEverything() {
        dlclose(m_handle);
        m_handle = dlopen(m_file.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!m_handle) throw Error(ErrorCode::BadInput, m_file.string(), "cannot be loaded: " + lastError());
    }
    void keep() { m_keep = true; }

private:
    static std::string lastError() {
        const char* text = dlerror();
        return text ? text : "unknown reason";
    }
    fs::path m_file;
    void* m_handle = nullptr;
    bool m_keep = false;
};

std::vector<std::string> registerMethods(const fs::path& file, MethodRegistry& registry) {
    Library library(file);
    const int abi = library.symbol<int()>("resectPluginAbi")();
    if (abi != kPluginAbi)
        throw Error(ErrorCode::Mismatch, file.string(),
                    "was built for plugin interface " + std::to_string(abi) + ", this program has " + std::to_string(kPluginAbi) + "; rebuild it");
    library.resolveEverything();
    auto* registration = library.symbol<void(MethodRegistry&)>("resectRegister");
    // From here on objects of the library may be alive somewhere, so it must never be unloaded.
    library.keep();
    MethodRegistry own;
    registration(own);
    std::vector<std::string> ids;
    for (const auto& method : own.methods()) ids.push_back(method->info().id);
    for (const auto& recipe : own.recipes())
        if (std::find(ids.begin(), ids.end(), recipe->info().id) == ids.end()) ids.push_back(recipe->info().id);
    registry.merge(std::move(own));
    return ids;
}

PluginStatus load(const fs::path& file, MethodRegistry& registry) {
    PluginStatus status{file.string(), {}, {}};
    try {
        status.methods = registerMethods(file, registry);
        if (status.methods.empty()) status.error = "registered no method and no recipe";
    } catch (const Error& error) {
        status.error = error.message();
    } catch (const std::exception& error) {
        status.error = std::string("failed while registering: ") + error.what();
    } catch (...) {
        status.error = "failed while registering";
    }
    if (!status.error.empty()) log(LogLevel::Warning, "plugin " + status.file + ": " + status.error);
    return status;
}

/// In order of name. A folder that does not exist has none; `failed` says when one cannot be read.
std::vector<fs::path> librariesOf(const fs::path& folder, std::error_code& failed) {
    std::vector<fs::path> files;
    for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end; entry.increment(failed))
        if (entry->path().extension() == ".so") files.push_back(entry->path());
    if (failed == std::errc::no_such_file_or_directory) failed.clear();
    std::sort(files.begin(), files.end());
    return files;
}

}  // namespace

std::vector<fs::path> pluginFolders() {
    std::vector<fs::path> folders;
    std::error_code failed;
    const fs::path program = fs::read_symlink("/proc/self/exe", failed);
    if (!failed) {
        folders.push_back(program.parent_path().parent_path() / "lib/resect/plugins");
        folders.push_back(program.parent_path() / "lib/resect/plugins");
    }
    const char* more = std::getenv("RESECT_PLUGIN_PATH");
    const std::string list = more ? more : "";
    for (std::size_t begin = 0; begin < list.size();) {
        const std::size_t end = std::min(list.find(':', begin), list.size());
        if (end > begin) folders.push_back(list.substr(begin, end - begin));
        begin = end + 1;
    }
    return folders;
}

std::vector<PluginStatus> loadPlugins(MethodRegistry& registry, const std::vector<fs::path>& folders) {
    std::vector<PluginStatus> rows;
    std::set<fs::path> seen;
    for (const fs::path& folder : folders) {
        std::error_code unreadable;
        const auto files = librariesOf(folder, unreadable);
        if (unreadable) rows.push_back({folder.string(), {}, "the folder cannot be read: " + unreadable.message()});
        for (const fs::path& file : files) {
            std::error_code failed;
            const fs::path canonical = fs::canonical(file, failed);
            if (!failed && !seen.insert(canonical).second) continue;
            rows.push_back(load(file, registry));
        }
    }
    return rows;
}

std::vector<PluginStatus> loadPlugins(MethodRegistry& registry) { return loadPlugins(registry, pluginFolders()); }

}  // namespace resect
