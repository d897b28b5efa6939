#include "app/pages/tensors_page.h"

#include "app/pages/dataset_source.h"
#include "app/pages/part_sentences.h"
#include "core/base/numbers.h"
#include "widgets/plots/canvas_with_table.h"

#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QSplitter>
#include <QTableView>
#include <QVBoxLayout>

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

constexpr qint64 kReadAtOnce = 256 << 20;   // larger tensors are read when asked to

constexpr int kWidths[] = {28, 9, 18, 14, 10, 20};   // of the columns, in characters; the name takes at least its own

QString thousands(qint64 count) { return QString::fromStdString(formatThousands(count)); }

double numberOf(const Json& result, const char* field) {
    const auto found = result.find(field);
    return found != result.end() && found->is_number() ? found->get<double>() : std::nan("");
}

}  // namespace

TensorsPage::TensorsPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent) : Page(document, selection, client, parent) {
    m_table = new TensorTableModel(
        [this](const Json& args, std::function<void(const Json&)> done) {
            WorkerCallbacks callbacks;
            callbacks.result = done;
            callbacks.error = [this, done](const WorkerError& error) {
                done(Json());
                if (error.code != QLatin1String("WorkerDied")) Q_EMIT message({"error", error.subject.toStdString(), error.message.toStdString(), ""});
                m_count->setText(error.text());
            };
            m_client.request(QStringLiteral("tensors"), args, this, std::move(callbacks));
        },
        this);
    build();
    m_delay.setSingleShot(true);
    m_delay.setInterval(200);   // walking through the table with a key held down reads nothing
    connect(&m_delay, &QTimer::timeout, this, &TensorsPage::look);
    m_filterDelay.setSingleShot(true);
    m_filterDelay.setInterval(150);
    connect(&m_filterDelay, &QTimer::timeout, this, [this] { m_table->setFilter(m_filter->text().trimmed()); });
    connect(m_filter, &QLineEdit::textChanged, &m_filterDelay, qOverload<>(&QTimer::start));
    connect(m_filter, &QLineEdit::returnPressed, this, [this] { m_view->setFocus(); });
    connect(m_table, &TensorTableModel::loaded, this, [this] {
        updateCount();
        if (m_table->rowCount() > 0 && !m_view->currentIndex().isValid()) m_view->setCurrentIndex(m_table->index(0, 0));
    });
    connect(m_table, &QAbstractItemModel::dataChanged, this, [this](const QModelIndex& first, const QModelIndex& last) {
        const int row = m_view->currentIndex().row();
        if (row >= first.row() && row <= last.row()) follow();
    });
    connect(m_view->selectionModel(), &QItemSelectionModel::currentChanged, this, &TensorsPage::follow);
    connect(m_picture, &CellMatrix::cellHovered, this, [this](int row, int column) {
        if (row < 0 || m_picture->empty()) return m_cell->setText(QString());
        const auto first = [&](std::size_t axis, int at) { return m_picture->info().axes[axis].ids[std::size_t(at)]; };
        m_cell->setText(tr("from row %1, column %2: mean size %3").arg(first(0, row)).arg(first(1, column)).arg(shortNumber(m_picture->value({row, column}), 3)));
    });
    connect(m_picture, &PlotCanvas::noticeActionTriggered, this, [this] {
        if (m_job) stop();
        else look();
    });
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, &TensorsPage::showNumbers);
    connect(&document, &Document::modelChanged, this, [this] {
        m_job = 0;
        m_focus = {};
        m_stale = true;
        if (isVisible()) reload();
    });
    setNotice({CanvasNotice::Empty, tr("Open a model to see its tensors."), {}});
}

