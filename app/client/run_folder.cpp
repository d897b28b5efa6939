#include "app/client/run_folder.h"

#include "core/base/numbers.h"
#include "widgets/plots/theme.h"

#include <QDateTime>
#include <QDir>
#include <QFile>
#include <QFileInfo>
#include <QProcess>
#include <QSaveFile>
#include <QSysInfo>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>

namespace resect::ui {
namespace {

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

constexpr const char* kLauncherLog = "launcher.txt";

bool hasEnded(const std::string& state) { return state == "done" || state == "failed" || state == "stopped"; }

QByteArray readWhole(const QString& path, qint64 limit) {
    QFile file(path);
    return file.open(QIODevice::ReadOnly) ? file.read(limit) : QByteArray();
}

std::optional<Json> parseQuietly(const QByteArray& text, const QString& subject) {
    try {
        return parseJson(std::string_view(text.constData(), static_cast<size_t>(text.size())), subject.toStdString());
    } catch (const std::exception&) {
        return std::nullopt;
    }
}

std::string words(const Json& json, const char* field) {
    const auto it = json.is_object() ? json.find(field) : json.end();
    return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
}

}  // namespace

RunFollower::RunFollower(const QString& folder, QObject* parent) : QObject(parent), m_folder(QDir(folder).absolutePath()) {
    if (auto job = parseQuietly(readWhole(m_folder + QStringLiteral("/job.json"), 16 << 20), QStringLiteral("job.json"))) m_job = std::move(*job);
    readStatus();
    m_lastLife = life();
}

QString RunFollower::id() const { return QFileInfo(m_folder).fileName(); }

QString RunFollower::title() const {
    std::string recipe = words(m_job, "recipe");
    if (recipe.empty()) recipe = words(m_job, "method");
    return recipe.empty() || id().contains(fromStd(recipe)) ? id() : QStringLiteral("%1 (%2)").arg(id(), fromStd(recipe));
}

QString RunFollower::controlFolder() const { return fromStd(words(m_job, "control")); }

void RunFollower::readStatus() {
    const QByteArray text = readWhole(m_folder + QStringLiteral("/status.json"), 1 << 20);
    if (text.isEmpty() || text == m_statusText) return;
    const auto json = parseQuietly(text, QStringLiteral("status.json"));
    if (!json) return;  // replaced atomically by the run; on a network file system the old one may still be half here
    protocol::RunStatus status;
    try {
        status = json->get<protocol::RunStatus>();
    } catch (const std::exception&) {
        return;
    }
    m_statusText = text;
    const bool first = !m_hasStatus, beat = status.heartbeat != m_status.heartbeat;
    m_hasStatus = true;
    if (first || beat) {
        // Clocks of other machines may be off, so that afterwards only the change of the heartbeat counts.
        const auto written = QDateTime::fromString(fromStd(status.heartbeat), Qt::ISODate);
        m_heartbeatAgeAtFirst = first && written.isValid() ? std::max<qint64>(0, written.msecsTo(QDateTime::currentDateTimeUtc())) : 0;
        m_sinceHeartbeat.start();
    }
    if (!m_requested.isEmpty()) {
        const bool followed = (m_requested == QLatin1String("pause") && (status.state == "pausing" || status.state == "paused"))
                              || (m_requested == QLatin1String("resume") && status.state == "running")
                              || (m_requested == QLatin1String("stop") && status.state == "stopping") || hasEnded(status.state);
        if (followed) m_requested.clear();
    }
    m_status = std::move(status);
    Q_EMIT statusChanged();
}

RunFollower::Life RunFollower::life() const {
    if (!m_hasStatus) return Life::Waiting;
    if (hasEnded(m_status.state)) return Life::Ended;
    if (m_sinceHeartbeat.elapsed() + m_heartbeatAgeAtFirst <= kSilentMs) return Life::Live;
    const bool here = fromStd(m_status.host) == QSysInfo::machineHostName();
    if (here && m_status.pid > 0 && ::kill(static_cast<pid_t>(m_status.pid), 0) != 0 && errno == ESRCH) return Life::Lost;
    return Life::Silent;
}

bool RunFollower::wasLaunched() const { return QFileInfo::exists(m_folder + QLatin1Char('/') + QLatin1String(kLauncherLog)); }

bool RunFollower::isActive() const {
    const Life now = life();
    return now == Life::Live || now == Life::Silent || (now == Life::Waiting && wasLaunched());
}

bool RunFollower::canResume() const {
    if (m_hasStatus && m_status.state == "done") return false;
    const Life now = life();
    return (now == Life::Ended || now == Life::Lost) && QFileInfo::exists(m_folder + QStringLiteral("/checkpoints/last"));
}

QString RunFollower::stateWords() const {
    switch (life()) {
    case Life::Waiting: return wasLaunched() ? tr("starting") : tr("not started");
    case Life::Silent: return tr("not answering for %1").arg(fromStd(formatDuration(static_cast<double>((m_sinceHeartbeat.elapsed() + m_heartbeatAgeAtFirst) / 1000))));
    case Life::Lost: return tr("lost at step %L1").arg(m_status.step);
    default: break;
    }
    if (m_requested == QLatin1String("pause")) return tr("pausing after this step");
    if (m_requested == QLatin1String("stop")) return tr("stopping after this step");
    if (m_requested == QLatin1String("resume")) return tr("continuing");
    if (m_status.state == "stopped") return tr("stopped and kept");
    return fromStd(m_status.state);
}

double RunFollower::fraction() const {
    return m_status.totalSteps > 0 ? std::clamp(static_cast<double>(m_status.step) / static_cast<double>(m_status.totalSteps), 0.0, 1.0) : -1;
}

void RunFollower::wantRows() {
    if (m_wantRows) return;
    m_wantRows = true;
    readRows();
}

void RunFollower::poll() {
    if (m_job.is_null())
        if (auto job = parseQuietly(readWhole(m_folder + QStringLiteral("/job.json"), 16 << 20), QStringLiteral("job.json"))) m_job = std::move(*job);
    readStatus();
    if (m_wantRows && !m_moreRows) readRows();
    if (const Life now = life(); now != m_lastLife || now == Life::Silent) {
        m_lastLife = now;
        Q_EMIT lifeChanged();
    }
}

void RunFollower::resetRows() {
    m_offset = 0;
    m_lastLine.clear();
    m_rows.clear();
    m_unreadable = 0;
}

void RunFollower::readRows() {
    m_moreRows = false;
    QFile file(m_folder + QStringLiteral("/metrics.jsonl"));
    if (!file.open(QIODevice::ReadOnly)) {
        if (m_offset > 0) {
            resetRows();
            Q_EMIT rowsAppended(0);
        }
        return;
    }
    bool rewritten = file.size() < m_offset;
    if (!rewritten && !m_lastLine.isEmpty()) {
        file.seek(m_offset - m_lastLine.size());
        rewritten = file.read(m_lastLine.size()) != m_lastLine;
    }
    if (rewritten) resetRows();
    file.seek(m_offset);
    const QByteArray piece = file.read(kPiece);
    const int first = static_cast<int>(m_rows.size());
    qsizetype begin = 0;
    for (qsizetype end; (end = piece.indexOf('\n', begin)) >= 0; begin = end + 1) {
        const QByteArray line = piece.mid(begin, end - begin + 1);
        m_lastLine = line;
        m_offset += line.size();
        if (line.trimmed().isEmpty()) continue;
        try {
            const auto json = parseQuietly(line, QStringLiteral("metrics.jsonl"));
            if (!json || !json->is_object()) ++m_unreadable;
            else m_rows.push_back(json->get<protocol::MetricsRow>());
        } catch (const std::exception&) {
            ++m_unreadable;
        }
    }
    if (rewritten) Q_EMIT rowsAppended(0);
    else if (static_cast<int>(m_rows.size()) > first) Q_EMIT rowsAppended(first);
    // What is left of the piece is a torn last line, unless the file goes on.
    if (piece.size() == kPiece && begin > 0) {
        m_moreRows = true;
        QTimer::singleShot(0, this, &RunFollower::readRows);
    }
}

bool RunFollower::control(const QString& word, QString* problem) {
    QSaveFile file(m_folder + QStringLiteral("/control"));
    file.setDirectWriteFallback(true);
    if (!file.open(QIODevice::WriteOnly) || file.write(word.toUtf8() + '\n') < 0 || !file.commit()) {
        if (problem) *problem = tr("%1 could not be written: %2").arg(file.fileName(), file.errorString());
        return false;
    }
    m_requested = word;
    Q_EMIT statusChanged();
    return true;
}

QString RunFollower::logTail(int lines) const {
    for (const char* name : {"log.txt", "launcher.txt"}) {
        QFile file(m_folder + QLatin1Char('/') + QLatin1String(name));
        if (!file.open(QIODevice::ReadOnly) || file.size() == 0) continue;
        file.seek(std::max<qint64>(0, file.size() - 64 * 1024));
        QStringList text = QString::fromUtf8(file.readAll()).split(QLatin1Char('\n'), Qt::SkipEmptyParts);
        return text.mid(std::max<qsizetype>(0, text.size() - lines)).join(QLatin1Char('\n'));
    }
    return {};
}

RunList::RunList(QObject* parent) : QAbstractTableModel(parent) {
    m_timer.setInterval(1000);
    connect(&m_timer, &QTimer::timeout, this, &RunList::refresh);
    connect(&m_watcher, &QFileSystemWatcher::directoryChanged, this, &RunList::refresh);
}

void RunList::setFolder(const QString& folder) {
    beginResetModel();
    m_runs.clear();
    m_shown.clear();
    m_extra.clear();
    endResetModel();
    if (!m_watcher.directories().isEmpty()) m_watcher.removePaths(m_watcher.directories());
    m_folder = folder;
    m_timer.stop();
    if (folder.isEmpty()) return;
    m_timer.start();
    refresh();
}

void RunList::addFolder(const QString& runFolder) {
    const QString path = QDir(runFolder).absolutePath();
    if (!findRun(path)) insert(path);
}

void RunList::insert(const QString& runFolder) {
    auto run = std::make_unique<RunFollower>(runFolder);
    RunFollower* follower = run.get();
    const auto changed = [this, follower] {
        const int row = rowOf(follower);
        if (row >= 0) Q_EMIT dataChanged(index(row, 0), index(row, ColumnCount - 1));
        for (int other = 0; other < size(); ++other)  // whose recovery is told by this one
            if (this->run(other)->controlFolder() == follower->folder()) Q_EMIT dataChanged(index(other, Recovery), index(other, Recovery));
        Q_EMIT runChanged(follower);
    };
    connect(follower, &RunFollower::statusChanged, this, changed);
    connect(follower, &RunFollower::lifeChanged, this, changed);
    // Folder names start with the date, so that names sort by age.
    const auto place = std::find_if(m_runs.begin(), m_runs.end(), [&](const auto& other) { return other->id() < follower->id(); });
    const int row = static_cast<int>(place - m_runs.begin());
    beginInsertRows({}, row, row);
    m_runs.insert(place, std::move(run));
    endInsertRows();
    m_watcher.addPath(follower->folder());
    Q_EMIT runAdded(follower);
}

void RunList::refresh() {
    const QDir folder(m_folder);
    if (!m_folder.isEmpty() && folder.exists()) {
        if (!m_watcher.directories().contains(m_folder)) m_watcher.addPath(m_folder);
        for (const QFileInfo& entry : folder.entryInfoList(QDir::Dirs | QDir::NoDotAndDotDot))
            if (QFileInfo::exists(entry.filePath() + QStringLiteral("/job.json"))) addFolder(entry.filePath());
    }
    for (const auto& run : m_runs) run->poll();
    const size_t active = activeRuns().size();
    if (active != std::exchange(m_lastActive, active)) Q_EMIT activeChanged();
}

RunFollower* RunList::findRun(const QString& folder) const {
    const QString path = QDir(folder).absolutePath();
    for (const auto& run : m_runs)
        if (run->folder() == path) return run.get();
    return nullptr;
}

std::vector<RunFollower*> RunList::activeRuns() const {
    std::vector<RunFollower*> active;
    for (const auto& run : m_runs)
        if (run->isActive()) active.push_back(run.get());
    return active;
}

int RunList::rowOf(const RunFollower* run) const {
    for (int row = 0; row < size(); ++row)
        if (m_runs[static_cast<size_t>(row)].get() == run) return row;
    return -1;
}

int RunList::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : size(); }
int RunList::columnCount(const QModelIndex&) const { return ColumnCount; }

