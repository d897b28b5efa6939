#include "app/window/dialogs.h"

#include "app/pages/data_chooser.h"
#include "widgets/forms/parameter_form.h"
#include "widgets/plots/colour_maps.h"
#include "widgets/views/style.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDialogButtonBox>
#include <QFileDialog>
#include <QFileInfo>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QKeySequenceEdit>
#include <QLineEdit>
#include <QPushButton>
#include <QScrollArea>
#include <QSettings>
#include <QSpinBox>
#include <QTabWidget>
#include <QTableWidget>
#include <QToolButton>
#include <QVBoxLayout>

namespace resect::ui {
namespace {

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

QDialogButtonBox* okCancel(QDialog* dialog, const QString& ok) {
    auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel, dialog);
    if (!ok.isEmpty()) buttons->button(QDialogButtonBox::Ok)->setText(ok);
    QObject::connect(buttons, &QDialogButtonBox::accepted, dialog, &QDialog::accept);
    QObject::connect(buttons, &QDialogButtonBox::rejected, dialog, &QDialog::reject);
    return buttons;
}

}  // namespace

DataDialog::DataDialog(Document& document, QWidget* parent) : QDialog(parent), m_before(document.data()) {
    const DataKind kind = document.model() ? dataKind(document.model()->input) : DataKind::Text;
    const bool images = kind == DataKind::Images;
    const QString title = images ? tr("Calibration images") : tr("Calibration text");
    setWindowTitle(title);
    setMinimumWidth(fontMetrics().height() * 32);
    auto* form = new QFormLayout(this);
    form->addRow(makeLabel(images ? tr("Measuring and preview run the model over these images. They should look like what the model is used for; nothing is learned from them. Labels, where there "
                                       "are any, tell accuracy and loss: the names of the folders, a labels.csv, or the IDX file beside the images.")
                                  : tr("Measuring and preview run the model over this text. It should look like what the model is used for; nothing is learned from it."), "help", this));
    m_file = new QLineEdit(fromStd(m_before.file), this);
    m_file->setObjectName(QStringLiteral("calibrationData"));
    form->addRow(images ? tr("Folder or file") : tr("File"), dataChooser(m_file, title, kind, this));
    m_rowLength = new QSpinBox(this);
    m_rowLength->setRange(2, document.model() && document.model()->maxPositions > 0 ? static_cast<int>(std::min<qint64>(document.model()->maxPositions, 1 << 20)) : 1 << 20);
    m_rowLength->setValue(m_before.rowLength);
    m_rowLength->setSuffix(tr(" tokens"));
    m_maxRows = new QSpinBox(this);
    m_maxRows->setRange(0, 10'000'000);
    m_maxRows->setSpecialValueText(tr("all"));
    m_maxRows->setValue(static_cast<int>(m_before.maxRows));
    m_layout = new QComboBox(this);
    m_layout->addItem(tr("running text, cut into rows"), QStringLiteral("chunks"));
    m_layout->addItem(tr("examples packed into rows"), QStringLiteral("packed"));
    m_layout->addItem(tr("one example per row, padded"), QStringLiteral("padded"));
    m_layout->setCurrentIndex(std::max(0, m_layout->findData(fromStd(m_before.layout))));
    if (!images) form->addRow(tr("Row length"), m_rowLength);
    form->addRow(images ? tr("At most so many images") : tr("At most so many rows"), m_maxRows);
    if (!images) form->addRow(tr("Layout"), m_layout);
    m_rowLength->setVisible(!images);
    m_layout->setVisible(!images);
    auto* buttons = okCancel(this, QString());
    form->addRow(buttons);
    const auto check = [this, buttons, kind] { buttons->button(QDialogButtonBox::Ok)->setEnabled(dataExists(m_file->text(), kind)); };
    connect(m_file, &QLineEdit::textChanged, this, check);
    check();
}

protocol::DataMessage DataDialog::data() const {
    protocol::DataMessage data = m_before;
    data.file = QFileInfo(m_file->text()).absoluteFilePath().toStdString();
    data.rowLength = m_rowLength->value();
    data.maxRows = m_maxRows->value();
    data.layout = m_layout->currentData().toString().toStdString();
    return data;
}

