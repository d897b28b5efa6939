#include "app/pages/compare_page.h"

#include "widgets/plots/theme.h"
#include "widgets/views/style.h"

#include <QApplication>
#include <QCheckBox>
#include <QClipboard>
#include <QComboBox>
#include <QDir>
#include <QDragEnterEvent>
#include <QFileDialog>
#include <QFileInfo>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QMimeData>
#include <QProgressBar>
#include <QPushButton>
#include <QSettings>
#include <QSplitter>
#include <QTableWidget>
#include <QTreeView>
#include <QVBoxLayout>

namespace resect::ui {
namespace {

constexpr int kRecent = 8;
const char* const kRecentKey = "compare/recent";

QString droppedFolder(const QMimeData* data) {
    for (const QUrl& url : data->urls())
        if (url.isLocalFile()) return url.toLocalFile();
    return {};
}

}  // namespace

ComparePage::ComparePage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent) : Page(document, selection, client, parent) {
    setAcceptDrops(true);
    build();
    connect(m_compare, &QPushButton::clicked, this, [this] {
        if (m_job) m_client.cancel(m_job);
        else rerun();
    });
    connect(m_other, &QComboBox::editTextChanged, this, &ComparePage::updateState);
    connect(m_other, &QComboBox::activated, this, &ComparePage::rerun);
    connect(m_copy, &QPushButton::clicked, this, &ComparePage::copyText);
    connect(m_all, &QCheckBox::toggled, this, [this](bool all) {
        m_model->setShowAll(all);
        expandChanged();
    });
    connect(&document, &Document::modelChanged, this, [this] {
        m_job = 0;
        m_error.clear();
        clearResult();
    });
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, &ComparePage::updateState);
    refill();
    clearResult();
}

void ComparePage::build() {
    m_other = new QComboBox(this);
    m_other->setEditable(true);
    m_other->setInsertPolicy(QComboBox::NoInsert);
    m_other->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
    m_other->setMinimumContentsLength(20);
    m_other->lineEdit()->setPlaceholderText(tr("Folder of another checkpoint or of a recovery run; it can also be dropped here"));
    m_other->setAccessibleName(tr("Other checkpoint"));
    auto* folder = new QPushButton(tr("&Folder..."), this);
    connect(folder, &QPushButton::clicked, this, &ComparePage::choose);
    m_compare = new QPushButton(this);
    m_all = new QCheckBox(tr("Show &all tensors"), this);
    m_all->setToolTip(tr("Also those that are equal to the byte"));
    m_copy = new QPushButton(tr("&Copy as text"), this);
    m_copy->setToolTip(tr("Everything that differs, one line each with tabs between the columns"));
    m_progress = new QProgressBar(this);
    m_progress->setTextVisible(false);
    m_progress->setMaximumHeight(fontMetrics().height() / 2);
    m_progress->setAccessibleName(tr("Progress of the comparison"));
    m_summary = new QLabel(this);
    m_summary->setWordWrap(true);
    m_summary->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
    m_summary->setAccessibleName(tr("Summary of the comparison"));

    m_model = new DiffTreeModel(this);
    m_view = new QTreeView(this);
    m_view->setModel(m_model);
    m_view->setItemDelegateForColumn(DiffTreeModel::Change, new ShareBarDelegate(m_view));
    m_view->setUniformRowHeights(true);
    m_view->setAlternatingRowColors(true);
    m_view->setAllColumnsShowFocus(true);
    m_view->setTextElideMode(Qt::ElideLeft);   // the ends of names tell them apart
    m_view->setAccessibleName(tr("Tensors of both checkpoints, matched blocks beside each other"));
    const int unit = fontMetrics().averageCharWidth();
    auto* header = m_view->header();
    header->setStretchLastSection(false);
    header->setMinimumSectionSize(unit * 8);
    for (const int column : {DiffTreeModel::Original, DiffTreeModel::Other}) header->setSectionResizeMode(column, QHeaderView::Stretch);
    for (const int column : {DiffTreeModel::OriginalType, DiffTreeModel::OtherType}) header->resizeSection(column, unit * 15);
    header->resizeSection(DiffTreeModel::Change, unit * 24);
    m_config = new QTableWidget(0, 3, this);
    m_config->setHorizontalHeaderLabels({tr("config.json"), tr("Original"), tr("Other")});
    m_config->setEditTriggers(QAbstractItemView::NoEditTriggers);
    m_config->setSelectionBehavior(QAbstractItemView::SelectRows);
    m_config->verticalHeader()->hide();
    m_config->verticalHeader()->setDefaultSectionSize(fontMetrics().height() * 3 / 2);
    m_config->horizontalHeader()->setSectionResizeMode(QHeaderView::Stretch);
    m_config->setAccessibleName(tr("Settings that differ"));
    auto* splitter = new QSplitter(Qt::Vertical, this);
    splitter->addWidget(m_view);
    splitter->addWidget(m_config);
    splitter->setStretchFactor(0, 3);
    splitter->setStretchFactor(1, 1);
    splitter->setChildrenCollapsible(false);
    m_view->setMinimumHeight(fontMetrics().height() * 8);
    m_config->setMinimumHeight(fontMetrics().height() * 5);
    m_result = splitter;

    auto* layout = new QVBoxLayout(this);
    auto* bar = new QHBoxLayout;
    bar->addWidget(new QLabel(tr("Compare with"), this));
    bar->addWidget(m_other, 1);
    bar->addWidget(folder);
    bar->addWidget(m_compare);
    layout->addLayout(bar);
    auto* second = new QHBoxLayout;
    second->addWidget(m_summary, 1);
    second->addWidget(m_all, 0, Qt::AlignTop);
    second->addWidget(m_copy, 0, Qt::AlignTop);
    layout->addLayout(second);
    layout->addWidget(m_progress);
    layout->addWidget(splitter, 1);
    m_hint = new QFrame(this);
    m_hint->setProperty("role", "drop");
    auto* hintLayout = new QVBoxLayout(m_hint);
    auto* heading = makeLabel(tr("Drop another checkpoint here"), "heading", m_hint);
    m_hintText = makeLabel(QString(), "muted", m_hint);
    for (QLabel* label : {heading, m_hintText}) label->setAlignment(Qt::AlignCenter);
    hintLayout->addStretch(1);
    hintLayout->addWidget(heading);
    hintLayout->addWidget(m_hintText);
    hintLayout->addStretch(1);
    layout->addWidget(m_hint, 1);
}

