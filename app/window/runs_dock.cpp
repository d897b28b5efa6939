#include "app/window/runs_dock.h"

#include "core/base/numbers.h"
#include "widgets/plots/curve_view.h"
#include "widgets/views/style.h"

#include <QApplication>
#include <QClipboard>
#include <QDesktopServices>
#include <QDialog>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QListView>
#include <QMenu>
#include <QPainter>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QSortFilterProxyModel>
#include <QSplitter>
#include <QStackedLayout>
#include <QStyledItemDelegate>
#include <QTableView>
#include <QTableWidget>
#include <QUrl>
#include <QVBoxLayout>

namespace resect::ui {
namespace {

/// The progress column: its words over a thin bar.
class ProgressDelegate final : public QStyledItemDelegate {
public:
    using QStyledItemDelegate::QStyledItemDelegate;
    void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override {
        QStyledItemDelegate::paint(painter, option, index);
        const double share = index.data(RunList::FractionRole).toDouble();
        if (share < 0) return;
        QRect bar = option.rect.adjusted(3, 0, -3, -1);
        bar.setTop(bar.bottom() - 2);
        painter->fillRect(bar, currentTheme().grid);
        bar.setWidth(static_cast<int>(bar.width() * share));
        painter->fillRect(bar, currentTheme().accent);
    }
};

/// Messages: icon, wrapped words, time.
class MessageDelegate final : public QStyledItemDelegate {
public:
    using QStyledItemDelegate::QStyledItemDelegate;
    void initStyleOption(QStyleOptionViewItem* option, const QModelIndex& index) const override {
        QStyledItemDelegate::initStyleOption(option, index);
        option->features |= QStyleOptionViewItem::HasDecoration | QStyleOptionViewItem::WrapText;
        option->icon = severityIcon(index.data(MessageModel::SeverityRole).toString());
        option->text = index.data(MessageModel::TimeRole).toDateTime().toString(QStringLiteral("HH:mm:ss  ")) + option->text;
    }
};

}  // namespace

RunsDock::RunsDock(RunList& runs, WorkerClient& client, MessageModel& messages, QWidget* parent) : QTabWidget(parent), m_runs(runs), m_client(client), m_messageModel(messages) {
    setDocumentMode(true);
    addTab(makeRecovery(), tr("Recovery"));
    addTab(makeJobs(), tr("Jobs"));
    addTab(makeMessages(), tr("Messages"));
    addTab(makeLog(), tr("Log"));
    connect(&messages, &MessageModel::unreadChanged, this, [this] {
        if (currentIndex() == Messages && isVisible()) return m_messageModel.markRead();
        setTabText(Messages, m_messageModel.unread() > 0 ? tr("Messages (%1)").arg(m_messageModel.unread()) : tr("Messages"));
    });
    connect(this, &QTabWidget::currentChanged, this, [this](int tab) {
        if (tab == Messages) m_messageModel.markRead(), setTabText(Messages, tr("Messages"));
    });
}

RunsDock::~RunsDock() = default;

QWidget* RunsDock::makeRecovery() {
    m_content = new QWidget(this);
    auto* outer = new QVBoxLayout(m_content);
    outer->setContentsMargins(4, 4, 4, 4);
    m_empty = makeLabel(QString(), "muted", m_content);
    m_empty->setAlignment(Qt::AlignCenter);
    connect(m_empty, &QLabel::linkActivated, this, [this] { Q_EMIT recoverRequested(); });
    outer->addWidget(m_empty, 1);
    auto* splitter = new QSplitter(Qt::Horizontal, m_content);
    splitter->setChildrenCollapsible(false);
    outer->addWidget(splitter, 1);

    auto* left = new QWidget(splitter);
    auto* leftLayout = new QVBoxLayout(left);
    leftLayout->setContentsMargins(0, 0, 0, 0);
    m_table = new QTableView(left);
    auto* sorted = new QSortFilterProxyModel(this);
    sorted->setSourceModel(&m_runs);
    sorted->setSortRole(RunList::SortRole);
    m_table->setModel(sorted);
    m_table->setSelectionBehavior(QAbstractItemView::SelectRows);
    m_table->setSelectionMode(QAbstractItemView::SingleSelection);
    m_table->setSortingEnabled(true);
    m_table->horizontalHeader()->setSortIndicator(-1, Qt::AscendingOrder);
    m_table->setShowGrid(false);
    m_table->setWordWrap(false);
    m_table->setFrameShape(QFrame::NoFrame);
    m_table->verticalHeader()->hide();
    m_table->verticalHeader()->setDefaultSectionSize(fontMetrics().height() + 8);
    m_table->setItemDelegateForColumn(RunList::Progress, new ProgressDelegate(m_table));
    m_table->setAccessibleName(tr("Recovery runs"));
    m_table->horizontalHeader()->setHighlightSections(false);
    const int unit = fontMetrics().height();
    const int widths[RunList::ColumnCount] = {18, 6, 8, 9, 6, 5, 6, 7, 7, 9};
    for (int column = 0; column < RunList::ColumnCount; ++column) m_table->setColumnWidth(column, widths[column] * unit);
    leftLayout->addWidget(m_table, 1);
    m_runWords = makeLabel(QString(), "muted", left);
    leftLayout->addWidget(m_runWords);
    auto* buttons = new QHBoxLayout;
    m_pause = new QPushButton(left);
    m_stop = new QPushButton(tr("Stop and keep"), left);
    m_resume = new QPushButton(tr("Resume"), left);
    m_log = new QPushButton(tr("Log"), left);   // short words: beside the curves they decide how narrow the window can be
    m_folder = new QPushButton(tr("Folder"), left);
    m_log->setToolTip(tr("Show what the run wrote"));
    m_folder->setToolTip(tr("Show the run's folder"));
    m_stop->setToolTip(tr("Finish the step, write a checkpoint, end"));
    m_resume->setToolTip(tr("Go on from the last checkpoint"));
    for (QPushButton* button : {m_pause, m_stop, m_resume, m_log, m_folder}) buttons->addWidget(button);
    buttons->addStretch();
    leftLayout->addLayout(buttons);
    m_curves = new RunCurveView(splitter);
    splitter->setSizes({52 * unit, 48 * unit});

    connect(m_pause, &QPushButton::clicked, this, &RunsDock::pauseOrResume);
    connect(m_stop, &QPushButton::clicked, this, &RunsDock::stopAndKeep);
    connect(m_resume, &QPushButton::clicked, this, &RunsDock::resumeFromCheckpoint);
    connect(m_log, &QPushButton::clicked, this, [this] {
        const RunFollower* run = currentRun();
        if (!run) return;
        QDialog dialog(this);
        dialog.setWindowTitle(tr("Log of %1").arg(run->id()));
        dialog.resize(fontMetrics().height() * 50, fontMetrics().height() * 26);
        auto* layout = new QVBoxLayout(&dialog);
        auto* text = new QPlainTextEdit(run->logTail(500), &dialog);
        text->setReadOnly(true);
        text->moveCursor(QTextCursor::End);
        layout->addWidget(text);
        dialog.exec();
    });
    connect(m_folder, &QPushButton::clicked, this, [this] {
        if (const RunFollower* run = currentRun()) QDesktopServices::openUrl(QUrl::fromLocalFile(run->folder()));
    });
    connect(&m_runs, &RunList::runAdded, this, [this](RunFollower* run) {
        connect(run, &RunFollower::rowsAppended, this, [this, run](int first) { feed(run, first); });
        // What is going on is drawn at once, and so is the newest one; older runs when they are ticked.
        if (run->isActive() || m_runs.size() == 1) m_runs.setShown(run->folder(), true), select(run);
        refreshButtons();
    });
    connect(&m_runs, &RunList::shownChanged, this, [this](RunFollower* run, bool shown) {
        if (!shown) {
            m_curves->removeRun(run->id());
            return m_runs.setColour(run->folder(), -1);
        }
        feed(run, 0);
    });
    connect(&m_runs, &RunList::runChanged, this, [this](RunFollower* run) {
        if (m_runs.index(0, 0).isValid() && run->rows().size() > 0) m_curves->setRunStatus(run->id(), run->status());
        if (run == currentRun()) refreshButtons();
    });
    connect(&m_runs, &QAbstractItemModel::modelReset, this, [this] {
        m_curves->clear();
        refreshButtons();
    });
    connect(m_table->selectionModel(), &QItemSelectionModel::currentRowChanged, this, [this] {
        if (RunFollower* run = currentRun()) {
            m_runs.setShown(run->folder(), true);
            m_curves->setFocusRun(run->id());
            m_curves->setRunStatus(run->id(), run->status());
        }
        refreshButtons();
    });
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, &RunsDock::refreshButtons);
    refreshButtons();
    return m_content;
}

