#include "app/pages/export_dialog.h"
#include "app/pages/recover_dialog.h"
#include "app/window/dialogs.h"
#include "app/window/main_window.h"
#include "app/window/palette_dialog.h"
#include "app/window/runs_dock.h"
#include "app/window/select_dialog.h"
#include "core/base/error.h"
#include "widgets/views/plan_view.h"
#include "widgets/views/structure_view.h"
#include "widgets/views/style.h"

#include <QApplication>
#include <QFile>
#include <QFileDialog>
#include <QFileInfo>
#include <QInputDialog>
#include <QLineEdit>
#include <QListView>
#include <QMenuBar>
#include <QMessageBox>
#include <QSaveFile>
#include <QSettings>
#include <QTableView>
#include <QTabWidget>
#include <QToolBar>
#include <QToolButton>
#include <QTreeView>
#include <QUndoView>
#include <QWhatsThis>

namespace resect::ui {
namespace {

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

}  // namespace

QAction* MainWindow::add(QMenu* menu, const QString& name, const QString& text, const QString& iconName, const QList<QKeySequence>& keys, std::function<void()> slot) {
    auto* action = new QAction(text, this);
    action->setObjectName(name);
    action->setProperty("iconName", iconName);
    const QVariant own = QSettings().value(QStringLiteral("shortcuts/") + name);
    action->setShortcuts(own.isValid() ? QList<QKeySequence>{QKeySequence(own.toString())} : keys);
    const QString plain = QString(text).remove(QLatin1Char('&'));
    action->setToolTip(action->shortcut().isEmpty() ? plain : QStringLiteral("%1 (%2)").arg(plain, action->shortcut().toString(QKeySequence::NativeText)));
    if (slot) connect(action, &QAction::triggered, this, std::move(slot));
    if (menu) menu->addAction(action);
    // Not limited to the menu, so that keys work while it is hidden.
    addAction(action);
    m_actions.insert(name, action);
    return action;
}

void MainWindow::limitToCanvases(QAction* action) {
    removeAction(action);
    action->setShortcutContext(Qt::WidgetWithChildrenShortcut);
    m_work->addAction(action);
    m_structure->addAction(action);
}

void MainWindow::buildActions() {
    const auto menu = [this](const QString& title) {
        QMenu* menu = menuBar()->addMenu(title);
        m_menus.append({QString(title).remove(QLatin1Char('&')), menu});
        menu->setToolTipsVisible(true);
        return menu;
    };
    using K = QKeySequence;
    SelectionModel& selection = m_document.selection();

    QMenu* file = menu(tr("&File"));
    add(file, "open", tr("&Open model..."), "open", {K(Qt::CTRL | Qt::Key_O)}, [this] { chooseModel(); });
    add(file, "openWorkspace", tr("Open &workspace..."), "folder", {K(Qt::CTRL | Qt::SHIFT | Qt::Key_O)}, [this] { chooseWorkspace(); });
    m_recentMenu = file->addMenu(tr("&Recent"));
    add(file, "demo", tr("Open the &demo"), "demo", {}, [this] { m_session->openDemo(); });
    file->addSeparator();
    add(file, "save", tr("&Save workspace"), "save", {K(Qt::CTRL | Qt::Key_S)}, [this] { m_session->hasOwnPlace() ? void(m_session->save()) : saveWorkspaceAs(); });
    add(file, "saveAs", tr("Save workspace &as..."), "", {K(Qt::CTRL | Qt::SHIFT | Qt::Key_S)}, [this] { saveWorkspaceAs(); });
    file->addSeparator();
    add(file, "close", tr("&Close model"), "", {K(Qt::CTRL | Qt::Key_W)}, [this] { m_session->close(); });
    add(file, "settings", tr("Se&ttings..."), "", {K(Qt::CTRL | Qt::Key_Comma)}, [this] {
        SettingsDialog(m_document, m_client, *m_session, listedActions(), this).exec();
    });
    add(file, "quit", tr("&Quit"), "", {K(Qt::CTRL | Qt::Key_Q)}, [this] { close(); });

    QMenu* edit = menu(tr("&Edit"));
    const auto stackAction = [&](QAction* action, const char* name, const char* iconName, const QList<QKeySequence>& keys) {
        action->setObjectName(QLatin1String(name));
        action->setProperty("iconName", QLatin1String(iconName));
        action->setShortcuts(keys);
        edit->addAction(action);
        addAction(action);
        m_actions.insert(QLatin1String(name), action);
    };
    stackAction(m_document.undoStack().createUndoAction(this, tr("&Undo")), "undo", "undo", {K(Qt::CTRL | Qt::Key_Z)});
    stackAction(m_document.undoStack().createRedoAction(this, tr("&Redo")), "redo", "redo", {K(Qt::CTRL | Qt::SHIFT | Qt::Key_Z), K(Qt::CTRL | Qt::Key_Y)});
    add(edit, "history", tr("&History..."), "", {}, [this] {
        QDialog dialog(this);
        dialog.setWindowTitle(tr("History of the plan"));
        auto* layout = new QVBoxLayout(&dialog);
        auto* view = new QUndoView(&m_document.undoStack(), &dialog);
        view->setEmptyLabel(tr("As opened"));
        layout->addWidget(view);
        dialog.exec();
    });
    edit->addSeparator();
    add(edit, "palette", tr("&Search commands and parts..."), "search", {K(Qt::CTRL | Qt::Key_K)}, [this] { showPalette(); });
    add(edit, "filter", tr("&Filter the structure"), "", {K(Qt::CTRL | Qt::Key_F)}, [this] { m_structureDock->show(), m_structureDock->raise(), m_structure->focusFilter(); });

    QMenu* select = menu(tr("&Select"));
    const std::pair<const char*, PartKind> kinds[] = {{"selectBlocks", PartKind::Block}, {"selectAttention", PartKind::Attention}, {"selectMlp", PartKind::Mlp}, {"selectHeads", PartKind::Head}};
    QMenu* all = select->addMenu(tr("&All"));
    for (const auto& [name, kind] : kinds) add(all, QLatin1String(name), tr("All %1").arg(countWords(kind, 2).mid(2)), "", {}, [&selection, kind = kind] { selection.selectAll(kind); });
    limitToCanvases(add(select, "selectNone", tr("&None"), "", {K(Qt::Key_Escape)}, [&selection] { selection.clear(); }));
    limitToCanvases(add(select, "invert", tr("&Invert"), "", {K(Qt::Key_I)}, [&selection] { selection.invert(); }));
    select->addSeparator();
    add(select, "lowestCount", tr("&Lowest N..."), "", {}, [this] { selectByScore(0); });
    add(select, "lowestShare", tr("Lowest &until -X % parameters..."), "", {}, [this] { selectByScore(1); });
    add(select, "belowValue", tr("&Below value..."), "", {}, [this] { selectByScore(2); });
    add(select, "expression", tr("By &expression..."), "", {}, [this] {
        SelectByExpressionDialog dialog(m_document, *m_session, this);
        if (dialog.exec() == QDialog::Accepted) m_document.selection().select(dialog.chosen());
    });
    select->addSeparator();
    const std::tuple<const char*, const char*, Qt::Key, PartKind> narrow[] = {{"narrowHeads", "Only &heads", Qt::Key_H, PartKind::Head}, {"narrowMlp", "Only &MLPs", Qt::Key_M, PartKind::Mlp},
                                                                             {"narrowBlocks", "Only bl&ocks", Qt::Key_B, PartKind::Block}, {"narrowAttention", "Only a&ttention", Qt::Key_A, PartKind::Attention}};
    for (const auto& [name, text, key, kind] : narrow) limitToCanvases(add(select, QLatin1String(name), tr(text), "", {K(key)}, [&selection, kind = kind] { selection.narrow(kind); }));
    limitToCanvases(add(select, "grow", tr("&Grow to legal groups"), "", {K(Qt::Key_G)}, [&selection] { selection.growToLegalGroups(); }));
    add(select, "spread", tr("Same &position in other blocks"), "", {}, [&selection] { selection.spreadToOtherBlocks(); });
    add(select, "selectDropped", tr("&Dropped by the plan"), "", {}, [this] {
        std::vector<ComponentRef> refs;
        for (const auto& entry : m_document.plan())
            if (entry->enabled) for (const auto& ref : refsOf(entry->edit)) refs.push_back(ref);
        m_document.selection().select(std::move(refs));
    });
    limitToCanvases(add(select, "previousBlock", tr("Pre&vious block"), "", {K(Qt::Key_BracketLeft)}, [&selection] { selection.stepBlock(-1); }));
    limitToCanvases(add(select, "nextBlock", tr("Ne&xt block"), "", {K(Qt::Key_BracketRight)}, [&selection] { selection.stepBlock(1); }));
    select->addSeparator();
    add(select, "selectionBack", tr("Selection ba&ck"), "", {K(Qt::ALT | Qt::Key_Left)}, [&selection] { selection.goBack(); });
    add(select, "selectionForward", tr("Selection &forward"), "", {K(Qt::ALT | Qt::Key_Right)}, [&selection] { selection.goForward(); });
    m_namedMenu = select->addMenu(tr("Na&med selections"));

    m_analyseMenu = menu(tr("&Analyse"));
    add(nullptr, "rerun", tr("&Run the page's analysis again"), "measure", {K(Qt::Key_F5)}, [this] { if (Page* page = currentPage()) page->rerun(); });
    add(nullptr, "data", tr("&Calibration data..."), "text", {}, [this] { chooseData(); });
    add(nullptr, "health", tr("Check all &weights (non-finite values)"), "", {}, [this] {
        WorkerCallbacks callbacks;
        callbacks.result = [this](const Json& result) {
            const auto problems = result.at("problems").get<std::vector<protocol::ProblemMessage>>();
            for (const auto& problem : problems) m_messages.add(problem);
            if (problems.empty()) say("note", tr("All weights were read: every value is finite and every tensor is accounted for."));
        };
        callbacks.error = [this](const WorkerError& error) { say(error.stopped() ? "note" : "error", error.text()); };
        m_client.startJob(QStringLiteral("health"), Json::object(), tr("Checking all weights"), this, callbacks);
    });

    QMenu* plan = menu(tr("&Plan"));
    add(plan, "drop", tr("&Drop selection"), "delete", {K(Qt::Key_Delete)}, [this] { dropOrDelete(); });
    add(plan, "undrop", tr("&Keep selection (un-drop)"), "", {K(Qt::SHIFT | Qt::Key_Delete)}, [this] { m_document.undropSelection(); });
    plan->addSeparator();
    m_suggestMenu = plan->addMenu(tr("&Suggest"));
    add(plan, "preview", tr("&Preview"), "preview", {K(Qt::CTRL | Qt::Key_P)}, [this] { m_planDock->show(), m_session->startPreview(); });
    plan->addSeparator();
    add(plan, "openPlan", tr("&Open plan file..."), "", {}, [this] { openPlanFile(); });
    add(plan, "savePlan", tr("Save plan &file..."), "", {}, [this] { savePlanFile(); });
    add(plan, "clearPlan", tr("&Clear the plan"), "", {}, [this] { m_document.clearPlan(); });

    QMenu* recoverMenu = menu(tr("&Recover"));
    add(recoverMenu, "recover", tr("&Recover..."), "recover", {K(Qt::CTRL | Qt::Key_R)}, [this] { recover(); });
    add(recoverMenu, "pauseRun", tr("&Pause or continue"), "pause", {K(Qt::CTRL | Qt::Key_Period)}, [this] { m_runsDock->pauseOrResume(); });
    add(recoverMenu, "stopRun", tr("&Stop and keep"), "stop", {K(Qt::CTRL | Qt::SHIFT | Qt::Key_Period), K(Qt::CTRL | Qt::Key_Greater)}, [this] { m_runsDock->stopAndKeep(); });
    add(recoverMenu, "resumeRun", tr("&Go on from the last checkpoint"), "resume", {}, [this] { m_runsDock->resumeFromCheckpoint(); });

    QMenu* compare = menu(tr("&Compare"));
    add(compare, "compareText", tr("Texts of the uncut model and the &candidate"), "", {K(Qt::CTRL | Qt::Key_D)}, [this] { showPage(QStringLiteral("text")); });
    add(compare, "compareCheckpoint", tr("With another c&heckpoint"), "", {}, [this] { showPage(QStringLiteral("compare")); });
    add(compare, "compareRuns", tr("Recovery &runs"), "", {}, [this] { applyLayout(QStringLiteral("compare")), m_runsDock->setCurrentIndex(RunsDock::Recovery); });

    QMenu* exportMenu = menu(tr("E&xport"));
    add(exportMenu, "export", tr("&Export..."), "export", {K(Qt::CTRL | Qt::Key_E)}, [this] { exportModel(); });

    QMenu* view = menu(tr("&View"));
    int tab = 1;
    for (Page* page : m_pages) {
        add(view, QStringLiteral("page%1").arg(tab), page->title(), "", {K(Qt::CTRL | static_cast<Qt::Key>(Qt::Key_0 + tab))}, [this, page] { m_tabs->setCurrentWidget(page); });
        ++tab;
    }
    view->addSeparator();
    for (QDockWidget* dock : {m_structureDock, m_planDock, m_bottomDock}) view->addAction(dock->toggleViewAction());
    QMenu* layouts = view->addMenu(tr("&Layouts"));
    const std::pair<const char*, const char*> names[] = {{"inspect", "&Inspect"}, {"cut", "&Cut"}, {"recover", "&Recover"}, {"compare", "C&ompare"}};
    for (int i = 0; i < 4; ++i)
        add(layouts, QStringLiteral("layout%1").arg(i + 1), tr(names[i].second), "", {K(Qt::CTRL | Qt::ALT | static_cast<Qt::Key>(Qt::Key_1 + i))}, [this, name = names[i].first] { applyLayout(QLatin1String(name)); });
    layouts->addSeparator();
    add(layouts, "keepLayout", tr("&Keep this layout as..."), "", {}, [this] {
        bool ok = false;
        const QString name = QInputDialog::getText(this, tr("Layout"), tr("Name of the layout:"), QLineEdit::Normal, QString(), &ok);
        if (ok && !name.trimmed().isEmpty()) QSettings().setValue(QStringLiteral("layouts/") + name.trimmed(), saveState());
    });
    connect(layouts, &QMenu::aboutToShow, this, [this, layouts] {
        for (QAction* action : layouts->actions())
            if (action->property("named").toBool()) action->deleteLater(), layouts->removeAction(action);
        QSettings settings;
        settings.beginGroup(QStringLiteral("layouts"));
        for (const QString& name : settings.childKeys()) {
            QAction* action = layouts->addAction(name, this, [this, state = settings.value(name).toByteArray()] { restoreState(state); });
            action->setProperty("named", true);
        }
    });
    view->addSeparator();
    add(view, "zoomIn", tr("Zoom &in"), "", {K(Qt::CTRL | Qt::Key_Plus), K(Qt::CTRL | Qt::Key_Equal)}, [this] { if (Page* page = currentPage()) page->zoom(1.25); });
    add(view, "zoomOut", tr("Zoom &out"), "", {K(Qt::CTRL | Qt::Key_Minus)}, [this] { if (Page* page = currentPage()) page->zoom(0.8); });
    add(view, "zoomReset", tr("&Whole picture"), "", {K(Qt::CTRL | Qt::Key_0)}, [this] { if (Page* page = currentPage()) page->zoom(0); });
    view->addSeparator();
    add(view, "nextPanel", tr("&Next panel"), "", {K(Qt::Key_F6)}, [this] { nextPanel(1); });
    add(view, "previousPanel", tr("&Previous panel"), "", {K(Qt::SHIFT | Qt::Key_F6)}, [this] { nextPanel(-1); });
    const std::pair<const char*, ThemeMode> themes[] = {{"Light theme", ThemeMode::Light}, {"Dark theme", ThemeMode::Dark}, {"Theme of the system", ThemeMode::System}};
    view->addSeparator();
    for (const auto& [text, mode] : themes)
        add(view, QString::fromLatin1(text).remove(QLatin1Char(' ')), tr(text), "", {}, [mode = mode] {
            QSettings().setValue("theme", static_cast<int>(mode));
            ThemeNotifier::instance().setMode(mode);
        });

    QMenu* help = menu(tr("&Help"));
    add(help, "cheatSheet", tr("&Keyboard and mouse"), "", {K(Qt::Key_F1)}, [this] { showCheatSheet(); });
    add(help, "whatsThis", tr("&What's this?"), "", {K(Qt::SHIFT | Qt::Key_F1)}, [] { QWhatsThis::enterWhatsThisMode(); });
    add(help, "restartWorker", tr("&Restart the worker"), "", {}, [this] { m_client.restart(); });
    add(help, "about", tr("&About Resect"), "", {}, [this] {
        const auto& hello = m_client.hello();
        QMessageBox::about(this, tr("About Resect"), tr("<b>Resect %1</b><p>A workbench for surgery on transformer checkpoints.<p>Worker %2, LibTorch %3, Qt %4<p>Free software under the GNU General Public License, version 3 or later.")
                           .arg(QApplication::applicationVersion(), hello.version.empty() ? tr("not running") : fromStd(hello.version), fromStd(hello.torchVersion), QLatin1String(qVersion())));
    });
    rebuildRecent();
    rebuildMethodMenus();
    rebuildNamedSelections();
    m_planView->setPreviewAction(m_actions.value("preview"));
    m_planView->setSuggestMenu(m_suggestMenu);
}

void MainWindow::buildToolBar() {
    m_toolBar = addToolBar(tr("Tools"));
    m_toolBar->setObjectName(QStringLiteral("toolBar"));
    m_toolBar->setMovable(false);
    m_toolBar->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    const int size = fontMetrics().height() * 5 / 4;
    m_toolBar->setIconSize({size, size});
    const auto shortText = [&](const char* name, const QString& text) {
        m_actions.value(QLatin1String(name))->setIconText(text);
        return m_actions.value(QLatin1String(name));
    };
    m_toolBar->addAction(shortText("open", tr("Open")));
    m_toolBar->addSeparator();
    for (const char* name : {"undo", "redo"}) {
        m_toolBar->addAction(m_actions.value(QLatin1String(name)));
        static_cast<QToolButton*>(m_toolBar->widgetForAction(m_actions.value(QLatin1String(name))))->setToolButtonStyle(Qt::ToolButtonIconOnly);
    }
    m_toolBar->addSeparator();
    auto* analyse = new QToolButton(this);
    analyse->setText(tr("Analyse"));
    analyse->setMenu(m_analyseMenu);
    analyse->setPopupMode(QToolButton::InstantPopup);
    analyse->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    m_toolBar->addWidget(analyse);
    analyse->setEnabled(m_document.model());
    connect(&m_document, &Document::modelChanged, analyse, [this, analyse] { analyse->setEnabled(m_document.model()); });
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, analyse, [analyse] { analyse->setIcon(icon(QStringLiteral("measure"))); });
    analyse->setIcon(icon(QStringLiteral("measure")));
    m_toolBar->addAction(m_actions.value("preview"));
    m_toolBar->addAction(shortText("recover", tr("Recover")));
    m_toolBar->addAction(shortText("export", tr("Export")));
    auto* spacer = new QWidget(this);
    spacer->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Preferred);
    m_toolBar->addWidget(spacer);
    m_dataButton = new QToolButton(this);
    m_dataButton->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    m_toolBar->addWidget(m_dataButton);
    connect(m_dataButton, &QToolButton::clicked, this, &MainWindow::chooseData);
    m_toolBar->addSeparator();
    m_toolBar->addAction(shortText("palette", tr("Search  Ctrl+K")));
}

