#pragma once
#include "widgets/models/document.h"

#include <QDateTime>
#include <QString>

#include <map>
#include <string>
#include <vector>

namespace resect::ui {

/// What a workspace folder (NAME.resect) holds of the window: workspace.json and plans/current.json. Measurements, runs and exports
/// lie beside them and are written by others.
struct WorkspaceState {
    std::string checkpoint, fingerprint;
    Plan plan;
    std::string planFingerprint;                    ///< of the checkpoint that the plan was made for
    std::map<std::string, RefSet> selections;       ///< named ones
    protocol::DataMessage data;
    ComputeSettings compute;
    Json window = Json::object();                   ///< {"state", "page", ...}: the main window's business
    Json forms = Json::object();                    ///< last settings of dialogs, per method
};

/// Writes both files, each under a temporary name that is renamed. Creates the folder. Returns why it failed, empty when it did not.
QString saveWorkspace(const QString& folder, const WorkspaceState& state);
/// Throws resect::Error naming file and field. A missing plan is an empty one.
WorkspaceState loadWorkspace(const QString& folder);
bool isWorkspace(const QString& path);              ///< a folder with a workspace.json, or that file
/// Copies the small files and moves nothing: plans, measures, runs that are not active. Returns why it failed.
QString copyWorkspace(const QString& from, const QString& to);
/// Where a model that was opened without a workspace keeps its own: one per checkpoint, under the user's data folder.
QString homeWorkspace(const protocol::ModelMessage& model);

struct RecentEntry {
    QString path;       ///< checkpoint or workspace
    QString name;
    qint64 bytes = 0;   ///< of the checkpoint
    QDateTime opened;
};
/// Newest first, at most 12; paths that no longer exist are left out.
std::vector<RecentEntry> recentEntries();
void addRecent(const RecentEntry& entry);
void removeRecent(const QString& path);

/// resources/demo beside the program or in the source tree; empty when it was not built. The first checkpoint folder in it, dense ones first.
QString demoCheckpoint();
/// A text for calibration that lies beside the demo; empty when there is none.
QString demoText();

}  // namespace resect::ui
