#include "app/window/session.h"

#include "core/base/error.h"
#include "core/base/numbers.h"

#include <QDir>
#include <QFileInfo>
#include <QSettings>

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

/// Numbers of a nested or flat JSON array in row-major order; null = NaN.
void flatten(const Json& json, std::vector<double>& out) {
    if (json.is_array()) {
        for (const auto& entry : json) flatten(entry, out);
    } else {
        out.push_back(json.is_number() ? json.get<double>() : std::numeric_limits<double>::quiet_NaN());
    }
}

}  // namespace

QString lastDataKey(const protocol::ModelMessage& model) { return model.input == "images" ? QStringLiteral("lastImages") : QStringLiteral("lastData"); }

bool suits(const protocol::MethodMessage& method, const protocol::ModelMessage& model) {
    return method.families.empty() || std::find(method.families.begin(), method.families.end(), model.family) != method.families.end();
}

Session::Session(Document& document, WorkerClient& client, RunList& runs, QObject* parent) : QObject(parent), m_document(document), m_client(client), m_runs(runs) {
    m_autosave.setSingleShot(true);
    m_autosave.setInterval(2000);
    connect(&m_autosave, &QTimer::timeout, this, [this] { save(); });
    m_previewTimer.setSingleShot(true);
    m_previewTimer.setInterval(700);
    connect(&m_previewTimer, &QTimer::timeout, this, &Session::startPreview);
    connect(&document, &Document::planChanged, this, [this] {
        markDirty();
        cancelPreview();
        askCheck();
    });
    connect(&document, &Document::dataChanged, this, [this] {
        markDirty();
        cancelPreview();
        m_document.clearPreview();
        if (m_autoPreview && !m_loading) m_previewTimer.start();
    });
    connect(&document, &Document::measuresChanged, this, &Session::askScores);
    connect(&client, &WorkerClient::reopened, this, [this](const protocol::ModelMessage& model) {
        if (!m_document.model() || model.fingerprint != m_document.model()->fingerprint)
            say("warning", fromStd(model.name), tr("The checkpoint on disk has changed since it was opened."), tr("Open it again to work on the new one."));
        askCheck();
        askMethods();
    });
}

void Session::say(const char* severity, const QString& subject, const QString& text, const QString& advice) {
    Q_EMIT message({severity, subject.toStdString(), text.toStdString(), advice.toStdString()});
}

void Session::markDirty() {
    if (m_loading || !m_document.model()) return;
    m_dirty = true;
    m_autosave.start();
}

void Session::open(const QString& given) {
    QString path = QFileInfo(given).absoluteFilePath();
    if (!isWorkspace(path)) return openModel(path, QString());
    if (!QFileInfo(path).isDir()) path = QFileInfo(path).path();
    try {
        const WorkspaceState state = loadWorkspace(path);
        const QString source = fromStd(state.checkpoint);
        if (!QFileInfo::exists(source)) {
            const QString reason = tr("The workspace's checkpoint %1 is not there any more. Put it back, or open the checkpoint from where it is now.").arg(source);
            Q_EMIT openFailed(path, reason);
            return say("error", path, reason);
        }
        openModel(source, path);
    } catch (const Error& error) {
        Q_EMIT openFailed(path, QString::fromUtf8(error.what()));
        say("error", path, fromStd(error.message()));
    }
}

void Session::openDemo() {
    const QString checkpoint = demoCheckpoint();
    if (checkpoint.isEmpty()) {
        Q_EMIT openFailed(tr("demo"), tr("The demo checkpoint is not installed beside this program. Open a checkpoint of your own instead."));
        return;
    }
    open(checkpoint);
}