MethodDialog::MethodDialog(const protocol::MethodMessage& method, Use use, Document& document, const Json& last, QWidget* parent) : QDialog(parent) {
    setWindowTitle(use == Use::Measure ? tr("Measure: %1").arg(fromStd(method.title)) : tr("Suggest edits: %1").arg(fromStd(method.title)));
    const int unit = fontMetrics().height();
    setMinimumWidth(unit * 34);
    auto* layout = new QVBoxLayout(this);
    layout->addWidget(makeLabel(fromStd(method.summary), "help", this));
    if (!method.paper.empty()) layout->addWidget(makeLabel(fromStd(method.paper), "muted", this));
    if (use == Use::Plan) {
        auto* row = new QFormLayout;
        m_measure = new QComboBox(this);
        for (const auto& measure : document.measures())
            if (measure.method == method.id) m_measure->addItem(QStringLiteral("%1, %2").arg(fromStd(measure.created).left(16).replace(QLatin1Char('T'), QLatin1Char(' ')), fromStd(measure.dataDescription)), fromStd(measure.file));
        row->addRow(tr("From the measurement"), m_measure);
        layout->addLayout(row);
        if (m_measure->count() == 0) layout->addWidget(makeLabel(tr("Nothing was measured with this method yet. Run it from the Analyse menu first."), "error", this));
    }
    m_form = new ParameterForm(this);
    m_form->setParameters(use == Use::Measure ? method.measureParameters : method.planParameters);
    if (last.is_object()) m_form->setValues(last);
    auto* scroll = new QScrollArea(this);
    scroll->setWidget(m_form);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    scroll->setMinimumHeight(std::min(unit * 26, m_form->sizeHint().height() + unit));
    layout->addWidget(scroll, 1);
    auto* problem = makeLabel(QString(), "error", this);
    problem->hide();
    layout->addWidget(problem);
    auto* buttons = okCancel(this, use == Use::Measure ? tr("Measure") : tr("Add to the plan"));
    layout->addWidget(buttons);
    const bool possible = use == Use::Measure ? !document.data().file.empty() : m_measure->count() > 0;
    if (use == Use::Measure && document.data().file.empty()) layout->insertWidget(1, makeLabel(tr("Choose a calibration text first (tool bar)."), "error", this));
    const auto check = [this, problem, buttons, possible] {
        const QStringList problems = m_form->problems();
        problem->setText(problems.join(QLatin1Char('\n')));
        problem->setVisible(!problems.isEmpty());
        buttons->button(QDialogButtonBox::Ok)->setEnabled(possible && problems.isEmpty());
    };
    connect(m_form, &ParameterForm::changed, this, check);
    check();
}

Json MethodDialog::values() const { return m_form->values(); }
QString MethodDialog::measureFile() const { return m_measure ? m_measure->currentData().toString() : QString(); }

SettingsDialog::SettingsDialog(Document& document, WorkerClient& client, Session& session, const QList<QAction*>& actions, QWidget* parent)
    : QDialog(parent), m_document(document), m_client(client), m_session(session), m_actions(actions) {
    setWindowTitle(tr("Settings"));
    resize(fontMetrics().height() * 38, fontMetrics().height() * 30);
    auto* layout = new QVBoxLayout(this);
    auto* tabs = new QTabWidget(this);
    tabs->addTab(makeGeneral(), tr("General"));
    tabs->addTab(makeKeyboard(), tr("Keyboard"));
    layout->addWidget(tabs);
    layout->addWidget(okCancel(this, QString()));
    connect(this, &QDialog::accepted, this, &SettingsDialog::apply);
}

