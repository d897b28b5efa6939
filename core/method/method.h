#pragma once
#include "core/anatomy/anatomy.h"
#include "core/base/job.h"
#include "core/data/dataset.h"
#include "core/measure/model_run.h"
#include "core/protocol/parameter.h"
#include "core/method/report.h"
#include "core/surgery/edit_plan.h"

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

class Recipe;

struct MethodInfo {
    std::string id;                          ///< "llm-drop"
    std::string title, summary, paper;       ///< paper: title, arXiv number, year
    std::vector<std::string> families;       ///< model types; empty = all that Resect runs
    std::vector<ParameterInfo> measureParameters, planParameters;
};

/// A published method: measures, proposes plans, or both. Stateless: one object serves every job.
class Method {
public:
    virtual ~Method() = default;
    virtual const MethodInfo& info() const noexcept = 0;
    /// Scores components. Changes no weight. Reports progress and honours job.stopped() every second; when stopped returns what is finished.
    /// Throws Unsupported when the method only plans.
    virtual Report analyse(ModelRun& run, const Parameters& parameters, const JobContext& job) const = 0;
    /// Pure: the same report and parameters give the same plan. Throws Unsupported when the method only measures.
    virtual EditPlan plan(const Anatomy& anatomy, const Report& report, const Parameters& parameters) const = 0;
};

class MethodRegistry {
public:
    void add(std::unique_ptr<Method> method);             ///< throws Internal on a repeated id
    const Method* find(std::string_view id) const noexcept;
    const Method& method(std::string_view id) const;      ///< throws Usage listing the known ids
    const std::vector<std::unique_ptr<Method>>& methods() const noexcept { return m_methods; }
    /// A way to train (core/train/recipe.h). Throws Internal on a repeated id.
    void addRecipe(std::shared_ptr<const Recipe> recipe);
    const std::vector<std::shared_ptr<const Recipe>>& recipes() const noexcept { return m_recipes; }
    /// Moves all methods and recipes of `other` here, or none when an id is already taken (throws Internal naming it).
    void merge(MethodRegistry other);

private:
    bool hasRecipe(std::string_view id) const noexcept;
    std::vector<std::shared_ptr<const Recipe>> m_recipes;
    std::vector<std::unique_ptr<Method>> m_methods;
};

/// Checked before anything else of a plugin is called.
inline constexpr int kPluginAbi = 2;
/// A plugin exports `extern "C" int resectPluginAbi()` and `extern "C" void resectRegister(resect::MethodRegistry&)`.
struct PluginStatus {
    std::string file;
    std::vector<std::string> methods;  ///< ids of the methods and recipes it registered, without repeats
    std::string error;                 ///< empty when it was loaded
};
/// `lib/resect/plugins` beside the folder of the running program (or in it), then the folders of RESECT_PLUGIN_PATH (separated by colons).
std::vector<std::filesystem::path> pluginFolders();
/// Loads every *.so of the folders, in order of file name. A failure is a row, never a throw: not a library, symbols missing, another
/// ABI (told before anything else is called), registration that throws or repeats an id (then none of its methods is taken).
/// A loaded library stays loaded until the process ends.
std::vector<PluginStatus> loadPlugins(MethodRegistry& registry, const std::vector<std::filesystem::path>& folders);
std::vector<PluginStatus> loadPlugins(MethodRegistry& registry);

/// A report with everything but results filled in: method, parameters, fingerprints, data, dtype, version.
Report startReport(const Method& method, const ModelRun& run, const Parameters& parameters);

}  // namespace resect
