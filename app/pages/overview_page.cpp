#include "app/pages/overview_page.h"

#include "app/pages/part_sentences.h"

#include <QFrame>
#include <QGridLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLocale>
#include <QPushButton>
#include <QScrollArea>
#include <QSplitter>
#include <QTreeWidget>
#include <QVBoxLayout>

#include <algorithm>

namespace resect::ui {
namespace {

QString bigNumber(double value) {
    if (value >= 1e9) return QString::number(value / 1e9, 'f', 2) + OverviewPage::tr(" billion");
    if (value >= 1e6) return QString::number(value / 1e6, 'f', 2) + OverviewPage::tr(" million");
    return QLocale(QLocale::English).toString(qint64(value));
}

QString bytesText(double bytes) {
    const std::array units = {"B", "kB", "MB", "GB", "TB"};
    std::size_t unit = 0;
    for (; bytes >= 1000 && unit + 1 < units.size(); ++unit) bytes /= 1000;
    return QStringLiteral("%1 %2").arg(bytes, 0, 'f', unit == 0 ? 0 : bytes < 10 ? 2 : 1).arg(QLatin1String(units[unit]));
}

/// "12", or "8-32" when blocks differ.
template <class Get> QString spread(const std::vector<protocol::BlockMessage>& blocks, Get get) {
    if (blocks.empty()) return QStringLiteral("-");
    const auto [low, high] = std::minmax_element(blocks.begin(), blocks.end(), [&](const auto& a, const auto& b) { return get(a) < get(b); });
    const QString first = QString::number(get(*low));
    return get(*low) == get(*high) ? first : first + QLatin1Char('-') + QString::number(get(*high));
}

QLabel* wrapped(const QString& text, QWidget* parent) {
    auto* label = new QLabel(text, parent);
    label->setWordWrap(true);
    label->setTextInteractionFlags(Qt::TextSelectableByMouse);
    return label;
}

QLabel* heading(const QString& text, QWidget* parent) {
    auto* label = new QLabel(text, parent);
    QFont font = label->font();
    font.setBold(true);
    font.setPointSizeF(font.pointSizeF() * 1.1);
    label->setFont(font);
    return label;
}

void clearLayout(QLayout& layout) {
    while (QLayoutItem* item = layout.takeAt(0)) {
        delete item->widget();
        delete item;
    }
}

struct EditWords {
    const char* op;
    const char* words;
    const char* effect;
};
constexpr std::array kEdits = {
    EditWords{"drop_blocks", QT_TRANSLATE_NOOP("OverviewPage", "Whole blocks"), QT_TRANSLATE_NOOP("OverviewPage", "opens everywhere as a smaller stock model")},
    EditWords{"drop_attention", QT_TRANSLATE_NOOP("OverviewPage", "Attention of a block"), QT_TRANSLATE_NOOP("OverviewPage", "saves its key/value memory; stock programs need the padded or zeroed way")},
    EditWords{"drop_mlp", QT_TRANSLATE_NOOP("OverviewPage", "MLP of a block"), QT_TRANSLATE_NOOP("OverviewPage", "saves the most weights per layer; hardest to recover")},
    EditWords{"drop_kv_groups", QT_TRANSLATE_NOOP("OverviewPage", "Key groups with their query heads"), QT_TRANSLATE_NOOP("OverviewPage", "the same number in every block opens everywhere")},
    EditWords{"drop_heads", QT_TRANSLATE_NOOP("OverviewPage", "Single query heads"), QT_TRANSLATE_NOOP("OverviewPage", "unequal groups are padded on export")},
    EditWords{"drop_channels", QT_TRANSLATE_NOOP("OverviewPage", "MLP channels"), QT_TRANSLATE_NOOP("OverviewPage", "the same width in every block opens everywhere")},
    EditWords{"drop_hidden", QT_TRANSLATE_NOOP("OverviewPage", "Hidden channels"), QT_TRANSLATE_NOOP("OverviewPage", "narrows the whole model; opens everywhere as a smaller stock model")},
    EditWords{"drop_experts", QT_TRANSLATE_NOOP("OverviewPage", "Experts"), QT_TRANSLATE_NOOP("OverviewPage", "the same number in every block opens everywhere")}};

}  // namespace

OverviewPage::OverviewPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent)
    : Page(document, selection, client, parent), m_source(client), m_redundancy(document, client, "llm-drop", tr("block redundancy")),
      m_importance(document, client, "importance", tr("head and channel importance")) {
    auto* layout = new QVBoxLayout(this);
    m_empty = new QLabel(tr("No model is open. Drop a model folder on the window, or use File > Open."), this);
    m_empty->setAlignment(Qt::AlignCenter);
    m_empty->setWordWrap(true);
    auto* splitter = new QSplitter(Qt::Horizontal, this);
    m_content = splitter;
    splitter->addWidget(buildModel());
    splitter->addWidget(buildMeasures());
    splitter->setStretchFactor(0, 3);
    splitter->setStretchFactor(1, 2);
    splitter->setChildrenCollapsible(false);
    layout->addWidget(m_empty, 1);
    layout->addWidget(splitter, 1);
    connect(&document, &Document::modelChanged, this, [this] {
        m_source.clear();
        m_problems.clear();
        m_healthJob = 0;
        m_waitingFor.clear();
        refreshModel();
    });
    connect(&document, &Document::measuresChanged, this, &OverviewPage::refreshMeasures);
    for (MeasureStarter* starter : {&m_redundancy, &m_importance}) {
        connect(starter, &MeasureStarter::failed, this, &Page::message);
        connect(starter, &MeasureStarter::changed, this, [this, starter] {
            const CanvasNotice notice = starter->notice(nullptr);
            const bool tell = starter->running() || !starter->error().isEmpty();
            m_suggestNote->setText(tell ? notice.text : QString());
            m_suggestNote->setVisible(tell);
            if (starter->running() || m_waitingFor.isEmpty()) return;
            const QString page = std::exchange(m_waitingFor, QString());
            if (starter->error().isEmpty()) Q_EMIT openRequested(page, ComponentRef());
        });
    }
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, &OverviewPage::refreshModel);
    refreshModel();
}

