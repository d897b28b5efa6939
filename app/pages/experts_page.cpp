#include "app/pages/experts_page.h"

#include "widgets/plots/canvas_with_table.h"

#include <QCheckBox>
#include <QComboBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QSplitter>
#include <QVBoxLayout>

#include <algorithm>
#include <cmath>

namespace resect::ui {

ExpertsPage::ExpertsPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent)
    : MeasuredPage(document, selection, client, "expert-drop", tr("expert scores"), parent) {
    build();
    connect(m_block, &QComboBox::currentIndexChanged, this, &ExpertsPage::showBlock);
    connect(m_pairChoice, &QComboBox::currentIndexChanged, this, &ExpertsPage::showPairs);
    connect(m_equal, &QCheckBox::toggled, this, [this] {
        m_lock.reset();
        followSelection();
    });
    connect(m_drop, &QPushButton::clicked, this, [this] { m_document.drop(selectedExperts()); });
    connect(&selection, &SelectionModel::hoverChanged, this, &ExpertsPage::explain);
    connect(&selection, &SelectionModel::selectionChanged, this, &ExpertsPage::followSelection);
    connect(&document, &Document::planChanged, this, &ExpertsPage::refreshActions);
    connect(&document, &Document::measuresChanged, this, &ExpertsPage::showBlock);
    connect(&document, &Document::modelChanged, this, &ExpertsPage::listBlocks);
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, &ExpertsPage::refreshActions);
    for (PartCanvas* canvas : {static_cast<PartCanvas*>(m_map), static_cast<PartCanvas*>(m_load)})
        connect(canvas, &PartCanvas::partOpened, this, [this](const ComponentRef& part) { Q_EMIT openRequested(QStringLiteral("router"), part); });
    connect(m_pairs, &CellMatrix::cellHovered, this, &ExpertsPage::explainPair);
    connect(m_pairs, &CellMatrix::cellChosen, this, [this](int expert, int other, Qt::KeyboardModifiers modifiers) {
        m_selection.select({expertRef(block(), expert), expertRef(block(), other)}, SelectionModel::rectangleGesture(modifiers));
    });
    listBlocks();
    begin();
    refreshActions();
}

void ExpertsPage::build() {
    m_map = new HeatmapView(m_document);
    m_map->setAccessibleName(tr("Scores of experts"));
    m_pairs = new PairMatrix(m_document);
    m_pairs->setAccessibleName(tr("Pairs of experts"));
    m_load = new DatasetPlot(m_document);
    m_load->setAccessibleName(tr("Load of the block's experts"));
    m_equal = new QCheckBox(tr("Equal &counts"), this);
    m_equal->setChecked(true);
    m_equal->setToolTip(tr("Stock runtimes read one number of experts for all blocks. With this on, selecting experts of one block\n"
                           "also selects as many of the lowest-scored ones in every other block."));
    m_equal->setAccessibleDescription(m_equal->toolTip());
    m_drop = new QPushButton(tr("Drop"), this);
    m_drop->setToolTip(tr("Takes the selected experts into the plan (Del)"));
    m_block = new QComboBox(this);
    m_block->setAccessibleName(tr("Block"));
    m_pairChoice = new QComboBox(this);
    m_pairChoice->setAccessibleName(tr("Pairs by"));
    m_pairChoice->addItem(tr("Chosen together"), QStringLiteral("pairs/coactivation"));
    m_pairChoice->addItem(tr("Similarity of router logits"), QStringLiteral("pairs/similarity"));

    auto* layout = new QVBoxLayout(this);
    auto* bar = new QHBoxLayout;
    m_choiceLabel = new QLabel(tr("Experts by"), this);
    bar->addWidget(m_choiceLabel);
    bar->addWidget(m_choice);
    bar->addSpacing(fontMetrics().height());
    bar->addWidget(m_equal);
    bar->addWidget(m_drop);
    bar->addStretch(1);
    bar->addWidget(m_state);
    layout->addLayout(bar);
    auto* splitter = new QSplitter(Qt::Vertical, this);
    splitter->addWidget(new CanvasWithTable(m_map));
    m_below = new QWidget(splitter);
    auto* lower = new QVBoxLayout(m_below);
    lower->setContentsMargins(0, 0, 0, 0);
    auto* lowerBar = new QHBoxLayout;
    lowerBar->addWidget(new QLabel(tr("Block"), m_below));
    lowerBar->addWidget(m_block);
    lowerBar->addSpacing(fontMetrics().height());
    lowerBar->addWidget(new QLabel(tr("Pairs by"), m_below));
    lowerBar->addWidget(m_pairChoice);
    lowerBar->addStretch(1);
    lower->addLayout(lowerBar);
    auto* beside = new QSplitter(Qt::Horizontal, m_below);
    beside->addWidget(new CanvasWithTable(m_pairs));
    beside->addWidget(new CanvasWithTable(m_load));
    beside->setStretchFactor(0, 1);
    beside->setStretchFactor(1, 1);
    lower->addWidget(beside, 1);
    splitter->addWidget(m_below);
    splitter->setStretchFactor(0, 3);
    splitter->setStretchFactor(1, 4);
    for (QSplitter* one : {splitter, beside}) one->setChildrenCollapsible(false);
    m_map->setMinimumSize(fontMetrics().averageCharWidth() * 40, fontMetrics().height() * 8);
    for (PlotCanvas* canvas : {static_cast<PlotCanvas*>(m_pairs), static_cast<PlotCanvas*>(m_load)})
        canvas->setMinimumSize(fontMetrics().averageCharWidth() * 22, fontMetrics().height() * 8);
    layout->addWidget(splitter, 1);
    m_badge = new QLabel(this);
    m_badge->setWordWrap(true);
    m_badge->hide();
    layout->addWidget(m_badge);
    layout->addWidget(m_card);
}

