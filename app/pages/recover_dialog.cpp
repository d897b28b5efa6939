#include "app/pages/recover_dialog.h"

#include "app/pages/data_chooser.h"
#include "core/base/numbers.h"
#include "widgets/forms/parameter_form.h"
#include "widgets/views/style.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDialogButtonBox>
#include <QDir>
#include <QFileDialog>
#include <QFileInfo>
#include <QFormLayout>
#include <QGroupBox>
#include <QHBoxLayout>
#include <QLineEdit>
#include <QPushButton>
#include <QScrollArea>
#include <QSpinBox>
#include <QToolButton>
#include <QVBoxLayout>

#include <map>

namespace resect::ui {
namespace {

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

DataKind dataKindOf(const Document& document) { return document.model() ? dataKind(document.model()->input) : DataKind::Text; }

/// The selected heads, kv groups and channels as a recipe's components: [{"block": 3, "heads": [1, 5]}, ...]; empty when there is none.
QString selectedUnits(const RefSet& refs) {
    const std::map<PartKind, const char*> fields{{PartKind::Head, "heads"}, {PartKind::KvGroup, "groups"}, {PartKind::Channel, "channels"}};
    std::map<std::pair<int, int>, Json> entries;   // by block and expert
    for (const ComponentRef& ref : refs) {
        const auto field = fields.find(ref.kind);
        if (field == fields.end()) continue;
        Json& entry = entries[{ref.block, ref.kind == PartKind::Channel ? ref.expert : -1}];
        entry["block"] = ref.block;
        if (ref.kind == PartKind::Channel && ref.expert >= 0) entry["expert"] = ref.expert;
        entry[field->second].push_back(ref.index);
    }
    Json list = Json::array();
    for (auto& [place, entry] : entries) list.push_back(std::move(entry));
    return list.empty() ? QString() : fromStd(list.dump());
}

}  // namespace

RecoverDialog::RecoverDialog(Document& document, WorkerClient& client, Session& session, QWidget* parent)
    : QDialog(parent), m_document(document), m_client(client), m_session(session) {
    setWindowTitle(tr("Recover"));
    const int unit = fontMetrics().height();
    resize(unit * 60, unit * 48);
    auto* outer = new QVBoxLayout(this);
    m_planWords = makeLabel(QString(), nullptr, this);
    outer->addWidget(m_planWords);

    auto* columns = new QHBoxLayout;
    outer->addLayout(columns, 1);
    auto* left = new QVBoxLayout;
    columns->addLayout(left, 3);
    auto* recipeForm = new QFormLayout;
    recipeForm->setLabelAlignment(Qt::AlignLeft);
    m_recipe = new QComboBox(this);
    m_recipe->setObjectName(QStringLiteral("recipe"));
    for (const auto& recipe : document.recipes()) m_recipe->addItem(fromStd(recipe.title), fromStd(recipe.id));
    recipeForm->addRow(tr("Recipe"), m_recipe);
    m_summary = makeLabel(QString(), "help", this);
    recipeForm->addRow(QString(), m_summary);
    left->addLayout(recipeForm);
    m_form = new ParameterForm(this);
    m_form->setSelectionSource([&document] { return selectedUnits(document.selection().refs()); });
    auto* scroll = new QScrollArea(this);
    auto* inner = new QWidget(scroll);
    auto* innerLayout = new QVBoxLayout(inner);
    innerLayout->addWidget(m_form);
    scroll->setWidget(inner);
    scroll->setWidgetResizable(true);
    scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    left->addWidget(scroll, 1);

    auto* right = new QVBoxLayout;
    columns->addLayout(right, 3);
    auto* dataBox = new QGroupBox(tr("Data"), this);
    auto* dataForm = new QFormLayout(dataBox);
    dataForm->setRowWrapPolicy(QFormLayout::WrapAllRows);
    m_data = new QLineEdit(dataBox);
    m_data->setObjectName(QStringLiteral("trainingData"));
    m_evalData = new QLineEdit(dataBox);
    const DataKind kind = dataKindOf(document);
    dataForm->addRow(tr("Training data"), dataChooser(m_data, tr("Training data"), kind, dataBox));
    dataForm->addRow(tr("Evaluation data"), dataChooser(m_evalData, tr("Evaluation data"), kind, dataBox));
    m_evalData->setPlaceholderText(kind == DataKind::Images ? tr("empty: images held back from the training data") : tr("empty: rows held back from the training data"));
    m_maxRows = new QSpinBox(dataBox);
    m_maxRows->setRange(0, 100'000'000);
    m_maxRows->setGroupSeparatorShown(true);
    m_maxRows->setSpecialValueText(tr("all"));
    dataForm->addRow(kind == DataKind::Images ? tr("At most so many images") : tr("At most so many rows"), m_maxRows);
    m_control = new QCheckBox(tr("Also train the uncut model"), dataBox);
    m_control->setObjectName(QStringLiteral("control"));
    m_control->setToolTip(tr("Training on data also teaches that data. Afterwards the uncut model is trained the same way, so that the table can say how much of the cut is "
                             "really repaired. Takes as long again."));
    m_control->setEnabled(!document.planIsEmpty());
    dataForm->addRow(tr("Control"), m_control);
    right->addWidget(dataBox);
    auto* computeBox = new QGroupBox(tr("Compute"), this);
    auto* computeForm = new QFormLayout(computeBox);
    m_device = new QComboBox(computeBox);
    m_device->addItem(tr("automatic"), QStringLiteral("auto"));
    for (const auto& device : client.hello().devices) m_device->addItem(fromStd(device), fromStd(device));
    m_dtype = new QComboBox(computeBox);
    for (const char* dtype : {"f32", "bf16"}) m_dtype->addItem(QLatin1String(dtype), QLatin1String(dtype));
    computeForm->addRow(tr("Device"), m_device);
    computeForm->addRow(tr("Number format"), m_dtype);
    right->addWidget(computeBox);
    auto* needs = new QGroupBox(tr("What it needs"), this);
    auto* needsLayout = new QVBoxLayout(needs);
    m_estimate = makeLabel(QString(), nullptr, needs);
    m_basis = makeLabel(QString(), "help", needs);
    needsLayout->addWidget(m_estimate);
    needsLayout->addWidget(m_basis);
    right->addWidget(needs);
    right->addStretch();

    m_problem = makeLabel(QString(), "error", this);
    m_problem->hide();
    outer->addWidget(m_problem);
    auto* buttons = new QDialogButtonBox(this);
    m_start = buttons->addButton(tr("Start recovery"), QDialogButtonBox::AcceptRole);
    m_start->setDefault(true);
    buttons->addButton(QDialogButtonBox::Cancel);
    outer->addWidget(makeLabel(tr("The run is a process of its own: it goes on when the window is closed, and shows again when the workspace is opened."), "muted", this));
    outer->addWidget(buttons);

    // The settings of last time, as far as they still fit.
    const Json& last = session.forms().contains("recover") ? session.forms().at("recover") : Json::object();
    protocol::DataMessage data = document.data();
    data.maxRows = 0;
    if (last.contains("data")) data = last.at("data").get<protocol::DataMessage>();
    m_data->setText(fromStd(data.file));
    m_evalData->setText(fromStd(last.value("evalFile", "")));
    m_maxRows->setValue(static_cast<int>(std::min<qint64>(data.maxRows, m_maxRows->maximum())));
    m_control->setChecked(m_control->isEnabled() && last.value("control", false));
    m_device->setCurrentIndex(std::max(0, m_device->findData(fromStd(last.value("device", document.compute().device)))));
    m_dtype->setCurrentIndex(std::max(0, m_dtype->findData(fromStd(last.value("dtype", std::string("f32"))))));
    m_recipe->setCurrentIndex(std::max(0, m_recipe->findData(fromStd(last.value("recipe", "")))));

    const qsizetype edits = std::count_if(document.plan().begin(), document.plan().end(), [](const auto& entry) { return entry->enabled; });
    m_planWords->setText(edits == 0 ? tr("The plan is empty: this trains the uncut model.")
                                    : edits == 1 ? tr("Trains the model as the plan leaves it (1 edit).") : tr("Trains the model as the plan leaves it (%1 edits).").arg(edits));
    m_estimateTimer.setSingleShot(true);
    m_estimateTimer.setInterval(300);
    connect(&m_estimateTimer, &QTimer::timeout, this, &RecoverDialog::askEstimate);
    connect(m_recipe, &QComboBox::currentIndexChanged, this, &RecoverDialog::chooseRecipe);
    connect(m_form, &ParameterForm::changed, this, &RecoverDialog::scheduleEstimate);
    for (QLineEdit* line : {m_data, m_evalData}) connect(line, &QLineEdit::textChanged, this, &RecoverDialog::scheduleEstimate);
    for (QComboBox* box : {m_device, m_dtype}) connect(box, &QComboBox::currentIndexChanged, this, &RecoverDialog::scheduleEstimate);
    connect(m_maxRows, &QSpinBox::valueChanged, this, &RecoverDialog::scheduleEstimate);
    connect(m_control, &QCheckBox::toggled, this, &RecoverDialog::scheduleEstimate);
    connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
    connect(buttons, &QDialogButtonBox::accepted, this, &RecoverDialog::startRun);
    chooseRecipe(m_recipe->currentIndex());
}

RecoverDialog::~RecoverDialog() { dropTime(); }

void RecoverDialog::chooseRecipe(int index) {
    const auto& recipes = m_document.recipes();
    if (index < 0 || index >= static_cast<int>(recipes.size())) {
        m_summary->setText(tr("This worker knows no recovery recipe."));
        m_form->setParameters({});
    } else {
        const auto& recipe = recipes[static_cast<size_t>(index)];
        m_summary->setText(fromStd(recipe.summary));
        m_summary->setToolTip(fromStd(recipe.paper));
        auto parameters = recipe.trainParameters;
        if (dataKindOf(m_document) == DataKind::Images)   // these lay text out
            std::erase_if(parameters, [](const auto& parameter) { return parameter.name == "row_length" || parameter.name == "layout" || parameter.name == "answers_only"; });
        m_form->setParameters(parameters);
        const Json& forms = m_session.forms();
        if (forms.contains("recover") && forms.at("recover").contains("set") && forms.at("recover").at("set").contains(recipe.id))
            m_form->setValues(forms.at("recover").at("set").at(recipe.id));
    }
    scheduleEstimate();
}

Json RecoverDialog::args() const {
    protocol::DataMessage data;
    data.file = m_data->text().toStdString();
    data.maxRows = m_maxRows->value();
    Json args{{"recipe", m_recipe->currentData().toString().toStdString()},
              {"set", m_form->values()},
              {"plan", m_document.planJson()},
              {"data", data},
              {"device", m_device->currentData().toString().toStdString()},
              {"dtype", m_dtype->currentData().toString().toStdString()},
              {"workspace", m_document.workspace().toStdString()},
              {"control", m_control->isChecked()}};
    if (!m_evalData->text().isEmpty()) {
        protocol::DataMessage evalData = data;
        evalData.file = m_evalData->text().toStdString();
        args["evalData"] = evalData;
    }
    return args;
}

QString RecoverDialog::firstProblem() const {
    if (m_recipe->currentIndex() < 0) return tr("This worker knows no recovery recipe.");
    if (const QStringList problems = m_form->problems(); !problems.isEmpty()) return problems.join(QLatin1Char('\n'));
    if (m_data->text().isEmpty()) return tr("Choose the data to train on.");
    for (const QLineEdit* line : {m_data, m_evalData})
        if (!line->text().isEmpty() && !dataExists(line->text(), dataKindOf(m_document))) return tr("There is no file %1.").arg(line->text());
    if (const auto* check = m_document.check(); check && !check->legal) return tr("The plan cannot be applied as it is; see the Plan panel.");
    return {};
}

QString RecoverDialog::problem() const { return m_problem->text(); }

void RecoverDialog::showProblem(const QString& text) {
    m_problem->setText(text);
    m_problem->setVisible(!text.isEmpty());
}

void RecoverDialog::dropTime() {
    if (m_timeJob != 0) m_client.cancel(m_timeJob);
    m_timeJob = 0;
}

void RecoverDialog::scheduleEstimate() {
    dropTime();
    const QString problem = firstProblem();
    showProblem(problem);
    m_start->setEnabled(problem.isEmpty() && !m_busy);
    if (problem.isEmpty()) m_estimateTimer.start();
    else m_estimate->setText(tr("The estimate follows when the settings are complete."));
}

void RecoverDialog::askEstimate() {
    m_estimate->setText(tr("Estimating ..."));
    WorkerCallbacks callbacks;
    callbacks.result = [this](const Json& result) {
        const auto estimate = result.get<protocol::EstimateMessage>();
        if (std::ranges::none_of(estimate.problems, [](const auto& problem) { return problem.severity == "error"; })) askTime();
        showEstimate(estimate);
    };
    callbacks.error = [this](const WorkerError& error) {
        m_estimate->setText(tr("No estimate."));
        m_basis->clear();
        showProblem(error.text());
    };
    m_client.requestView(QStringLiteral("recover_estimate"), QStringLiteral("recover_estimate"), args(), this, callbacks);
}

void RecoverDialog::askTime() {
    dropTime();
    WorkerCallbacks callbacks;
    callbacks.result = [this](const Json& result) {
        m_timeJob = 0;
        showEstimate(result.get<protocol::EstimateMessage>());
    };
    callbacks.error = [this](const WorkerError& error) {
        m_timeJob = 0;
        if (!error.stopped()) m_basis->setText(tr("The time could not be measured: %1").arg(error.text()));
    };
    m_timeJob = m_client.startJob(QStringLiteral("recover_time"), args(), tr("Timing a training step"), this, callbacks);
}

void RecoverDialog::showEstimate(const protocol::EstimateMessage& estimate) {
    QStringList lines;
    if (estimate.memoryBytes > 0) lines << tr("Memory: about %1").arg(fromStd(formatBytes(static_cast<std::uint64_t>(estimate.memoryBytes))));
    m_timed = estimate.seconds > 0;
    const QString time = m_timed ? tr("about %1").arg(fromStd(formatDuration(estimate.seconds))) : m_timeJob != 0 ? tr("being measured") : tr("not measured");
    lines << (m_control->isChecked() ? tr("Time: %1, and as long again for the control").arg(time) : tr("Time: %1").arg(time));
    if (estimate.steps > 0) lines << (estimate.unit == "images" ? tr("%L1 steps, %2 images") : tr("%L1 steps, %2 tokens")).arg(estimate.steps).arg(fromStd(formatCount(static_cast<double>(estimate.tokens))));
    if (estimate.trainableParameters > 0) lines << tr("%1 weights are trained").arg(fromStd(formatCount(static_cast<double>(estimate.trainableParameters))));
    m_estimate->setText(lines.join(QLatin1Char('\n')));
    m_basis->setText(fromStd(estimate.basis));
    QStringList problems;
    bool blocked = false;
    for (const auto& problem : estimate.problems) {
        problems << fromStd(problem.message) + (problem.advice.empty() ? QString() : QLatin1Char(' ') + fromStd(problem.advice));
        blocked = blocked || problem.severity == "error";
    }
    showProblem(problems.join(QLatin1Char('\n')));
    m_start->setEnabled(!blocked && !m_busy && firstProblem().isEmpty());
}

void RecoverDialog::remember() {
    const Json now = args();
    Json& saved = m_session.forms()["recover"];
    if (!saved.is_object()) saved = Json::object();
    saved["recipe"] = now.at("recipe");
    saved["data"] = now.at("data");
    saved["evalFile"] = m_evalData->text().toStdString();
    saved["control"] = now.at("control");
    saved["device"] = now.at("device");
    saved["dtype"] = now.at("dtype");
    saved["set"][now.at("recipe").get<std::string>()] = now.at("set");
    m_session.markDirty();
}

void RecoverDialog::startRun() {
    if (const QString problem = firstProblem(); !problem.isEmpty()) return showProblem(problem);
    remember();
    m_busy = true;
    m_start->setEnabled(false);
    showProblem(QString());
    m_estimate->setText(tr("Writing the run folder ..."));
    WorkerCallbacks callbacks;
    callbacks.result = [this](const Json& result) {
        m_busy = false;
        const QString folder = fromStd(result.at("folder").get<std::string>());
        QString problem;
        if (!startDetachedRun(m_client.program(), {QStringLiteral("run"), folder + QStringLiteral("/job.json")}, folder, &problem)) {
            m_start->setEnabled(true);
            return showProblem(problem);
        }
        Q_EMIT runStarted(folder);
        accept();
    };
    callbacks.error = [this](const WorkerError& error) {
        m_busy = false;
        m_start->setEnabled(true);
        showProblem(error.text());
    };
    m_client.request(QStringLiteral("run_create"), args(), this, callbacks);
}

}  // namespace resect::ui
