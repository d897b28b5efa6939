#include "app/pages/export_dialog.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "widgets/views/style.h"

#include <QButtonGroup>
#include <QCheckBox>
#include <QClipboard>
#include <QComboBox>
#include <QDesktopServices>
#include <QDir>
#include <QDoubleSpinBox>
#include <QFileDialog>
#include <QFileInfo>
#include <QFormLayout>
#include <QGuiApplication>
#include <QGroupBox>
#include <QHBoxLayout>
#include <QLineEdit>
#include <QProgressBar>
#include <QPushButton>
#include <QRadioButton>
#include <QSaveFile>
#include <QScrollArea>
#include <QSignalBlocker>
#include <QStackedWidget>
#include <QToolButton>
#include <QUrl>
#include <QVBoxLayout>

#include <cmath>

namespace resect::ui {
namespace {

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

QString bytesText(std::int64_t bytes) { return fromStd(formatBytes(static_cast<std::uint64_t>(std::max<std::int64_t>(0, bytes)))); }

/// -1 = the system does not say.
qint64 freeBytes(const QString& path) {
    try {
        return static_cast<qint64>(freeSpace(path.toStdString()));
    } catch (const Error&) {
        return -1;
    }
}

}  // namespace

std::int64_t paddedBytes(const protocol::ModelMessage& source, const protocol::PlanCheckMessage& check, double bytesPerWeight) {
    int heads = 0, groups = 0, channels = 0, kept = 0;
    for (const auto& block : check.blocks) {
        if (block.parameters == 0) continue;
        ++kept;
        heads = std::max(heads, block.numHeads);
        groups = std::max(groups, block.numKvHeads);
        channels = std::max(channels, block.ffnSize);
    }
    if (source.blocks.empty()) return 0;
    const auto& first = source.blocks.front();
    const double head = 2.0 * static_cast<double>(source.hiddenSize) * first.headDim;  // query + output, or key + value
    double block = static_cast<double>(first.parameters);
    block -= head * (first.numHeads - heads) + head * (first.numKvHeads - groups);
    if (first.ffnSize > 0) block -= static_cast<double>(first.ffnParameters) / first.ffnSize * (first.ffnSize - channels);
    const double rest = static_cast<double>(source.embeddingParameters + source.finalNormParameters + (source.tied ? 0 : source.headParameters));
    return static_cast<std::int64_t>((rest + block * kept) * bytesPerWeight);
}

ExportDialog::ExportDialog(Document& document, WorkerClient& client, Session& session, RunList& runs, QWidget* parent)
    : QDialog(parent), m_document(document), m_client(client), m_session(session), m_runs(runs) {
    setWindowTitle(tr("Export"));
    const int unit = fontMetrics().height();
    resize(unit * 40, unit * 32);
    auto* layout = new QVBoxLayout(this);
    m_title = makeLabel(QString(), "heading", this);
    layout->addWidget(m_title);
    m_steps = new QStackedWidget(this);
    layout->addWidget(m_steps, 1);
    for (QWidget* step : {makeTargetStep(), makeShapeStep(), makeWriteStep(), makeProgressStep(), makeReportStep()}) m_steps->addWidget(step);
    m_problem = makeLabel(QString(), "error", this);
    m_problem->hide();
    layout->addWidget(m_problem);
    auto* buttons = new QHBoxLayout;
    m_back = new QPushButton(tr("Back"), this);
    m_next = new QPushButton(this);
    m_cancel = new QPushButton(tr("Cancel"), this);
    m_next->setDefault(true);
    m_next->setObjectName(QStringLiteral("exportNext"));
    buttons->addStretch();
    for (QPushButton* button : {m_back, m_next, m_cancel}) buttons->addWidget(button);
    layout->addLayout(buttons);
    connect(m_back, &QPushButton::clicked, this, [this] { goTo(m_steps->currentIndex() == Report ? Write : exportsPlanOnly() ? Target : m_steps->currentIndex() - 1); });
    connect(m_next, &QPushButton::clicked, this, [this] {
        if (m_steps->currentIndex() == Write) return exportsPlanOnly() ? writePlanOnly() : startWriting();
        goTo(exportsPlanOnly() ? Write : m_steps->currentIndex() + 1);
    });
    connect(m_cancel, &QPushButton::clicked, this, &ExportDialog::reject);
    goTo(Target);
}

ExportDialog::~ExportDialog() = default;

ExportDialog::Step ExportDialog::step() const { return static_cast<Step>(m_steps->currentIndex()); }

bool ExportDialog::exportsPlanOnly() const { return m_toPlan->isChecked(); }
bool ExportDialog::exportsGguf() const { return m_toGguf->isChecked(); }

QWidget* ExportDialog::makeTargetStep() {
    auto* page = new QWidget(this);
    auto* layout = new QVBoxLayout(page);
    auto* form = new QFormLayout;
    m_source = new QComboBox(page);
    const QString name = m_document.model() ? fromStd(m_document.model()->name) : QString();
    m_source->addItem(m_document.planIsEmpty() ? tr("%1, uncut").arg(name) : tr("%1 with the plan").arg(name));
    for (int row = 0; row < m_runs.size(); ++row)
        if (const RunFollower* run = m_runs.run(row); QFileInfo::exists(run->folder() + QStringLiteral("/checkpoints"))) m_source->addItem(tr("recovered: %1").arg(run->title()), run->folder());
    form->addRow(tr("What"), m_source);
    layout->addLayout(form);
    auto* target = new QGroupBox(tr("Target"), page);
    auto* targetLayout = new QVBoxLayout(target);
    m_toFolder = new QRadioButton(tr("Hugging Face folder (config.json, .safetensors, tokenizer)"), target);
    m_toGguf = new QRadioButton(tr("One .gguf file for llama.cpp and what builds on it, with its tokenizer"), target);
    m_toGguf->setObjectName(QStringLiteral("exportGguf"));
    m_toPlan = new QRadioButton(tr("The plan only (a small JSON file, to apply elsewhere)"), target);
    m_toFolder->setChecked(true);
    m_toPlan->setEnabled(!m_document.planIsEmpty());
    targetLayout->addWidget(m_toFolder);
    targetLayout->addWidget(m_toGguf);
    targetLayout->addWidget(m_toPlan);
    layout->addWidget(target);
    auto* runtimes = new QGroupBox(tr("What opens the result"), page);
    auto* rows = new QFormLayout(runtimes);
    if (const auto* check = m_document.check()) {
        for (const auto& verdict : check->verdicts) {
            QStringList reasons;
            for (const auto& reason : verdict.reasons) reasons << fromStd(reason);
            auto* cell = new QWidget(runtimes);
            auto* column = new QVBoxLayout(cell);
            column->setContentsMargins(0, 0, 0, 0);
            auto* chip = makeLabel(verdictWords(verdict.verdict), "chip", cell);
            chip->setProperty("verdict", fromStd(verdict.verdict));
            column->addWidget(chip, 0, Qt::AlignLeft);
            if (!reasons.isEmpty()) column->addWidget(makeLabel(reasons.join(QLatin1Char('\n')), "help", cell));
            rows->addRow(fromStd(verdict.runtime), cell);
        }
        if (!check->legal) rows->addRow(makeLabel(tr("The plan cannot be applied as it is; see the Plan panel."), "error", runtimes));
    }
    layout->addWidget(runtimes);
    layout->addStretch();
    connect(m_source, &QComboBox::currentIndexChanged, this, [this](int index) {
        m_toPlan->setEnabled(index == 0 && !m_document.planIsEmpty());
        if (index > 0 && m_toPlan->isChecked()) m_toFolder->setChecked(true);
    });
    auto* scroll = new QScrollArea(this);
    scroll->setWidget(page);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    return scroll;
}

QWidget* ExportDialog::makeShapeStep() {
    auto* page = new QWidget(this);
    auto* layout = new QVBoxLayout(page);
    m_ways = new QButtonGroup(this);
    const auto* check = m_document.check();
    const bool uniform = !check || check->uniform;
    struct Way {
        const char* id;
        QString title, help;
        bool offered;
    };
    const Way ways[] = {
        {"uniform", tr("Exact, stock shape"), tr("Smaller numbers in config.json, nothing else: everything that opens the original opens this."), uniform},
        {"padded", tr("Padded with zeros"), tr("Every block is padded with zeros to the largest kept size, so that stock programs open it. Computes exactly the same."), !uniform},
        {"exact", tr("Exact, each block its own shape"), tr("Nothing is padded. In a folder resect.json carries the shapes, which only Resect reads; in a .gguf they are its own."), !uniform},
        {"heterogeneous", tr("Each block its own shape, as DeciLM"), tr("For Llama and Mistral weights: vLLM opens the folder with --trust-remote-code. Widths are filled up to multiples of 256."), !uniform},
        {"zeroed", tr("Original shape, removed parts zeroed"), tr("Saves no space. For comparing with other programs."), true},
    };
    int id = 0;
    for (const Way& way : ways) {
        auto* button = new QRadioButton(way.title, page);
        button->setProperty("way", QLatin1String(way.id));
        button->setEnabled(way.offered);
        m_ways->addButton(button, id++);
        layout->addWidget(button);
        auto* help = makeLabel(way.help, "help", page);
        help->setIndent(24);
        layout->addWidget(help);
        if (const std::int64_t bytes = bytesOf(QLatin1String(way.id)); bytes > 0 && way.offered) {
            auto* size = makeLabel(tr("about %1 in the stored number format").arg(bytesText(bytes)), "help", page);
            size->setIndent(24);
            layout->addWidget(size);
        }
    }
    m_ways->button(uniform ? 0 : 1)->setChecked(true);
    layout->addStretch();
    return page;
}

QWidget* ExportDialog::makeWriteStep() {
    auto* page = new QWidget(this);
    auto* form = new QFormLayout(page);
    m_folder = new QLineEdit(page);
    m_folder->setObjectName(QStringLiteral("exportFolder"));
    auto* choose = new QToolButton(page);
    choose->setText(tr("Choose..."));
    auto* row = new QHBoxLayout;
    row->addWidget(m_folder);
    row->addWidget(choose);
    form->addRow(tr("Write to"), row);
    m_dtype = new QComboBox(page);
    refreshNumberFormats();
    form->addRow(tr("Number format"), m_dtype);
    m_shardGigabytes = new QDoubleSpinBox(page);
    m_shardGigabytes->setRange(0.01, 1000);
    m_shardGigabytes->setValue(5);
    m_shardGigabytes->setSuffix(tr(" GB"));
    form->addRow(tr("Largest file"), m_shardGigabytes);
    m_space = makeLabel(QString(), nullptr, page);
    form->addRow(tr("Space"), m_space);
    const QString licence = m_document.model() ? fromStd(m_document.model()->licence) : QString();
    m_licence = makeLabel(licence.isEmpty() ? tr("The source says nothing about its licence; ask before passing the result on.")
                                            : tr("Licence of the source: %1. It goes into the folder; changed weights may fall under its terms.").arg(licence.left(200)), "help", page);
    form->addRow(tr("Licence"), m_licence);
    form->addRow(QString(), makeLabel(tr("Afterwards the files are opened again and their predictions compared with the candidate's."), "help", page));
    if (m_document.model()) m_folder->setText(m_document.workspace() + QStringLiteral("/exports/") + fromStd(m_document.model()->name) + (m_document.planIsEmpty() ? QString() : QStringLiteral("-cut")));
    connect(choose, &QToolButton::clicked, this, [this] {
        const QString path = exportsGguf() ? QFileDialog::getSaveFileName(this, tr("Write the file to"), m_folder->text(), tr("GGUF (*.gguf)"))
                           : exportsPlanOnly() ? QFileDialog::getSaveFileName(this, tr("Write the plan to"), m_folder->text(), tr("Edit plan (*.json)"))
                                               : QFileDialog::getSaveFileName(this, tr("Folder to make"), m_folder->text(), QString(), nullptr, QFileDialog::ShowDirsOnly);
        if (!path.isEmpty()) m_folder->setText(path);
    });
    connect(m_folder, &QLineEdit::textChanged, this, &ExportDialog::refreshSpace);
    connect(m_dtype, &QComboBox::currentIndexChanged, this, &ExportDialog::refreshSpace);
    return page;
}

QWidget* ExportDialog::makeProgressStep() {
    auto* page = new QWidget(this);
    auto* layout = new QVBoxLayout(page);
    layout->addStretch();
    m_progressWords = makeLabel(QString(), nullptr, page);
    m_bar = new QProgressBar(page);
    layout->addWidget(m_progressWords);
    layout->addWidget(m_bar);
    layout->addStretch();
    return page;
}

QWidget* ExportDialog::makeReportStep() {
    auto* scroll = new QScrollArea(this);
    auto* page = new QWidget(scroll);
    m_reportLayout = new QVBoxLayout(page);
    scroll->setWidget(page);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    return scroll;
}

QString ExportDialog::chosenWay() const { return m_ways->checkedButton() ? m_ways->checkedButton()->property("way").toString() : QStringLiteral("uniform"); }

std::int64_t ExportDialog::bytesOf(const QString& way) const {
    const auto *check = m_document.check();
    const auto* model = m_document.model();
    if (!check || !model || check->before.parameters <= 0) return 0;
    const QString dtype = m_steps->count() > Write ? m_dtype->currentData().toString() : QString();
    const double stored = static_cast<double>(check->before.bytes) / static_cast<double>(check->before.parameters);
    constexpr double kQ8 = 34.0 / 32, kQ4 = 18.0 / 32;  // bytes of a block of 32 weights
    const double perWeight = dtype.isEmpty() ? stored : dtype == QLatin1String("f32") ? 4 : dtype == QLatin1String("q8_0") ? kQ8 : dtype == QLatin1String("q4_0") ? kQ4 : 2;
    if (way == QLatin1String("zeroed")) return static_cast<std::int64_t>(static_cast<double>(check->before.parameters) * perWeight);
    if (way == QLatin1String("padded")) return paddedBytes(*model, *check, perWeight);
    return static_cast<std::int64_t>(static_cast<double>(check->after.parameters) * perWeight);
}

void ExportDialog::refreshSpace() {
    const qint64 needs = exportsPlanOnly() ? 0 : bytesOf(chosenWay()), has = freeBytes(m_folder->text());
    const QFileInfo target(m_folder->text());
    QString problem;
    if (m_folder->text().isEmpty()) problem = tr("Choose where to write.");
    else if (exportsGguf() && target.exists()) problem = tr("%1 exists already. Choose a new name; Resect overwrites nothing.").arg(m_folder->text());
    else if (!exportsPlanOnly() && !exportsGguf() && target.exists() && !QDir(m_folder->text()).isEmpty()) problem = tr("%1 exists already. Choose a new folder; Resect overwrites nothing.").arg(m_folder->text());
    else if (has >= 0 && needs > has) problem = tr("Not enough space: needs about %1, %2 are free.").arg(bytesText(needs), bytesText(has));
    m_space->setText(has >= 0 ? tr("needs about %1, %2 are free").arg(bytesText(needs), bytesText(has)) : tr("needs about %1; how much is free is not known").arg(bytesText(needs)));
    m_problem->setText(problem);
    m_problem->setVisible(m_steps->currentIndex() == Write && !problem.isEmpty());
    if (m_steps->currentIndex() == Write) m_next->setEnabled(problem.isEmpty());
}

void ExportDialog::goTo(int step) {
    m_steps->setCurrentIndex(step);
    const QString titles[] = {tr("1 of 3: what and where to"), tr("2 of 3: shape"), tr("3 of 3: write"), tr("Writing"), tr("Report")};
    m_title->setText(titles[step]);
    const auto* check = m_document.check();
    m_back->setVisible(step == Shape || step == Write);
    m_next->setVisible(step < Progress);
    m_next->setText(step == Write ? tr("Write") : tr("Next"));
    m_next->setEnabled(m_source->currentIndex() > 0 || (check && check->legal));
    m_cancel->setText(step == Progress ? tr("Stop") : step == Report ? tr("Close") : tr("Cancel"));
    m_problem->hide();
    const bool planOnly = exportsPlanOnly();
    if (step == Write) {
        setEnding();
        refreshNumberFormats();
        m_dtype->setEnabled(!planOnly);
        m_shardGigabytes->setEnabled(!planOnly && !exportsGguf());
        refreshSpace();
    }
}

/// The name ends as the target wants it.
void ExportDialog::setEnding() {
    QString path = m_folder->text();
    const QString wanted = exportsPlanOnly() ? QStringLiteral(".json") : exportsGguf() ? QStringLiteral(".gguf") : QString();
    for (const char* ending : {".json", ".gguf"})
        if (path.endsWith(QLatin1String(ending)) && wanted != QLatin1String(ending)) path.chop(5);
    if (!wanted.isEmpty() && !path.endsWith(wanted)) path += wanted;
    m_folder->setText(path);
}

/// Block formats exist in GGUF files only.
void ExportDialog::refreshNumberFormats() {
    const QSignalBlocker blocker(m_dtype);
    const QString chosen = m_dtype->currentData().toString();
    m_dtype->clear();
    m_dtype->addItem(tr("as stored"), QString());
    for (const char* dtype : {"f32", "bf16", "f16"}) m_dtype->addItem(QLatin1String(dtype), QLatin1String(dtype));
    if (exportsGguf()) {
        m_dtype->addItem(tr("q8_0: blocks of 32, 8 bits"), QStringLiteral("q8_0"));
        m_dtype->addItem(tr("q4_0: blocks of 32, 4 bits"), QStringLiteral("q4_0"));
    }
    m_dtype->setCurrentIndex(std::max(0, m_dtype->findData(chosen)));
}

void ExportDialog::writePlanOnly() {
    QSaveFile file(m_folder->text());
    QDir().mkpath(QFileInfo(file.fileName()).path());
    const std::string text = m_document.planJson().dump(2) + "\n";
    if (!file.open(QIODevice::WriteOnly) || file.write(text.data(), static_cast<qint64>(text.size())) < 0 || !file.commit()) return showFailure(tr("%1 could not be written: %2.").arg(file.fileName(), file.errorString()), false);
    protocol::ExportMessage report;
    report.folder = m_folder->text().toStdString();
    report.way = "plan";
    report.bytes = static_cast<std::int64_t>(text.size());
    report.opensIn.push_back({"Resect", "opens", {}, "checked"});
    report.loadCommands.push_back("resect-cli export " + m_document.model()->path + " --plan " + report.folder + " --to FOLDER --way " + (m_document.check()->uniform ? "uniform" : "padded"));
    showReport(report);
}

void ExportDialog::startWriting() {
    const bool recovered = m_source->currentIndex() > 0;
    Json args{{"source", recovered ? m_source->currentData().toString().toStdString() : m_document.model()->path},
              {"to", QFileInfo(m_folder->text()).absoluteFilePath().toStdString()},
              {"way", chosenWay().toStdString()},
              {"dtype", m_dtype->currentData().toString().toStdString()},
              {"shardBytes", static_cast<std::int64_t>(m_shardGigabytes->value() * 1e9)}};
    if (!recovered) args["plan"] = m_document.planJson();
    if (!m_document.data().file.empty()) args["data"] = m_document.data();
    goTo(Progress);
    m_progressWords->setText(tr("Starting ..."));
    m_bar->setRange(0, 0);
    WorkerCallbacks callbacks;
    callbacks.progress = [this](const WorkerProgress& progress, const Json&) {
        QString words = progress.stage.isEmpty() ? tr("Writing") : progress.stage;
        if (progress.total > 0 && progress.unit == QLatin1String("bytes")) words += tr(": %1 of %2").arg(bytesText(static_cast<std::int64_t>(progress.done)), bytesText(static_cast<std::int64_t>(progress.total)));
        m_progressWords->setText(words);
        m_bar->setRange(0, progress.total > 0 ? 1000 : 0);
        m_bar->setValue(static_cast<int>(1000 * std::max(0.0, progress.fraction())));
    };
    callbacks.result = [this](const Json& result) {
        m_job = 0;
        showReport(result.get<protocol::ExportMessage>());
    };
    callbacks.error = [this](const WorkerError& error) {
        m_job = 0;
        showFailure(error.text(), error.stopped());
    };
    m_job = m_client.startJob(QStringLiteral("export"), args, tr("Export to %1").arg(QFileInfo(m_folder->text()).fileName()), this, callbacks);
}

void ExportDialog::showFailure(const QString& text, bool stopped) {
    goTo(Write);
    m_problem->setText(stopped ? tr("Stopped. Nothing that looks finished was left behind.") : text);
    m_problem->show();
}

void ExportDialog::showReport(const protocol::ExportMessage& report) {
    while (QLayoutItem* item = m_reportLayout->takeAt(0)) {
        delete item->widget();
        delete item;
    }
    goTo(Report);
    m_verified = report.verified;
    auto* page = m_reportLayout->parentWidget();
    m_reportLayout->addWidget(makeLabel(tr("Written: %1 (%2)").arg(fromStd(report.folder), bytesText(report.bytes)), "heading", page));
    if (report.tensorsCompared > 0) {
        const QString rounding = report.maxTensorError > 0 ? tr("; the largest rounding of a weight is %1").arg(fromStd(toText(report.maxTensorError, 2))) : QString();
        m_reportLayout->addWidget(makeLabel(tr("Verified: read back, %Ln tensors are as meant%1. Tokenizer in it: %2.", nullptr, static_cast<int>(report.tensorsCompared))
                                                .arg(rounding, fromStd(report.tokenizer)), "good", page));
    } else if (report.way != "plan") {
        m_reportLayout->addWidget(report.verified
            ? makeLabel(tr("Verified: opened again and compared with the candidate. Largest difference of a logit %1, KL %2 per token.").arg(fromStd(toText(report.maxAbsLogitError, 2)), fromStd(toText(report.kl, 2))), "good", page)
            : makeLabel(tr("Not verified: the files were not compared with the candidate."), "error", page));
    }
    for (const auto& problem : report.problems) m_reportLayout->addWidget(makeLabel(fromStd(problem.message) + QLatin1Char(' ') + fromStd(problem.advice), problem.severity == "error" ? "error" : "muted", page));
    m_reportLayout->addWidget(makeLabel(tr("Opens in"), "heading", page));
    for (size_t i = 0; i < report.opensIn.size(); ++i) {
        const auto& verdict = report.opensIn[i];
        auto* card = new QFrame(page);
        card->setProperty("role", "card");
        auto* column = new QVBoxLayout(card);
        auto* head = new QHBoxLayout;
        head->addWidget(makeLabel(fromStd(verdict.runtime), "heading", card));
        auto* chip = makeLabel(verdictWords(verdict.verdict), "chip", card);
        chip->setProperty("verdict", fromStd(verdict.verdict));
        head->addWidget(chip);
        head->addStretch(1);
        column->addLayout(head);
        for (const auto& reason : verdict.reasons) column->addWidget(makeLabel(fromStd(reason), "help", card));
        if (i < report.loadCommands.size() && !report.loadCommands[i].empty()) {
            auto* line = new QHBoxLayout;
            auto* command = makeLabel(fromStd(report.loadCommands[i]), nullptr, card);
            QFont font(QStringLiteral("monospace"));
            font.setStyleHint(QFont::Monospace);
            command->setFont(font);
            auto* copy = new QToolButton(card);
            copy->setText(tr("Copy"));
            connect(copy, &QToolButton::clicked, this, [text = fromStd(report.loadCommands[i])] { QGuiApplication::clipboard()->setText(text); });
            line->addWidget(command, 1);
            line->addWidget(copy, 0, Qt::AlignTop);
            column->addLayout(line);
        }
        m_reportLayout->addWidget(card);
    }
    auto* show = new QPushButton(tr("Show the folder"), page);
    connect(show, &QPushButton::clicked, this, [folder = fromStd(report.folder)] { QDesktopServices::openUrl(QUrl::fromLocalFile(QFileInfo(folder).isDir() ? folder : QFileInfo(folder).path())); });
    m_reportLayout->addWidget(show, 0, Qt::AlignLeft);
    m_reportLayout->addStretch();
    // Long paths wrap instead of widening the page.
    for (QLabel* label : page->findChildren<QLabel*>()) label->setMinimumWidth(1);
}

void ExportDialog::reject() {
    if (m_steps->currentIndex() == Progress && m_job != 0) {
        m_progressWords->setText(tr("Stopping ..."));
        m_client.cancel(m_job);
        return;
    }
    QDialog::reject();
}

}  // namespace resect::ui