void Session::openModel(const QString& path, const QString& workspace) {
    if (m_dirty) save();
    m_opening = path;
    Q_EMIT openingChanged();
    WorkerCallbacks callbacks;
    callbacks.result = [this, workspace](const Json& result) {
        m_opening.clear();
        Q_EMIT openingChanged();
        adoptModel(result.get<protocol::ModelMessage>(), workspace);
    };
    callbacks.error = [this, path](const WorkerError& error) {
        m_opening.clear();
        Q_EMIT openingChanged();
        Q_EMIT openFailed(path, error.text());
        say("error", path, error.message);
        // The worker has closed what was open before.
        if (m_document.model()) m_client.setReopen(fromStd(m_document.model()->path));
    };
    m_client.request(QStringLiteral("open"), Json{{"path", path.toStdString()}}, this, callbacks);
}

void Session::adoptModel(protocol::ModelMessage model, const QString& workspace) {
    cancelPreview();
    m_loading = true;
    const QString home = workspace.isEmpty() ? homeWorkspace(model) : workspace;
    m_client.setReopen(fromStd(model.path));
    addRecent({workspace.isEmpty() ? fromStd(model.path) : workspace, fromStd(model.name), model.bytes, QDateTime::currentDateTime()});
    m_scores.clear();
    m_selections.clear();
    m_forms = Json::object();
    m_document.setModel(std::move(model));
    m_document.setWorkspace(home);
    m_runs.setFolder(home + QStringLiteral("/runs"));
    adoptWorkspace(home, *m_document.model());
    m_loading = false;
    m_dirty = false;
    for (const auto& problem : m_document.model()->problems) Q_EMIT message(problem);
    Q_EMIT opened();
    Q_EMIT scoresChanged();
    askMethods();
    askMeasures();
    askCheck();
}

void Session::adoptWorkspace(const QString& folder, const protocol::ModelMessage& model) {
    QSettings settings;
    protocol::DataMessage data;
    ComputeSettings compute{settings.value("device", "auto").toString().toStdString(), settings.value("dtype", "f32").toString().toStdString()};
    const bool demo = fromStd(model.path) == demoCheckpoint();
    data.file = (demo ? demoText() : settings.value(lastDataKey(model)).toString()).toStdString();
    if (!data.file.empty() && !QFileInfo::exists(fromStd(data.file))) data.file.clear();
    if (model.input == "images") data.maxRows = kCalibrationImages;
    else if (model.maxPositions > 0) data.rowLength = static_cast<int>(std::min<qint64>(data.rowLength, model.maxPositions));
    if (isWorkspace(folder)) {
        try {
            WorkspaceState state = loadWorkspace(folder);
            const std::string usual = data.file;
            data = state.data;
            if (data.file.empty() || !QFileInfo::exists(fromStd(data.file))) data.file = usual;
            compute = state.compute;
            m_selections = std::move(state.selections);
            m_forms = std::move(state.forms);
            if (!state.plan.empty() && !state.planFingerprint.empty() && state.planFingerprint != model.fingerprint)
                say("warning", folder, tr("The saved plan was made for another version of this checkpoint."), tr("It is shown, but check each edit."));
            m_document.loadPlan(std::move(state.plan));
            if (restoreWindow) restoreWindow(state.window);
        } catch (const std::exception& error) {
            say("error", folder, tr("The saved workspace could not be read and is left as it is: %1").arg(QString::fromUtf8(error.what())));
            m_document.setWorkspace(folder + QStringLiteral("-new"));
        }
    }
    m_document.setCompute(compute);
    m_document.setData(data);
}

void Session::close() {
    if (m_dirty) save();
    cancelPreview();
    m_client.setReopen(QString());
    if (m_client.state() == WorkerClient::State::Ready) m_client.request(QStringLiteral("close"), Json::object(), this, {});
    m_loading = true;
    m_runs.setFolder(QString());
    m_scores.clear();
    m_document.closeModel();
    m_loading = false;
    m_dirty = false;
}

