#pragma once
#include "app/client/run_folder.h"
#include "app/client/worker_client.h"
#include "app/window/workspace_store.h"
#include "widgets/models/document.h"

#include <QObject>
#include <QTimer>

#include <functional>
#include <map>

namespace resect::ui {

/// Scores of one kind of part, from the newest measurement that has them.
struct PartScores {
    QHash<ComponentRef, double> values;
    QString title, help;
    bool higherKeeps = true;   ///< false: high = removable
};

/// Calibration data of the last model of this kind, in the settings: text and images are remembered apart.
QString lastDataKey(const protocol::ModelMessage& model);
/// Images that measuring and preview take unless the user says otherwise.
inline constexpr int kCalibrationImages = 1024;
/// Whether a method works on models of this family.
bool suits(const protocol::MethodMessage& method, const protocol::ModelMessage& model);

/// What happens between the document, the worker and the workspace folder: opening, checking the plan after every change, preview, scores, saving.
class Session final : public QObject {
    Q_OBJECT
public:
    Session(Document& document, WorkerClient& client, RunList& runs, QObject* parent = nullptr);

    /// A checkpoint (folder, index, config or .safetensors) or a workspace.
    void open(const QString& path);
    void openDemo();
    void close();
    bool isOpening() const noexcept { return !m_opening.isEmpty(); }
    const QString& opening() const noexcept { return m_opening; }

    /// Writes the workspace now. False when it failed (a message was sent).
    bool save();
    bool saveAs(const QString& folder);
    bool isUnsaved() const noexcept { return m_dirty; }
    /// The workspace lies where the user put it, not in the data folder.
    bool hasOwnPlace() const;

    void startPreview();
    void cancelPreview();
    bool isPreviewing() const noexcept { return m_previewId != 0; }
    void setAutoPreview(bool on);
    bool autoPreview() const noexcept { return m_autoPreview; }

    /// Runs a measurement with these settings as a job; the result goes into the document.
    void measure(const protocol::MethodMessage& method, const Json& set);
    /// Asks a method for edits from a measurement file and adds them to the plan.
    void suggest(const protocol::MethodMessage& method, const Json& set, const QString& file);

    const std::map<PartKind, PartScores>& scores() const noexcept { return m_scores; }
    std::map<std::string, RefSet>& namedSelections() noexcept { return m_selections; }
    Json& forms() noexcept { return m_forms; }       ///< last settings of dialogs, saved with the workspace
    void markDirty();

    Json jobArgs() const;   ///< {"data", "device", "dtype", "workspace"} as measure and preview take them

    std::function<Json()> captureWindow;             ///< layout to be saved
    std::function<void(const Json&)> restoreWindow;

Q_SIGNALS:
    void openingChanged();
    void openFailed(const QString& path, const QString& reason);
    void opened();
    void message(const resect::protocol::ProblemMessage& message);
    void previewStateChanged(const QString& words, double progress);   ///< progress < 0: nothing runs
    void scoresChanged();
    void saved(const QDateTime& time);

private:
    void openModel(const QString& path, const QString& workspace);
    void adoptModel(protocol::ModelMessage model, const QString& workspace);
    void adoptWorkspace(const QString& folder, const protocol::ModelMessage& model);
    void askCheck();
    void askMethods();
    void askMeasures();
    void askScores();
    void say(const char* severity, const QString& subject, const QString& text, const QString& advice = QString());

    Document& m_document;
    WorkerClient& m_client;
    RunList& m_runs;
    QString m_opening;
    QTimer m_autosave, m_previewTimer;
    bool m_dirty = false, m_autoPreview = true, m_loading = false;
    qint64 m_previewId = 0;
    int m_previewTurn = 0;
    std::map<PartKind, PartScores> m_scores;
    std::map<std::string, RefSet> m_selections;
    Json m_forms = Json::object();
};

}  // namespace resect::ui
