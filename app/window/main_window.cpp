#include "app/window/main_window.h"

#include "app/pages/block_strip_panel.h"
#include "app/pages/start_page.h"
#include "app/window/runs_dock.h"
#include "core/base/numbers.h"
#include "widgets/views/plan_view.h"
#include "widgets/views/structure_view.h"
#include "widgets/views/style.h"

#include <QCloseEvent>
#include <QFileInfo>
#include <QListView>
#include <QMenu>
#include <QMessageBox>
#include <QProgressBar>
#include <QProxyStyle>
#include <QPushButton>
#include <QScreen>
#include <QSettings>
#include <QSplitter>
#include <QStackedWidget>
#include <QStatusBar>
#include <QTabBar>
#include <QTabWidget>
#include <QToolBar>
#include <QToolButton>

#include <algorithm>
#include <array>

namespace resect::ui {
namespace {

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

/// Tabs a little narrower than the style's, so that all pages fit beside both docks on 1280 pixels.
class NarrowTabs final : public QProxyStyle {
public:
    using QProxyStyle::QProxyStyle;
    int pixelMetric(PixelMetric metric, const QStyleOption* option, const QWidget* widget) const override {
        const int pixels = QProxyStyle::pixelMetric(metric, option, widget);
        return metric == PM_TabBarTabHSpace ? pixels * 3 / 5 : pixels;
    }
};

}  // namespace

MainWindow::MainWindow(QWidget* parent) : QMainWindow(parent), m_session(new Session(m_document, m_client, m_runs, this)) {
    setObjectName(QStringLiteral("ResectWindow"));
    setWindowIcon(programIcon());
    setDockOptions(AnimatedDocks | AllowNestedDocks | AllowTabbedDocks);
    setMinimumSize(1024, 700);
    QSettings settings;
    m_client.setThreads(settings.value("threads", 0).toInt());
    m_session->setAutoPreview(settings.value("autoPreview", true).toBool());
    buildCentre();
    buildDocks();
    buildActions();
    buildToolBar();
    buildStatusBar();
    connectAll();
    restyle();
    resize(1440, 900);
    if (!restoreGeometry(settings.value("geometry").toByteArray()) && screen() && screen()->availableSize().width() < 1440) resize(screen()->availableSize() * 0.95);
    refreshDocument();
    refreshActions();
}

MainWindow::~MainWindow() {
    m_client.disconnect(this);
    m_client.shutDown();
    // What shows the document goes before the document, which as a member would otherwise go first.
    for (QObject* source : {static_cast<QObject*>(&m_document), static_cast<QObject*>(&m_document.selection()), static_cast<QObject*>(&m_runs), static_cast<QObject*>(&m_messages), static_cast<QObject*>(&m_document.undoStack())}) source->disconnect(this);
    delete m_session;
    delete takeCentralWidget();
    for (QDockWidget* dock : {m_structureDock, m_planDock, m_bottomDock}) delete dock;
}

void MainWindow::buildCentre() {
    m_centre = new QStackedWidget(this);
    m_start = new StartPage(m_centre);
    m_centre->addWidget(m_start);
    m_work = new QSplitter(Qt::Vertical, m_centre);
    auto* strip = makeBlockStrip(m_document, m_document.selection(), m_client, m_work);
    connect(strip, &BlockStripPanel::message, this, [this](const protocol::ProblemMessage& message) { m_messages.add(message); });
    connect(strip, &BlockStripPanel::openRequested, this, [this](const QString& pageId, const ComponentRef& ref) { reveal(ref, pageId); });
    m_strip = strip;
    m_tabs = new QTabWidget(m_work);
    auto* narrow = new NarrowTabs(QStringLiteral("Fusion"));
    narrow->setParent(m_tabs);
    m_tabs->tabBar()->setStyle(narrow);
    m_tabs->setDocumentMode(true);
    m_pages = makePages(m_document, m_document.selection(), m_client, m_tabs);
    for (Page* page : m_pages) m_tabs->addTab(page, page->title());
    m_work->addWidget(m_strip);
    m_work->addWidget(m_tabs);
    m_work->setStretchFactor(0, 0);
    m_work->setStretchFactor(1, 1);
    m_work->setCollapsible(1, false);
    m_strip->setMinimumHeight(40);
    m_work->setSizes({190, 600});
    m_centre->addWidget(m_work);
    setCentralWidget(m_centre);
}

void MainWindow::buildDocks() {
    const auto dock = [this](const char* name, const QString& title, QWidget* widget, Qt::DockWidgetArea area) {
        auto* dock = new QDockWidget(title, this);
        dock->setObjectName(QLatin1String(name));
        dock->setWidget(widget);
        addDockWidget(area, dock);
        return dock;
    };
    m_structure = new StructureView(m_document, m_document.selection(), this);
    m_structureDock = dock("structureDock", tr("Structure"), m_structure, Qt::LeftDockWidgetArea);
    m_planView = new PlanView(m_document, this);
    m_planDock = dock("planDock", tr("Plan"), m_planView, Qt::RightDockWidgetArea);
    m_runsDock = new RunsDock(m_runs, m_client, m_messages, this);
    m_bottomDock = dock("runsDock", tr("Runs"), m_runsDock, Qt::BottomDockWidgetArea);
    setCorner(Qt::BottomRightCorner, Qt::RightDockWidgetArea);
}

void MainWindow::buildStatusBar() {
    m_workerLabel = new QLabel(this);
    m_selectionLabel = new QLabel(this);
    m_selectionLabel->setTextInteractionFlags(Qt::TextSelectableByMouse);
    m_selectionLabel->setAccessibleName(tr("Selection"));
    m_jobLabel = new QLabel(this);
    m_jobBar = new QProgressBar(this);
    m_jobBar->setMaximumWidth(fontMetrics().height() * 8);
    m_jobBar->setMaximumHeight(fontMetrics().height());
    m_jobBar->setTextVisible(false);
    m_jobCancel = new QToolButton(this);
    m_jobCancel->setAutoRaise(true);
    m_jobCancel->setToolTip(tr("Stop this job; what is finished is kept"));
    m_savedLabel = new QLabel(this);
    statusBar()->addWidget(m_workerLabel);
    statusBar()->addWidget(m_selectionLabel, 1);
    for (QWidget* widget : {static_cast<QWidget*>(m_jobLabel), static_cast<QWidget*>(m_jobBar), static_cast<QWidget*>(m_jobCancel), static_cast<QWidget*>(m_savedLabel)}) statusBar()->addPermanentWidget(widget);
    connect(m_jobCancel, &QToolButton::clicked, this, [this] {
        if (!m_client.jobs().empty()) m_client.cancel(m_client.jobs().front().id);
    });
    m_statusTimer.setInterval(2000);
    connect(&m_statusTimer, &QTimer::timeout, this, &MainWindow::refreshStatus);
    m_statusTimer.start();
}

void MainWindow::connectAll() {
    connect(m_start, &StartPage::openRequested, this, &MainWindow::openPath);
    connect(m_start, &StartPage::chooseRequested, this, &MainWindow::chooseModel);
    connect(m_start, &StartPage::chooseWorkspaceRequested, this, &MainWindow::chooseWorkspace);
    connect(m_start, &StartPage::demoRequested, m_session, &Session::openDemo);
    connect(&m_document, &Document::modelChanged, this, &MainWindow::refreshDocument);
    connect(&m_document, &Document::modelChanged, this, &MainWindow::refreshActions);
    for (const auto signal : {&Document::planChanged, &Document::checkChanged, &Document::previewChanged}) connect(&m_document, signal, this, &MainWindow::refreshActions);
    connect(&m_document, &Document::dataChanged, this, &MainWindow::refreshData);
    connect(&m_document, &Document::methodsChanged, this, &MainWindow::rebuildMethodMenus);
    connect(&m_document.selection(), &SelectionModel::selectionChanged, this, [this] {
        m_selectionLabel->setText(m_document.model() ? m_document.selection().words() : QString());
        refreshActions();
    });
    connect(&m_document.selection(), &SelectionModel::historyChanged, this, &MainWindow::refreshActions);
    connect(m_session, &Session::openingChanged, this, [this] { m_start->setOpening(m_session->opening()); });
    connect(m_session, &Session::openFailed, this, [this](const QString& path, const QString& reason) {
        m_start->showProblem(path, reason);
        if (m_document.model()) m_bottomDock->show(), m_runsDock->setCurrentIndex(RunsDock::Messages);
    });
    connect(m_session, &Session::opened, this, [this] {
        m_start->refreshRecent();
        m_start->showProblem(QString(), QString());
        rebuildRecent();
        rebuildNamedSelections();
    });
    connect(m_session, &Session::message, this, [this](const protocol::ProblemMessage& message) { m_messages.add(message); });
    connect(m_session, &Session::previewStateChanged, m_planView, &PlanView::setPreviewState);
    connect(m_session, &Session::previewStateChanged, this, &MainWindow::refreshActions);
    connect(m_session, &Session::scoresChanged, this, &MainWindow::showScores);
    connect(m_session, &Session::saved, this, [this](const QDateTime& time) { m_savedLabel->setText(tr("Saved %1").arg(time.toString(QStringLiteral("HH:mm")))); });
    m_session->captureWindow = [this] { return captureLayout(); };
    m_session->restoreWindow = [this](const Json& layout) { restoreLayout(layout); };
    connect(m_planView, &PlanView::cancelPreviewRequested, m_session, &Session::cancelPreview);
    connect(m_structure, &StructureView::opened, this, [this](const ComponentRef& ref) { reveal(ref); });
    connect(m_structure, &StructureView::menuRequested, this, [this](const QPoint& position) {
        QMenu menu;
        for (const char* name : {"drop", "undrop", "", "narrowHeads", "narrowMlp", "spread", "grow", "invert"}) {
            if (*name == 0) menu.addSeparator();
            else menu.addAction(m_actions.value(QLatin1String(name)));
        }
        menu.exec(position);
    });
    for (Page* page : m_pages) {
        connect(page, &Page::message, this, [this](const protocol::ProblemMessage& message) { m_messages.add(message); });
        connect(page, &Page::openRequested, this, [this](const QString& pageId, const ComponentRef& ref) { reveal(ref, pageId); });
    }
    connect(m_runsDock, &RunsDock::problem, this, [this](const QString& text) { say("error", text); });
    connect(m_runsDock, &RunsDock::recoverRequested, this, &MainWindow::recover);
    connect(&m_runs, &RunList::activeChanged, this, &MainWindow::refreshStatus);
    connect(&m_runs, &RunList::runChanged, this, &MainWindow::refreshStatus);
    connect(&m_client, &WorkerClient::jobsChanged, this, &MainWindow::refreshStatus);
    connect(&m_client, &WorkerClient::jobProgress, this, &MainWindow::refreshStatus);
    connect(&m_client, &WorkerClient::stateChanged, this, &MainWindow::refreshStatus);
    connect(&m_client, &WorkerClient::died, this, [this](const QString& reason, bool restarted, const QStringList& lines) {
        QString text = reason + QLatin1Char(' ');
        text += restarted ? tr("Your plan is safe. The worker was started again; what it was doing is reported as failed.")
                          : tr("It is not started again by itself: choose Help > Restart the worker. Your plan is safe.");
        if (!restarted && !lines.isEmpty()) text += QLatin1Char('\n') + lines.mid(qMax<qsizetype>(0, lines.size() - 5)).join(QLatin1Char('\n'));
        say("error", text);
        if (!m_document.model()) m_start->setOpening(QString()), m_start->showProblem(tr("The worker"), text);
        else m_bottomDock->show(), m_runsDock->setCurrentIndex(RunsDock::Messages);
    });
    connect(&m_document.undoStack(), &QUndoStack::cleanChanged, this, [this](bool clean) { setWindowModified(!clean); });
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, &MainWindow::restyle);
    connect(m_tabs, &QTabWidget::currentChanged, this, &MainWindow::refreshActions);
}