Qt::ItemFlags RunList::flags(const QModelIndex& index) const {
    Qt::ItemFlags flags = QAbstractTableModel::flags(index);
    if (index.isValid() && index.column() == Name) flags |= Qt::ItemIsUserCheckable;
    return flags;
}

double RunList::recovered(const RunFollower& run) const {
    const protocol::RunStatus& status = run.status();
    if (run.controlFolder().isEmpty()) return status.cutPerplexity > 0 ? status.recovery : std::numeric_limits<double>::quiet_NaN();
    const RunFollower* control = findRun(run.controlFolder());
    return control ? protocol::likeForLikeRecovery(status, control->status()) : std::numeric_limits<double>::quiet_NaN();
}

bool RunList::setData(const QModelIndex& index, const QVariant& value, int role) {
    if (role != Qt::CheckStateRole || index.column() != Name || !run(index.row())) return false;
    setShown(run(index.row())->folder(), static_cast<Qt::CheckState>(value.toInt()) == Qt::Checked);
    return true;
}

void RunList::setShown(const QString& folder, bool shown) {
    RunFollower* follower = findRun(folder);
    if (!follower || m_shown.contains(follower->folder()) == shown) return;
    if (shown) m_shown << follower->folder();
    else m_shown.removeAll(follower->folder());
    if (shown) follower->wantRows();
    const int row = rowOf(follower);
    Q_EMIT dataChanged(index(row, Name), index(row, Name));
    Q_EMIT shownChanged(follower, shown);
}

