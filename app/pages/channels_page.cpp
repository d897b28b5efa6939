#include "app/pages/channels_page.h"

#include "widgets/plots/canvas_with_table.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QSplitter>
#include <QTableWidget>
#include <QVBoxLayout>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace resect::ui {
namespace {

constexpr int kOutliers = 16;
constexpr int kBins = 60;

}  // namespace

std::vector<int> descendingOrder(const std::vector<double>& importance) {
    std::vector<int> order(importance.size());
    std::iota(order.begin(), order.end(), 0);
    const auto key = [&](int index) {
        const double value = importance[std::size_t(index)];
        return std::isfinite(value) ? value : std::numeric_limits<double>::infinity();
    };
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return key(a) > key(b); });
    return order;
}

ChannelsPage::ChannelsPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent)
    : MeasuredPage(document, selection, client, "importance", tr("channel scores"), parent) {
    m_curve = new ImportanceCurve;
    m_widths = new WidthBars(document);
    m_histogram = new DatasetPlot(document);
    m_histogram->setAccessibleName(tr("Distribution of channel importance"));
    m_outliers = new QTableWidget(0, 3, this);
    m_outliers->setHorizontalHeaderLabels({tr("channel"), tr("score"), tr("x median")});
    m_outliers->setAccessibleName(tr("Outlying channels"));
    m_outliers->setEditTriggers(QAbstractItemView::NoEditTriggers);
    m_outliers->setSelectionBehavior(QAbstractItemView::SelectRows);
    m_outliers->verticalHeader()->hide();
    m_outliers->verticalHeader()->setDefaultSectionSize(fontMetrics().height() * 3 / 2);
    m_outliers->horizontalHeader()->setSectionResizeMode(QHeaderView::Stretch);
    m_block = new QComboBox(this);
    m_block->setAccessibleName(tr("Block"));
    m_grid = new QComboBox(this);
    for (const int grid : {256, 128, 64, 32}) m_grid->addItem(QString::number(grid), grid);
    m_grid->addItem(tr("off"), 0);
    m_grid->setToolTip(tr("Widths snap to multiples of this, which kernels and quantised formats like"));
    m_grid->setCurrentIndex(m_grid->findData(64));

    auto* layout = new QVBoxLayout(this);
    auto* bar = new QHBoxLayout;
    const auto add = [&](const QString& label, QWidget* widget) {
        bar->addWidget(new QLabel(label, this));
        bar->addWidget(widget);
        bar->addSpacing(fontMetrics().height());
    };
    add(tr("Channels by"), m_choice);
    add(tr("Block"), m_block);
    add(tr("Snap to"), m_grid);
    bar->addStretch(1);
    bar->addWidget(m_state);
    layout->addLayout(bar);
    auto* left = new QSplitter(Qt::Vertical);
    left->addWidget(new CanvasWithTable(m_curve));
    left->addWidget(new CanvasWithTable(m_widths));
    left->setStretchFactor(0, 3);
    left->setStretchFactor(1, 2);
    auto* right = new QSplitter(Qt::Vertical);
    right->addWidget(new CanvasWithTable(m_histogram));
    right->addWidget(m_outliers);
    auto* splitter = new QSplitter(Qt::Horizontal, this);
    splitter->addWidget(left);
    splitter->addWidget(right);
    splitter->setStretchFactor(0, 3);
    splitter->setStretchFactor(1, 1);
    for (QSplitter* one : {left, right, splitter}) one->setChildrenCollapsible(false);
    m_curve->setMinimumSize(fontMetrics().averageCharWidth() * 40, fontMetrics().height() * 8);
    m_widths->setMinimumHeight(fontMetrics().height() * 6);
    m_histogram->setMinimumSize(fontMetrics().averageCharWidth() * 24, fontMetrics().height() * 7);
    layout->addWidget(splitter, 1);
    layout->addWidget(m_card);

    connect(m_grid, &QComboBox::currentIndexChanged, this, [this] { setGrid(m_grid->currentData().toInt()); });
    connect(m_block, &QComboBox::currentIndexChanged, this, &ChannelsPage::showBlock);
    connect(m_curve, &ImportanceCurve::keptMoved, this, [this](int kept) { setWidths({block()}, kept); });
    connect(m_curve, &ImportanceCurve::dragFinished, this, [this] { m_gesture = 0; });
    connect(m_widths, &WidthBars::widthMoved, this, &ChannelsPage::setWidths);
    connect(m_widths, &WidthBars::dragFinished, this, [this] { m_gesture = 0; });
    connect(m_widths, &PartCanvas::partOpened, this, [this](const ComponentRef& part) { setBlock(part.block); });
    connect(&document, &Document::planChanged, this, &ChannelsPage::updateKept);
    connect(&document, &Document::modelChanged, this, &ChannelsPage::listBlocks);
    connect(&selection, &SelectionModel::selectionChanged, this, &ChannelsPage::followSelection);
    connect(m_outliers, &QTableWidget::itemSelectionChanged, this, [this] {
        std::vector<ComponentRef> channels;
        const auto rows = m_outliers->selectionModel()->selectedRows();
        for (const QModelIndex& row : rows) channels.push_back(channelRef(block(), row.data(Qt::UserRole).toInt()));
        if (!channels.empty()) m_selection.select(channels);
    });
    listBlocks();
    setGrid(64);
    begin();
}

