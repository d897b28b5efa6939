#include "app/pages/start_page.h"

#include "app/window/workspace_store.h"
#include "core/base/numbers.h"
#include "widgets/views/style.h"

#include <QDragEnterEvent>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLocale>
#include <QMimeData>
#include <QPushButton>
#include <QTableWidget>
#include <QVBoxLayout>

namespace resect::ui {

StartPage::StartPage(QWidget* parent) : QWidget(parent) {
    setAcceptDrops(true);
    const int unit = fontMetrics().height();
    auto* outer = new QVBoxLayout(this);
    outer->addStretch(1);
    auto* column = new QWidget(this);
    column->setMaximumWidth(unit * 48);
    auto* centre = new QHBoxLayout;
    centre->addStretch(1);
    centre->addWidget(column, 20);
    centre->addStretch(1);
    outer->addLayout(centre, 6);
    outer->addStretch(1);
    auto* layout = new QVBoxLayout(column);
    layout->setSpacing(unit * 2 / 3);

    auto* head = new QHBoxLayout;
    m_logo = new QLabel(column);
    auto* names = new QVBoxLayout;
    names->setSpacing(unit / 4);
    names->addStretch();
    names->addWidget(makeLabel(QStringLiteral("Resect"), "title", column));
    names->addWidget(makeLabel(tr("Open a transformer checkpoint, see where it is redundant, cut it, train it back, export it."), "muted", column));
    names->addStretch();
    head->setSpacing(unit);
    head->addWidget(m_logo);
    head->addLayout(names, 1);
    layout->addLayout(head);

    m_problem = new QFrame(column);
    m_problem->setProperty("role", "card");
    m_problem->setProperty("severity", "error");
    auto* problemLayout = new QVBoxLayout(m_problem);
    m_problemText = makeLabel(QString(), nullptr, m_problem);
    problemLayout->addWidget(m_problemText);
    m_problem->hide();
    layout->addWidget(m_problem);

    m_dropArea = new QFrame(column);
    m_dropArea->setProperty("role", "drop");
    auto* dropLayout = new QVBoxLayout(m_dropArea);
    dropLayout->setContentsMargins(unit, unit * 3 / 2, unit, unit * 3 / 2);
    auto* words = makeLabel(tr("Drop a model folder here"), "heading", m_dropArea);
    words->setAlignment(Qt::AlignCenter);
    auto* hint = makeLabel(tr("a Hugging Face checkpoint: config.json with .safetensors files; or a Resect workspace"), "muted", m_dropArea);
    hint->setAlignment(Qt::AlignCenter);
    dropLayout->addWidget(words);
    dropLayout->addWidget(hint);
    m_buttons = new QWidget(m_dropArea);
    auto* buttons = new QHBoxLayout(m_buttons);
    buttons->addStretch();
    auto* open = new QPushButton(tr("Open model..."), m_buttons);
    auto* workspace = new QPushButton(tr("Open workspace..."), m_buttons);
    auto* demo = new QPushButton(tr("Try the demo"), m_buttons);
    open->setObjectName(QStringLiteral("startOpen"));
    demo->setObjectName(QStringLiteral("startDemo"));
    open->setDefault(true);
    demo->setToolTip(tr("A small model that comes with Resect; everything works on it in seconds"));
    for (QPushButton* button : {open, workspace, demo}) {
        button->setMinimumWidth(unit * 10);
        buttons->addWidget(button);
    }
    buttons->addStretch();
    dropLayout->addWidget(m_buttons);
    m_opening = makeLabel(QString(), "muted", m_dropArea);
    m_opening->setAlignment(Qt::AlignCenter);
    m_opening->hide();
    dropLayout->addWidget(m_opening);
    m_dropArea->setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Maximum);
    m_dropArea->setMinimumHeight(unit * 14);
    layout->addWidget(m_dropArea);