void MainWindow::restyle() {
    setStyleSheet(windowStyleSheet(currentTheme()));
    for (QAction* action : m_actions)
        if (const QString name = action->property("iconName").toString(); !name.isEmpty()) action->setIcon(icon(name));
    m_jobCancel->setIcon(icon(QStringLiteral("cancel")));
    m_dataButton->setIcon(icon(QStringLiteral("text")));
}

void MainWindow::say(const char* severity, const QString& text) { m_messages.add({severity, "", text.toStdString(), ""}); }

void MainWindow::refreshDocument() {
    const auto* model = m_document.model();
    m_centre->setCurrentWidget(model ? static_cast<QWidget*>(m_work) : m_start);
    for (QDockWidget* dock : {m_structureDock, m_planDock, m_bottomDock}) dock->setVisible(model);
    setWindowTitle(model ? tr("%1[*] - Resect").arg(fromStd(model->name)) : QStringLiteral("Resect"));
    setWindowModified(false);
    if (model) setWindowFilePath(fromStd(model->path)), setWindowTitle(tr("%1[*] - Resect").arg(fromStd(model->name)));
    m_selectionLabel->setText(model ? m_document.selection().words() : QString());
    m_savedLabel->clear();
    m_planView->setPreviewState(QString(), -1);   // what was previewed was another model
    if (model && m_layouts.isEmpty()) applyLayout(QStringLiteral("cut"));
    refreshData();
    rebuildMethodMenus();
    refreshStatus();
}