QWidget* OverviewPage::buildModel() {
    auto* scroll = new QScrollArea(this);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    scroll->setMinimumWidth(fontMetrics().averageCharWidth() * 44);
    auto* inner = new QWidget(scroll);
    auto* layout = new QVBoxLayout(inner);
    m_cards = new QGridLayout;
    m_cards->setSpacing(fontMetrics().averageCharWidth());
    layout->addLayout(m_cards);
    layout->addSpacing(fontMetrics().height() / 2);

    m_wishes = new QWidget(inner);
    auto* wishes = new QVBoxLayout(m_wishes);
    wishes->setContentsMargins(0, 0, 0, fontMetrics().height() / 2);
    wishes->addWidget(heading(tr("What would you like?"), m_wishes));
    auto* grid = new QGridLayout;
    struct Wish {
        QString words, tip, page;
        std::string method, target;
    };
    const std::array offers = {
        Wish{tr("Make it smaller"), tr("Find spans of blocks that change the least, to drop them whole"), QStringLiteral("similarity"), "llm-drop", "block"},
        Wish{tr("Make it faster"), tr("Find attention layers that can go, which also shrinks the key/value memory"), QStringLiteral("similarity"), "llm-drop", "attn"},
        Wish{tr("Find dead weight"), tr("Find MLP channels that hardly ever matter"), QStringLiteral("channels"), "importance", "channels"},
        Wish{tr("Specialise it"), tr("With a calibration text of your own: find the heads that this text does not need"), QStringLiteral("heads"), "importance", "kv_groups"}};
    int place = 0;
    for (const Wish& wish : offers) {
        auto* button = new QPushButton(wish.words, m_wishes);
        button->setToolTip(wish.tip);
        button->setAccessibleDescription(wish.tip);
        connect(button, &QPushButton::clicked, this, [this, wish] { suggest(wish.method, wish.target, wish.page); });
        grid->addWidget(button, place / 2, place % 2);
        ++place;
    }
    wishes->addLayout(grid);
    m_suggestNote = wrapped({}, m_wishes);
    m_suggestNote->hide();
    wishes->addWidget(m_suggestNote);
    layout->addWidget(m_wishes);

    auto* healthBar = new QHBoxLayout;
    healthBar->addWidget(heading(tr("Health"), inner));
    healthBar->addStretch(1);
    m_checkAll = new QPushButton(tr("Check all &weights"), inner);
    m_checkAll->setToolTip(tr("Reads every number of every tensor and looks for values that are not finite (F5)"));
    connect(m_checkAll, &QPushButton::clicked, this, &OverviewPage::checkHealth);
    healthBar->addWidget(m_checkAll);
    layout->addLayout(healthBar);
    m_healthNote = wrapped({}, inner);
    m_healthNote->hide();
    layout->addWidget(m_healthNote);
    m_health = new QVBoxLayout;
    layout->addLayout(m_health);
    layout->addSpacing(fontMetrics().height() / 2);
    layout->addWidget(heading(tr("What can be cut here"), inner));
    m_cuts = new QVBoxLayout;
    m_cuts->setSpacing(2);
    layout->addLayout(m_cuts);
    layout->addStretch(1);
    scroll->setWidget(inner);
    return scroll;
}