void ComparePage::refill() {
    const QString text = m_other->currentText();
    const QSignalBlocker blocked(m_other);
    m_other->clear();
    for (const QString& folder : QSettings().value(QLatin1String(kRecentKey)).toStringList())
        if (QFileInfo::exists(folder)) m_other->addItem(folder);
    m_other->setCurrentIndex(-1);
    m_other->setEditText(text);
}

void ComparePage::remember(const QString& folder) {
    QSettings settings;
    QStringList recent = settings.value(QLatin1String(kRecentKey)).toStringList();
    recent.removeAll(folder);
    recent.prepend(folder);
    settings.setValue(QLatin1String(kRecentKey), QStringList(recent.mid(0, kRecent)));
    refill();
}

void ComparePage::choose() {
    const QString folder = QFileDialog::getExistingDirectory(this, tr("Another checkpoint, or a recovery run"), m_other->currentText());
    if (!folder.isEmpty()) compareWith(folder);
}

void ComparePage::compareWith(const QString& folder) {
    m_other->setEditText(QDir::toNativeSeparators(folder));
    rerun();
}

void ComparePage::dragEnterEvent(QDragEnterEvent* event) {
    if (!droppedFolder(event->mimeData()).isEmpty()) event->acceptProposedAction();
}

void ComparePage::dropEvent(QDropEvent* event) {
    event->acceptProposedAction();
    compareWith(droppedFolder(event->mimeData()));
}