bool ExpertsPage::modelHasExperts() const {
    const auto* model = m_document.model();
    return model && std::any_of(model->blocks.begin(), model->blocks.end(), [](const auto& one) { return one.hasFfn && one.numExperts > 0; });
}

void ExpertsPage::updateNotice() {
    const auto* model = m_document.model();
    const bool dense = model && model->understood && !modelHasExperts();
    m_below->setVisible(modelHasExperts() && !datasets().empty());   // three empty pictures say no more than one
    for (QWidget* widget : {static_cast<QWidget*>(m_choiceLabel), static_cast<QWidget*>(m_choice), static_cast<QWidget*>(m_equal), static_cast<QWidget*>(m_drop), static_cast<QWidget*>(m_card)}) widget->setVisible(!dense);
    if (!dense) return MeasuredPage::updateNotice();
    m_state->hide();
    m_map->setNotice({CanvasNotice::Empty, tr("This model has no experts: every token goes through the same MLP in each block. Experts exist in mixture models such as Mixtral or Qwen3 MoE."), {}});
}

void ExpertsPage::rerun() {
    if (modelHasExperts()) MeasuredPage::rerun();
}

bool ExpertsPage::shows(const protocol::DatasetMessage& info) const {
    return info.shape.size() == 2 && info.axes.size() == 2 && info.axes[0].component == "block" && info.axes[1].component == "expert";
}

void ExpertsPage::showChosen(const MeasuredDataset& dataset) {
    m_lock.reset();
    if (!dataset.info) {
        m_map->clearMatrix();
        return m_card->say({});
    }
    fetchAll(dataset, [this, info = *dataset.info](const DatasetValues& values) {
        m_map->setMatrix(info, values.values, values.errors);
        m_map->setAccessibleDescription(QString::fromStdString(info.help));
        explain();
    });
}

void ExpertsPage::listBlocks() {
    {
        const QSignalBlocker blocked(m_block);
        m_block->clear();
        if (const auto* model = m_document.model())
            for (const auto& one : model->blocks)
                if (one.hasFfn && one.numExperts > 0) m_block->addItem(QString::number(one.index), one.index);
    }
    m_lock.reset();
    showBlock();
    refreshActions();
}

int ExpertsPage::block() const { return m_block->currentIndex() < 0 ? -1 : m_block->currentData().toInt(); }