void RunsDock::feed(RunFollower* run, int first) {
    const auto& rows = run->rows();
    if (first == 0) {
        // From the start: drawn anew, so that nothing of a rewritten file stays.
        const int colour = m_curves->colourOf(run->id());
        m_curves->removeRun(run->id());
        m_curves->addRun(run->id(), run->title(), colour);
        m_curves->setRunStatus(run->id(), run->status());
        m_runs.setColour(run->folder(), m_curves->colourOf(run->id()));
    }
    m_curves->appendRun(run->id(), std::span(rows).subspan(static_cast<size_t>(first)));
}

void RunsDock::select(const RunFollower* run) {
    for (int row = 0; row < m_table->model()->rowCount(); ++row)
        if (m_table->model()->index(row, 0).data(RunList::FolderRole).toString() == run->folder()) m_table->selectRow(row);
}

void RunsDock::showRun(const QString& folder) {
    m_runs.addFolder(folder);
    setCurrentIndex(Recovery);
    if (const RunFollower* run = m_runs.findRun(folder)) {
        m_runs.setShown(folder, true);
        select(run);
    }
}

RunFollower* RunsDock::currentRun() const {
    const QModelIndex index = m_table->currentIndex();
    return index.isValid() ? m_runs.findRun(index.data(RunList::FolderRole).toString()) : nullptr;
}