QWidget* OverviewPage::buildMeasures() {
    auto* box = new QWidget(this);
    auto* layout = new QVBoxLayout(box);
    layout->setContentsMargins(fontMetrics().averageCharWidth(), 0, 0, 0);
    layout->addWidget(heading(tr("Measured"), box));
    auto* splitter = new QSplitter(Qt::Vertical, box);
    m_measures = new QTreeWidget(splitter);
    m_measures->setHeaderLabels({tr("Result"), tr("Samples")});
    m_measures->header()->setStretchLastSection(false);
    m_measures->header()->setSectionResizeMode(0, QHeaderView::Stretch);
    m_measures->setUniformRowHeights(true);
    m_measures->setAccessibleName(tr("Measured results"));
    connect(m_measures, &QTreeWidget::currentItemChanged, this, &OverviewPage::showDataset);
    m_view = new DatasetView(m_document, splitter);
    splitter->addWidget(m_measures);
    splitter->addWidget(m_view);
    splitter->setStretchFactor(0, 1);
    splitter->setStretchFactor(1, 2);
    splitter->setChildrenCollapsible(false);
    layout->addWidget(splitter, 1);
    box->setMinimumWidth(fontMetrics().averageCharWidth() * 36);
    return box;
}

void OverviewPage::refreshModel() {
    const auto* model = m_document.model();
    m_empty->setVisible(!model);
    m_content->setVisible(model);
    clearLayout(*m_cards);
    clearLayout(*m_cuts);
    if (!model) return;
    if (m_problems.empty()) m_problems = model->problems;
    const auto& blocks = model->blocks;
    const Theme& theme = currentTheme();
    int place = 0;
    const auto card = [&](const QString& name, const QString& value, const QString& more) {
        auto* frame = new QFrame(m_content);
        frame->setObjectName(QStringLiteral("overviewCard"));
        frame->setStyleSheet(QStringLiteral("QFrame#overviewCard { background: %1; border: 1px solid %2; border-radius: 4px; }").arg(theme.background.name(), theme.grid.name()));
        auto* inner = new QVBoxLayout(frame);
        inner->setSpacing(1);
        auto* top = wrapped(name, frame);
        top->setStyleSheet(QStringLiteral("color: %1").arg(theme.mutedText.name()));
        auto* middle = wrapped(value, frame);
        QFont bold = middle->font();
        bold.setBold(true);
        middle->setFont(bold);
        auto* bottom = wrapped(more, frame);
        bottom->setStyleSheet(QStringLiteral("color: %1").arg(theme.mutedText.name()));
        for (QLabel* label : {top, middle, bottom}) {
            label->setMinimumWidth(fontMetrics().averageCharWidth() * 8);   // a long word in one card shall not push the others out
            label->setToolTip(label->text());
            inner->addWidget(label);
        }
        inner->addStretch(1);
        m_cards->addWidget(frame, place / 3, place % 3);
        ++place;
    };
    // The invisible space lets a long name of an unknown family break after an underscore.
    card(tr("Family"), QString::fromStdString(model->familyTitle.empty() ? model->family : model->familyTitle).replace(QLatin1Char('_'), QStringLiteral("_\u200b")),
         model->understood ? tr("%1 blocks, %2 wide").arg(blocks.size()).arg(model->hiddenSize) : tr("not known: tensors can be inspected only"));
    card(tr("Size"), tr("%1 parameters").arg(bigNumber(double(model->parameters))),
         tr("%1 in %2 file(s), %3 tensors").arg(bytesText(double(model->bytes))).arg(model->numShards).arg(model->numTensors));
    card(tr("Number type"), QString::fromStdString(model->dtype), model->tied ? tr("input and output embeddings are one tensor") : tr("output embedding has weights of its own"));
    if (model->understood) {
        card(tr("Attention"), tr("%1 query heads").arg(spread(blocks, [](const auto& b) { return b.numHeads; })),
             tr("%1 key groups, %2 numbers per head").arg(spread(blocks, [](const auto& b) { return b.numKvHeads; }), spread(blocks, [](const auto& b) { return b.headDim; })));
        card(tr("MLP"), tr("%1 channels").arg(spread(blocks, [](const auto& b) { return b.ffnSize; })),
             spread(blocks, [](const auto& b) { return b.numExperts; }) == QLatin1String("0") ? tr("dense") : tr("%1 experts").arg(spread(blocks, [](const auto& b) { return b.numExperts; })));
        if (model->input == "images") card(tr("Images"), tr("%1 tokens a picture").arg(model->maxPositions), model->vocabSize > 0 ? tr("%1 labels").arg(model->vocabSize) : tr("no classifier"));
        else card(tr("Text"), model->maxPositions > 0 ? tr("%1 tokens of context").arg(model->maxPositions) : tr("context not stated"),
             tr("%1 words in the vocabulary; %2").arg(model->vocabSize).arg(model->hasTokenizer ? tr("tokenizer found") : tr("no tokenizer")));
    }
    card(tr("Licence"), model->licence.empty() ? tr("not stated") : QString::fromStdString(model->licence).section(QLatin1Char('\n'), 0, 0).left(60),
         model->licence.empty() ? tr("look at where the model came from") : tr("goes with every export"));
    for (int column = 0; column < 3; ++column) m_cards->setColumnStretch(column, 1);

    for (const EditWords& edit : kEdits) {
        const bool can = model->understood && std::find(model->edits.begin(), model->edits.end(), edit.op) != model->edits.end();
        if (!can && std::string_view(edit.op) == "drop_experts") continue;
        m_cuts->addWidget(wrapped(QStringLiteral("<span style='color:%1'>%2</span> <b>%3</b> <span style='color:%4'>- %5</span>")
                                      .arg((can ? theme.good : theme.mutedText).name(), can ? QStringLiteral("\u2713") : QStringLiteral("\u2013"), tr(edit.words),
                                           theme.mutedText.name(), can ? tr(edit.effect) : tr("not in this family")),
                                  m_content));
    }
    m_wishes->setVisible(model->understood);
    refreshHealth();
    refreshMeasures();
}

