#include "core/worker/handlers.h"

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/worker/describe.h"
#include "core/worker/export_job.h"
#include "core/worker/generation.h"
#include "core/worker/handlers_inspect.h"
#include "core/worker/handlers_runs.h"
#include "core/worker/measuring.h"
#include "core/worker/run_source.h"
#include "core/worker/server.h"
#include "core/worker/session.h"
#include "core/worker/version.h"
#include "core/workspace/report_file.h"

#include <torch/cuda.h>
#include <torch/utils.h>

#include <algorithm>

namespace resect {

namespace fs = std::filesystem;
using namespace protocol;

std::shared_ptr<OpenedCheckpoint> Session::opened() const {
    const std::lock_guard lock(m_mutex);
    if (!m_opened) throw Error(ErrorCode::NotFound, "model", "no model is open");
    return m_opened;
}

void Session::replace(std::shared_ptr<OpenedCheckpoint> opened) {
    const std::lock_guard lock(m_mutex);
    m_opened = std::move(opened);
}

namespace {

HelloMessage hello() {
    HelloMessage message;
    message.version = versionText();
    message.torchVersion = torchVersionText();
    message.threads = torch::get_num_threads();
    message.devices = {"cpu"};
    for (std::size_t i = 0; i < torch::cuda::device_count(); ++i) message.devices.push_back("cuda:" + std::to_string(i));
    return message;
}

EditPlan planOf(const Json& args) {
    return args.contains("plan") && !args["plan"].is_null() ? EditPlan::fromJson(args["plan"], "plan") : EditPlan{};
}

Compute computeOf(const Json& args) { return {args.value("device", "auto"), args.value("dtype", "")}; }

DataMessage dataOf(const Json& args) {
    if (!args.contains("data")) throw Error(ErrorCode::Usage, "data", "expected the data to run on");
    return args["data"].get<DataMessage>();
}

void addModelCalls(Server& server, const std::shared_ptr<Session>& session) {
    server.addQuestion("hello", [](const Json&) { return Json(hello()); });
    server.addQuestion("open", [session, &server](const Json& args) {
        auto opened = std::make_shared<OpenedCheckpoint>(stringField(args, "path", "open"));
        const ModelMessage message = describe(*opened);
        server.stopAllJobs();
        session->replace(std::move(opened));
        return Json(message);
    });
    server.addQuestion("close", [session, &server](const Json&) {
        server.stopAllJobs();
        session->replace(nullptr);
        return Json::object();
    });
}

void addMeasureCalls(Server& server, const std::shared_ptr<Session>& session) {
    server.addQuestion("methods", [session](const Json&) { return catalogueJson(session->catalogue()); });
    server.addJob("measure", [session](const Json& args, const JobContext& job, const Server::Partial&) {
        MeasureRequest request;
        request.method = stringField(args, "method", "measure");
        request.set = args.value("set", Json::object());
        request.data = dataOf(args);
        request.compute = computeOf(args);
        request.streamBlocks = args.value("stream", false);
        request.workspace = args.value("workspace", "");
        const Measured measured = measure(*session->opened(), session->catalogue().registry, request, job);
        MeasureMessage message = describeReport(measured.file);
        message.cached = measured.cached;
        return Json(message);
    });
    server.addQuestion("measures", [session](const Json& args) {
        const auto opened = session->opened();
        Json list = Json::array();
        for (const fs::path& file : workspaceFor(args.value("workspace", ""), *opened).measures()) {
            if (readReportHeader(file).modelFingerprint == opened->checkpoint().fingerprint()) list.push_back(describeReport(file));
        }
        return Json{{"measures", list}};
    });
    server.addQuestion("dataset", [](const Json& args) {
        const ReportRectangle part = readRectangle(stringField(args, "file", "dataset"), stringField(args, "name", "dataset"),
                                                   args.value("first", std::vector<std::int64_t>{}), args.value("count", std::vector<std::int64_t>{}));
        return Json{{"shape", part.shape}, {"values", part.values}, {"errors", part.errors}};
    });
}

void addPlanCalls(Server& server, const std::shared_ptr<Session>& session) {
    server.addQuestion("plan_check", [session](const Json& args) { return Json(describe(*session->opened(), planOf(args))); });
    server.addQuestion("plan_suggest", [session](const Json& args) {
        const auto opened = session->opened();
        const Method& method = session->catalogue().registry.method(stringField(args, "method", "plan_suggest"));
        const Report report = readReport(stringField(args, "file", "plan_suggest"));
        EditPlan plan = method.plan(opened->anatomy(), report, Parameters(method.info().planParameters, args.value("set", Json::object())));
        plan.fingerprint = opened->checkpoint().fingerprint();
        std::string title;
        for (const auto& edit : plan.edits) title += (title.empty() ? "" : "; ") + edit->title();
        return Json{{"plan", plan.toJson()}, {"title", title}};
    });
}

SamplingOptions samplingOf(const Json& args) {
    SamplingOptions sampling;
    sampling.maxNewTokens = args.value("maxNewTokens", sampling.maxNewTokens);
    sampling.temperature = args.value("temperature", sampling.temperature);
    sampling.topK = args.value("topK", sampling.topK);
    sampling.topP = args.value("topP", sampling.topP);
    sampling.seed = args.value("seed", sampling.seed);
    return sampling;
}

Json tokenJson(const GeneratedToken& token) { return {{"id", token.id}, {"text", token.text}, {"logProbability", token.logProbability}}; }

Json generateAnswer(const std::shared_ptr<Session>& session, const Json& args, const JobContext& job, const Server::Partial& partial) {
    auto opened = session->opened();
    if (const std::string other = args.value("checkpoint", ""); !other.empty()) opened = std::make_shared<OpenedCheckpoint>(resolveExportSource(other, job).checkpoint);
    std::optional<Cut> cut;
    if (args.contains("plan") && !args["plan"].is_null()) cut = cutOf(planOf(args), opened->shape());
    const Generation result = generateText(*opened, stringField(args, "prompt", "generate"), cut, samplingOf(args), computeOf(args), job,
                                           [&](const GeneratedToken& token) { partial({{"token", tokenJson(token)}}); });
    Json tokens = Json::array();
    for (const auto& token : result.tokens) tokens.push_back(tokenJson(token));
    return {{"text", result.text}, {"tokens", tokens}, {"tokensPerSecond", result.tokensPerSecond}};
}

void addRunningCalls(Server& server, const std::shared_ptr<Session>& session) {
    server.addJob("generate", [session](const Json& args, const JobContext& job, const Server::Partial& partial) { return generateAnswer(session, args, job, partial); });
    server.addJob("attention", [session](const Json& args, const JobContext& job, const Server::Partial&) {
        const AttentionPicture picture = attentionOf(*session->opened(), stringField(args, "text", "attention"), static_cast<int>(intField(args, "block", "attention")),
                                                     static_cast<int>(intField(args, "head", "attention")), 128, computeOf(args), job);
        return Json{{"tokens", picture.tokens}, {"weights", picture.weights}};
    });
    server.addJob("export", [session](const Json& args, const JobContext& job, const Server::Partial&) {
        ExportRequest request;
        if (args.contains("plan") && !args["plan"].is_null()) request.plan = planOf(args);
        request.to = stringField(args, "to", "export");
        request.way = args.value("way", "uniform");
        request.dtype = args.value("dtype", "");
        request.shardBytes = args.value("shardBytes", request.shardBytes);
        if (args.contains("data") && args["data"].is_object()) request.data = dataOf(args);
        const std::string path = args.value("source", "");
        const ExportSource source = path.empty() ? ExportSource{} : resolveExportSource(path, job);
        request.provenance = source.provenance;
        const auto opened = path.empty() ? session->opened() : std::make_shared<OpenedCheckpoint>(source.checkpoint);
        return Json(exportChecked(*opened, request, job));
    });
}

}  // namespace

std::shared_ptr<Session> addHandlers(Server& server) {
    auto session = std::make_shared<Session>();
    addModelCalls(server, session);
    addInspectCalls(server, session);
    addMeasureCalls(server, session);
    addPlanCalls(server, session);
    addRunningCalls(server, session);
    addRunCalls(server, session);
    return session;
}

}  // namespace resect
