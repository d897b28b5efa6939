#include "app/pages/text_page.h"

#include "widgets/plots/plot_table.h"
#include "widgets/views/flow_layout.h"

#include <QCheckBox>
#include <QDoubleSpinBox>
#include <QFileDialog>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QShortcut>
#include <QSpinBox>
#include <QVBoxLayout>

#include <cmath>

namespace resect::ui {
namespace {

StripToken stripToken(const Json& token) {
    StripToken made;
    made.text = QString::fromStdString(token.value("text", std::string()));
    const Json log = token.value("logProbability", Json());
    if (log.is_number()) {
        made.value = std::exp(log.get<double>());
        made.tip = TextPage::tr("probability %1 %, token %2").arg(100 * made.value, 0, 'f', made.value < 0.01 ? 3 : 1).arg(token.value("id", -1));
    } else {
        made.tip = TextPage::tr("token %1").arg(token.value("id", -1));
    }
    return made;
}

}  // namespace

TextPage::TextPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent) : Page(document, selection, client, parent) {
    build();
    connect(m_generate, &QPushButton::clicked, this, &TextPage::generate);
    connect(m_stop, &QPushButton::clicked, this, &TextPage::stop);
    connect(m_recovered, &QCheckBox::toggled, this, &TextPage::updateState);
    connect(&document, &Document::modelChanged, this, [this] {
        for (ColumnViews& column : m_columns) {
            column.strip->clear();
            column.foot->clear();
        }
        updateState();
    });
    connect(&document, &Document::planChanged, this, [this] {
        if (!m_columns[Candidate].strip->tokens().empty()) m_columns[Candidate].foot->setText(tr("The plan has changed since; generate again."));
        updateState();
    });
    connect(m_prompt, &QPlainTextEdit::textChanged, this, &TextPage::updateState);
    // The same token everywhere: the columns line up by position until they differ.
    for (int i = 0; i < ColumnCount; ++i)
        connect(m_columns[std::size_t(i)].strip, &TokenStrip::tokenHovered, this, [this, i](int token) {
            for (int other = 0; other < ColumnCount; ++other)
                if (other != i) m_columns[std::size_t(other)].strip->setHovered(token < int(m_columns[std::size_t(other)].strip->tokens().size()) ? token : -1);
        });
    updateState();
}