void MainWindow::refreshData() {
    const auto& data = m_document.data();
    const bool images = m_document.model() && m_document.model()->input == "images";
    const QString most = data.maxRows > 0 ? QString::number(data.maxRows) : tr("all");
    m_dataButton->setEnabled(m_document.model());
    if (!m_document.model()) m_dataButton->setText(tr("Calibration"));
    else if (data.file.empty()) m_dataButton->setText(images ? tr("Calibration: choose images...") : tr("Calibration: choose a text..."));
    else if (images) m_dataButton->setText(tr("Calibration: %1, %2 images").arg(QFileInfo(fromStd(data.file)).completeBaseName(), most));
    else m_dataButton->setText(tr("Calibration: %1 %2 x %3").arg(QFileInfo(fromStd(data.file)).completeBaseName(), most).arg(data.rowLength));
    const QString upTo = data.maxRows > 0 ? tr("at most %L1").arg(data.maxRows) : tr("all");
    m_dataButton->setToolTip(data.file.empty() ? (images ? tr("The images that measuring and preview run on") : tr("The text that measuring and preview run on"))
                             : images          ? tr("%1\n%2 images").arg(fromStd(data.file), upTo)
                                               : tr("%1\n%2 rows of %3 tokens").arg(fromStd(data.file), upTo).arg(data.rowLength));
}

