#include "app/pages/heads_page.h"

#include "widgets/plots/canvas_with_table.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QSplitter>
#include <QVBoxLayout>

#include <cmath>

namespace resect::ui {

HeadsPage::HeadsPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent)
    : MeasuredPage(document, selection, client, "importance", tr("head scores"), parent) {
    m_map = new HeadsMap(document);
    auto* layout = new QVBoxLayout(this);
    auto* bar = new QHBoxLayout;
    bar->addWidget(new QLabel(tr("Heads by"), this));
    bar->addWidget(m_choice);
    bar->addStretch(1);
    bar->addWidget(m_state);
    layout->addLayout(bar);
    auto* splitter = new QSplitter(Qt::Horizontal, this);
    splitter->addWidget(new CanvasWithTable(m_map));
    auto* side = new QWidget(splitter);
    auto* sideLayout = new QVBoxLayout(side);
    sideLayout->setContentsMargins(fontMetrics().averageCharWidth(), 0, 0, 0);
    m_tileTitle = new QLabel(tr("Attention of a head"), side);
    m_tileTitle->setWordWrap(true);
    m_tile = new AttentionTile(side);
    m_text = new QLineEdit(tr("Once upon a time there was a little girl who liked to play outside with her dog."), side);
    m_text->setCursorPosition(0);
    m_text->setAccessibleName(tr("Text for the attention picture"));
    m_text->setToolTip(tr("The text whose attention weights are shown (at most 128 tokens)"));
    sideLayout->addWidget(m_tileTitle);
    sideLayout->addWidget(m_tile);
    sideLayout->addWidget(m_text);
    sideLayout->addStretch(1);
    splitter->addWidget(side);
    splitter->setStretchFactor(0, 4);
    splitter->setStretchFactor(1, 1);
    splitter->setChildrenCollapsible(false);
    side->setMinimumWidth(fontMetrics().averageCharWidth() * 26);
    side->setMaximumWidth(fontMetrics().averageCharWidth() * 60);
    layout->addWidget(splitter, 1);
    m_badge = new QLabel(this);
    m_badge->setWordWrap(true);
    m_badge->hide();
    layout->addWidget(m_badge);
    layout->addWidget(m_card);
    m_map->setMinimumSize(fontMetrics().averageCharWidth() * 40, fontMetrics().height() * 12);
    m_delay.setSingleShot(true);
    m_delay.setInterval(250);  // resting on a head asks for its picture, passing over does not
    connect(&m_delay, &QTimer::timeout, this, &HeadsPage::askForAttention);
    connect(m_text, &QLineEdit::editingFinished, this, &HeadsPage::askForAttention);
    connect(&selection, &SelectionModel::hoverChanged, this, &HeadsPage::explain);
    connect(&selection, &SelectionModel::selectionChanged, this, [this] {
        showProblems();
        explain();
    });
    connect(&document, &Document::planChanged, this, &HeadsPage::showProblems);
    connect(&document, &Document::modelChanged, this, [this] { m_tiles.clear(); });
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, &HeadsPage::showProblems);
    connect(m_map, &PartCanvas::partOpened, this, [this](const ComponentRef& part) { Q_EMIT openRequested(QString(), part); });
    m_tile->setMessage(tr("Rest the mouse on a head, or select one, to see what it attends to."));
    begin();
}

bool HeadsPage::shows(const protocol::DatasetMessage& info) const {
    return info.shape.size() == 2 && info.axes.size() == 2 && (info.axes[1].component == "head" || info.axes[1].component == "kv_group");
}

void HeadsPage::showChosen(const MeasuredDataset& dataset) {
    if (!dataset.info) {
        m_map->clearMatrix();
        return m_card->say({});
    }
    fetchAll(dataset, [this, info = *dataset.info](const DatasetValues& values) {
        m_map->setMatrix(info, values.values, values.errors);
        m_map->setAccessibleDescription(QString::fromStdString(info.help));
        m_map->updateGroups();
        explain();
    });
}