void TextPage::build() {
    auto* layout = new QVBoxLayout(this);
    m_prompt = new QPlainTextEdit(tr("Once upon a time"), this);
    m_prompt->setAccessibleName(tr("Prompt"));
    m_prompt->setPlaceholderText(tr("Text to continue"));
    m_prompt->setTabChangesFocus(true);
    m_prompt->setFixedHeight(fontMetrics().lineSpacing() * 4 + 12);
    layout->addWidget(m_prompt);
    auto* bar = new FlowLayout(nullptr, fontMetrics().averageCharWidth() * 2);  // wraps, so that this row does not set the window's width
    const auto add = [&](const QString& label, QWidget* widget, const QString& tip) {
        auto* pair = new QWidget(this);
        auto* row = new QHBoxLayout(pair);
        row->setContentsMargins(0, 0, 0, 0);
        auto* text = new QLabel(label, pair);
        text->setBuddy(widget);
        widget->setToolTip(tip);
        widget->setAccessibleName(label);
        row->addWidget(text);
        row->addWidget(widget);
        bar->addWidget(pair);
    };
    const auto whole = [&](int least, int most, int value) {
        auto* box = new QSpinBox(this);
        box->setRange(least, most);
        box->setValue(value);
        return box;
    };
    const auto real = [&](double most, double value) {
        auto* box = new QDoubleSpinBox(this);
        box->setRange(0, most);
        box->setSingleStep(0.1);
        box->setValue(value);
        return box;
    };
    m_length = whole(1, 2048, 64);
    m_temperature = real(5, 0);
    m_temperature->setSpecialValueText(tr("greedy"));
    m_topK = whole(0, 1000, 0);
    m_topK->setSpecialValueText(tr("all"));
    m_topP = real(1, 1);
    m_seed = whole(0, 1 << 30, 0);
    add(tr("New tokens"), m_length, tr("How many tokens to generate at most"));
    add(tr("Temperature"), m_temperature, tr("0 takes the most likely token each time"));
    add(tr("Top k"), m_topK, tr("Sample from the k most likely tokens only"));
    add(tr("Top p"), m_topP, tr("Sample from the most likely tokens that make up this probability"));
    add(tr("Seed"), m_seed, tr("The same seed gives the same text"));
    m_generate = new QPushButton(tr("Generate"), this);
    m_generate->setToolTip(tr("Generate with every column (Ctrl+Return)"));
    m_stop = new QPushButton(tr("Stop"), this);
    bar->addWidget(m_generate);
    bar->addWidget(m_stop);
    layout->addLayout(bar);
    auto* run = new QShortcut(QKeySequence(Qt::CTRL | Qt::Key_Return), this, nullptr, nullptr, Qt::WidgetWithChildrenShortcut);
    connect(run, &QShortcut::activated, this, &TextPage::generate);
    auto* second = new QHBoxLayout;
    m_recovered = new QCheckBox(tr("Also with a recovered checkpoint"), this);
    m_checkpoint = new QLineEdit(this);
    m_checkpoint->setPlaceholderText(tr("folder of the checkpoint"));
    m_checkpoint->setAccessibleName(tr("Folder of the recovered checkpoint"));
    auto* choose = new QPushButton(tr("Choose..."), this);
    connect(choose, &QPushButton::clicked, this, &TextPage::chooseCheckpoint);
    connect(m_recovered, &QCheckBox::toggled, m_checkpoint, &QWidget::setEnabled);
    connect(m_recovered, &QCheckBox::toggled, choose, &QWidget::setEnabled);
    m_checkpoint->setEnabled(false);
    choose->setEnabled(false);
    second->addWidget(m_recovered);
    second->addWidget(m_checkpoint, 1);
    second->addWidget(choose);
    layout->addLayout(second);
    auto* columns = new QHBoxLayout;
    const std::array headings = {tr("Original"), tr("Candidate (the plan)"), tr("Recovered checkpoint")};
    for (int i = 0; i < ColumnCount; ++i) {
        ColumnViews& column = m_columns[std::size_t(i)];
        column.box = new QWidget(this);
        auto* inner = new QVBoxLayout(column.box);
        inner->setContentsMargins(0, 0, 0, 0);
        column.heading = new QLabel(headings[std::size_t(i)], column.box);
        QFont bold = font();
        bold.setBold(true);
        column.heading->setFont(bold);
        column.strip = new TokenStrip(column.box);
        column.strip->setAccessibleName(headings[std::size_t(i)]);
        column.foot = new QLabel(column.box);
        column.foot->setWordWrap(true);
        column.foot->setMinimumHeight(fontMetrics().lineSpacing() * 2);
        column.foot->setAlignment(Qt::AlignTop);
        inner->addWidget(column.heading);
        inner->addWidget(column.strip, 1);
        inner->addWidget(column.foot);
        columns->addWidget(column.box, 1);
    }
    layout->addLayout(columns, 1);
    m_note = new QLabel(this);
    m_note->setWordWrap(true);
    layout->addWidget(m_note);
}

void TextPage::chooseCheckpoint() {
    const QString folder = QFileDialog::getExistingDirectory(this, tr("Recovered checkpoint"), m_document.workspace());
    if (!folder.isEmpty()) m_checkpoint->setText(folder);
}

void TextPage::updateState() {
    const auto* model = m_document.model();
    const bool can = model && model->understood && model->hasTokenizer;
    m_columns[Recovered].box->setVisible(m_recovered->isChecked());
    m_generate->setEnabled(can && m_job == 0 && !m_prompt->toPlainText().isEmpty());
    m_stop->setEnabled(m_job != 0);
    QString note;
    if (!model) note = tr("Open a model to let it write.");
    else if (!model->understood) note = tr("Resect does not know this family, so the model cannot be run.");
    else if (!model->hasTokenizer) note = tr("This checkpoint has no tokenizer, so it can neither read a prompt nor write text. Put its tokenizer.json beside config.json.");
    m_note->setText(note);
    m_note->setVisible(!note.isEmpty());
    m_columns[Original].strip->setPlaceholder(tr("Generate shows how the uncut model goes on."));
    m_columns[Candidate].strip->setPlaceholder(m_document.planIsEmpty() ? tr("The plan has no edits yet, so there is nothing to compare.")
                                                                        : tr("Generate shows how the model goes on without what the plan drops."));
    m_columns[Recovered].strip->setPlaceholder(tr("Choose the checkpoint of a run, then generate."));
}