void OverviewPage::refreshHealth() {
    clearLayout(*m_health);
    const Theme& theme = currentTheme();
    const auto& counts = m_document.model()->tensorCounts;
    const bool fine = counts.known ? counts.missing + counts.misshapen + counts.unexpected == 0 : m_problems.empty();
    auto* summary = wrapped((fine ? QStringLiteral("\u2713 ") : QStringLiteral("\u26a0 ")) + tensorSentence(), m_content);
    summary->setStyleSheet(QStringLiteral("color: %1").arg((fine ? theme.good : theme.warning).name()));
    summary->setAccessibleName(tr("Tensors at a glance"));
    m_health->addWidget(summary);
    constexpr std::size_t kShown = 40;
    for (std::size_t i = 0; i < std::min(m_problems.size(), kShown); ++i) {
        const auto& problem = m_problems[i];
        const bool bad = problem.severity == "error", odd = problem.severity == "warning";
        const QColor colour = bad ? theme.error : odd ? theme.warning : theme.mutedText;
        const QString mark = bad ? tr("Error") : odd ? tr("Warning") : tr("Note");
        QString text = QStringLiteral("<b style='color:%1'>%2</b> ").arg(colour.name(), mark);
        if (!problem.subject.empty()) text += QString::fromStdString(problem.subject).toHtmlEscaped() + QStringLiteral(": ");
        text += QString::fromStdString(problem.message).toHtmlEscaped();
        if (!problem.advice.empty()) text += QStringLiteral(" <i>%1</i>").arg(QString::fromStdString(problem.advice).toHtmlEscaped());
        m_health->addWidget(wrapped(text, m_content));
    }
    if (m_problems.size() > kShown) m_health->addWidget(wrapped(tr("and %n more", nullptr, int(m_problems.size() - kShown)), m_content));
}

