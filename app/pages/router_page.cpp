#include "app/pages/router_page.h"

#include "core/base/error.h"
#include "widgets/plots/plot_table.h"
#include "widgets/views/flow_layout.h"

#include <QApplication>
#include <QComboBox>
#include <QHBoxLayout>
#include <QKeyEvent>
#include <QLineEdit>
#include <QPainter>
#include <QPushButton>
#include <QSpinBox>
#include <QToolButton>
#include <QVBoxLayout>

#include <algorithm>
#include <numeric>

namespace resect::ui {
namespace {

constexpr std::size_t kColours = 8;

QIcon swatch(const QColor& colour, int size) {
    QPixmap picture(size, size);
    picture.fill(colour);
    QPainter painter(&picture);
    painter.setPen(currentTheme().axis);
    painter.drawRect(0, 0, size - 1, size - 1);
    return QIcon(picture);
}

}  // namespace

TokenRouting tokenRoutingFrom(const Json& result) {
    TokenRouting routing;
    for (const Json& token : result.value("tokens", Json::array())) routing.tokens << QString::fromStdString(token.get<std::string>());
    routing.shortened = result.value("shortened", false);
    for (const Json& one : result.value("blocks", Json::array())) {
        TokenRouting::Block block;
        readField(one, "block", block.block);
        readField(one, "numExperts", block.numExperts);
        readField(one, "experts", block.experts);
        for (const Json& gates : one.value("gates", Json::array())) block.gates.push_back(gates.get<std::vector<double>>());
        const bool fits = block.experts.size() == std::size_t(routing.tokens.size()) && block.gates.size() == block.experts.size();
        for (std::size_t i = 0; fits && i < block.experts.size(); ++i) {
            const bool inRange = std::all_of(block.experts[i].begin(), block.experts[i].end(), [&](int expert) { return expert >= 0 && expert < block.numExperts; });
            if (block.experts[i].size() != block.gates[i].size() || block.experts[i].empty() || !inRange) throw Error(ErrorCode::Internal, "router_tokens", "the experts of a token do not fit the model");
        }
        if (!fits) throw Error(ErrorCode::Internal, "router_tokens", "the worker sent experts for another number of tokens");
        routing.blocks.push_back(std::move(block));
    }
    return routing;
}

RouterPage::RouterPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent) : Page(document, selection, client, parent) {
    build();
    connect(m_from, &QComboBox::currentIndexChanged, this, &RouterPage::updateState);
    connect(m_show, &QPushButton::clicked, this, &RouterPage::askOrStop);
    connect(m_text, &QLineEdit::returnPressed, this, &RouterPage::rerun);
    connect(m_block, &QComboBox::currentIndexChanged, this, &RouterPage::showBlock);
    connect(m_strip, &TokenStrip::tokenHovered, this, &RouterPage::say);
    connect(&selection, &SelectionModel::selectionChanged, this, [this] {
        if (const auto blocks = m_selection.blocks(); blocks.size() == 1) setBlock(blocks.front());
        showMarks();
    });
    connect(&document, &Document::modelChanged, this, [this] {
        m_routing = {};
        m_job = 0;
        setNote(QString());
        listBlocks();
        updateState();
    });
    connect(&document, &Document::dataChanged, this, &RouterPage::updateState);
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, [this] {
        setNote(m_note->text(), m_noteIsBad);
        showBlock();
    });
    setNote(QString());
    listBlocks();
    updateState();
}