Json TextPage::arguments(Column column) const {
    Json args = {{"prompt", m_prompt->toPlainText().toStdString()}, {"maxNewTokens", m_length->value()}, {"temperature", m_temperature->value()},
                 {"topK", m_topK->value()}, {"topP", m_topP->value()}, {"seed", m_seed->value()}};
    if (column == Candidate) args["plan"] = m_document.planJson();
    if (column == Recovered) args["checkpoint"] = m_checkpoint->text().toStdString();
    return args;
}

void TextPage::generate() {
    if (!m_generate->isEnabled()) return;
    m_waiting = {Original};
    if (!m_document.planIsEmpty()) m_waiting.push_back(Candidate);
    if (m_recovered->isChecked() && !m_checkpoint->text().isEmpty()) m_waiting.push_back(Recovered);
    for (ColumnViews& column : m_columns) {
        column.strip->clear();
        column.foot->clear();
    }
    startNext();
}

void TextPage::stop() {
    m_waiting.clear();
    if (m_job) m_client.cancel(m_job);
}

void TextPage::startNext() {
    m_job = 0;
    if (m_waiting.empty()) return updateState();
    const Column column = m_waiting.front();
    m_waiting.erase(m_waiting.begin());
    m_columns[column].foot->setText(tr("Writing..."));
    WorkerCallbacks callbacks;
    callbacks.progress = [this, column](const WorkerProgress&, const Json& partial) {
        if (partial.is_object() && partial.contains("token")) addToken(column, partial["token"]);
    };
    callbacks.result = [this, column](const Json& result) { finish(column, result); };
    callbacks.error = [this, column](const WorkerError& error) { fail(column, error.stopped() ? tr("Stopped.") : error.text()); };
    m_job = m_client.startJob(QStringLiteral("generate"), arguments(column), tr("Writing text: %1").arg(m_columns[column].heading->text()), this, std::move(callbacks));
    updateState();
}

void TextPage::addToken(Column column, const Json& token) { m_columns[column].strip->appendToken(stripToken(token)); }

void TextPage::finish(Column column, const Json& result) {
    std::vector<StripToken> tokens;
    double log = 0;
    int counted = 0;
    for (const Json& token : result.value("tokens", Json::array())) {
        tokens.push_back(stripToken(token));
        if (std::isfinite(tokens.back().value) && tokens.back().value > 0) {
            log += std::log(tokens.back().value);
            ++counted;
        }
    }
    const int count = int(tokens.size());
    m_columns[column].strip->setTokens(std::move(tokens));
    m_columns[column].foot->setText(counted > 0 ? tr("%1 tokens; its own perplexity on them %2").arg(count).arg(shortNumber(std::exp(-log / counted), 3)) : tr("%1 tokens").arg(count));
    compare();
    startNext();
}

void TextPage::fail(Column column, const QString& why) {
    m_columns[column].foot->setText(why);
    startNext();
}

void TextPage::compare() {
    const auto words = [](const TokenStrip& strip) {
        std::vector<QString> texts;
        for (const StripToken& token : strip.tokens()) texts.push_back(token.text);
        return texts;
    };
    const auto original = words(strip(Original));
    if (original.empty()) return;
    std::vector<bool> differs(original.size(), false);
    for (const Column column : {Candidate, Recovered}) {
        const auto other = words(strip(column));
        if (other.empty()) continue;
        const TokenDifference difference = tokenDifference(original, other);
        strip(column).setMarked(difference.right);
        for (std::size_t i = 0; i < differs.size(); ++i) differs[i] = differs[i] || difference.left[i];
    }
    strip(Original).setMarked(differs);
}

}  // namespace resect::ui