void MainWindow::refreshActions() {
    const bool open = m_document.model(), understood = open && m_document.model()->understood;
    const auto* check = m_document.check();
    const bool legal = check && check->legal, planned = !m_document.planIsEmpty();
    const SelectionModel& selection = m_document.selection();
    const auto enable = [&](std::initializer_list<const char*> names, bool on) {
        for (const char* name : names)
            if (QAction* action = m_actions.value(QLatin1String(name))) action->setEnabled(on);
    };
    enable({"save", "saveAs", "close", "filter", "selectBlocks", "selectAttention", "selectMlp", "selectHeads", "invert", "expression", "rerun", "data", "health", "compareText", "compareCheckpoint", "nextBlock", "previousBlock"}, open);
    enable({"lowestCount", "lowestShare", "belowValue"}, open && !m_session->scores().empty());
    enable({"drop", "undrop"}, understood);
    enable({"narrowHeads", "narrowMlp", "narrowBlocks", "narrowAttention", "grow", "spread"}, !selection.isEmpty());
    enable({"selectionBack"}, selection.canGoBack());
    enable({"selectionForward"}, selection.canGoForward());
    enable({"selectDropped", "clearPlan", "savePlan"}, planned || !m_document.plan().empty());
    enable({"preview"}, legal && planned && !m_session->isPreviewing());
    enable({"recover"}, understood && legal && !m_document.recipes().empty());
    enable({"export"}, understood && (legal || m_runs.size() > 0));
    enable({"openPlan"}, understood);
    m_suggestMenu->setEnabled(understood);
    m_analyseMenu->setEnabled(open);
}