bool Session::save() {
    m_autosave.stop();
    const auto* model = m_document.model();
    if (!model) return true;
    WorkspaceState state;
    state.checkpoint = model->path;
    state.fingerprint = model->fingerprint;
    state.plan = m_document.plan();
    state.selections = m_selections;
    state.data = m_document.data();
    state.compute = m_document.compute();
    state.forms = m_forms;
    if (captureWindow) state.window = captureWindow();
    if (const QString problem = saveWorkspace(m_document.workspace(), state); !problem.isEmpty()) {
        say("error", m_document.workspace(), problem, tr("Save the workspace to another place (File > Save workspace as)."));
        return false;
    }
    m_dirty = false;
    m_document.undoStack().setClean();
    Q_EMIT saved(QDateTime::currentDateTime());
    return true;
}

bool Session::saveAs(const QString& given) {
    if (!m_document.model()) return false;
    QString folder = given.endsWith(QLatin1String(".resect")) ? given : given + QStringLiteral(".resect");
    folder = QFileInfo(folder).absoluteFilePath();
    if (folder != m_document.workspace()) {
        if (const QString problem = copyWorkspace(m_document.workspace(), folder); !problem.isEmpty()) {
            say("error", folder, problem);
            return false;
        }
        const QString oldRuns = m_document.workspace() + QStringLiteral("/runs");
        m_document.setWorkspace(folder);
        m_runs.setFolder(folder + QStringLiteral("/runs"));
        for (const QFileInfo& run : QDir(oldRuns).entryInfoList(QDir::Dirs | QDir::NoDotAndDotDot)) m_runs.addFolder(run.filePath());
        askMeasures();
    }
    addRecent({folder, fromStd(m_document.model()->name), m_document.model()->bytes, QDateTime::currentDateTime()});
    return save();
}

bool Session::hasOwnPlace() const { return m_document.model() && m_document.workspace() != homeWorkspace(*m_document.model()); }

void Session::askMethods() {
    WorkerCallbacks callbacks;
    callbacks.result = [this](const Json& result) {
        const auto list = [&](const char* field) {
            return result.contains(field) ? result.at(field).get<std::vector<protocol::MethodMessage>>() : std::vector<protocol::MethodMessage>();
        };
        m_document.setMethods(list("methods"), list("recipes"));
        if (!result.contains("plugins")) return;
        for (const auto& plugin : result.at("plugins"))
            if (const std::string error = plugin.contains("error") && plugin.at("error").is_string() ? plugin.at("error").get<std::string>() : ""; !error.empty())
                say("warning", fromStd(plugin.value("file", "plugin")), tr("This plugin could not be loaded: %1").arg(fromStd(error)));
    };
    callbacks.error = [this](const WorkerError& error) { say("error", tr("methods"), error.text()); };
    m_client.request(QStringLiteral("methods"), Json::object(), this, callbacks);
}

void Session::askMeasures() {
    WorkerCallbacks callbacks;
    callbacks.result = [this, path = m_document.workspace()](const Json& result) {
        if (path == m_document.workspace()) m_document.setMeasures(result.at("measures").get<std::vector<protocol::MeasureMessage>>());
    };
    callbacks.error = [this](const WorkerError& error) { say("warning", tr("measurements"), error.text()); };
    m_client.request(QStringLiteral("measures"), Json{{"workspace", m_document.workspace().toStdString()}}, this, callbacks);
}

void Session::askCheck() {
    const auto* model = m_document.model();
    if (!model || !model->understood) return;
    WorkerCallbacks callbacks;
    callbacks.result = [this, revision = m_document.planRevision()](const Json& result) {
        m_document.setCheck(result.get<protocol::PlanCheckMessage>(), revision);
        const bool current = revision == m_document.planRevision() && m_document.check();
        if (current && m_autoPreview && m_document.check()->legal && !m_document.planIsEmpty() && !m_document.preview() && m_previewId == 0) m_previewTimer.start();
    };
    callbacks.error = [this](const WorkerError& error) {
        if (error.code != QLatin1String("WorkerDied")) say("error", tr("plan"), error.text());
    };
    m_client.requestView(QStringLiteral("plan_check"), QStringLiteral("plan_check"), Json{{"plan", m_document.planJson()}}, this, callbacks);
}