void RouterPage::build() {
    m_from = new QComboBox(this);
    m_from->addItems({tr("This text"), tr("Calibration text, row")});
    m_from->setAccessibleName(tr("Where the text comes from"));
    m_text = new QLineEdit(tr("Once upon a time there was a little girl named Lily. She had 3 red balls and a big dog, and they played in the park until the sun went down."), this);
    m_text->setCursorPosition(0);
    m_text->setAccessibleName(tr("Text to route"));
    m_row = new QSpinBox(this);
    m_row->setRange(0, 1'000'000);
    m_row->setAccessibleName(tr("Row of the calibration text"));
    m_show = new QPushButton(this);
    m_block = new QComboBox(this);
    m_block->setAccessibleName(tr("Block"));
    m_block->setToolTip(tr("The router on show; Up and Down in the text step through the blocks"));
    m_strip = new TokenStrip(this);
    m_strip->setAccessibleName(tr("Tokens coloured by expert"));
    m_strip->installEventFilter(this);
    m_legendBox = new QWidget(this);
    m_legend = new FlowLayout(m_legendBox, fontMetrics().averageCharWidth());
    m_note = new QLabel(this);
    m_note->setWordWrap(true);
    m_card = new HoverCard(this);

    auto* layout = new QVBoxLayout(this);
    auto* bar = new QHBoxLayout;
    bar->addWidget(new QLabel(tr("Block"), this));
    bar->addWidget(m_block);
    bar->addSpacing(fontMetrics().height());
    bar->addWidget(m_from);
    bar->addWidget(m_text, 1);
    bar->addWidget(m_row);
    bar->addWidget(m_show);
    layout->addLayout(bar);
    layout->addWidget(m_note);
    layout->addWidget(m_strip, 1);
    layout->addWidget(m_legendBox);
    layout->addWidget(m_card);
}

bool RouterPage::modelHasExperts() const {
    const auto* model = m_document.model();
    return model && std::any_of(model->blocks.begin(), model->blocks.end(), [](const auto& one) { return one.hasFfn && one.numExperts > 0; });
}

void RouterPage::listBlocks() {
    const QSignalBlocker blocked(m_block);
    m_block->clear();
    if (const auto* model = m_document.model())
        for (const auto& one : model->blocks)
            if (one.hasFfn && one.numExperts > 0) m_block->addItem(QString::number(one.index), one.index);
    showBlock();
}

int RouterPage::block() const { return m_block->currentIndex() < 0 ? -1 : m_block->currentData().toInt(); }

void RouterPage::setBlock(int block) {
    const int index = m_block->findData(block);
    if (index >= 0) m_block->setCurrentIndex(index);
}

bool RouterPage::reveal(const ComponentRef& part) {
    if (part.kind != PartKind::Expert && part.kind != PartKind::Router) return false;
    setBlock(part.block);
    if (m_routing.tokens.isEmpty()) rerun();
    return m_block->findData(part.block) >= 0;
}

void RouterPage::updateState() {
    const auto* model = m_document.model();
    const bool typed = m_from->currentIndex() == 0;
    m_text->setVisible(typed);
    m_row->setVisible(!typed);
    QString why;
    if (!model) why = tr("Open a model to see its routers.");
    else if (!model->understood) why = tr("Resect does not know the family \"%1\", so it cannot be run.").arg(QString::fromStdString(model->family));
    else if (!modelHasExperts()) why = tr("This model has no experts and so no routers: every token goes through the same MLP in each block.");
    else if (typed && !model->hasTokenizer) why = tr("This checkpoint has no tokenizer, so no text can be shown to it. Put its tokenizer.json beside config.json.");
    else if (!typed && m_document.data().file.empty()) why = tr("Choose a calibration text in the tool bar first.");
    m_show->setEnabled(why.isEmpty());
    m_show->setText(m_job ? tr("Stop") : tr("&Show"));
    m_show->setToolTip(tr("Runs the text through the model and shows where its routers send each token (F5)"));
    for (QWidget* widget : {static_cast<QWidget*>(m_from), static_cast<QWidget*>(m_text), static_cast<QWidget*>(m_row), static_cast<QWidget*>(m_block)}) widget->setEnabled(modelHasExperts());
    m_strip->setPlaceholder(why.isEmpty() ? tr("Show runs the text through the model and colours each token by the expert that takes most of it.") : why);
}

void RouterPage::rerun() {
    if (!m_job && m_show->isEnabled()) askOrStop();
}