void RunList::setColour(const QString& folder, int colour) {
    m_colours[folder] = colour;
    if (const RunFollower* run = findRun(folder)) Q_EMIT dataChanged(index(rowOf(run), Name), index(rowOf(run), Name));
}

QVariant RunList::data(const QModelIndex& index, int role) const {
    const RunFollower* run = index.isValid() ? this->run(index.row()) : nullptr;
    if (!run) return {};
    const protocol::RunStatus& status = run->status();
    const auto number = [](double value, int digits) { return std::isfinite(value) && value > 0 ? fromStd(toText(value, digits)) : QString(); };
    switch (role) {
    case FolderRole: return run->folder();
    case FractionRole: return run->fraction();
    case LifeRole: return static_cast<int>(run->life());
    case Qt::DecorationRole: {
        const int colour = index.column() == Name ? m_colours.value(run->folder(), -1) : -1;
        return colour >= 0 ? QVariant(currentTheme().seriesColour(colour)) : QVariant();
    }
    case Qt::CheckStateRole: return index.column() == Name ? QVariant(m_shown.contains(run->folder()) ? Qt::Checked : Qt::Unchecked) : QVariant();
    case Qt::TextAlignmentRole: return (index.column() == Recovery || index.column() > Progress) && index.column() < Started ? QVariant(Qt::AlignRight | Qt::AlignVCenter) : QVariant(Qt::AlignLeft | Qt::AlignVCenter);
    case Qt::ToolTipRole: return status.message.empty() ? run->folder() : fromStd(status.message) + QLatin1Char('\n') + run->folder();
    case SortRole:
        switch (index.column()) {
        case Progress: return run->fraction();
        case Loss: return status.loss;
        case Perplexity: return status.unit == "images" ? status.evalAccuracy : status.evalPerplexity;
        case Recovery: return recovered(*run);
        case Speed: return status.tokensPerSecond;
        case Eta: return status.etaSeconds;
        case Memory: return static_cast<qlonglong>(status.peakMemoryBytes);
        case Started: return fromStd(status.started);
        default: return data(index, Qt::DisplayRole);
        }
    case Qt::DisplayRole: break;
    default: return {};
    }
    switch (index.column()) {
    case Name: return run->title();
    case State: return run->stateWords();
    case Progress: return status.totalSteps > 0 ? tr("step %L1 of %L2").arg(status.step).arg(status.totalSteps) : QString();
    case Loss: return number(status.loss, 4);
    case Perplexity: return status.unit != "images" ? number(status.evalPerplexity, 4) : std::isfinite(status.evalAccuracy) ? tr("%1 %").arg(100 * status.evalAccuracy, 0, 'f', 1) : QString();
    case Recovery: {
        const double share = recovered(*run);
        if (!std::isfinite(share)) return {};
        return (!run->controlFolder().isEmpty() ? tr("%1 %") : status.unit == "images" ? tr("%1 % incl. data") : tr("%1 % incl. text")).arg(100 * share, 0, 'f', 0);
    }
    case Speed: return status.tokensPerSecond > 0 ? QStringLiteral("%1/s").arg(fromStd(formatCount(std::round(status.tokensPerSecond)))) : QString();
    case Eta: return status.etaSeconds > 0 && run->life() == RunFollower::Life::Live ? fromStd(formatDuration(status.etaSeconds)) : QString();
    case Memory: return status.peakMemoryBytes > 0 ? fromStd(formatBytes(static_cast<std::uint64_t>(status.peakMemoryBytes))) : QString();
    case Started: {
        const auto started = QDateTime::fromString(fromStd(status.started), Qt::ISODate);
        return started.isValid() ? started.toLocalTime().toString(QStringLiteral("yyyy-MM-dd HH:mm")) : QString();
    }
    default: return {};
    }
}