void MainWindow::rebuildMethodMenus() {
    m_analyseMenu->clear();
    m_suggestMenu->clear();
    for (const auto& method : m_document.methods()) {
        if (method.measures) {
            QAction* action = m_analyseMenu->addAction(tr("%1...").arg(fromStd(method.title)), this, [this, method] { measureWith(method); });
            action->setToolTip(fromStd(method.summary));
            action->setEnabled(!m_document.model() || suits(method, *m_document.model()));
        }
        if (method.plans) {
            QAction* action = m_suggestMenu->addAction(tr("%1...").arg(fromStd(method.title)), this, [this, method] { suggestWith(method); });
            action->setToolTip(fromStd(method.summary));
            action->setEnabled(!m_document.model() || suits(method, *m_document.model()));
        }
    }
    if (m_suggestMenu->isEmpty()) m_suggestMenu->addAction(tr("No method for this is loaded"))->setEnabled(false);
    m_analyseMenu->addSeparator();
    for (const char* name : {"rerun", "data", "health"}) m_analyseMenu->addAction(m_actions.value(QLatin1String(name)));
    refreshActions();
}

void MainWindow::rebuildNamedSelections() {
    m_namedMenu->clear();
    m_namedMenu->addAction(tr("&Keep the selection as..."), this, [this] {
        bool ok = false;
        const QString name = QInputDialog::getText(this, tr("Named selection"), tr("Name, for example \"suspicious heads\":"), QLineEdit::Normal, QString(), &ok).trimmed();
        if (!ok || name.isEmpty() || m_document.selection().isEmpty()) return;
        m_session->namedSelections()[name.toStdString()] = m_document.selection().refs();
        m_session->markDirty();
        rebuildNamedSelections();
    });
    if (m_session->namedSelections().empty()) return;
    m_namedMenu->addSeparator();
    for (const auto& [name, refs] : m_session->namedSelections()) m_namedMenu->addAction(fromStd(name), this, [this, refs = refs] { m_document.selection().select(refs); });
    QMenu* forget = m_namedMenu->addMenu(tr("&Forget"));
    for (const auto& [name, refs] : m_session->namedSelections())
        forget->addAction(fromStd(name), this, [this, name = name] {
            m_session->namedSelections().erase(name);
            m_session->markDirty();
            QMetaObject::invokeMethod(this, &MainWindow::rebuildNamedSelections, Qt::QueuedConnection);
        });
}

