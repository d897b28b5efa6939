#pragma once
#include "app/client/run_folder.h"
#include "app/client/worker_client.h"
#include "widgets/models/message_model.h"

#include <QTabWidget>

class QLabel;
class QListView;
class QPlainTextEdit;
class QPushButton;
class QTableView;
class QTableWidget;

namespace resect::ui {

class RunCurveView;

/// The bottom dock: recovery runs with their curves, jobs of the worker, messages, the worker's log.
class RunsDock final : public QTabWidget {
    Q_OBJECT
public:
    RunsDock(RunList& runs, WorkerClient& client, MessageModel& messages, QWidget* parent = nullptr);
    ~RunsDock() override;

    enum Tab { Recovery, Jobs, Messages, Log };
    void showRun(const QString& folder);
    RunFollower* currentRun() const;
    QTableView& table() const { return *m_table; }
    RunCurveView& curves() const { return *m_curves; }

    // On the run in focus; without effect when it does not fit its state.
    void pauseOrResume();
    void stopAndKeep();
    void resumeFromCheckpoint();

Q_SIGNALS:
    void problem(const QString& text);
    void recoverRequested();

private:
    QWidget* makeRecovery();
    QWidget* makeJobs();
    QWidget* makeMessages();
    QWidget* makeLog();
    void feed(RunFollower* run, int first);
    void refreshButtons();
    void refreshJobs();
    void select(const RunFollower* run);

    RunList& m_runs;
    WorkerClient& m_client;
    MessageModel& m_messageModel;
    QTableView* m_table;
    RunCurveView* m_curves;
    QPushButton *m_pause, *m_stop, *m_resume, *m_log, *m_folder;
    QLabel *m_runWords, *m_empty;
    QWidget* m_content;
    QTableWidget* m_jobs;
    QListView* m_messageList;
    QPlainTextEdit* m_logText;
};

}  // namespace resect::ui