QVariant RunList::headerData(int section, Qt::Orientation orientation, int role) const {
    if (orientation != Qt::Horizontal) return {};
    if (role == Qt::ToolTipRole) {
        switch (section) {
        case Name: return tr("Tick a run to draw its curves");
        case Perplexity: return tr("On the evaluation rows, at the last evaluation; of images the share whose likeliest label is right");
        case Recovery: return tr("Share of the lost loss that is back. With a control: of the gap between the cut and the uncut model, both trained the same way.\n"
                                 "\"Incl. text\": compared with the untrained uncut model, so that what any model learns from the text is included, which may pass 100 %.");
        case Speed: return tr("Tokens, or images, trained on per second");
        default: return {};
        }
    }
    if (role != Qt::DisplayRole) return {};
    const auto isImages = [](const auto& run) { return run->status().unit == "images"; };
    if ((section == Perplexity || section == Speed) && !m_runs.empty() && std::ranges::all_of(m_runs, isImages)) return section == Perplexity ? tr("Accuracy") : tr("Images");
    static const char* const titles[ColumnCount] = {"Run", "State", "Recovered", "Progress", "Perplexity", "Loss", "Tokens", "Left", "Peak memory", "Started"};
    return tr(titles[section]);
}

bool startDetachedRun(const QString& program, const QStringList& arguments, const QString& runFolder, QString* problem) {
    QProcess process;
    process.setProgram(program);
    process.setArguments(arguments);
    process.setWorkingDirectory(runFolder);
    process.setStandardInputFile(QProcess::nullDevice());
    process.setStandardOutputFile(runFolder + QLatin1Char('/') + QLatin1String(kLauncherLog), QIODevice::Append);
    process.setStandardErrorFile(runFolder + QLatin1Char('/') + QLatin1String(kLauncherLog), QIODevice::Append);
    qint64 pid = 0;
    // A session of its own (Qt calls setsid), so that closing the window or its terminal does not end the run.
    if (process.startDetached(&pid)) return true;
    if (problem) *problem = RunFollower::tr("%1 could not be started: %2").arg(program, process.errorString());
    return false;
}

}  // namespace resect::ui