void TensorsPage::build() {
    m_filter = new QLineEdit(this);
    m_filter->setPlaceholderText(tr("Filter, for example: layers.3 proj bf16"));
    m_filter->setClearButtonEnabled(true);
    m_filter->setAccessibleName(tr("Filter of tensors"));
    m_filter->setToolTip(tr("Words that name, type or file must all hold"));
    m_count = new QLabel(this);
    m_view = new QTableView(this);
    m_view->setModel(m_table);
    m_view->setSortingEnabled(true);
    m_view->sortByColumn(TensorTableModel::Name, Qt::AscendingOrder);
    m_view->setSelectionBehavior(QAbstractItemView::SelectRows);
    m_view->setSelectionMode(QAbstractItemView::SingleSelection);
    m_view->setAlternatingRowColors(true);
    m_view->setShowGrid(false);
    m_view->setWordWrap(false);
    m_view->setTextElideMode(Qt::ElideLeft);   // the ends of names tell them apart
    m_view->setTabKeyNavigation(false);
    m_view->verticalHeader()->hide();
    m_view->verticalHeader()->setSectionResizeMode(QHeaderView::Fixed);
    m_view->verticalHeader()->setDefaultSectionSize(fontMetrics().height() * 3 / 2);
    m_view->setAccessibleName(tr("Tensors"));
    auto* header = m_view->horizontalHeader();
    header->setStretchLastSection(false);
    header->setHighlightSections(false);
    const int unit = fontMetrics().averageCharWidth();
    for (int column = 1; column < TensorTableModel::ColumnCount; ++column) header->resizeSection(column, unit * kWidths[column]);
    header->setSectionResizeMode(TensorTableModel::Name, QHeaderView::Stretch);
    header->setMinimumSectionSize(unit * 6);

    m_name = new QLabel(this);
    QFont bold = font();
    bold.setBold(true);
    m_name->setFont(bold);
    m_name->setWordWrap(true);
    m_name->setTextInteractionFlags(Qt::TextSelectableByMouse);
    m_numbers = new QLabel(this);
    m_numbers->setTextFormat(Qt::RichText);
    m_numbers->setWordWrap(true);
    m_numbers->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
    m_numbers->setAccessibleName(tr("Numbers of the tensor"));
    m_cell = new QLabel(this);
    m_picture = new CellMatrix(m_document);
    m_picture->setAccessibleName(tr("Picture of the tensor: mean size of the numbers in each cell"));
    m_histogram = new DatasetPlot(m_document);
    m_histogram->setAccessibleName(tr("Distribution of the tensor's numbers"));
    m_picture->setMinimumSize(unit * 26, fontMetrics().height() * 8);
    m_histogram->setMinimumSize(unit * 26, fontMetrics().height() * 6);
    m_histogram->axisRect()->setMinimumMargins(QMargins(0, 0, unit * 4, 0));   // for half of the last label

    auto* layout = new QVBoxLayout(this);
    auto* bar = new QHBoxLayout;
    bar->addWidget(m_filter, 1);
    bar->addWidget(m_count);
    auto* left = new QWidget(this);
    auto* leftLayout = new QVBoxLayout(left);
    leftLayout->setContentsMargins(0, 0, 0, 0);
    leftLayout->addLayout(bar);
    leftLayout->addWidget(m_view, 1);
    auto* right = new QWidget(this);
    auto* rightLayout = new QVBoxLayout(right);
    rightLayout->setContentsMargins(unit, 0, 0, 0);
    rightLayout->addWidget(m_name);
    rightLayout->addWidget(m_numbers);
    auto* pictures = new QSplitter(Qt::Vertical, right);
    pictures->addWidget(new CanvasWithTable(m_picture));
    pictures->addWidget(new CanvasWithTable(m_histogram));
    pictures->setStretchFactor(0, 3);
    pictures->setStretchFactor(1, 2);
    rightLayout->addWidget(pictures, 1);
    rightLayout->addWidget(m_cell);
    auto* splitter = new QSplitter(Qt::Horizontal, this);
    splitter->addWidget(left);
    splitter->addWidget(right);
    splitter->setStretchFactor(0, 3);
    splitter->setStretchFactor(1, 2);
    splitter->setSizes({600, 400});
    connect(splitter, &QSplitter::splitterMoved, this, &TensorsPage::fitColumns);
    for (QSplitter* one : {pictures, splitter}) one->setChildrenCollapsible(false);
    left->setMinimumWidth(unit * 40);
    layout->addWidget(splitter, 1);
}

void TensorsPage::showEvent(QShowEvent* event) {
    Page::showEvent(event);
    if (m_stale) reload();
}