void MainWindow::rebuildRecent() {
    m_recentMenu->clear();
    for (const auto& entry : recentEntries()) m_recentMenu->addAction(QStringLiteral("%1  %2").arg(entry.name, entry.path), this, [this, path = entry.path] { openPath(path); });
    m_recentMenu->setEnabled(!m_recentMenu->isEmpty());
}

void MainWindow::chooseModel() {
    // A checkpoint is a folder or a file in it: the dialog that shows files lets both be met.
    const QString path = QFileDialog::getOpenFileName(this, tr("Open model: choose its config.json or a .safetensors file"), QSettings().value("lastFolder").toString(),
                                                      tr("Checkpoints (config.json *.safetensors *.safetensors.index.json)"));
    if (path.isEmpty()) return;
    QSettings().setValue("lastFolder", QFileInfo(path).path());
    openPath(path);
}

void MainWindow::chooseWorkspace() {
    const QString path = QFileDialog::getExistingDirectory(this, tr("Open workspace: a folder NAME.resect"), QSettings().value("lastFolder").toString());
    if (!path.isEmpty()) openPath(path);
}

void MainWindow::saveWorkspaceAs() {
    const QString start = QSettings().value("lastFolder").toString() + QLatin1Char('/') + (m_document.model() ? fromStd(m_document.model()->name) : QString()) + QStringLiteral(".resect");
    const QString path = QFileDialog::getSaveFileName(this, tr("Save workspace as"), start, tr("Resect workspace (*.resect)"));
    if (!path.isEmpty()) m_session->saveAs(path);
}