void ChannelsPage::listBlocks() {
    const QSignalBlocker blocked(m_block);
    m_block->clear();
    if (const auto* model = m_document.model())
        for (const auto& one : model->blocks)
            if (one.hasFfn && one.ffnSize > 0) m_block->addItem(QString::number(one.index), one.index);
}

int ChannelsPage::block() const { return m_block->currentIndex() < 0 ? -1 : m_block->currentData().toInt(); }

void ChannelsPage::setBlock(int block) {
    const int index = m_block->findData(block);
    if (index >= 0) m_block->setCurrentIndex(index);
}

void ChannelsPage::setGrid(int grid) {
    m_grid->setCurrentIndex(m_grid->findData(grid));
    m_curve->setGrid(grid);
    m_widths->setGrid(grid);
}

bool ChannelsPage::shows(const protocol::DatasetMessage& info) const {
    return info.shape.size() == 2 && info.axes.size() == 2 && info.axes[1].component == "channel";
}

bool ChannelsPage::reveal(const ComponentRef& part) {
    if (part.kind != PartKind::Mlp && part.kind != PartKind::Channel) return false;
    setBlock(part.block);
    return true;
}

void ChannelsPage::followSelection() {
    const auto blocks = m_selection.blocks();
    if (blocks.size() == 1) setBlock(blocks.front());
    if (!m_selection.isEmpty()) m_card->say(capitalised(m_selection.words()), QString::fromStdString(m_info.help));
}

int ChannelsPage::rowOfBlock(int block) const {
    if (m_info.axes.empty()) return -1;
    const auto& ids = m_info.axes[0].ids;
    if (ids.empty()) return block < m_info.shape[0] ? block : -1;
    const auto found = std::find(ids.begin(), ids.end(), block);
    return found == ids.end() ? -1 : int(found - ids.begin());
}

void ChannelsPage::showChosen(const MeasuredDataset& dataset) {
    m_rows.clear();
    m_info = dataset.info ? *dataset.info : protocol::DatasetMessage();
    m_file = dataset.measure ? dataset.measure->file : std::string();
    showBlock();
}

void ChannelsPage::showBlock() {
    const int shown = block();
    if (m_file.empty() || shown < 0) {
        m_curve->clearValues();
        m_histogram->clearDataset();
        m_outliers->setRowCount(0);
        return m_card->say({});
    }
    withRow(shown, [this, shown] {
        if (shown == block()) showRow(m_rows.at(shown));
    });
}

/// Fetches one block's channels only: a whole model has millions.
void ChannelsPage::withRow(int wanted, std::function<void()> then) {
    if (m_rows.count(wanted)) return then();
    const int row = rowOfBlock(wanted);
    if (row < 0) return;
    ++m_pending;
    const int generation = m_generation;
    m_source.fetchRows(
        m_file, m_info, row, 1, this,
        [this, wanted, generation, then](std::shared_ptr<const DatasetValues> values) {
            --m_pending;
            if (generation != m_generation) return;
            std::vector<double> importance = values->values;
            const auto* one = m_document.model() ? findBlock(*m_document.model(), wanted) : nullptr;
            if (one && std::size_t(one->ffnSize) < importance.size()) importance.resize(std::size_t(one->ffnSize));  // padded to the widest block
            if (m_info.higher == "removable")
                for (double& value : importance) value = -value;
            m_rows[wanted] = std::move(importance);
            then();
        },
        [this](const WorkerError& error) {
            --m_pending;
            m_curve->setNotice({CanvasNotice::Error, error.text(), tr("Measure again")});
            Q_EMIT message({"error", error.subject.toStdString(), error.message.toStdString(), ""});
        });
}