void MainWindow::refreshStatus() {
    QString worker;
    switch (m_client.state()) {
    case WorkerClient::State::Off: worker = tr("Worker off"); break;
    case WorkerClient::State::Starting: worker = tr("Worker starting"); break;
    case WorkerClient::State::Failed: worker = tr("Worker failed"); break;
    case WorkerClient::State::Ready: {
        const auto& devices = m_client.hello().devices;
        const auto& chosen = m_document.compute().device;
        worker = fromStd(chosen != "auto" ? chosen : devices.empty() ? std::string("cpu") : devices.back());
        if (const qint64 bytes = m_client.residentBytes(); bytes > 0) worker += tr("  worker %1").arg(fromStd(formatBytes(static_cast<std::uint64_t>(bytes))));
        break;
    }
    }
    m_workerLabel->setText(worker);
    const auto& jobs = m_client.jobs();
    m_jobBar->setVisible(!jobs.empty());
    m_jobCancel->setVisible(!jobs.empty());
    QString words;
    if (!jobs.empty()) {
        const WorkerJob& job = jobs.front();
        const double share = job.progress.fraction();
        words = job.title;
        if (job.state == WorkerJob::State::Cancelling) words = tr("Stopping: %1").arg(job.title);
        else if (share >= 0) {
            words += QStringLiteral(" %1 %").arg(100 * share, 0, 'f', 0);
            const double elapsed = static_cast<double>(job.since.elapsed()) / 1000;
            if (elapsed > 3 && share > 0.02) words += tr(", %1 left").arg(fromStd(formatDuration(std::round(elapsed * (1 - share) / share))));
        }
        if (jobs.size() > 1) words += tr(" (+%1)").arg(jobs.size() - 1);
        m_jobBar->setRange(0, share >= 0 ? 1000 : 0);
        m_jobBar->setValue(static_cast<int>(1000 * std::max(0.0, share)));
    } else if (const auto active = m_runs.activeRuns(); !active.empty()) {
        words = active.size() == 1 ? tr("Recovery %1").arg(active.front()->stateWords()) : tr("%1 recovery runs").arg(active.size());
        if (active.size() == 1 && active.front()->fraction() >= 0) words += QStringLiteral(" %1 %").arg(100 * active.front()->fraction(), 0, 'f', 0);
    }
    m_jobLabel->setText(words);
}