void ExpertsPage::setBlock(int block) {
    const int index = m_block->findData(block);
    if (index >= 0) m_block->setCurrentIndex(index);
}

const protocol::DatasetMessage* ExpertsPage::findDataset(const std::string& name, const protocol::MeasureMessage** measure) const {
    *measure = m_document.model() ? m_document.findMeasure(name) : nullptr;
    if (!*measure) return nullptr;
    const auto& datasets = (*measure)->datasets;
    return &*std::find_if(datasets.begin(), datasets.end(), [&](const auto& one) { return one.name == name; });
}

void ExpertsPage::showBlock() {
    showPairs();
    showLoad();
}

void ExpertsPage::showPairs() {
    const int generation = ++m_blockGeneration;
    const protocol::MeasureMessage* measure = nullptr;
    const auto* info = block() < 0 ? nullptr : findDataset(m_pairChoice->currentData().toString().toStdString() + "/block " + std::to_string(block()), &measure);
    m_pairs->setBlock(block());
    if (!info) {
        m_pairs->clearMatrix();
        return m_pairs->setNotice({CanvasNotice::Empty, block() < 0 ? QString() : tr("Not measured for block %1 yet.").arg(block()), {}});
    }
    ++m_pending;
    m_source.fetch(
        measure->file, *info, this,
        [this, generation, info = *info](std::shared_ptr<const DatasetValues> values) {
            --m_pending;
            if (generation != m_blockGeneration) return;
            m_pairs->setNotice({});
            m_pairs->setMatrix(info, values->values);
            m_pairs->setAccessibleDescription(QString::fromStdString(info.title + ". " + info.help));
        },
        [this, generation](const WorkerError& error) {
            --m_pending;
            if (generation == m_blockGeneration) m_pairs->setNotice({CanvasNotice::Error, error.text(), {}});
        });
}

void ExpertsPage::showLoad() {
    const protocol::MeasureMessage* measure = nullptr;
    const auto* info = findDataset("expert/load", &measure);
    if (!info || block() < 0) {
        m_load->clearDataset();
        return m_load->setNotice({CanvasNotice::Empty, block() < 0 ? QString() : tr("No load measured yet."), {}});
    }
    ++m_pending;
    m_source.fetch(
        measure->file, *info, this,
        [this, info = *info, wanted = block()](std::shared_ptr<const DatasetValues> values) {
            --m_pending;
            if (wanted != block()) return;
            const auto& ids = info.axes[0].ids;
            const auto row = ids.empty() ? std::size_t(wanted) : std::size_t(std::find(ids.begin(), ids.end(), wanted) - ids.begin());
            const auto columns = std::size_t(info.shape[1]);
            const auto* found = findBlock(*m_document.model(), wanted);
            const auto count = std::min(columns, std::size_t(found ? found->numExperts : 0));
            if (row >= std::size_t(info.shape[0]) || count == 0) return m_load->clearDataset();
            protocol::DatasetMessage bars = info;
            bars.kind = "bars";
            bars.axes[0].ids = {wanted};
            bars.shape = {1, std::int64_t(count)};
            const auto part = [&](const std::vector<double>& all) { return all.empty() ? all : std::vector<double>(all.begin() + std::ptrdiff_t(row * columns), all.begin() + std::ptrdiff_t(row * columns + count)); };
            m_load->setNotice({});
            m_load->setDataset(bars, part(values->values), part(values->errors));
            m_load->setAccessibleDescription(tr("Load of block %1 with standard errors").arg(wanted));
        },
        [this](const WorkerError& error) {
            --m_pending;
            m_load->setNotice({CanvasNotice::Error, error.text(), {}});
        });
}

RefSet ExpertsPage::selectedExperts() const {
    RefSet experts;
    for (const ComponentRef& ref : m_selection.refs())
        if (ref.kind == PartKind::Expert) experts.push_back(ref);
    return experts;
}

void ExpertsPage::followSelection() {
    const auto before = m_selection.anchor();
    if (before && before->kind == PartKind::Expert && m_selection.contains(*before)) setBlock(before->block);
    else if (const auto blocks = m_selection.blocks(); blocks.size() == 1) setBlock(blocks.front());
    extendSelection();
    refreshActions();
    explain();
}