void TensorsPage::resizeEvent(QResizeEvent* event) {
    Page::resizeEvent(event);
    QMetaObject::invokeMethod(this, &TensorsPage::fitColumns, Qt::QueuedConnection);   // the splitter has its sizes then
}

/// Where there is no room for all columns, the names keep theirs and the least telling columns go.
void TensorsPage::fitColumns() {
    int needed = 0;
    for (const int width : kWidths) needed += width;
    for (const int column : {TensorTableModel::File, TensorTableModel::Elements, TensorTableModel::Type, TensorTableModel::Bytes}) {
        const bool tooWide = needed * fontMetrics().averageCharWidth() > m_view->viewport()->width();
        m_view->setColumnHidden(column, tooWide);
        if (tooWide) needed -= kWidths[column];
    }
}

void TensorsPage::reload() {
    m_stale = false;
    m_delay.stop();
    m_facts = Json::object();
    m_name->clear();
    m_numbers->clear();
    setNotice({CanvasNotice::Empty, m_document.model() ? tr("Choose a tensor to see its numbers.") : tr("Open a model to see its tensors."), {}});
    m_table->reload(m_document.model() != nullptr);
    updateCount();
}

void TensorsPage::updateCount() {
    const qint64 total = m_document.model() ? m_document.model()->numTensors : 0;
    m_count->setText(m_table->filter().isEmpty() ? tr("%1 tensors").arg(thousands(total)) : tr("%1 of %2 tensors").arg(thousands(m_table->rowCount()), thousands(total)));
}

void TensorsPage::rerun() {
    if (m_table->rowCount() == 0 && m_table->filter().isEmpty()) reload();
    else look();
}

void TensorsPage::choose(int row) { m_view->setCurrentIndex(m_table->index(row, 0)); }

void TensorsPage::follow() {
    const TensorRow* row = m_table->row(m_view->currentIndex().row());
    if (!row || row->name == m_focus.name) return;
    stop();
    m_focus = *row;
    m_facts = Json::object();
    m_name->setText(row->name);
    m_numbers->setText(QStringLiteral("%1, %2, %3").arg(row->dtype, row->shape, QString::fromStdString(formatBytes(std::uint64_t(row->bytes)))));
    if (row->bytes <= kReadAtOnce) {
        setNotice({CanvasNotice::Loading, tr("Reading..."), {}});
        return m_delay.start();
    }
    setNotice({CanvasNotice::Empty, tr("This tensor holds %1.").arg(QString::fromStdString(formatBytes(std::uint64_t(row->bytes)))), tr("Read it")});
}

void TensorsPage::stop() {
    m_delay.stop();
    if (m_job) m_client.cancel(std::exchange(m_job, 0));
}

void TensorsPage::setNotice(const CanvasNotice& notice) {
    m_picture->clearMatrix();
    m_histogram->clearDataset();
    m_cell->clear();
    m_picture->setNotice(notice);
}

void TensorsPage::look() {
    stop();
    if (m_focus.name.isEmpty() || !m_document.model()) return;
    WorkerCallbacks callbacks;
    const auto current = [this, name = m_focus.name, model = m_document.sharedModel()] { return name == m_focus.name && model == m_document.sharedModel(); };
    callbacks.result = [this, current](const Json& result) {
        if (!current()) return;
        m_job = 0;
        show(m_focus, result);
    };
    callbacks.error = [this, current](const WorkerError& error) {
        if (!current()) return;
        m_job = 0;
        setNotice({error.stopped() ? CanvasNotice::Empty : CanvasNotice::Error, error.stopped() ? tr("Stopped.") : error.text(), tr("Read it")});
        if (!error.stopped()) Q_EMIT message({"error", error.subject.toStdString(), error.message.toStdString(), ""});
    };
    callbacks.progress = [this, current](const WorkerProgress& progress, const Json&) {
        if (current() && progress.total > 0) m_picture->setNotice({CanvasNotice::Loading, tr("Reading: %1 %").arg(int(100 * progress.fraction())), tr("Stop")});
    };
    setNotice({CanvasNotice::Loading, tr("Reading..."), tr("Stop")});
    m_job = m_client.startJob(QStringLiteral("tensor_look"), {{"name", m_focus.name.toStdString()}, {"cells", 256}}, tr("Reading %1").arg(m_focus.name), this, std::move(callbacks));
}

