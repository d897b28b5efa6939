#include "core/worker/handlers_runs.h"

#include "core/base/error.h"
#include "core/protocol/messages.h"
#include "core/train/estimate.h"
#include "core/train/run.h"
#include "core/worker/describe.h"
#include "core/worker/measuring.h"
#include "core/worker/previewing.h"
#include "core/worker/server.h"
#include "core/worker/session.h"

#include <algorithm>

namespace resect {

namespace fs = std::filesystem;

namespace {

RunData runData(const Json& args, const char* field) {
    RunData data;
    if (!args.contains(field) || args[field].is_null()) return data;
    const auto message = args[field].get<protocol::DataMessage>();
    data.file = message.file;
    data.maxRows = std::max<std::int64_t>(0, message.maxRows);
    data.imageAspect = message.imageAspect;
    return data;
}

RunJob runJobOf(const OpenedCheckpoint& opened, const Json& args) {
    RunJob job;
    job.recipe = stringField(args, "recipe", "run");
    job.parameters = args.value("set", Json::object());
    job.source = fs::absolute(opened.path());
    job.sourceFingerprint = opened.checkpoint().fingerprint();
    if (args.contains("plan") && args["plan"].is_object() && !args["plan"].value("edits", Json::array()).empty()) job.plan = args["plan"];
    job.data = runData(args, "data");
    job.evalData = runData(args, "evalData");
    job.device = args.value("device", "auto");
    if (const std::string dtype = args.value("dtype", ""); !dtype.empty()) job.dtype = dtype;
    job.seed = args.value("seed", std::uint64_t{0});
    return job;
}

protocol::EstimateMessage estimate(const RunJob& job, Probe probe, const JobContext& context) {
    const RunEstimate found = estimateRun(job, probe, context);
    protocol::EstimateMessage message;
    message.memoryBytes = static_cast<std::int64_t>(found.memory());
    message.trainableParameters = found.trainableParameters;
    message.steps = found.steps;
    message.tokens = found.tokens;
    message.unit = found.images ? "images" : "tokens";
    message.seconds = found.seconds;
    message.basis = found.basis;
    message.problems = describe(found.problems);
    return message;
}

}  // namespace

void addRunCalls(Server& server, const std::shared_ptr<Session>& session) {
    const auto previewer = std::make_shared<Previewer>();
    server.addJob("preview", [session, previewer](const Json& args, const JobContext& job, const Server::Partial& partial) {
        const EditPlan plan = EditPlan::fromJson(args.at("plan"), "plan");
        return Json(previewer->preview(*session->opened(), plan, args.at("data").get<protocol::DataMessage>(), {args.value("device", "auto"), args.value("dtype", "")}, job,
                                       [&](const protocol::PreviewMessage& message) { partial(message); }));
    });
    server.addQuestion("recover_estimate", [session](const Json& args) { return Json(estimate(runJobOf(*session->opened(), args), Probe::No, {})); });
    server.addJob("recover_time", [session](const Json& args, const JobContext& job, const Server::Partial&) {
        return Json(estimate(runJobOf(*session->opened(), args), Probe::Step, job));
    });
    server.addQuestion("run_create", [session](const Json& args) {
        const auto opened = session->opened();
        RunJob job = runJobOf(*opened, args);
        fs::path folder = args.value("out", "");
        if (folder.empty()) folder = workspaceFor(args.value("workspace", ""), *opened).newRun(job.recipe);
        if (args.value("control", false)) job.control = folder.string() + "-control";
        createRun(folder, job);
        return Json{{"folder", fs::absolute(folder).string()}};
    });
}

}  // namespace resect