void HeadsPage::explain() {
    if (m_map->empty()) return;
    const auto& hover = m_selection.hover();
    const auto cell = hover ? m_map->cellOf(*hover) : std::nullopt;
    if (cell) {
        const ScoreFacts facts{m_map->value(*cell), m_map->error(*cell), m_map->rankOf(*cell), m_map->finiteCount()};
        m_card->say(sentence(m_document, m_map->info(), *hover, facts), QString::fromStdString(m_map->info().help));
        m_delay.start();
        return;
    }
    if (!m_selection.isEmpty()) m_delay.start();
    m_card->say(m_selection.isEmpty() ? tr("Click selects a head, Shift+click its whole key group, dragging a rectangle of heads.") : capitalised(m_selection.words()),
                QString::fromStdString(m_map->info().help));
}

void HeadsPage::showProblems() {
    const auto& warnings = m_map->rowWarnings();
    QString text;
    if (!warnings.isEmpty()) {
        QList<int> rows = warnings.keys();
        std::sort(rows.begin(), rows.end());
        text = warnings.value(rows.front());
        if (rows.size() > 1) text += tr(" The same goes for %n more block(s).", nullptr, int(rows.size()) - 1);
    }
    m_badge->setVisible(!text.isEmpty());
    m_badge->setText(QStringLiteral("\u26a0 ") + text);
    m_badge->setStyleSheet(QStringLiteral("color: %1").arg(currentTheme().warning.name()));
}

void HeadsPage::askForAttention() {
    std::optional<ComponentRef> head;
    if (const auto& hover = m_selection.hover(); hover && hover->kind == PartKind::Head) head = hover;
    if (!head)
        for (const ComponentRef& ref : m_selection.refs())
            if (ref.kind == PartKind::Head) {
                head = ref;
                break;
            }
    const auto* model = m_document.model();
    if (!head || !model || !isVisible()) return;
    m_tileTitle->setText(capitalised(text(*head)));
    if (!model->hasTokenizer) return m_tile->setMessage(tr("This checkpoint has no tokenizer, so no text can be shown to it."));
    const QString key = QStringLiteral("%1/%2/%3").arg(head->block).arg(head->index).arg(m_text->text());
    const auto draw = [this](const Tile& tile) { m_tile->setWeights(tile.tokens, tile.weights); };
    if (const auto held = m_tiles.constFind(key); held != m_tiles.constEnd()) return draw(*held.value());
    m_asking = true;
    WorkerCallbacks callbacks;
    callbacks.result = [this, key, draw](const Json& result) {
        m_asking = false;
        auto tile = std::make_shared<Tile>();
        for (const Json& token : result.value("tokens", Json::array())) tile->tokens << QString::fromStdString(token.get<std::string>());
        tile->weights = numbersFrom(result.value("weights", Json::array()));
        if (tile->weights.size() != std::size_t(tile->tokens.size() * tile->tokens.size())) return m_tile->setMessage(tr("The worker sent a picture of the wrong size."));
        if (m_tiles.size() >= 256) m_tiles.clear();
        m_tiles.insert(key, tile);
        draw(*tile);
    };
    callbacks.error = [this](const WorkerError& error) {
        m_asking = false;
        m_tile->setMessage(error.text());
    };
    const Json args = {{"text", m_text->text().toStdString()}, {"block", head->block}, {"head", head->index}};
    m_client.requestView(QStringLiteral("attention"), QStringLiteral("attention"), args, this, std::move(callbacks));
}

void HeadsPage::zoom(double factor) {
    if (factor == 0) return m_map->resetZoom();
    for (auto type : {QCPAxis::atBottom, QCPAxis::atLeft}) m_map->axisRect()->axis(type)->scaleRange(1 / factor);
    m_map->redraw();
}

}  // namespace resect::ui