Json Session::jobArgs() const {
    return Json{{"data", m_document.data()}, {"device", m_document.compute().device}, {"dtype", m_document.compute().dtype}, {"workspace", m_document.workspace().toStdString()}};
}

void Session::setAutoPreview(bool on) {
    m_autoPreview = on;
    if (!on) m_previewTimer.stop();
}

void Session::startPreview() {
    m_previewTimer.stop();
    const auto* check = m_document.check();
    if (!m_document.model() || !check || !check->legal || m_document.planIsEmpty()) return;
    if (m_document.data().file.empty()) {
        Q_EMIT previewStateChanged(tr("Choose a calibration text to preview with."), -1);
        return;
    }
    cancelPreview();
    const int revision = m_document.planRevision();
    const int turn = ++m_previewTurn;   // replies of a cancelled preview come late
    WorkerCallbacks callbacks;
    callbacks.progress = [this, revision, turn](const WorkerProgress& progress, const Json& partial) {
        if (turn != m_previewTurn) return;
        if (partial.is_object() && revision == m_document.planRevision()) m_document.setPreview(partial.get<protocol::PreviewMessage>(), revision);
        const QString words = progress.total > 0 && (progress.unit == QLatin1String("rows") || progress.unit == QLatin1String("images"))
                                  ? tr("Previewing: %L1 of %L2 %3").arg(static_cast<qint64>(progress.done)).arg(static_cast<qint64>(progress.total)).arg(progress.unit)
                                  : tr("Previewing: %1").arg(progress.stage.isEmpty() ? tr("starting") : progress.stage);
        Q_EMIT previewStateChanged(words, std::max(0.0, progress.fraction()));
    };
    callbacks.result = [this, revision, turn](const Json& result) {
        if (turn != m_previewTurn) return;
        m_previewId = 0;
        const auto preview = result.get<protocol::PreviewMessage>();
        const qint64 done = preview.rowsDone, total = preview.rowsTotal;
        m_document.setPreview(preview, revision);
        const QString unit = preview.unit == "images" ? tr("images") : tr("rows");
        Q_EMIT previewStateChanged(done < total ? tr("Previewed %L1 of %L2 %3").arg(done).arg(total).arg(unit) : tr("Previewed on %L1 %2").arg(done).arg(unit), -1);
    };
    callbacks.error = [this, turn](const WorkerError& error) {
        if (turn != m_previewTurn) return;
        m_previewId = 0;
        Q_EMIT previewStateChanged(error.stopped() ? tr("Preview stopped") : tr("Preview failed: %1").arg(error.text()), -1);
        if (!error.stopped() && error.code != QLatin1String("WorkerDied")) say("error", tr("preview"), error.text());
    };
    Json args = jobArgs();
    args["plan"] = m_document.planJson();
    args["maxRows"] = m_document.data().maxRows;
    Q_EMIT previewStateChanged(tr("Previewing: starting"), 0);
    m_previewId = m_client.startJob(QStringLiteral("preview"), args, tr("Preview of the plan"), this, callbacks);
}

void Session::cancelPreview() {
    m_previewTimer.stop();
    if (m_previewId == 0) return;
    ++m_previewTurn;
    m_client.cancel(std::exchange(m_previewId, 0));
    Q_EMIT previewStateChanged(QString(), -1);
}

void Session::measure(const protocol::MethodMessage& method, const Json& set) {
    Json args = jobArgs();
    args["method"] = method.id;
    args["set"] = set;
    args["stream"] = false;
    WorkerCallbacks callbacks;
    const QString title = fromStd(method.title);
    callbacks.result = [this, title](const Json& result) {
        auto measure = result.get<protocol::MeasureMessage>();
        for (const auto& note : measure.notes) Q_EMIT message(note);
        if (measure.samplesDone < measure.samplesTotal)
            say("note", title, tr("Stopped early. Scores from %L1 of %L2 samples are kept and marked as partial.").arg(measure.samplesDone).arg(measure.samplesTotal));
        m_document.addMeasure(std::move(measure));
    };
    callbacks.error = [this, title](const WorkerError& error) {
        if (error.stopped()) say("note", title, tr("Stopped before anything was finished."));
        else say("error", title, error.text());
    };
    m_client.startJob(QStringLiteral("measure"), args, tr("Measuring: %1").arg(title), this, callbacks);
}

