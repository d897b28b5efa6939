#include "app/window/workspace_store.h"

#include "core/base/error.h"
#include "core/protocol/workspace_file.h"

#include <QCoreApplication>
#include <QDateTime>
#include <QDir>
#include <QDirIterator>
#include <QFile>
#include <QFileInfo>
#include <QSaveFile>
#include <QSettings>
#include <QStandardPaths>

namespace resect::ui {
namespace {

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

QString writeFile(const QString& path, const Json& json) {
    if (!QDir().mkpath(QFileInfo(path).path())) return QObject::tr("The folder %1 could not be made.").arg(QFileInfo(path).path());
    QSaveFile file(path);
    const std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
    if (!file.open(QIODevice::WriteOnly) || file.write(text.data(), static_cast<qint64>(text.size())) < 0 || !file.commit())
        return QObject::tr("%1 could not be written: %2.").arg(path, file.errorString());
    return {};
}

Json readFile(const QString& path) {
    QFile file(path);
    if (!file.open(QIODevice::ReadOnly)) throw Error(ErrorCode::NotFound, path.toStdString(), file.errorString().toStdString());
    const QByteArray text = file.readAll();
    return parseJson(std::string_view(text.constData(), static_cast<size_t>(text.size())), path.toStdString());
}

Json refToJson(const ComponentRef& ref) {
    Json json{{"kind", std::string(wireName(ref.kind))}, {"block", ref.block}};
    if (ref.expert >= 0) json["expert"] = ref.expert;
    if (ref.index >= 0) json["index"] = ref.index;
    return json;
}

std::optional<ComponentRef> refFromJson(const Json& json) {
    if (!json.is_object()) return std::nullopt;
    const auto kind = partKind(json.value("kind", ""));
    if (!kind) return std::nullopt;
    return ComponentRef{*kind, json.value("block", -1), json.value("expert", -1), json.value("index", -1)};
}

}  // namespace

QString saveWorkspace(const QString& folder, const WorkspaceState& state) {
    Json selections = Json::object();
    for (const auto& [name, refs] : state.selections) {
        Json list = Json::array();
        for (const auto& ref : refs) list.push_back(refToJson(ref));
        selections[name] = std::move(list);
    }
    protocol::WorkspaceFile file;
    file.checkpoint = state.checkpoint;
    file.fingerprint = state.fingerprint;
    file.selections = std::move(selections);
    file.layout = state.window;
    file.others = {{"plan", "plans/current.json"}, {"data", state.data}, {"compute", {{"device", state.compute.device}, {"dtype", state.compute.dtype}}}, {"forms", state.forms}};
    // The plan first: a workspace.json that names a plan then always finds one.
    if (const QString problem = writeFile(folder + QStringLiteral("/plans/current.json"), planToFile(state.plan, state.fingerprint)); !problem.isEmpty()) return problem;
    return writeFile(folder + QStringLiteral("/workspace.json"), file.toJson(folder.toStdString()));
}

WorkspaceState loadWorkspace(const QString& folder) {
    const QString path = folder + QStringLiteral("/workspace.json");
    const std::string subject = path.toStdString();
    const auto file = protocol::WorkspaceFile::fromJson(readFile(path), folder.toStdString(), subject);
    const Json& json = file.others;
    WorkspaceState state;
    state.checkpoint = file.checkpoint.string();
    state.fingerprint = file.fingerprint;
    state.window = file.layout;
    try {
        if (json.contains("data")) state.data = json.at("data").get<protocol::DataMessage>();
        if (json.contains("compute")) {
            state.compute.device = json.at("compute").value("device", state.compute.device);
            state.compute.dtype = json.at("compute").value("dtype", state.compute.dtype);
        }
        for (const auto& [name, list] : file.selections.items()) {
            RefSet refs;
            for (const auto& entry : list)
                if (const auto ref = refFromJson(entry)) refs.push_back(*ref);
            state.selections[name] = normalised(std::move(refs));
        }
    } catch (const std::exception& error) {
        throw Error(ErrorCode::BadInput, subject, error.what());
    }
    if (json.contains("forms") && json.at("forms").is_object()) state.forms = json.at("forms");
    const QString planPath = folder + QLatin1Char('/') + fromStd(stringField(json, "plan", subject, "plans/current.json"));
    if (QFileInfo::exists(planPath)) {
        const Json plan = readFile(planPath);
        state.plan = planFromFile(plan, planPath.toStdString());
        state.planFingerprint = planFingerprint(plan);
    }
    return state;
}

bool isWorkspace(const QString& path) {
    const QFileInfo info(path);
    if (info.isDir()) return QFileInfo::exists(path + QStringLiteral("/workspace.json"));
    return info.isFile() && info.fileName() == QLatin1String("workspace.json");
}

QString copyWorkspace(const QString& from, const QString& to) {
    if (!QDir().mkpath(to)) return QObject::tr("The folder %1 could not be made.").arg(to);
    QDirIterator it(from, QDir::Files, QDirIterator::Subdirectories);
    const QDir source(from);
    while (it.hasNext()) {
        const QString path = it.next(), relative = source.relativeFilePath(path), target = to + QLatin1Char('/') + relative;
        // Runs may be large and still growing: they stay where they are and are found through the old workspace.
        if (relative.startsWith(QLatin1String("runs/")) || relative.startsWith(QLatin1String("exports/")) || QFileInfo::exists(target)) continue;
        if (!QDir().mkpath(QFileInfo(target).path()) || !QFile::copy(path, target)) return QObject::tr("%1 could not be copied to %2.").arg(path, target);
    }
    return {};
}

QString homeWorkspace(const protocol::ModelMessage& model) {
    QString base = qEnvironmentVariable("RESECT_WORKSPACES");
    if (base.isEmpty()) base = QStandardPaths::writableLocation(QStandardPaths::GenericDataLocation) + QStringLiteral("/resect/workspaces");
    QString name;
    for (const QChar c : fromStd(model.name)) name += c.isLetterOrNumber() || c == u'-' || c == u'.' ? c : QChar(u'_');
    QString hash = fromStd(model.fingerprint);
    hash = hash.mid(hash.indexOf(QLatin1Char(':')) + 1).left(10);
    return QStringLiteral("%1/%2-%3.resect").arg(base, name.isEmpty() ? QStringLiteral("model") : name, hash);
}

std::vector<RecentEntry> recentEntries() {
    QSettings settings;
    std::vector<RecentEntry> entries;
    const int count = settings.beginReadArray(QStringLiteral("recent"));
    for (int i = 0; i < count; ++i) {
        settings.setArrayIndex(i);
        RecentEntry entry{settings.value("path").toString(), settings.value("name").toString(), settings.value("bytes").toLongLong(),
                          settings.value("opened").toDateTime()};
        if (QFileInfo::exists(entry.path)) entries.push_back(std::move(entry));
    }
    settings.endArray();
    return entries;
}

namespace {
void writeRecent(const std::vector<RecentEntry>& entries) {
    QSettings settings;
    settings.remove(QStringLiteral("recent"));
    settings.beginWriteArray(QStringLiteral("recent"), static_cast<int>(entries.size()));
    for (int i = 0; i < static_cast<int>(entries.size()); ++i) {
        const RecentEntry& entry = entries[static_cast<size_t>(i)];
        settings.setArrayIndex(i);
        settings.setValue("path", entry.path);
        settings.setValue("name", entry.name);
        settings.setValue("bytes", entry.bytes);
        settings.setValue("opened", entry.opened);
    }
    settings.endArray();
}
}  // namespace

void addRecent(const RecentEntry& entry) {
    constexpr size_t kMost = 12;
    auto entries = recentEntries();
    std::erase_if(entries, [&](const auto& other) { return other.path == entry.path; });
    entries.insert(entries.begin(), entry);
    if (entries.size() > kMost) entries.resize(kMost);
    writeRecent(entries);
}

void removeRecent(const QString& path) {
    auto entries = recentEntries();
    std::erase_if(entries, [&](const auto& entry) { return entry.path == path; });
    writeRecent(entries);
}

namespace {
QString demoFolder() {
    QStringList places{qEnvironmentVariable("RESECT_DEMO")};
    QDir folder(QCoreApplication::applicationDirPath());
    places << folder.filePath(QStringLiteral("../share/resect/demo"));
    for (int up = 0; up < 4; ++up) {
        places << folder.filePath(QStringLiteral("resources/demo"));
        if (!folder.cdUp()) break;
    }
    for (const QString& place : places)
        if (!place.isEmpty() && QFileInfo(place).isDir()) return QDir(place).canonicalPath();
    return {};
}
}  // namespace

QString demoCheckpoint() {
    const QString folder = demoFolder();
    if (folder.isEmpty()) return {};
    QStringList found;
    for (const QFileInfo& entry : QDir(folder).entryInfoList(QDir::Dirs | QDir::NoDotAndDotDot, QDir::Name))
        if (QFileInfo::exists(entry.filePath() + QStringLiteral("/config.json"))) found << entry.filePath();
    for (const QString& path : found)
        if (path.contains(QLatin1String("dense")) || path.contains(QLatin1String("llama"))) return path;
    return found.value(0);
}

QString demoText() {
    const QString folder = demoFolder();
    if (folder.isEmpty()) return {};
    QStringList found;
    QDirIterator it(folder, {QStringLiteral("*.txt"), QStringLiteral("*.jsonl")}, QDir::Files, QDirIterator::Subdirectories);
    while (it.hasNext()) found << it.next();
    found.sort();
    for (const char* word : {"calib", "valid", "held", "test", "eval", "sample"})
        for (const QString& path : found)
            if (QFileInfo(path).fileName().contains(QLatin1String(word))) return path;
    for (const QString& path : found)
        if (!QFileInfo(path).fileName().contains(QLatin1String("LICENSE"), Qt::CaseInsensitive) && QFileInfo(path).size() > 2000) return path;
    return {};
}

}  // namespace resect::ui