void MainWindow::chooseData() {
    if (!m_document.model()) return;
    DataDialog dialog(m_document, this);
    if (dialog.exec() != QDialog::Accepted) return;
    QSettings().setValue(lastDataKey(*m_document.model()), fromStd(dialog.data().file));
    m_document.setData(dialog.data());
}

void MainWindow::measureWith(const protocol::MethodMessage& method) {
    Json& saved = m_session->forms()["measure"][method.id];
    MethodDialog dialog(method, MethodDialog::Use::Measure, m_document, saved, this);
    if (dialog.exec() != QDialog::Accepted) return;
    m_session->forms()["measure"][method.id] = dialog.values();
    m_session->measure(method, dialog.values());
}

void MainWindow::suggestWith(const protocol::MethodMessage& method) {
    Json& saved = m_session->forms()["plan"][method.id];
    MethodDialog dialog(method, MethodDialog::Use::Plan, m_document, saved, this);
    if (dialog.exec() != QDialog::Accepted) return;
    m_session->forms()["plan"][method.id] = dialog.values();
    m_session->suggest(method, dialog.values(), dialog.measureFile());
}

void MainWindow::dropOrDelete() {
    if (m_planView->list().hasFocus()) m_planView->removeSelectedRows();
    else m_document.dropSelection();
}