void ComparePage::rerun() {
    const QString folder = m_other->currentText().trimmed();
    if (m_job || !m_document.model() || folder.isEmpty()) return;
    m_error.clear();
    clearResult();
    WorkerCallbacks callbacks;
    callbacks.result = [this, folder, model = m_document.sharedModel()](const Json& result) {
        if (model != m_document.sharedModel()) return;
        m_job = 0;
        remember(folder);
        show(result);
    };
    callbacks.error = [this, model = m_document.sharedModel()](const WorkerError& error) {
        if (model != m_document.sharedModel()) return;
        m_job = 0;
        fail(error.stopped() ? tr("Stopped.") : error.text());
        if (!error.stopped()) Q_EMIT message({"error", error.subject.toStdString(), error.message.toStdString(), ""});
    };
    callbacks.progress = [this](const WorkerProgress& progress, const Json&) {
        m_progress->setRange(0, progress.total > 0 ? 1000 : 0);
        if (progress.total > 0) m_progress->setValue(int(1000 * progress.fraction()));
    };
    m_progress->setRange(0, 0);
    m_job = m_client.startJob(QStringLiteral("diff"), {{"path", folder.toStdString()}}, tr("Comparing with %1").arg(QFileInfo(folder).fileName()), this, std::move(callbacks));
    updateState();
}

void ComparePage::fail(const QString& why) {
    m_error = why;
    updateState();
}

void ComparePage::clearResult() {
    m_model->setComparison({});
    m_config->setRowCount(0);
    updateState();
}

void ComparePage::show(const Json& result) {
    try {
        m_model->setComparison(comparisonFrom(result));
    } catch (const std::exception& error) {
        return fail(QString::fromStdString(error.what()));
    }
    const auto& config = m_model->comparison().config;
    m_config->setRowCount(int(config.size()));
    for (int row = 0; row < m_config->rowCount(); ++row)
        for (int column = 0; column < 3; ++column) {
            auto* item = new QTableWidgetItem(config[std::size_t(row)][std::size_t(column)]);
            item->setToolTip(item->text());
            m_config->setItem(row, column, item);
        }
    updateState();
    expandChanged();
    fitColumns();
}

/// Where all types are alike their second column says nothing, and on narrow pages the names need the room of the first one too.
void ComparePage::fitColumns() {
    const bool differ = m_model->comparison().typesDiffer;
    m_view->setColumnHidden(DiffTreeModel::OtherType, !differ);
    m_view->setColumnHidden(DiffTreeModel::OriginalType, !differ && width() < fontMetrics().averageCharWidth() * 90);
}

void ComparePage::resizeEvent(QResizeEvent* event) {
    Page::resizeEvent(event);
    fitColumns();
}

/// Few groups are opened at once; of many the user opens what is wanted.
void ComparePage::expandChanged() {
    int rows = 0;
    for (int group = 0; group < m_model->rowCount(); ++group) rows += m_model->rowCount(m_model->index(group, 0));
    if (rows <= 400) m_view->expandAll();
}

void ComparePage::updateState() {
    const Theme& theme = currentTheme();
    const bool shown = !m_model->comparison().groups.empty();
    m_result->setVisible(shown);
    m_config->setVisible(shown && !m_model->comparison().config.empty());
    m_all->setVisible(shown);
    m_copy->setVisible(shown);
    m_progress->setVisible(m_job != 0);
    m_other->setEnabled(m_document.model() && !m_job);
    m_compare->setText(m_job ? tr("Stop") : tr("Co&mpare"));
    m_compare->setEnabled(m_document.model() && (m_job || !m_other->currentText().trimmed().isEmpty()));
    QString words;
    if (!m_error.isEmpty()) words = m_error;
    else if (m_job) words = tr("Comparing. Stop keeps what was compared until then.");
    else if (shown) words = summaryOf(m_model->comparison());
    m_hint->setVisible(!shown && !m_job);
    m_hintText->setText(m_document.model() ? tr("One exported from this one, a recovery run, or a fine-tuned sibling: you see which blocks, shapes, settings and weights differ. Blocks are matched by their weights.")
                                           : tr("Open a model first, then compare it with another."));
    m_summary->setVisible(!words.isEmpty());
    m_summary->setText(words);
    m_summary->setStyleSheet(QStringLiteral("color: %1").arg((!m_error.isEmpty() ? theme.error : shown ? theme.text : theme.mutedText).name()));
}

void ComparePage::copyText() const { QApplication::clipboard()->setText(textOf(m_model->comparison())); }

}  // namespace resect::ui