QString OverviewPage::tensorSentence() const {
    const auto* model = m_document.model();
    const auto& counts = model->tensorCounts;
    if (!counts.known) return m_problems.empty() ? tr("Nothing is wrong with the files.") : tr("The configuration does not say which tensors there should be, so that only the files were checked.");
    QStringList parts;
    const auto part = [&](qint64 count, const QString& words) {
        if (count > 0) parts << words.arg(QLocale(QLocale::English).toString(count));
    };
    part(counts.missing, tr("%1 missing"));
    part(counts.misshapen, tr("%1 with another shape or type"));
    part(counts.unexpected, tr("%1 not called for"));
    const QString called = QLocale(QLocale::English).toString(qint64(counts.expected));
    QString sentence = parts.isEmpty() ? tr("All %1 tensors that the configuration calls for are there, with the right shape.").arg(called)
                                       : tr("Of %1 tensors that the configuration calls for: %2.").arg(called, parts.join(QStringLiteral(", ")));
    if (counts.ignored > 0) sentence += tr(" %1 more are ignored: they follow from the configuration.").arg(counts.ignored);
    if (model->tied) sentence += tr(" Input and output embedding are tied.");
    return sentence;
}

void OverviewPage::checkHealth() {
    if (!m_document.model()) return;
    if (m_healthJob) return m_client.cancel(m_healthJob);
    WorkerCallbacks callbacks;
    const auto ended = [this](const QString& note) {
        m_healthJob = 0;
        m_checkAll->setText(tr("Check all &weights"));
        m_healthNote->setText(note);
        m_healthNote->setVisible(!note.isEmpty());
    };
    callbacks.result = [this, ended](const Json& result) {
        m_problems.clear();
        for (const Json& one : result.value("problems", Json::array())) m_problems.push_back(one.get<protocol::ProblemMessage>());
        refreshHealth();
        const qint64 bad = result.value("badTensors", qint64(0));
        QString words = result.value("complete", true) ? tr("All weights were read: ") : tr("Stopped early; of what was read: ");
        words += bad == 0 ? tr("every number is finite.") : bad == 1 ? tr("one tensor holds numbers that are not finite.") : tr("%1 tensors hold numbers that are not finite.").arg(bad);
        ended(words);
    };
    callbacks.error = [this, ended](const WorkerError& error) {
        ended(error.stopped() ? tr("Stopped before everything was read.") : error.text());
        if (!error.stopped()) Q_EMIT message({"error", error.subject.toStdString(), error.message.toStdString(), ""});
    };
    callbacks.progress = [this](const WorkerProgress& progress, const Json&) {
        if (progress.total > 0) m_healthNote->setText(tr("Reading: %1 %").arg(int(100 * progress.fraction())));
        m_healthNote->setVisible(true);
    };
    m_checkAll->setText(tr("Stop"));
    m_healthJob = m_client.startJob(QStringLiteral("health"), Json::object(), tr("Checking all weights"), this, std::move(callbacks));
}

void OverviewPage::suggest(const std::string& method, const std::string& target, const QString& pageId) {
    MeasureStarter& starter = method == m_redundancy.method() ? m_redundancy : m_importance;
    const auto measured = std::find_if(m_document.measures().begin(), m_document.measures().end(), [&](const auto& one) { return one.method == method; });
    if (measured != m_document.measures().end()) {
        takeSuggestion(method, target, measured->file);
        Q_EMIT openRequested(pageId, ComponentRef());
        return;
    }
    m_waitingFor = pageId;
    starter.start();
}