void MainWindow::recover() {
    if (!m_actions.value("recover")->isEnabled()) return;
    RecoverDialog dialog(m_document, m_client, *m_session, this);
    connect(&dialog, &RecoverDialog::runStarted, this, [this](const QString& folder) {
        m_bottomDock->show();
        m_bottomDock->raise();
        m_runsDock->showRun(folder);
    });
    dialog.exec();
}

void MainWindow::exportModel() { ExportDialog(m_document, m_client, *m_session, m_runs, this).exec(); }

void MainWindow::openPlanFile() {
    const QString path = QFileDialog::getOpenFileName(this, tr("Open plan"), m_document.workspace() + QStringLiteral("/plans"), tr("Edit plan (*.json)"));
    if (path.isEmpty()) return;
    try {
        const Json json = readJsonFile(path.toStdString());
        Plan plan = planFromFile(json, path.toStdString());
        const std::string fingerprint = planFingerprint(json);
        if (!fingerprint.empty() && m_document.model() && fingerprint != m_document.model()->fingerprint) say("warning", tr("%1 was made for another checkpoint. Check each edit.").arg(path));
        m_document.replacePlan(std::move(plan), tr("Open plan %1").arg(QFileInfo(path).completeBaseName()));
    } catch (const Error& error) {
        say("error", QString::fromUtf8(error.what()));
        m_bottomDock->show();
        m_runsDock->setCurrentIndex(RunsDock::Messages);
    }
}

