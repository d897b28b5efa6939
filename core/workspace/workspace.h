#pragma once
#include "core/method/report.h"
#include "core/protocol/workspace_file.h"
#include "core/surgery/edit_plan.h"

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// Everything that a measurement depends on. Equal keys mean equal results, so none is computed twice.
struct MeasureKey {
    std::string method;
    Json parameters;              ///< complete (Parameters::json())
    std::string modelFingerprint, dataFingerprint, dtype;
    std::uint64_t seed = 0;
    /// 32 hexadecimal digits of the SHA-256 of all of it and of Resect's version; the order of the parameters does not count.
    std::string hex() const;
};
MeasureKey keyOf(const Report& report);

/// A workspace folder, NAME.resect: workspace.json, plans/, measures/, runs/, exports/. Every file is replaced atomically.
/// Cheap; holds no file open. Several processes may use one folder.
class Workspace {
public:
    /// Makes the folder and its subfolders. Throws BadInput when it holds something already, NoPermission.
    static Workspace create(const std::filesystem::path& folder, const protocol::WorkspaceFile& info);
    /// Throws NotFound (no workspace.json), BadInput naming the field.
    static Workspace open(const std::filesystem::path& folder);
    static bool isWorkspace(const std::filesystem::path& folder);

    const std::filesystem::path& folder() const noexcept { return m_folder; }
    const protocol::WorkspaceFile& info() const noexcept { return m_info; }
    /// Writes workspace.json. Fields that `info` does not have stay as they are.
    void save(const protocol::WorkspaceFile& info);

    std::vector<std::string> planNames() const;                          ///< ascending
    EditPlan readPlan(const std::string& name) const;                    ///< throws NotFound, BadInput
    void writePlan(const std::string& name, const EditPlan& plan) const; ///< throws BadInput when the name cannot be a file name
    void removePlan(const std::string& name) const;                      ///< throws NotFound

    /// The complete measurement with this key; nullopt when there is none or it cannot be read (which is logged). Partial ones do not count.
    std::optional<std::filesystem::path> findMeasure(const MeasureKey& key) const;
    /// measures/KEY.h5, or measures/KEY.partial.h5 when the report is partial; a complete one replaces the partial one. Returns the file.
    std::filesystem::path writeMeasure(const Report& report) const;
    std::vector<std::filesystem::path> measures() const;                 ///< all files, newest first, partial ones too

    /// A fresh, empty folder runs/ID; the id ascends with time ("20260131-120000-lora", "-2" appended when taken).
    std::filesystem::path newRun(std::string_view recipe) const;
    std::vector<std::filesystem::path> runs() const;                     ///< newest first
    std::filesystem::path exportFolder(const std::string& name) const;   ///< exports/NAME, not created

private:
    Workspace(std::filesystem::path folder, protocol::WorkspaceFile info);
    std::filesystem::path planFile(const std::string& name) const;
    std::filesystem::path m_folder;
    protocol::WorkspaceFile m_info;
};

}  // namespace resect