void RouterPage::askOrStop() {
    if (m_job) return m_client.cancel(m_job);
    const ComputeSettings& compute = m_document.compute();
    Json args = {{"device", compute.device}, {"dtype", compute.dtype}};
    if (m_from->currentIndex() == 0) args["text"] = m_text->text().toStdString();
    else args["data"] = m_document.data(), args["row"] = m_row->value();
    WorkerCallbacks callbacks;
    callbacks.result = [this, model = m_document.sharedModel()](const Json& result) {
        if (model != m_document.sharedModel()) return;
        m_job = 0;
        show(result);
    };
    callbacks.error = [this, model = m_document.sharedModel()](const WorkerError& error) {
        if (model != m_document.sharedModel()) return;
        m_job = 0;
        fail(error.stopped() ? tr("Stopped.") : error.text());
        if (!error.stopped()) Q_EMIT message({"error", error.subject.toStdString(), error.message.toStdString(), ""});
    };
    setNote(tr("Running the text through the model..."));
    m_job = m_client.startJob(QStringLiteral("router_tokens"), args, tr("Routing a text"), this, std::move(callbacks));
    updateState();
}

void RouterPage::fail(const QString& why) {
    setNote(why, true);
    updateState();
}

void RouterPage::setNote(const QString& words, bool bad) {
    m_noteIsBad = bad;
    m_note->setText(words);
    m_note->setStyleSheet(bad ? QStringLiteral("color: %1").arg(currentTheme().error.name()) : QString());
    m_note->setVisible(!words.isEmpty());
}

void RouterPage::show(const Json& result) {
    try {
        m_routing = tokenRoutingFrom(result);
    } catch (const std::exception& error) {
        m_routing = {};
        showBlock();
        return fail(QString::fromStdString(error.what()));
    }
    showBlock();
    updateState();
}

const TokenRouting::Block* RouterPage::routed() const {
    const auto found = std::find_if(m_routing.blocks.begin(), m_routing.blocks.end(), [this](const auto& one) { return one.block == block(); });
    return found == m_routing.blocks.end() ? nullptr : &*found;
}

QColor RouterPage::colourOf(int expert) const {
    const Theme& theme = currentTheme();
    // With few experts each keeps its colour in all blocks; with many only the most used ones of the block can have one.
    if (m_counts.size() <= kColours) return theme.seriesColour(expert);
    const auto place = std::size_t(std::find(m_order.begin(), m_order.end(), expert) - m_order.begin());
    return place < kColours ? theme.seriesColour(int(place)) : theme.nan;
}

void RouterPage::showBlock() {
    m_legend->clear();
    m_order.clear();
    m_counts.clear();
    const auto* routing = routed();
    if (!routing) {
        m_strip->clear();
        return m_card->say({});
    }
    m_counts.assign(std::size_t(routing->numExperts), 0);
    for (const auto& experts : routing->experts) ++m_counts[std::size_t(experts.front())];
    m_order.resize(m_counts.size());
    std::iota(m_order.begin(), m_order.end(), 0);
    std::stable_sort(m_order.begin(), m_order.end(), [this](int a, int b) { return m_counts[std::size_t(a)] > m_counts[std::size_t(b)]; });

    std::vector<StripToken> tokens;
    for (int i = 0; i < m_routing.tokens.size(); ++i) {
        StripToken token;
        token.text = m_routing.tokens[i];
        const int top = routing->experts[std::size_t(i)].front();
        token.fill = colourOf(top);
        token.note = QString::number(top);
        tokens.push_back(std::move(token));
    }
    m_strip->setTokens(std::move(tokens));

    const int size = fontMetrics().height();
    std::size_t shown = 0;
    for (const int expert : m_order) {
        const int count = m_counts[std::size_t(expert)];
        if (count == 0 || ++shown > kColours) break;
        auto* entry = new QToolButton(m_legendBox);
        entry->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
        entry->setAutoRaise(true);
        entry->setFocusPolicy(Qt::StrongFocus);
        entry->setIcon(swatch(colourOf(expert), size));
        entry->setText(tr("expert %1: %2").arg(expert).arg(percent(double(count) / double(m_routing.tokens.size()))));
        entry->setToolTip(tr("The share of tokens that give this expert the most weight. Click selects the expert and underlines its tokens."));
        connect(entry, &QToolButton::clicked, this, [this, expert] { m_selection.click(expertRef(block(), expert), QApplication::keyboardModifiers()); });
        m_legend->addWidget(entry);
        entry->show();
    }
    const auto used = std::count_if(m_counts.begin(), m_counts.end(), [](int count) { return count > 0; });
    QString words = tr("Block %1: %2 of %3 experts come first for one of the %4 tokens; each token goes to %5.")
                        .arg(block()).arg(used).arg(routing->numExperts).arg(m_routing.tokens.size()).arg(routing->experts.empty() ? 0 : routing->experts.front().size());
    if (used > int(kColours)) words += tr(" Those without a colour of their own are grey.");
    if (m_routing.shortened) words += tr(" The text was cut to this length.");
    setNote(words);
    m_strip->setAccessibleDescription(words + QLatin1Char(' ') + legend().join(QStringLiteral("; ")));
    showMarks();
    say(-1);
}