void RunsDock::refreshButtons() {
    const bool any = m_runs.size() > 0;
    m_empty->setVisible(!any);
    m_empty->setText(tr("No runs yet. Recovery repairs a cut model with a little training. <a href=\"recover\" style=\"color:%1\">How long would it take?</a>").arg(currentTheme().accent.name()));
    m_table->parentWidget()->parentWidget()->setVisible(any);
    const RunFollower* run = currentRun();
    const bool live = run && (run->life() == RunFollower::Life::Live || run->life() == RunFollower::Life::Silent);
    const bool paused = run && (run->status().state == "paused" || run->status().state == "pausing");
    m_pause->setText(paused ? tr("Continue") : tr("Pause"));
    m_pause->setIcon(icon(paused ? QStringLiteral("resume") : QStringLiteral("pause")));
    m_stop->setIcon(icon(QStringLiteral("stop")));
    m_resume->setIcon(icon(QStringLiteral("resume")));
    m_pause->setEnabled(live);
    m_stop->setEnabled(live);
    m_resume->setVisible(run && run->canResume());
    m_log->setEnabled(run);
    m_folder->setEnabled(run);
    QString words;
    if (run) {
        words = run->stateWords();
        words[0] = words[0].toUpper();
        if (!run->status().message.empty()) words += QStringLiteral(". ") + QString::fromStdString(run->status().message);
        if (run->life() == RunFollower::Life::Lost) words += run->canResume() ? tr(". The process is gone; it can go on from its last checkpoint.") : tr(". The process is gone and left no checkpoint.");
        if (run->unreadableLines() > 0) words += tr(" (%1 unreadable lines in metrics.jsonl)").arg(run->unreadableLines());
    }
    m_runWords->setText(words);
    m_runWords->setVisible(!words.isEmpty());
}

void RunsDock::pauseOrResume() {
    RunFollower* run = currentRun();
    if (!run) return;
    if (run->canResume()) return resumeFromCheckpoint();
    const bool paused = run->status().state == "paused" || run->status().state == "pausing";
    QString problemText;
    if (run->isActive() && !run->control(paused ? QStringLiteral("resume") : QStringLiteral("pause"), &problemText)) Q_EMIT problem(problemText);
}

void RunsDock::stopAndKeep() {
    RunFollower* run = currentRun();
    QString problemText;
    if (run && run->isActive() && !run->control(QStringLiteral("stop"), &problemText)) Q_EMIT problem(problemText);
}

void RunsDock::resumeFromCheckpoint() {
    RunFollower* run = currentRun();
    QString problemText;
    if (run && run->canResume() && !startDetachedRun(m_client.program(), {QStringLiteral("resume"), run->folder()}, run->folder(), &problemText)) Q_EMIT problem(problemText);
}