/// With a measurement at hand the method proposes edits; they come as one undoable step.
void OverviewPage::takeSuggestion(const std::string& method, const std::string& target, const std::string& file) {
    const auto& methods = m_document.methods();
    const auto known = std::find_if(methods.begin(), methods.end(), [&](const auto& one) { return one.id == method && one.plans; });
    if (known == methods.end() || !m_document.planIsEmpty()) return;
    Json set = Json::object();
    for (const auto& parameter : known->planParameters)
        if (parameter.name == "target" && std::find(parameter.choices.begin(), parameter.choices.end(), target) != parameter.choices.end()) set["target"] = target;
    const int revision = m_document.planRevision();
    WorkerCallbacks callbacks;
    callbacks.result = [this, revision, method](const Json& result) {
        if (revision != m_document.planRevision() || !result.contains("plan")) return;
        std::vector<Json> edits;
        for (const Json& edit : result["plan"].value("edits", Json::array())) edits.push_back(edit);
        m_document.addEdits(edits, QString::fromStdString(result.value("title", std::string())), QString::fromStdString(method));
    };
    callbacks.error = [this](const WorkerError& error) { Q_EMIT message({"warning", error.subject.toStdString(), error.message.toStdString(), ""}); };
    m_client.request(QStringLiteral("plan_suggest"), {{"method", method}, {"set", set}, {"file", file}}, this, std::move(callbacks));
}

void OverviewPage::refreshMeasures() {
    const QString before = m_measures->currentItem() ? m_measures->currentItem()->data(0, Qt::UserRole + 1).toString() : QString();
    const QSignalBlocker blocked(m_measures);
    m_measures->clear();
    QTreeWidgetItem* again = nullptr;
    for (const auto& measure : m_document.measures()) {
        auto* top = new QTreeWidgetItem(m_measures);
        top->setText(0, QStringLiteral("%1, %2").arg(QString::fromStdString(measure.method), QString::fromStdString(measure.created).left(16).replace(QLatin1Char('T'), QLatin1Char(' '))));
        top->setText(1, measure.samplesDone < measure.samplesTotal ? tr("%1 of %2").arg(measure.samplesDone).arg(measure.samplesTotal) : QString::number(measure.samplesDone));
        top->setToolTip(0, QString::fromStdString(measure.dataDescription));
        for (const auto& info : measure.datasets) {
            auto* item = new QTreeWidgetItem(top);
            item->setText(0, QString::fromStdString(info.title));
            item->setText(1, QString::number(info.samples));
            item->setToolTip(0, QString::fromStdString(info.help));
            item->setData(0, Qt::UserRole, QString::fromStdString(measure.file));
            item->setData(0, Qt::UserRole + 1, QString::fromStdString(measure.file + '\n' + info.name));
            item->setData(0, Qt::UserRole + 2, QString::fromStdString(info.name));
            if (item->data(0, Qt::UserRole + 1).toString() == before) again = item;
            if (!again && before.isEmpty() && drawable(info)) again = item;
        }
        top->setExpanded(true);
    }
    m_measures->setCurrentItem(again);
    showDataset();
}

void OverviewPage::showDataset() {
    ++m_generation;
    const QTreeWidgetItem* item = m_measures->currentItem();
    const std::string file = item ? item->data(0, Qt::UserRole).toString().toStdString() : std::string();
    const std::string name = item ? item->data(0, Qt::UserRole + 2).toString().toStdString() : std::string();
    for (const auto& measure : m_document.measures())
        for (const auto& info : measure.datasets) {
            if (measure.file != file || info.name != name) continue;
            if (!drawable(info)) return m_view->clear(tr("This result has too many dimensions or numbers for a picture; it can be opened with any HDF5 program."));
            ++m_pending;
            m_source.fetch(
                file, info, this,
                [this, info, generation = m_generation](std::shared_ptr<const DatasetValues> values) {
                    --m_pending;
                    if (generation == m_generation) m_view->show(info, values->values, values->errors);
                },
                [this](const WorkerError& error) {
                    --m_pending;
                    m_view->clear(error.text());
                });
            return;
        }
    m_view->clear(m_document.measures().empty() ? tr("Nothing has been measured yet. Choose a wish on the left, or press Measure on another page.") : tr("Choose a result to see it."));
}

}  // namespace resect::ui