QWidget* SettingsDialog::makeGeneral() {
    auto* page = new QWidget(this);
    auto* form = new QFormLayout(page);
    QSettings settings;
    m_theme = new QComboBox(page);
    m_theme->addItem(tr("as the system"), static_cast<int>(ThemeMode::System));
    m_theme->addItem(tr("light"), static_cast<int>(ThemeMode::Light));
    m_theme->addItem(tr("dark"), static_cast<int>(ThemeMode::Dark));
    m_theme->setCurrentIndex(m_theme->findData(static_cast<int>(ThemeNotifier::instance().mode())));
    form->addRow(tr("Theme"), m_theme);
    m_colourMap = new QComboBox(page);
    for (const ColourMap map : {ColourMap::Viridis, ColourMap::Cividis, ColourMap::Grey}) m_colourMap->addItem(title(map), static_cast<int>(map));
    m_colourMap->setCurrentIndex(std::max(0, m_colourMap->findData(settings.value("colourMap", 0).toInt())));
    form->addRow(tr("Colours of heatmaps"), m_colourMap);
    m_device = new QComboBox(page);
    m_device->addItem(tr("automatic"), QStringLiteral("auto"));
    for (const auto& device : m_client.hello().devices) m_device->addItem(fromStd(device), fromStd(device));
    m_device->setCurrentIndex(std::max(0, m_device->findData(fromStd(m_document.compute().device))));
    form->addRow(tr("Device"), m_device);
    m_dtype = new QComboBox(page);
    for (const char* dtype : {"f32", "bf16", "f16"}) m_dtype->addItem(QLatin1String(dtype));
    m_dtype->setCurrentIndex(std::max(0, m_dtype->findText(fromStd(m_document.compute().dtype))));
    form->addRow(tr("Number format"), m_dtype);
    m_threads = new QSpinBox(page);
    m_threads->setRange(0, 1024);
    m_threads->setSpecialValueText(tr("automatic"));
    m_threads->setValue(settings.value("threads", 0).toInt());
    form->addRow(tr("Threads of the worker"), m_threads);
    m_autoPreview = new QCheckBox(tr("Preview the plan after every change"), page);
    m_autoPreview->setChecked(m_session.autoPreview());
    form->addRow(QString(), m_autoPreview);
    form->addRow(QString(), makeLabel(tr("Another number of threads restarts the worker; measurements stay, a running job ends."), "help", page));
    return page;
}

QWidget* SettingsDialog::makeKeyboard() {
    auto* table = new QTableWidget(0, 2, this);
    table->setHorizontalHeaderLabels({tr("Command"), tr("Keys")});
    table->verticalHeader()->hide();
    table->horizontalHeader()->setSectionResizeMode(0, QHeaderView::Stretch);
    table->setColumnWidth(1, fontMetrics().height() * 11);
    for (QAction* action : m_actions) {
        if (action->objectName().isEmpty()) continue;
        const int row = table->rowCount();
        table->insertRow(row);
        auto* name = new QTableWidgetItem(action->text().remove(QLatin1Char('&')));
        name->setFlags(Qt::ItemIsEnabled);
        table->setItem(row, 0, name);
        auto* keys = new QKeySequenceEdit(action->shortcut(), table);
        table->setCellWidget(row, 1, keys);
        m_keys.emplace_back(action, keys);
    }
    return table;
}

void SettingsDialog::apply() {
    QSettings settings;
    const auto mode = static_cast<ThemeMode>(m_theme->currentData().toInt());
    settings.setValue("theme", static_cast<int>(mode));
    settings.setValue("device", m_device->currentData());
    settings.setValue("dtype", m_dtype->currentText());
    settings.setValue("autoPreview", m_autoPreview->isChecked());
    settings.setValue("colourMap", m_colourMap->currentData());
    ThemeNotifier::instance().setMode(mode);
    setSequentialMap(static_cast<ColourMap>(m_colourMap->currentData().toInt()));
    m_session.setAutoPreview(m_autoPreview->isChecked());
    m_document.setCompute({m_device->currentData().toString().toStdString(), m_dtype->currentText().toStdString()});
    for (const auto& [action, keys] : m_keys) {
        if (keys->keySequence() == action->shortcut()) continue;
        action->setShortcut(keys->keySequence());
        settings.setValue(QStringLiteral("shortcuts/") + action->objectName(), keys->keySequence().toString());
    }
    if (settings.value("threads", 0).toInt() != m_threads->value()) {
        settings.setValue("threads", m_threads->value());
        m_client.setThreads(m_threads->value());
        if (m_client.state() != WorkerClient::State::Off) m_client.restart();
    }
}

}  // namespace resect::ui
