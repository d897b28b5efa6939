#pragma once
#include "app/window/page_list.h"
#include "app/window/session.h"
#include "widgets/models/message_model.h"

#include <QDockWidget>
#include <QHash>
#include <QMainWindow>

class QLabel;
class QMenu;
class QProgressBar;
class QSplitter;
class QStackedWidget;
class QTabWidget;
class QToolButton;

namespace resect::ui {

class PlanView;
class RunsDock;
class StartPage;
class StructureView;

/// The window: menus, tool bar, docks, pages and status bar around one document. ui.md in the project's papers is its specification.
class MainWindow final : public QMainWindow {
    Q_OBJECT
public:
    explicit MainWindow(QWidget* parent = nullptr);
    ~MainWindow() override;

    Document& document() noexcept { return m_document; }
    WorkerClient& client() noexcept { return m_client; }
    Session& session() noexcept { return *m_session; }
    RunList& runs() noexcept { return m_runs; }
    MessageModel& messages() noexcept { return m_messages; }
    const std::vector<Page*>& pages() const noexcept { return m_pages; }
    Page* currentPage() const;
    RunsDock& runsDock() const { return *m_runsDock; }
    PlanView& planView() const { return *m_planView; }
    StructureView& structureView() const { return *m_structure; }
    QAction* action(const QString& name) const { return m_actions.value(name); }

    void openPath(const QString& path);
    void showPage(const QString& id);
    void reveal(const ComponentRef& ref, const QString& pageId = QString());
    /// Built-in arrangements of the docks: inspect, cut, recover, compare.
    void applyLayout(const QString& name);
    /// Answers the question about running work without showing it (tests): keep, pause, stop, cancel.
    void setCloseAnswer(const QString& answer) { m_closeAnswer = answer; }

protected:
    void closeEvent(QCloseEvent* event) override;

private:
    // main_window.cpp: what there is to see
    void buildCentre();
    void buildDocks();
    void buildStatusBar();
    void connectAll();
    void restyle();
    void refreshDocument();
    void refreshStatus();
    void refreshData();
    void showScores();
    Json captureLayout() const;
    void restoreLayout(const Json& layout);
    bool askAboutRunning();
    void say(const char* severity, const QString& text);

    // window_actions.cpp: what there is to do
    void buildActions();
    void buildToolBar();
    QAction* add(QMenu* menu, const QString& name, const QString& text, const QString& iconName, const QList<QKeySequence>& keys, std::function<void()> slot);
    void limitToCanvases(QAction* action);
    void refreshActions();
    void rebuildMethodMenus();
    void rebuildNamedSelections();
    void rebuildRecent();
    void chooseModel();
    void chooseWorkspace();
    void saveWorkspaceAs();
    void chooseData();
    void measureWith(const protocol::MethodMessage& method);
    void suggestWith(const protocol::MethodMessage& method);
    void dropOrDelete();
    void recover();
    void exportModel();
    void openPlanFile();
    void savePlanFile();
    void showPalette();
    void showCheatSheet();
    void selectByScore(int rule);
    void nextPanel(int step);
    QList<QAction*> listedActions() const;

    Document m_document;
    WorkerClient m_client;
    RunList m_runs;
    MessageModel m_messages;
    Session* m_session;
    std::vector<Page*> m_pages;
    QStackedWidget* m_centre = nullptr;
    StartPage* m_start = nullptr;
    QSplitter* m_work = nullptr;
    QWidget* m_strip = nullptr;
    QTabWidget* m_tabs = nullptr;
    StructureView* m_structure = nullptr;
    PlanView* m_planView = nullptr;
    RunsDock* m_runsDock = nullptr;
    QDockWidget *m_structureDock = nullptr, *m_planDock = nullptr, *m_bottomDock = nullptr;
    QLabel *m_workerLabel = nullptr, *m_selectionLabel = nullptr, *m_jobLabel = nullptr, *m_savedLabel = nullptr;
    QProgressBar* m_jobBar = nullptr;
    QToolButton *m_jobCancel = nullptr, *m_dataButton = nullptr;
    QTimer m_statusTimer;
    QHash<QString, QAction*> m_actions;
    QList<std::pair<QString, QMenu*>> m_menus;
    QMenu *m_analyseMenu = nullptr, *m_suggestMenu = nullptr, *m_namedMenu = nullptr, *m_recentMenu = nullptr;
    QToolBar* m_toolBar = nullptr;
    QString m_closeAnswer;
    QHash<QString, QByteArray> m_layouts;
};

}  // namespace resect::ui
