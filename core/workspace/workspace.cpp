#include "core/workspace/workspace.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/log.h"
#include "core/base/version.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/workspace/report_file.h"

#include <algorithm>
#include <ctime>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFile = "workspace.json";
constexpr const char* kFolders[] = {"plans", "measures", "runs", "exports"};

/// Letters, digits, spaces and - _ . ( ) + only: the same file name everywhere.
void checkFileName(const std::string& name, const std::string& subject) {
    const auto allowed = [](unsigned char c) { return std::isalnum(c) || c >= 0x80 || std::string_view(" -_.()+").find(char(c)) != std::string_view::npos; };
    const bool good = !name.empty() && name.size() <= 100 && name.front() != '.' && name.front() != ' ' && name.back() != ' ' && std::all_of(name.begin(), name.end(), allowed);
    if (!good) throw Error(ErrorCode::BadInput, subject, "expected a name of 1 to 100 letters, digits, spaces or - _ . ( ) +, found \"" + name + "\"");
}

void makeFolder(const fs::path& folder) {
    std::error_code failed;
    fs::create_directories(folder, failed);
    if (failed) throw Error(ErrorCode::NoPermission, folder.string(), "the folder cannot be created: " + failed.message());
}

std::vector<fs::path> entries(const fs::path& folder, std::string_view extension) {
    std::vector<fs::path> paths;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored))
        if (extension.empty() ? entry.is_directory(ignored) : entry.path().extension() == extension) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    return paths;
}

void newestFirst(std::vector<fs::path>& paths) {
    const auto written = [](const fs::path& path) {
        std::error_code failed;
        return fs::last_write_time(path, failed);
    };
    std::stable_sort(paths.begin(), paths.end(), [&](const auto& a, const auto& b) { return written(a) > written(b); });
}

/// Empty, or left behind by a create() that was cut short: nothing but our own empty subfolders.
bool isUnused(const fs::path& folder) {
    std::error_code ignored;
    if (!fs::is_directory(folder, ignored)) return false;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
        const bool ours = std::find(std::begin(kFolders), std::end(kFolders), entry.path().filename().string()) != std::end(kFolders);
        if (!ours || !fs::is_directory(entry.path(), ignored) || !fs::is_empty(entry.path(), ignored)) return false;
    }
    return true;
}

}  // namespace

std::string MeasureKey::hex() const {
    const nlohmann::json sorted = nlohmann::json::parse(parameters.dump());
    Json all = Json::object();
    all["version"] = versionText();
    all["method"] = method;
    all["parameters"] = sorted.dump();
    all["model"] = modelFingerprint;
    all["data"] = dataFingerprint;
    all["dtype"] = dtype;
    all["seed"] = seed;
    return sha256Hex(all.dump()).substr(0, 32);
}

MeasureKey keyOf(const Report& report) {
    return {report.method, report.parameters, report.modelFingerprint, report.dataFingerprint, report.dtype, report.seed};
}

Workspace::Workspace(fs::path folder, protocol::WorkspaceFile info) : m_folder(std::move(folder)), m_info(std::move(info)) {}

Workspace Workspace::create(const fs::path& folder, const protocol::WorkspaceFile& info) {
    std::error_code ignored;
    if (fs::exists(folder, ignored) && !isUnused(folder))
        throw Error(ErrorCode::BadInput, folder.string(), "expected a new or an empty folder, found one in use");
    for (const char* name : kFolders) makeFolder(folder / name);
    Workspace workspace(fs::absolute(folder), {});
    workspace.save(info);
    return workspace;
}

bool Workspace::isWorkspace(const fs::path& folder) {
    std::error_code ignored;
    return fs::exists(folder / kFile, ignored);
}

Workspace Workspace::open(const fs::path& folder) {
    const fs::path file = folder / kFile;
    if (!isWorkspace(folder)) throw Error(ErrorCode::NotFound, folder.string(), "this is no workspace: it holds no workspace.json");
    auto info = protocol::WorkspaceFile::fromJson(readJsonFile(file), folder, file.string());
    for (const char* name : kFolders) makeFolder(folder / name);
    return Workspace(fs::absolute(folder), std::move(info));
}

void Workspace::save(const protocol::WorkspaceFile& info) {
    auto file = info;
    for (const auto& [field, value] : m_info.others.items()) {
        if (!file.others.contains(field)) file.others[field] = value;
    }
    writeJsonFile(m_folder / kFile, file.toJson(m_folder));
    m_info = std::move(file);
}

fs::path Workspace::planFile(const std::string& name) const {
    checkFileName(name, "plan name");
    return m_folder / "plans" / (name + ".json");
}

std::vector<std::string> Workspace::planNames() const {
    std::vector<std::string> names;
    for (const auto& path : entries(m_folder / "plans", ".json")) names.push_back(path.stem().string());
    return names;
}

EditPlan Workspace::readPlan(const std::string& name) const {
    const fs::path file = planFile(name);
    return EditPlan::fromJson(readJsonFile(file), file.string());
}

void Workspace::writePlan(const std::string& name, const EditPlan& plan) const { writeJsonFile(planFile(name), plan.toJson()); }

void Workspace::removePlan(const std::string& name) const {
    const fs::path file = planFile(name);
    std::error_code failed;
    if (!fs::remove(file, failed)) throw Error(ErrorCode::NotFound, file.string(), "there is no such plan");
}

std::optional<fs::path> Workspace::findMeasure(const MeasureKey& key) const {
    const std::string hex = key.hex();
    const fs::path file = m_folder / "measures" / (hex + ".h5");
    std::error_code ignored;
    if (!fs::exists(file, ignored)) return std::nullopt;
    try {
        const Report header = readReportHeader(file);
        if (!header.partial() && keyOf(header).hex() == hex) return file;
        log(LogLevel::Warning, file.string() + " holds another measurement than its name says; it is measured again");
    } catch (const Error& error) {
        log(LogLevel::Warning, std::string(error.what()) + "; it is measured again");
    }
    return std::nullopt;
}

fs::path Workspace::writeMeasure(const Report& report) const {
    const std::string hex = keyOf(report).hex();
    const fs::path complete = m_folder / "measures" / (hex + ".h5"), partial = m_folder / "measures" / (hex + ".partial.h5");
    const fs::path& file = report.partial() ? partial : complete;
    writeReport(file, report);
    std::error_code ignored;
    if (!report.partial()) fs::remove(partial, ignored);
    return file;
}

std::vector<fs::path> Workspace::measures() const {
    auto files = entries(m_folder / "measures", ".h5");
    newestFirst(files);
    return files;
}

fs::path Workspace::newRun(std::string_view recipe) const {
    checkFileName(std::string(recipe), "recipe");
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    gmtime_r(&now, &utc);
    char stamp[32];
    std::strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S-", &utc);
    const fs::path base = m_folder / "runs" / (stamp + std::string(recipe));
    for (int attempt = 1;; ++attempt) {
        const fs::path folder = attempt == 1 ? base : fs::path(base.string() + "-" + std::to_string(attempt));
        std::error_code failed;
        if (fs::create_directory(folder, failed)) return folder;
        if (failed) throw Error(ErrorCode::NoPermission, folder.string(), "the run folder cannot be created: " + failed.message());
    }
}

std::vector<fs::path> Workspace::runs() const {
    auto folders = entries(m_folder / "runs", "");
    newestFirst(folders);
    return folders;
}

fs::path Workspace::exportFolder(const std::string& name) const {
    checkFileName(name, "export name");
    return m_folder / "exports" / name;
}

}  // namespace resect
