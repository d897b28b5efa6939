#include "core/worker/measuring.h"

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/workspace/report_file.h"

#include <cstdlib>

namespace resect {

namespace fs = std::filesystem;

namespace {

fs::path cacheFolder() {
    if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache) return fs::path(cache) / "resect/measures.resect";
    if (const char* home = std::getenv("HOME"); home && *home) return fs::path(home) / ".cache/resect/measures.resect";
    return fs::temp_directory_path() / "resect/measures.resect";
}

}  // namespace

Workspace workspaceFor(const fs::path& folder, const OpenedCheckpoint& opened) {
    const fs::path place = folder.empty() ? cacheFolder() : folder;
    if (Workspace::isWorkspace(place)) return Workspace::open(place);
    fs::create_directories(place.parent_path().empty() ? fs::path(".") : place.parent_path());
    protocol::WorkspaceFile info;
    if (!folder.empty()) {
        info.checkpoint = fs::absolute(opened.path());
        info.fingerprint = opened.checkpoint().fingerprint();
    }
    return Workspace::create(place, info);
}

Measured measure(OpenedCheckpoint& opened, const MethodRegistry& registry, const MeasureRequest& request, const JobContext& job) {
    const Method& method = registry.method(request.method);
    const Parameters parameters(method.info().measureParameters, request.set);
    const Dataset data = opened.data(request.data, job);
    const Workspace workspace = workspaceFor(request.workspace, opened);
    RunOptions options;
    options.load = opened.loadOptions(request.compute);
    options.streamBlocks = request.streamBlocks;

    const MeasureKey key{request.method, parameters.json(), opened.checkpoint().fingerprint(), data.fingerprint, dtypeName(options.load.dtype), request.seed};
    if (const auto found = workspace.findMeasure(key)) {
        if (!request.out.empty()) writeReport(request.out, readReport(*found));
        return {request.out.empty() ? *found : request.out, true};
    }
    ModelRun run(opened.checkpoint(), data, options, options.streamBlocks ? nullptr : opened.model(request.compute, job));
    Report report = method.analyse(run, parameters, job);
    report.method = key.method;
    report.parameters = key.parameters;
    report.modelFingerprint = key.modelFingerprint;
    report.dataFingerprint = key.dataFingerprint;
    report.dataDescription = data.description;
    report.dtype = key.dtype;
    for (const Problem& problem : data.problems)
        if (data.holdsImages()) report.notes.push_back(problem);  // what was assumed and rejected belongs to the result
    report.seed = key.seed;
    report.version = versionText();
    if (report.partial() && report.samplesDone == 0)
        throw Error(ErrorCode::Stopped, request.method, "stopped before the first sample was finished; nothing to keep");
    const fs::path kept = workspace.writeMeasure(report);
    if (request.out.empty()) return {kept, false};
    writeReport(request.out, report);
    return {request.out, false};
}

}  // namespace resect
