#pragma once
#include "core/protocol/run_files.h"

#include <QAbstractTableModel>
#include <QElapsedTimer>
#include <QFileSystemWatcher>
#include <QObject>
#include <QTimer>

#include <memory>
#include <vector>

namespace resect::ui {

/// Follows one run folder through its text files; needs no connection to the run, which may be on another machine.
///
/// poll() reads status.json when it changed and, while rows are wanted, what was appended to metrics.jsonl: whole lines only, in
/// pieces that keep the GUI thread free. A file that shrank or was rewritten is read anew.
class RunFollower final : public QObject {
    Q_OBJECT
public:
    /// Waiting: no status yet. Silent: heartbeat older than 5 s. Lost: the process is gone without having said goodbye (known on this host only).
    enum class Life { Waiting, Live, Silent, Lost, Ended };

    explicit RunFollower(const QString& folder, QObject* parent = nullptr);

    const QString& folder() const noexcept { return m_folder; }
    QString id() const;              ///< name of the folder
    QString title() const;           ///< recipe and what it trains on, from job.json
    const Json& job() const noexcept { return m_job; }
    QString controlFolder() const;   ///< of the run that trains the uncut model the same way; empty = none
    const protocol::RunStatus& status() const noexcept { return m_status; }
    bool hasStatus() const noexcept { return m_hasStatus; }
    Life life() const;
    bool isActive() const;           ///< not ended, as far as the files say
    bool canResume() const;          ///< ended or lost, and a checkpoint lies there
    /// "running", "pausing after this step", "not answering for 12 s", ...
    QString stateWords() const;
    double fraction() const;         ///< of the steps, -1 = unknown

    /// From now on metrics.jsonl is read too.
    void wantRows();
    const std::vector<protocol::MetricsRow>& rows() const noexcept { return m_rows; }
    int unreadableLines() const noexcept { return m_unreadable; }

    void poll();
    /// Writes "pause", "resume" or "stop" for the run to find. False and `problem` when that failed.
    bool control(const QString& word, QString* problem = nullptr);
    QString logTail(int lines) const;

Q_SIGNALS:
    void statusChanged();
    void rowsAppended(int first);    ///< rows() from this position are new; 0 after a rewrite: forget what was drawn
    void lifeChanged();

private:
    bool wasLaunched() const;        ///< by a window, which leaves a log of it
    void readStatus();
    void readRows();
    void resetRows();

    static constexpr qint64 kSilentMs = 5'000;
    static constexpr qint64 kPiece = 256 << 10;

    QString m_folder;
    Json m_job;
    protocol::RunStatus m_status;
    bool m_hasStatus = false, m_wantRows = false, m_moreRows = false;
    QByteArray m_statusText;
    QElapsedTimer m_sinceHeartbeat;
    qint64 m_heartbeatAgeAtFirst = 0;
    QString m_requested;             ///< control word written, until the state follows
    Life m_lastLife = Life::Waiting;
    qint64 m_offset = 0;
    QByteArray m_lastLine;
    std::vector<protocol::MetricsRow> m_rows;
    int m_unreadable = 0;
};

/// All runs of a workspace, newest first; looks for new folders and polls the known ones once a second and when files change.
class RunList final : public QAbstractTableModel {
    Q_OBJECT
public:
    enum Column { Name, State, Recovery, Progress, Perplexity /* of images accuracy */, Loss, Speed, Eta, Memory, Started, ColumnCount };
    enum Role { SortRole = Qt::UserRole, FolderRole, FractionRole, LifeRole };

    explicit RunList(QObject* parent = nullptr);
    /// `folder`: WORKSPACE/runs; need not exist yet. Empty = none.
    void setFolder(const QString& folder);
    void addFolder(const QString& runFolder);   ///< one outside of the workspace too
    void refresh();

    int size() const { return static_cast<int>(m_runs.size()); }
    RunFollower* run(int row) const { return row >= 0 && row < size() ? m_runs[static_cast<size_t>(row)].get() : nullptr; }
    RunFollower* findRun(const QString& folder) const;
    /// What the cut lost and training brought back, compared with the control where there is one; NaN while it is not known.
    double recovered(const RunFollower& run) const;
    std::vector<RunFollower*> activeRuns() const;   ///< those that answer or might: live, silent, waiting

    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

    void setShown(const QString& folder, bool shown);  ///< the check box: curves drawn
    void setColour(const QString& folder, int colour); ///< of its curves (Theme::seriesColour), shown beside the name; -1 = none
    Qt::ItemFlags flags(const QModelIndex& index) const override;
    bool setData(const QModelIndex& index, const QVariant& value, int role) override;

Q_SIGNALS:
    void runAdded(resect::ui::RunFollower* run);
    void runChanged(resect::ui::RunFollower* run);
    void shownChanged(resect::ui::RunFollower* run, bool shown);
    void activeChanged();

private:
    void insert(const QString& runFolder);
    int rowOf(const RunFollower* run) const;

    QString m_folder;
    std::vector<std::unique_ptr<RunFollower>> m_runs;
    QStringList m_shown, m_extra;
    QHash<QString, int> m_colours;
    QFileSystemWatcher m_watcher;
    QTimer m_timer;
    size_t m_lastActive = 0;
};

/// Starts `PROGRAM arguments` as a process of its own that outlives the window; its output goes to launcher.txt in the run folder.
bool startDetachedRun(const QString& program, const QStringList& arguments, const QString& runFolder, QString* problem = nullptr);

}  // namespace resect::ui