void RouterPage::showMarks() {
    const auto* routing = routed();
    if (!routing) return;
    std::vector<bool> marked(routing->experts.size());
    for (std::size_t i = 0; i < marked.size(); ++i)
        marked[i] = std::any_of(routing->experts[i].begin(), routing->experts[i].end(), [this](int expert) { return m_selection.contains(expertRef(block(), expert)); });
    m_strip->setMarked(std::move(marked));
}

QString RouterPage::tokenSentence(int token) const {
    const auto* routing = routed();
    if (!routing || token < 0 || token >= int(routing->experts.size())) return {};
    QStringList parts;
    const auto &experts = routing->experts[std::size_t(token)];
    const auto &gates = routing->gates[std::size_t(token)];
    for (std::size_t i = 0; i < experts.size(); ++i)
        parts << tr("expert %1 with weight %2%3").arg(experts[i]).arg(shortNumber(gates[i], 3)).arg(m_document.isDropped(expertRef(block(), experts[i])) ? tr(" (dropped by the plan)") : QString());
    return tr("Token %1 \"%2\" goes to %3").arg(token).arg(m_routing.tokens[token].trimmed(), parts.join(tr(", ")));
}

void RouterPage::say(int token) {
    if (!routed()) return m_card->say({});
    const auto* routing = routed();
    if (token >= 0 && token < int(routing->experts.size())) m_selection.setHover(expertRef(block(), routing->experts[std::size_t(token)].front()));
    else m_selection.setHover(std::nullopt);
    m_card->say(token < 0 ? tr("Rest the mouse on a token, or walk with Left and Right; Up and Down change the block.") : tokenSentence(token),
                tr("Under a token: its first expert. Underlined: it goes to a selected expert."));
}

QStringList RouterPage::legend() const {
    QStringList captions;
    for (int i = 0; i < m_legend->count(); ++i)
        if (auto* entry = qobject_cast<QToolButton*>(m_legend->itemAt(i)->widget())) captions << entry->text();
    return captions;
}

bool RouterPage::eventFilter(QObject* watched, QEvent* event) {
    if (watched == m_strip && event->type() == QEvent::KeyPress) {
        const int key = static_cast<QKeyEvent*>(event)->key();
        if ((key == Qt::Key_Up || key == Qt::Key_Down) && m_block->count() > 0) {
            m_block->setCurrentIndex(std::clamp(m_block->currentIndex() + (key == Qt::Key_Down ? 1 : -1), 0, m_block->count() - 1));
            return true;
        }
    }
    return Page::eventFilter(watched, event);
}

}  // namespace resect::ui