    m_recentTitle = makeLabel(tr("Recent"), "heading", column);
    layout->addWidget(m_recentTitle);
    m_recent = new QTableWidget(0, 4, column);
    m_recent->setHorizontalHeaderLabels({tr("Name"), tr("Size"), tr("Opened"), tr("Place")});
    m_recent->setShowGrid(false);
    m_recent->verticalHeader()->hide();
    m_recent->setSelectionBehavior(QAbstractItemView::SelectRows);
    m_recent->setSelectionMode(QAbstractItemView::SingleSelection);
    m_recent->setEditTriggers(QAbstractItemView::NoEditTriggers);
    m_recent->setTextElideMode(Qt::ElideMiddle);
    m_recent->setWordWrap(false);
    m_recent->setAccessibleName(tr("Recently opened models and workspaces"));
    m_recent->horizontalHeader()->setSectionResizeMode(QHeaderView::ResizeToContents);
    m_recent->horizontalHeader()->setSectionResizeMode(3, QHeaderView::Stretch);
    m_recent->horizontalHeader()->setHighlightSections(false);
    layout->addWidget(m_recent, 1000);
    layout->addStretch(1);  // takes the room while nothing is recent

    connect(open, &QPushButton::clicked, this, &StartPage::chooseRequested);
    connect(workspace, &QPushButton::clicked, this, &StartPage::chooseWorkspaceRequested);
    connect(demo, &QPushButton::clicked, this, &StartPage::demoRequested);
    connect(m_recent, &QTableWidget::itemActivated, this, [this](QTableWidgetItem* item) { Q_EMIT openRequested(m_recent->item(item->row(), 0)->data(Qt::UserRole).toString()); });
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, &StartPage::restyle);
    restyle();
    refreshRecent();
}

void StartPage::restyle() { m_logo->setPixmap(programIcon().pixmap(QSize(56, 56), devicePixelRatioF())); }

void StartPage::refreshRecent() {
    const auto entries = recentEntries();
    m_recent->setRowCount(static_cast<int>(entries.size()));
    for (int row = 0; row < static_cast<int>(entries.size()); ++row) {
        const RecentEntry& entry = entries[static_cast<size_t>(row)];
        auto* name = new QTableWidgetItem(isWorkspace(entry.path) ? tr("%1 (workspace)").arg(entry.name) : entry.name);
        name->setData(Qt::UserRole, entry.path);
        name->setIcon(icon(isWorkspace(entry.path) ? QStringLiteral("plan") : QStringLiteral("folder")));
        auto* size = new QTableWidgetItem(QString::fromStdString(formatBytes(static_cast<std::uint64_t>(std::max<qint64>(0, entry.bytes)))));
        size->setTextAlignment(Qt::AlignRight | Qt::AlignVCenter);
        auto* place = new QTableWidgetItem(entry.path);
        place->setToolTip(entry.path);
        m_recent->setItem(row, 0, name);
        m_recent->setItem(row, 1, size);
        m_recent->setItem(row, 2, new QTableWidgetItem(entry.opened.toString(QStringLiteral("yyyy-MM-dd HH:mm"))));
        m_recent->setItem(row, 3, place);
    }
    m_recent->setVisible(!entries.empty());
    m_recentTitle->setVisible(!entries.empty());
}

void StartPage::setOpening(const QString& path) {
    m_opening->setText(tr("Reading the headers of %1 ...").arg(path));
    m_opening->setVisible(!path.isEmpty());
    m_buttons->setEnabled(path.isEmpty());
    if (!path.isEmpty()) m_problem->hide();
}

void StartPage::showProblem(const QString& path, const QString& reason) {
    m_problemText->setText(tr("%1 could not be opened. %2").arg(path, reason));
    m_problem->setVisible(!reason.isEmpty());
}

void StartPage::dragEnterEvent(QDragEnterEvent* event) {
    const auto urls = event->mimeData()->urls();
    if (urls.size() != 1 || !urls.front().isLocalFile()) return;
    event->acceptProposedAction();
    setStyleProperty(m_dropArea, "over", true);
}

void StartPage::dragLeaveEvent(QDragLeaveEvent*) { setStyleProperty(m_dropArea, "over", false); }

void StartPage::dropEvent(QDropEvent* event) {
    setStyleProperty(m_dropArea, "over", false);
    Q_EMIT openRequested(event->mimeData()->urls().front().toLocalFile());
}

}  // namespace resect::ui