void MainWindow::savePlanFile() {
    const QString path = QFileDialog::getSaveFileName(this, tr("Save plan"), m_document.workspace() + QStringLiteral("/plans/plan.json"), tr("Edit plan (*.json)"));
    if (path.isEmpty()) return;
    QSaveFile file(path);
    const std::string text = planToFile(m_document.plan(), m_document.model()->fingerprint).dump(2) + "\n";
    if (!file.open(QIODevice::WriteOnly) || file.write(text.data(), static_cast<qint64>(text.size())) < 0 || !file.commit()) say("error", tr("%1 could not be written: %2.").arg(path, file.errorString()));
}

QList<QAction*> MainWindow::listedActions() const {
    QList<QAction*> actions;
    const auto visit = [&](const auto& self, const QMenu* menu) -> void {
        for (QAction* action : menu->actions()) {
            if (action->menu()) self(self, action->menu());
            else if (!action->isSeparator() && !actions.contains(action)) actions << action;
        }
    };
    for (const auto& [title, menu] : m_menus) visit(visit, menu);
    return actions;
}

void MainWindow::showPalette() {
    auto* palette = new PaletteDialog(listedActions(), m_document, this);
    palette->setAttribute(Qt::WA_DeleteOnClose);
    connect(palette, &PaletteDialog::partChosen, this, [this](const ComponentRef& ref) { reveal(ref); });
    palette->move(mapToGlobal(QPoint((width() - palette->width()) / 2, height() / 8)));
    palette->show();
}