void ChannelsPage::showRow(const std::vector<double>& importance) {
    std::vector<double> sorted;
    for (const int channel : descendingOrder(importance)) sorted.push_back(importance[std::size_t(channel)]);
    m_curve->setValues(sorted, QString::fromStdString(m_info.unit.empty() ? m_info.title : m_info.unit));
    updateKept();
    showOutliers(importance);

    std::vector<double> finite;
    for (const double value : importance)
        if (std::isfinite(value)) finite.push_back(value);
    if (finite.empty()) return m_histogram->clearDataset();
    const auto [low, high] = std::minmax_element(finite.begin(), finite.end());
    std::vector<double> counts(kBins, 0);
    // The tail is long, so the bins end at the 99.5th percentile; what lies above is counted in the last one and listed below.
    std::vector<double> ranked = finite;
    const auto nth = ranked.begin() + std::ptrdiff_t(double(ranked.size() - 1) * 0.995);
    std::nth_element(ranked.begin(), nth, ranked.end());
    const double top = *nth > *low ? *nth : *high > *low ? *high : *low + 1;
    for (const double value : finite) counts[std::size_t(std::clamp(int((value - *low) / (top - *low) * kBins), 0, kBins - 1))] += 1;
    protocol::DatasetMessage info;
    info.kind = "histogram";
    info.title = info.unit = tr("channels").toStdString();
    info.shape = {kBins};
    info.axes = {{tr("importance, %1 to %2").arg(shortNumber(*low, 3), shortNumber(top, 3)).toStdString(), "", {}}};
    m_histogram->setDataset(info, counts);
    m_histogram->xAxis->setTickLabels(false);
    m_card->say(tr("Block %1: %2 channels. Drag the handle to choose how many stay; drag a bar below for another block, with Shift for all selected ones.")
                    .arg(block())
                    .arg(importance.size()),
                QString::fromStdString(m_info.help));
}

void ChannelsPage::showOutliers(const std::vector<double>& importance) {
    std::vector<double> finite;
    for (const double value : importance)
        if (std::isfinite(value)) finite.push_back(value);
    const QSignalBlocker blocked(m_outliers);
    m_outliers->setRowCount(0);
    if (finite.empty()) return;
    std::nth_element(finite.begin(), finite.begin() + std::ptrdiff_t(finite.size() / 2), finite.end());
    const double median = finite[finite.size() / 2];
    const auto order = descendingOrder(importance);
    for (int i = 0; i < std::min<int>(kOutliers, int(order.size())); ++i) {
        const double value = importance[std::size_t(order[std::size_t(i)])];
        m_outliers->insertRow(i);
        const std::array texts = {QString::number(order[std::size_t(i)]), shortNumber(value), median != 0 ? QString::number(value / median, 'f', 1) : QStringLiteral("-")};
        for (int column = 0; column < 3; ++column) {
            auto* item = new QTableWidgetItem(texts[std::size_t(column)]);
            item->setTextAlignment(Qt::AlignRight | Qt::AlignVCenter);
            item->setData(Qt::UserRole, order[std::size_t(i)]);
            m_outliers->setItem(i, column, item);
        }
    }
}

void ChannelsPage::updateKept() {
    const auto* model = m_document.model();
    const auto* one = model ? findBlock(*model, block()) : nullptr;
    if (!one || one->ffnSize == 0) return;
    const int kept = m_document.drops().empty() ? one->ffnSize : m_document.drops().keptChannels(one->index);
    const double gone = parametersOf(*model, channelRef(one->index, 0)) * (one->ffnSize - kept);
    m_curve->setKept(kept);
    m_curve->setCaption(tr("keep %1 of %2 channels (-%3 of all parameters)").arg(kept).arg(one->ffnSize).arg(percent(gone / double(std::max<std::int64_t>(1, model->parameters)))));
}

void ChannelsPage::setWidths(const std::vector<int>& blocks, int width) {
    if (m_file.empty()) return;
    if (m_gesture == 0) m_gesture = m_document.newGesture();
    const int wanted = ++m_wanted;
    auto missing = std::make_shared<int>(0);
    for (const int one : blocks) *missing += !m_rows.count(one) && rowOfBlock(one) >= 0;
    if (*missing == 0) return planWidths(blocks, width);
    for (const int one : blocks) {
        if (m_rows.count(one) || rowOfBlock(one) < 0) continue;
        withRow(one, [this, missing, blocks, width, wanted] {
            if (--*missing == 0 && wanted == m_wanted) planWidths(blocks, width);
        });
    }
}

void ChannelsPage::planWidths(const std::vector<int>& blocks, int width) {
    std::vector<std::pair<int, std::vector<int>>> dropped;
    for (const int one : blocks) {
        const auto row = m_rows.find(one);
        if (row == m_rows.end()) continue;
        auto order = descendingOrder(row->second);
        std::vector<int> least(order.begin() + std::min<std::ptrdiff_t>(width, std::ptrdiff_t(order.size())), order.end());
        std::sort(least.begin(), least.end());
        dropped.emplace_back(one, std::move(least));
    }
    m_document.setDroppedChannels(dropped, m_gesture);
}

}  // namespace resect::ui