void MainWindow::showScores() {
    QHash<ComponentRef, double> all;
    QStringList lines;
    for (const auto& [kind, scores] : m_session->scores()) {
        all.insert(scores.values);
        lines << QStringLiteral("%1: %2").arg(countWords(kind, 2).mid(2), scores.title);
    }
    m_structure->setScores(all, tr("Score"), lines.join(QLatin1Char('\n')));
}

Page* MainWindow::currentPage() const { return qobject_cast<Page*>(m_tabs->currentWidget()); }

void MainWindow::openPath(const QString& path) { m_session->open(path); }

void MainWindow::showPage(const QString& id) {
    for (Page* page : m_pages)
        if (page->id() == id) m_tabs->setCurrentWidget(page);
}

void MainWindow::reveal(const ComponentRef& ref, const QString& pageId) {
    if (m_document.model() && exists(*m_document.model(), ref) && ref.block >= 0 && !m_document.selection().contains(ref)) m_document.selection().selectOne(ref);
    if (!pageId.isEmpty()) {
        showPage(pageId);
        if (Page* page = currentPage()) page->reveal(ref);
        return;
    }
    if (Page* page = currentPage(); page && page->reveal(ref)) return;
    for (Page* page : m_pages)
        if (page->reveal(ref)) return m_tabs->setCurrentWidget(page);
}

void MainWindow::applyLayout(const QString& name) {
    const auto show = [&](bool structure, bool plan, bool runs) {
        m_structureDock->setVisible(structure);
        m_planDock->setVisible(plan);
        m_bottomDock->setVisible(runs);
    };
    for (QDockWidget* dock : {m_structureDock, m_planDock, m_bottomDock}) dock->setFloating(false);
    addDockWidget(Qt::LeftDockWidgetArea, m_structureDock);
    addDockWidget(Qt::RightDockWidgetArea, m_planDock);
    addDockWidget(Qt::BottomDockWidgetArea, m_bottomDock);
    const int unit = fontMetrics().height();
    if (name == QLatin1String("inspect")) show(true, false, false);
    else if (name == QLatin1String("recover")) show(false, true, true);
    else if (name == QLatin1String("compare")) show(false, false, true);
    else show(true, true, true);
    // Narrow windows: the plan shares its place with the structure.
    if (width() < 1280 && m_structureDock->isVisibleTo(this) && m_planDock->isVisibleTo(this)) tabifyDockWidget(m_structureDock, m_planDock);
    resizeDocks({m_structureDock, m_planDock}, {unit * 25, unit * 30}, Qt::Horizontal);
    const bool tall = name == QLatin1String("recover") || name == QLatin1String("compare");
    resizeDocks({m_bottomDock}, {tall ? height() / 2 : unit * 12}, Qt::Vertical);
    m_layouts.insert(QStringLiteral("last"), name.toUtf8());
}