void TensorsPage::show(const TensorRow& row, const Json& result) {
    const auto ids = [&](const char* field) { return result.value(field, std::vector<std::int64_t>()); };
    protocol::DatasetMessage picture;
    picture.kind = "matrix";
    picture.title = row.name.toStdString();
    picture.unit = "mean size";
    picture.axes = {{"row", "", ids("cellRows")}, {"column", "", ids("cellColumns")}};
    picture.shape = {std::int64_t(picture.axes[0].ids.size()), std::int64_t(picture.axes[1].ids.size())};
    std::vector<double> cells = numbersFrom(result.value("cells", Json::array()));
    if (std::int64_t(cells.size()) != picture.shape[0] * picture.shape[1]) return setNotice({CanvasNotice::Error, tr("The worker sent a picture of the wrong size."), {}});
    if (cells.empty()) return setNotice({CanvasNotice::Empty, tr("This tensor holds no numbers."), {}});
    m_picture->setNotice({});
    m_picture->setMatrix(picture, std::move(cells));
    m_picture->axisRect()->axis(QCPAxis::atBottom)->ticker()->setTickCount(3);   // the positions are long numbers, the picture is narrow

    const double low = numberOf(result, "low"), high = numberOf(result, "high");
    const auto bins = numbersFrom(result.value("bins", Json::array()));
    if (bins.empty()) m_histogram->clearDataset();
    else {
        protocol::DatasetMessage histogram;
        histogram.kind = "histogram";
        histogram.title = histogram.unit = tr("numbers").toStdString();
        histogram.axes = {{tr("value").toStdString(), "", {}}};
        histogram.shape = {std::int64_t(bins.size())};
        m_histogram->setDataset(histogram, bins);
        // The bins lie at 0, 1, 2, ...; the axis tells values, with their ends at the bins' ends.
        auto ticker = QSharedPointer<QCPAxisTickerText>::create();
        for (int tick = 0; tick <= 2; ++tick) ticker->addTick(double(bins.size()) * tick / 2 - 0.5, shortNumber(low + (high - low) * tick / 2, 3));
        m_histogram->xAxis->setTicker(ticker);
        m_histogram->redraw();
    }
    m_facts = Json::object();
    for (const char* field : {"count", "nonFinite", "zeros", "below", "above", "minimum", "maximum", "mean", "deviation"})
        if (result.contains(field)) m_facts[field] = result[field];
    showNumbers();
}

/// Made anew with each theme, since the colours are part of the text.
void TensorsPage::showNumbers() {
    if (m_facts.empty()) return;
    const qint64 count = m_facts.value("count", qint64(0)), bad = m_facts.value("nonFinite", qint64(0)), zeros = m_facts.value("zeros", qint64(0));
    const qint64 outside = m_facts.value("below", qint64(0)) + m_facts.value("above", qint64(0));
    const auto number = [&](const char* field) { return shortNumber(numberOf(m_facts, field), 4); };
    QString text = QStringLiteral("%1, %2, %3<br>").arg(m_focus.dtype, m_focus.shape, QString::fromStdString(formatBytes(std::uint64_t(m_focus.bytes))));
    text += tr("from <b>%1</b> to <b>%2</b>, mean <b>%3</b>, standard deviation <b>%4</b><br>").arg(number("minimum"), number("maximum"), number("mean"), number("deviation"));
    text += tr("zeros: <b>%1</b> (%2)").arg(thousands(zeros), percent(count > 0 ? double(zeros) / double(count) : 0));
    const Theme& theme = currentTheme();
    text += bad > 0 ? tr(" &nbsp; <b style='color:%1'>not finite: %2</b>").arg(theme.error.name(), thousands(bad)) : tr(" &nbsp; not finite: <b>0</b>");
    if (outside > 0) text += tr("<br><span style='color:%1'>%2 beyond 5 standard deviations, outside the curve</span>").arg(theme.mutedText.name(), thousands(outside));
    m_numbers->setText(text);
}

}  // namespace resect::ui