QWidget* RunsDock::makeJobs() {
    m_jobs = new QTableWidget(0, 4, this);
    m_jobs->setHorizontalHeaderLabels({tr("Job"), tr("State"), tr("Progress"), QString()});
    m_jobs->verticalHeader()->hide();
    m_jobs->setShowGrid(false);
    m_jobs->setFrameShape(QFrame::NoFrame);
    m_jobs->setEditTriggers(QAbstractItemView::NoEditTriggers);
    m_jobs->setSelectionBehavior(QAbstractItemView::SelectRows);
    m_jobs->horizontalHeader()->setSectionResizeMode(QHeaderView::ResizeToContents);
    m_jobs->horizontalHeader()->setSectionResizeMode(2, QHeaderView::Stretch);
    m_jobs->setAccessibleName(tr("Jobs of the worker"));
    connect(&m_client, &WorkerClient::jobsChanged, this, &RunsDock::refreshJobs);
    connect(&m_client, &WorkerClient::jobProgress, this, &RunsDock::refreshJobs);
    refreshJobs();
    return m_jobs;
}

void RunsDock::refreshJobs() {
    const auto& jobs = m_client.jobs();
    const bool rebuild = m_jobs->rowCount() != static_cast<int>(jobs.size()) || (m_jobs->rowCount() > 0 && m_jobs->item(0, 0)->data(Qt::UserRole).toLongLong() != jobs.front().id);
    m_jobs->setRowCount(static_cast<int>(jobs.size()));
    for (int row = 0; row < static_cast<int>(jobs.size()); ++row) {
        const WorkerJob& job = jobs[static_cast<size_t>(row)];
        if (rebuild) {
            for (int column = 0; column < 3; ++column) m_jobs->setItem(row, column, new QTableWidgetItem);
            m_jobs->item(row, 0)->setText(job.title);
            m_jobs->item(row, 0)->setData(Qt::UserRole, job.id);
            auto* cancel = new QPushButton(tr("Stop"), m_jobs);
            connect(cancel, &QPushButton::clicked, this, [this, id = job.id] { m_client.cancel(id); });
            m_jobs->setCellWidget(row, 3, cancel);
        }
        const char* const states[] = {"waiting", "running", "stopping"};
        m_jobs->item(row, 1)->setText(tr(states[static_cast<int>(job.state)]));
        QString words = job.progress.stage;
        if (job.progress.total > 0) words += QStringLiteral(" %1 %").arg(100 * job.progress.fraction(), 0, 'f', 0);
        m_jobs->item(row, 2)->setText(words.trimmed());
    }
}

QWidget* RunsDock::makeMessages() {
    m_messageList = new QListView(this);
    m_messageList->setModel(&m_messageModel);
    m_messageList->setItemDelegate(new MessageDelegate(m_messageList));
    m_messageList->setWordWrap(true);
    m_messageList->setResizeMode(QListView::Adjust);
    m_messageList->setFrameShape(QFrame::NoFrame);
    m_messageList->setAccessibleName(tr("Messages"));
    m_messageList->setContextMenuPolicy(Qt::CustomContextMenu);
    connect(m_messageList, &QListView::customContextMenuRequested, this, [this](const QPoint& position) {
        QMenu menu;
        const QModelIndex index = m_messageList->indexAt(position);
        if (index.isValid()) menu.addAction(tr("Copy"), this, [text = index.data().toString()] { QApplication::clipboard()->setText(text); });
        menu.addAction(tr("Clear"), this, [this] { m_messageModel.clear(); });
        menu.exec(m_messageList->viewport()->mapToGlobal(position));
    });
    return m_messageList;
}

QWidget* RunsDock::makeLog() {
    m_logText = new QPlainTextEdit(this);
    m_logText->setReadOnly(true);
    m_logText->setMaximumBlockCount(2000);
    m_logText->setFrameShape(QFrame::NoFrame);
    m_logText->setPlaceholderText(tr("What the worker says about its work appears here."));
    m_logText->setAccessibleName(tr("Log of the worker"));
    QFont font(QStringLiteral("monospace"));
    font.setStyleHint(QFont::Monospace);
    m_logText->setFont(font);
    connect(&m_client, &WorkerClient::logLine, m_logText, &QPlainTextEdit::appendPlainText);
    return m_logText;
}

}  // namespace resect::ui