Json MainWindow::captureLayout() const {
    Page* page = currentPage();
    return Json{{"docks", saveState().toBase64().toStdString()}, {"page", page ? page->id().toStdString() : std::string()}, {"splitter", m_work->saveState().toBase64().toStdString()}};
}

void MainWindow::restoreLayout(const Json& layout) {
    const auto bytes = [&](const char* field) {
        const auto it = layout.find(field);
        return it != layout.end() && it->is_string() ? QByteArray::fromBase64(QByteArray::fromStdString(it->get<std::string>())) : QByteArray();
    };
    if (const QByteArray docks = bytes("docks"); !docks.isEmpty()) restoreState(docks);
    if (const QByteArray splitter = bytes("splitter"); !splitter.isEmpty()) m_work->restoreState(splitter);
    if (layout.contains("page") && layout.at("page").is_string()) showPage(fromStd(layout.at("page").get<std::string>()));
    m_layouts.insert(QStringLiteral("last"), "saved");
}

bool MainWindow::askAboutRunning() {
    const auto active = m_runs.activeRuns();
    QString answer = m_closeAnswer;
    if (!active.empty() && answer.isEmpty()) {
        QMessageBox box(QMessageBox::Question, tr("Recovery is running"), active.size() == 1 ? tr("Recovery is running (%1).").arg(active.front()->stateWords()) : tr("%1 recovery runs are going on.").arg(active.size()), QMessageBox::NoButton, this);
        box.setInformativeText(tr("It needs no window: it can go on and shows again when this workspace is opened."));
        auto* keep = box.addButton(tr("Keep it running"), QMessageBox::AcceptRole);
        auto* pause = box.addButton(tr("Pause it"), QMessageBox::ActionRole);
        auto* stop = box.addButton(tr("Stop and keep"), QMessageBox::ActionRole);
        box.addButton(QMessageBox::Cancel);
        box.setDefaultButton(keep);
        box.exec();
        answer = box.clickedButton() == keep ? QStringLiteral("keep") : box.clickedButton() == pause ? QStringLiteral("pause") : box.clickedButton() == stop ? QStringLiteral("stop") : QStringLiteral("cancel");
    }
    if (!active.empty()) {
        if (answer == QLatin1String("cancel")) return false;
        QString problem;
        for (RunFollower* run : active)
            if (answer != QLatin1String("keep") && !run->control(answer, &problem)) say("error", problem);
    }
    // These are made anew at any time; anything else would be lost half done.
    const auto& jobs = m_client.jobs();
    constexpr std::array kAgain = {"preview", "attention", "router_tokens", "tensor_look", "diff"};
    const auto lost = std::find_if(jobs.begin(), jobs.end(), [&](const WorkerJob& job) {
        return std::none_of(kAgain.begin(), kAgain.end(), [&](const char* call) { return job.call == QLatin1String(call); });
    });
    if (lost == jobs.end()) return true;
    if (!m_closeAnswer.isEmpty()) return m_closeAnswer != QLatin1String("cancel");
    return QMessageBox::question(this, tr("Work is under way"), tr("%1 is not finished. Stop it and close?").arg(lost->title), QMessageBox::Close | QMessageBox::Cancel, QMessageBox::Cancel) == QMessageBox::Close;
}

void MainWindow::closeEvent(QCloseEvent* event) {
    if (!askAboutRunning()) return event->ignore();
    if (m_document.model() && !m_session->save() && m_closeAnswer.isEmpty()) {
        const auto answer = QMessageBox::warning(this, tr("The workspace could not be saved"), tr("Its last changes would be lost. Close anyway?"), QMessageBox::Close | QMessageBox::Cancel, QMessageBox::Cancel);
        if (answer != QMessageBox::Close) return event->ignore();
    }
    QSettings().setValue("geometry", saveGeometry());
    event->accept();
}

}  // namespace resect::ui