void ExpertsPage::extendSelection() {
    // A step back in the history is shown as it was: extending it again would make stepping back impossible.
    if (!m_equal->isChecked() || !isVisible() || m_map->empty() || m_selection.canGoForward()) return;
    const double sign = m_map->info().higher == "removable" ? -1 : 1;
    const RefSet wanted = m_lock.extended(m_document, m_selection.refs(), [&](const ComponentRef& expert) {
        const auto cell = m_map->cellOf(expert);
        return cell ? sign * m_map->value(*cell) : std::nan("");
    });
    if (wanted != m_selection.refs()) m_selection.select(wanted);
}

void ExpertsPage::refreshActions() {
    const RefSet experts = selectedExperts();
    int left = 0;
    for (const ComponentRef& expert : experts) left += !m_document.isDropped(expert);
    m_drop->setEnabled(left > 0);
    m_drop->setText(left > 0 ? tr("&Drop %1").arg(countWords(PartKind::Expert, left)) : tr("&Drop"));
    const ExpertsLeft after = expertsLeft(m_document, experts);
    const bool unequal = after.least != after.most;
    m_badge->setVisible(unequal);
    if (unequal)
        m_badge->setText(QStringLiteral("\u26a0 ") + tr("Blocks would keep %1 to %2 experts. Stock runtimes read one number for all blocks, so such a model opens in none of them.").arg(after.least).arg(after.most));
    m_badge->setStyleSheet(QStringLiteral("color: %1").arg(currentTheme().warning.name()));
}

void ExpertsPage::explain() {
    if (m_map->empty()) return;
    const QString help = QString::fromStdString(m_map->info().help);
    const auto& hover = m_selection.hover();
    if (const auto cell = hover ? m_map->cellOf(*hover) : std::nullopt)
        return m_card->say(sentence(m_document, m_map->info(), *hover, {m_map->value(*cell), m_map->error(*cell), m_map->rankOf(*cell), m_map->finiteCount()}), help);
    if (m_selection.isEmpty()) return m_card->say(tr("Click selects an expert, dragging a rectangle of them; arrows and Space do the same. Double click shows what its router sends where."), help);
    QString words = capitalised(m_selection.words());
    const auto proposed = m_lock.proposed().size();
    if (m_equal->isChecked() && proposed > 0 && !selectedExperts().empty()) words += tr("; %n of them proposed to keep the counts equal", nullptr, int(proposed));
    m_card->say(words, help);
}

void ExpertsPage::explainPair(int expert, int other) {
    if (expert < 0) return explain();
    const auto& info = m_pairs->info();
    const QString words = expert == other ? tr("Block %1 expert %2 with itself").arg(block()).arg(expert) : tr("Block %1 experts %2 and %3").arg(block()).arg(expert).arg(other);
    m_card->say(QStringLiteral("%1: %2 %3 [%4]").arg(words, m_pairChoice->currentText().toLower(), shortNumber(m_pairs->value({expert, other}), 3), QString::fromStdString(info.unit)),
                QString::fromStdString(info.help));
}

bool ExpertsPage::reveal(const ComponentRef& part) {
    if (part.kind != PartKind::Expert) return false;
    setBlock(part.block);
    return m_map->reveal(part) || m_block->findData(part.block) >= 0;
}

void ExpertsPage::zoom(double factor) {
    if (factor == 0) return m_map->resetZoom();
    for (auto type : {QCPAxis::atBottom, QCPAxis::atLeft}) m_map->axisRect()->axis(type)->scaleRange(1 / factor);
    m_map->redraw();
}

CellMask PairMatrix::selectedCells() const {
    CellMask mask(rows(), columns());
    for (int row = 0; row < rows(); ++row)
        for (int column = 0; column < columns(); ++column)
            if (row != column && selection().contains(expertRef(m_block, row)) && selection().contains(expertRef(m_block, column))) mask.set(row, column);
    return mask;
}

}  // namespace resect::ui