void Session::suggest(const protocol::MethodMessage& method, const Json& set, const QString& file) {
    WorkerCallbacks callbacks;
    const QString title = fromStd(method.title);
    callbacks.result = [this, title](const Json& result) {
        const Json& plan = result.at("plan");
        const Json& edits = plan.is_object() && plan.contains("edits") ? plan.at("edits") : plan;
        std::vector<Json> list(edits.begin(), edits.end());
        if (list.empty()) return say("note", title, tr("With these settings there is nothing to drop."));
        const std::string words = result.contains("title") && result.at("title").is_string() ? result.at("title").get<std::string>() : std::string();
        m_document.addEdits(list, words.empty() ? tr("Suggestion of %1").arg(title) : fromStd(words), title);
    };
    callbacks.error = [this, title](const WorkerError& error) { say("error", title, error.text()); };
    m_client.request(QStringLiteral("plan_suggest"), Json{{"method", method.id}, {"set", set}, {"file", file.toStdString()}}, this, callbacks);
}

void Session::askScores() {
    // The newest dataset per kind that says what is important. Channels stay with their own page: there may be a million of them.
    std::map<PartKind, std::pair<const protocol::MeasureMessage*, const protocol::DatasetMessage*>> newest;
    for (const auto& measure : m_document.measures()) {
        for (const auto& dataset : measure.datasets) {
            if (dataset.higher == "neutral" || dataset.axes.empty() || dataset.axes.size() > 2) continue;
            const auto kind = partKind(dataset.axes.back().component);
            if (!kind || *kind == PartKind::Channel || (dataset.axes.size() == 2 && dataset.axes.front().component != "block")) continue;
            qint64 cells = 1;
            for (const qint64 n : dataset.shape) cells *= n;
            if (cells <= 4'000'000) newest.try_emplace(*kind, &measure, &dataset);
        }
    }
    for (const auto& [kind, source] : newest) {
        const auto& [measure, dataset] = source;
        Json first = Json::array(), count = Json::array();
        for (const qint64 n : dataset->shape) first.push_back(0), count.push_back(n);
        WorkerCallbacks callbacks;
        callbacks.result = [this, kind = kind, dataset = *dataset](const Json& result) {
            std::vector<double> values;
            flatten(result.at("values"), values);
            PartScores scores;
            scores.title = fromStd(dataset.title);
            scores.help = fromStd(dataset.help);
            scores.higherKeeps = dataset.higher != "removable";
            const qint64 columns = dataset.shape.empty() ? 1 : dataset.shape.back();
            for (size_t i = 0; i < values.size(); ++i) {
                const auto n = static_cast<qint64>(i);
                const auto ref = dataset.shape.size() == 1 ? cellRef(dataset, {n}) : cellRef(dataset, {n / columns, n % columns});
                if (ref && std::isfinite(values[i])) scores.values.insert(*ref, values[i]);
            }
            m_scores[kind] = std::move(scores);
            Q_EMIT scoresChanged();
        };
        callbacks.error = [this](const WorkerError& error) {
            if (error.code != QLatin1String("WorkerDied")) say("warning", tr("scores"), error.text());
        };
        const Json args{{"file", measure->file}, {"name", dataset->name}, {"first", first}, {"count", count}};
        m_client.requestView(QStringLiteral("scores %1").arg(static_cast<int>(kind)), QStringLiteral("dataset"), args, this, callbacks);
    }
    for (auto it = m_scores.begin(); it != m_scores.end();) it = newest.contains(it->first) ? std::next(it) : m_scores.erase(it);
    if (newest.empty()) Q_EMIT scoresChanged();
}

}  // namespace resect::ui