void MainWindow::showCheatSheet() {
    QList<std::pair<QString, QList<QAction*>>> groups;
    for (const auto& [title, menu] : m_menus) {
        QList<QAction*> actions;
        const auto visit = [&](const auto& self, const QMenu* menu) -> void {
            for (QAction* action : menu->actions()) action->menu() ? self(self, action->menu()) : void(actions << action);
        };
        visit(visit, menu);
        groups.append({title, actions});
    }
    CheatSheet(groups, this).exec();
}

void MainWindow::selectByScore(int rule) {
    SelectByScoreDialog dialog(m_document, *m_session, static_cast<ScoreRule>(rule), this);
    if (dialog.exec() == QDialog::Accepted) m_document.selection().select(dialog.chosen());
}

void MainWindow::nextPanel(int step) {
    QList<QWidget*> panels;
    const auto offer = [&](QWidget* widget, QWidget* holder) {
        if (holder->isVisible()) panels << widget;
    };
    offer(&m_structure->tree(), m_structure);
    offer(m_strip, m_strip);
    if (Page* page = currentPage()) offer(page, page);
    offer(&m_planView->list(), m_planView);
    offer(&m_runsDock->table(), m_runsDock);
    if (panels.isEmpty()) return;
    const QWidget* focus = QApplication::focusWidget();
    qsizetype at = -1;
    for (qsizetype i = 0; i < panels.size(); ++i)
        if (focus && (panels[i] == focus || panels[i]->isAncestorOf(focus))) at = i;
    QWidget* target = panels[(at + step + panels.size()) % panels.size()];
    target->setFocus(Qt::ShortcutFocusReason);
    if (!target->hasFocus() && target->focusPolicy() == Qt::NoFocus)
        for (QWidget* child : target->findChildren<QWidget*>())
            if (child->focusPolicy() & Qt::TabFocus && child->isVisible() && child->isEnabled()) return child->setFocus(Qt::ShortcutFocusReason);
}

}  // namespace resect::ui
